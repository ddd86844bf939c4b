"""How a set of synthetic photographs is made: numbers of its pictures, version, a folder that appears when finished.

Below `synthetic_photographs`. A set is made in a folder beside its own: an interrupted run leaves nothing that could
be taken for a set.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from recon3d.data.building import content_hash
from recon3d.data.description import DESCRIPTION_FILE
from recon3d.data.nmr_layout import SPLITS
from recon3d.data.npz import DataFileError
from recon3d.data.synthetic import SEEDS_IN_A_SPLIT
from recon3d.data.worker_pool import run_jobs
from recon3d.files import write_whole

VERSION = 2  # raise when the same shapes are photographed or written in another way

Job = TypeVar("Job")
Written = TypeVar("Written")


def split_seeds(counts: Mapping[str, int], shape_seed: int = 0) -> dict[str, range]:
    """Numbers of the pictures of train, val and test.

    Raises:
        ValueError: a count outside 0 to `SEEDS_IN_A_SPLIT`, no training pictures, or a negative `shape_seed`.
    """
    for split in SPLITS:
        least = int(split == "train")
        if not least <= counts[split] <= SEEDS_IN_A_SPLIT:
            raise ValueError(f"Expected {least} to {SEEDS_IN_A_SPLIT} {split} photographs, got {counts[split]}.")
    if shape_seed < 0:
        raise ValueError(f"Expected shape_seed at least 0, got {shape_seed}.")
    first = [(shape_seed * len(SPLITS) + k) * SEEDS_IN_A_SPLIT for k in range(len(SPLITS))]
    return {split: range(start, start + counts[split]) for split, start in zip(SPLITS, first, strict=True)}


def set_version(name: str, shapes: str, seeds: Mapping[str, range]) -> str:
    """Hash of all that determines a set, equal on every machine where pixels may differ by rounding."""
    return f"{VERSION}-{content_hash(name, shapes, repr(sorted(seeds.items())))[:16]}"


def build_set(out: Path, name: str, version: str, origin: str, fill: Callable[[Path], Mapping[str, int]]) -> None:
    """Makes a set by `fill`, which is given an empty folder; does nothing where the set is already there.

    Safe to interrupt and to run twice at once: a second process waits for the first.

    Args:
        out: folder of the result.
        name: of the data set, in dataset.json.
        version: of its content.
        origin: of the objects, in dataset.json.
        fill: writes all files and gives the number of photographs by split.

    Raises:
        ValueError: `out` holds something else.
    """
    if _is_finished(out, version):
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if _is_finished(out, version):  # by another process, while this one waited
            return
        for stale in out.parent.glob(f".{out.name}.*.part"):  # of a run that was killed
            shutil.rmtree(stale)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
        temporary.mkdir()
        try:
            counts = fill(temporary)
            facts = {"name": name, "version": version, "scale": "keypoints", "source": origin, "photographs": counts}
            write_whole(temporary / DESCRIPTION_FILE, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_all(
    function: Callable[[Job], Written], jobs: Sequence[Job], title: str, workers: int | None
) -> list[Written]:
    """Results of `function` over `jobs`, in their order, in processes and under a progress bar.

    Raises:
        DataFileError: a job failed.
    """
    results: dict[Job, Written] = {}
    outcomes = run_jobs(function, jobs, workers=workers)
    for outcome in track(outcomes, title, total=len(jobs), console=Console(stderr=True), disable=not jobs):
        if outcome.error is not None or outcome.result is None:
            raise DataFileError(f"{title}: {outcome.job} failed: {outcome.error}.")
        results[outcome.job] = outcome.result
    return [results[job] for job in jobs]


def _is_finished(out: Path, version: str) -> bool:
    """Whether `out` holds the set; ValueError if it holds something else."""
    file = out / DESCRIPTION_FILE
    if not file.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out} is not empty and has no {DESCRIPTION_FILE}. Choose another folder.")
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{file}: not the description of a data set ({error}). Choose another folder.") from error
    if found != version:
        raise ValueError(
            f"{out} holds a data set of version {found}, not {version}: it has other numbers of photographs, another "
            "shape_seed, or is of another version of the code. Choose another folder, or remove this one."
        )
    return True


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder to be made alone; the operating system releases the lock of a killed process."""
    with out.with_name(f".{out.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
