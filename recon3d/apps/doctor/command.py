"""`recon3d doctor`: all checks, printed; the exit status says whether a run on the CPU works."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recon3d.apps.doctor import machine, packages
from recon3d.apps.doctor.finding import Finding

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def main(as_json: bool = False, configs: Path = Path("configs")) -> int:
    """Check, print, and return 0 if a run on the CPU works, else 1.

    Args:
        as_json: print a list of objects in place of the tables.
        configs: folder of the configurations.
    """
    findings = list(examine(configs))
    topics = list(dict.fromkeys(finding.topic for finding in findings))
    findings.sort(key=lambda finding: topics.index(finding.topic))
    console = Console()
    if as_json:
        console.file.write(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    elif console.is_terminal:
        _print_tables(console, findings)
    else:
        console.file.writelines(f"{line}\n" for line in plain(findings))
    return 1 if any(finding.essential for finding in findings) else 0


def examine(configs: Path) -> Iterator[Finding]:
    """All findings. What needs torch is left out where torch does not load, which is then the problem to solve."""
    yield from packages.check_packages()
    libraries = list(packages.check_libraries())
    yield from libraries
    yield from machine.check_processor()
    yield from packages.check_environment()
    if not any(finding.essential for finding in libraries):
        torch = importlib.import_module("torch")
        yield from machine.check_gpus(torch)
        yield from importlib.import_module("recon3d.apps.doctor.kernels").check_kernels()
        data_sets = importlib.import_module("recon3d.apps.doctor.data_sets")
        if configs.is_dir():
            yield from data_sets.check_data_sets(configs)
            yield from data_sets.check_weights(configs)
        else:
            text = f"no folder {configs} here, so no data sets and methods"
            yield Finding("checkout", "configs", "problem", text, "cd to the clone of the repository", True)
    yield from machine.check_disk({"runs": Path("runs"), "data sets": _data_folder()})
    yield machine.check_checkout()
    yield machine.check_wandb()


def _data_folder() -> Path:
    from recon3d.data.base import resolve_root

    return resolve_root(None, "any").parent


def plain(findings: Iterable[Finding]) -> Iterator[str]:
    """A line for each finding, and one for its remedy: for pipes and files."""
    findings = list(findings)
    for finding in findings:
        yield f"{finding.level:<8} {finding.topic:<12} {finding.subject}: {finding.text}"
        if finding.remedy:
            yield f"{'':<21} -> {finding.remedy}"
    yield _summary(findings)


def _print_tables(console: Console, findings: list[Finding]) -> None:
    for topic in dict.fromkeys(finding.topic for finding in findings):
        table = Table(title=topic, title_justify="left", show_header=False, box=None, padding=(0, 1))
        for finding in (one for one in findings if one.topic == topic):
            text = Text(finding.text)
            if finding.remedy:
                text.append(f"\n-> {finding.remedy}", style="cyan")
            table.add_row(Text(finding.level, style=STYLES[finding.level]), Text(finding.subject), text)
        console.print(table)
    console.print(Text(_summary(findings)), soft_wrap=True)


def _summary(findings: list[Finding]) -> str:
    problems = [finding for finding in findings if finding.level == "problem"]
    hindering = [finding for finding in problems if finding.essential]
    if hindering:
        names = ", ".join(dict.fromkeys(finding.subject for finding in hindering))
        return f"A run on the CPU does not work: {names}."
    return f"A run on the CPU works. {len(problems)} problems with other things." if problems else "All works."
