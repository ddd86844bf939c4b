"""The table of kernel speeds in README.md, from the JSON files that ``benchmarks/kernels/bench_<op>.py`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

from recon3d.bench import markdown

MARKER = "kernels"


def kernel_table(results: Path) -> str:
    """Markdown of every ``<op>--<device>.json`` in `results`, file by file; empty when there are none.

    Raises:
        ValueError: a file is not JSON of this form.
    """
    lines: list[list[str]] = []
    machines: list[str] = []
    for path in sorted(results.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            machine = content["machine"]
            for row in content["rows"]:
                ratio = row["times_reference"]
                lines.append(
                    [
                        f"{content['benchmark']} ({machine['device']})",
                        row["work"],
                        row["backend"],
                        _figures(1e3 * row["median_s"]),
                        "1" if row["backend"] == row.get("baseline", "reference") else _figures(ratio),
                    ]
                )
            threads = f"{machine['threads']['numba']} numba and {machine['threads']['torch']} torch threads"
            machines.append(
                f"{content['benchmark']}: {machine['cpu']}, {threads}, commit {machine['commit'][:8]}, load before "
                f"the run {machine['load_average']:.1f}"
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a benchmark result ({error!r}); run `make kernels` again.") from error
    if not lines:
        return ""
    table = markdown.table(["kernel", "work", "backend", "ms (median)", "times as fast"], lines)
    return f"{table}\n<sub>{'; '.join(machines)}. Ratios are within one run.</sub>\n"


def _figures(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"
