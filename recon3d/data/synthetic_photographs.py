"""The embedded data sets of photographs: procedural birds as CUB, procedural cars as Pascal3D+, made on first use.

Above `synthetic_birds` and `synthetic_cars` (pictures) and `cub_writing` and `pascal3d_writing` (files); what reads the
files is `cub` and `pascal3d`, as it reads the real ones. A set is made in a folder beside its own, which appears when
it is finished: an interrupted run leaves nothing that could be taken for a set.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from recon3d.data import cub_writing, synthetic_birds
from recon3d.data.base import resolve_root
from recon3d.data.building import content_hash
from recon3d.data.cub import CUBDataModule
from recon3d.data.description import DESCRIPTION_FILE
from recon3d.data.npz import DataFileError, write_text
from recon3d.data.worker_pool import run_jobs
from recon3d.geometry.shapes.bird import make_bird

logger = logging.getLogger(__name__)

VERSION = 1  # raise when the same shapes are photographed or written in another way
SPLITS = ("train", "val", "test")
# Every split of every `shape_seed` has so many seeds of its own, taken from the first: splits never share a picture,
# and a larger set contains the smaller one.
SEEDS_IN_A_SPLIT = 1_000_000

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
            write_text(temporary / DESCRIPTION_FILE, json.dumps(facts, indent=2, sort_keys=True) + "\n")
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


@dataclass(frozen=True)
class BirdJob:
    """One bird to photograph and write."""

    root: Path
    seed: int


def make_synthetic_birds(out: Path, counts: Mapping[str, int], shape_seed: int = 0, workers: int | None = None) -> str:
    """Makes photographs of procedural birds in the layout of CUB-200-2011, with CMR's annotations and true shapes.

    Args:
        out: folder of the result, in which `recon3d.data.cub` finds what it looks for.
        counts: {split: photographs}, for train, val and test.
        shape_seed: another number gives a set of other birds and pictures.
        workers: processes; None: the cores this process may use.

    Returns:
        Version of the set.
    """
    seeds = split_seeds(counts, shape_seed)
    version = bird_version(counts, shape_seed)

    def fill(folder: Path) -> Mapping[str, int]:
        jobs = [BirdJob(folder, seed) for split in SPLITS for seed in seeds[split]]
        written = iter(write_all(write_bird, jobs, "Photographing synthetic birds", workers))
        splits = {split: [next(written) for _ in seeds[split]] for split in SPLITS}
        cub_writing.write_annotations(folder, splits, synthetic_birds.mean_keypoints(), synthetic_birds.SPECIES)
        return {split: len(birds) for split, birds in splits.items()}

    build_set(out, "synthetic_birds", version, "recon3d.geometry.shapes.bird (procedural)", fill)
    return version


def write_bird(job: BirdJob) -> cub_writing.WrittenBird:
    """Makes and writes one picture (runs in a worker)."""
    return cub_writing.write_bird(job.root, synthetic_birds.bird_picture(job.seed))


def bird_version(counts: Mapping[str, int], shape_seed: int = 0) -> str:
    """Version of the set that `make_synthetic_birds` makes."""
    return set_version("synthetic_birds", _bird_shapes(), split_seeds(counts, shape_seed))


class SyntheticBirdsDataModule(CUBDataModule):
    """Loaders of photographs of procedural birds in 20 species, generated on first use in the layout of CUB.

    Cameras are exact: the true shape, which real CUB has not, projects to the picture. Every bird is symmetric.

    Args:
        root: folder of the set; None is ``synthetic_birds-<version>`` below $RECON3D_DATA (else ``./datasets``), so
            sets of different numbers, seeds or code lie beside each other.
        name: of the data set, in Records and tables.
        train_photographs: number.
        val_photographs: number.
        test_photographs: number.
        shape_seed: chooses birds and pictures; `seed` only orders the training.
        workers: processes that generate; None: the cores this process may use.
        kwargs: see `recon3d.data.cub.CUBDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        name: str = "synthetic_birds",
        train_photographs: int = 600,
        val_photographs: int = 100,
        test_photographs: int = 100,
        shape_seed: int = 0,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.counts = {"train": train_photographs, "val": val_photographs, "test": test_photographs}
        self.shape_seed = shape_seed
        self.workers = workers
        self.version = bird_version(self.counts, shape_seed)
        super().__init__(root=resolve_root(root, f"synthetic_birds-{self.version}"), name=name, **kwargs)

    def data_hash(self) -> str:
        """Hash of shapes, numbers and annotations in use, equal on every machine where pixels may not be."""
        return f"{self.version}-{self.annotations}"

    def prepare_data(self) -> None:
        """Generate the set, unless that is done."""
        make_synthetic_birds(self.root, self.counts, self.shape_seed, self.workers)
        super().prepare_data()


@lru_cache(maxsize=1)
def _bird_shapes() -> str:
    """Hash of a bird of every fourth species: changes with what the code makes, not with how it is written."""
    birds = [make_bird(species, species) for species in range(0, synthetic_birds.SPECIES, 4)]
    pieces = [
        array.tobytes()
        for bird in birds
        for array in (bird.shape.verts, bird.shape.faces, bird.shape.face_colors, _rounded(bird.keypoints))
    ]
    return content_hash(*pieces)


def _rounded(values: np.ndarray) -> np.ndarray:
    return (np.rint(1e4 * values) + 0.0).astype(np.int64)


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
