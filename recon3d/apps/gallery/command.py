"""`recon3d gallery`: the web page of the meshes, built beside the old one and put in its place as a whole."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from recon3d.apps.gallery.building import build_set
from recon3d.apps.gallery.data_files import script, write_script
from recon3d.apps.gallery.runs import RunSet, find_runs

_ASSETS = files("recon3d.apps.gallery") / "assets"
INDEX = Path("data") / "index.js"  # what tells a gallery from another folder


def main(
    out: Path,
    *,
    data: list[str] | None,
    methods: list[str] | None,
    preset: str,
    n_samples: int,
    configs: Path,
    leaderboard: Path,
    runs: Path,
) -> int:
    """Build the gallery; a failure or a kill leaves the one that is there.

    Args:
        out: folder of the page; one that is there must be a gallery or empty.
        data: names of data sets; None takes all with runs.
        methods: names of methods; None takes all with runs.
        preset: whose runs to show.
        n_samples: of each data set.
        configs: folder of the configuration files.
        leaderboard: folder of ``results``.
        runs: folder of the run folders.

    Returns:
        Exit status: 0.

    Raises:
        FileNotFoundError: there is no such preset or no run; the message says what makes one.
        ValueError: `out` holds something else, or something besides a gallery, or a run that cannot be read.
    """
    if not (configs / "presets" / f"{preset}.yaml").is_file():
        known = ", ".join(sorted(file.stem for file in (configs / "presets").glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"There is no preset {preset} in {configs / 'presets'}; known names: {known}.")
    part, old = (out.with_name(f".{out.name}.{end}") for end in ("part", "old"))
    if old.exists() and not out.exists():
        old.rename(out)  # a kill came between the two renames below
    _check(out)
    run_sets = find_runs(leaderboard, runs, preset, data, methods)
    console = Console()
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _build(part, run_sets, n_samples, console)
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    console.print(f"{escape(str(out / 'index.html'))}: {size / 2**20:.1f} MiB, opens in any browser without a server.")
    return 0


def _check(out: Path) -> None:
    """Refuse to replace what is no gallery, or a gallery with files of somebody else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; --out expects a folder.")
    there = {path.name for path in out.iterdir()}
    if there and not _is_gallery(out / INDEX):
        raise ValueError(f"{out} is not empty and not a gallery, and would be replaced; choose another --out.")
    with as_file(_ASSETS) as assets:
        foreign = there - {path.name for path in assets.iterdir()} - {INDEX.parts[0]}
    if foreign:
        raise ValueError(
            f"{out} is a gallery with entries that are not of it and would be lost: {', '.join(sorted(foreign))}. "
            "Move them away, or choose another --out and copy the new gallery over the old one."
        )


def _is_gallery(index: Path) -> bool:
    """Whether the file is the index that `_build` writes."""
    beginning = script("index", None).partition("null")[0].encode()
    if not index.is_file():
        return False
    with index.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _build(folder: Path, run_sets: list[RunSet], n_samples: int, console: Console) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with as_file(_ASSETS) as assets:
        shutil.copytree(assets, folder)
    summaries = []
    with Progress(console=console, transient=True) as progress:
        for run_set in run_sets:
            task = progress.add_task(run_set.key, total=len(run_set.runs))

            def done(method: str, task: TaskID = task) -> None:
                progress.advance(task)

            place = folder / "data" / run_set.key
            place.mkdir(parents=True)
            summaries.append(build_set(run_set, place, n_samples, done))
    write_script(folder / INDEX, "index", {"sets": summaries})
