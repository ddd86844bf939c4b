"""The embedded data sets of photographs: procedural birds as CUB, procedural cars as Pascal3D+, made on first use.

Above `synthetic_birds` and `synthetic_cars` (pictures) and `cub_writing` and `pascal3d_writing` (files); what reads the
files is `cub` and `pascal3d`, as it reads the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from recon3d.data import cub_writing, pascal3d_writing, synthetic_birds, synthetic_cars
from recon3d.data.base import resolve_root
from recon3d.data.building import content_hash
from recon3d.data.cub import CUBDataModule
from recon3d.data.nmr_layout import SPLITS
from recon3d.data.pascal3d import Pascal3DDataModule
from recon3d.data.photograph_building import build_set, set_version, split_seeds, write_all
from recon3d.geometry.shapes.bird import Bird, make_bird
from recon3d.geometry.shapes.car_keypoints import Car, make_car

_PROBES = 5  # cars that tell one version of the shapes from another
_PASCAL = 7  # of the training pictures of cars one in so many is in Pascal's half, the others in ImageNet's


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


@dataclass(frozen=True)
class CarJob:
    """One picture of cars to make and write."""

    root: Path
    seed: int
    training: bool


def make_synthetic_cars(out: Path, counts: Mapping[str, int], shape_seed: int = 0, workers: int | None = None) -> str:
    """Makes photographs of procedural cars in the layout of Pascal3D+, with CMR's annotations and true shapes.

    Args:
        out: folder of the result, in which `recon3d.data.pascal3d` finds what it looks for.
        counts: {split: pictures}, for train, val and test; some show two cars, and CMR's files leave some cars out.
        shape_seed: another number gives a set of other cars and pictures.
        workers: processes; None: the cores this process may use.

    Returns:
        Version of the set.
    """
    seeds = split_seeds(counts, shape_seed)
    version = car_version(counts, shape_seed)

    def fill(folder: Path) -> Mapping[str, int]:
        jobs = [CarJob(folder, seed, split == "train") for split in SPLITS for seed in seeds[split]]
        written = iter(write_all(write_car, jobs, "Photographing synthetic cars", workers))
        splits = {split: [next(written) for _ in seeds[split]] for split in SPLITS}
        splits = {split: sorted(cars, key=lambda car: (car.source, car.id)) for split, cars in splits.items()}
        pascal3d_writing.write_annotations(folder, splits, synthetic_cars.cad_models(), synthetic_cars.mean_keypoints())
        return {split: len(cars) for split, cars in splits.items()}

    build_set(out, "synthetic_cars", version, "recon3d.geometry.shapes.car (procedural)", fill)
    return version


def write_car(job: CarJob) -> pascal3d_writing.WrittenCar:
    """Makes and writes one picture (runs in a worker)."""
    source = "pascal" if not job.training or job.seed % _PASCAL == 0 else "imagenet"
    return pascal3d_writing.write_car(job.root, synthetic_cars.car_picture(job.seed), source, job.training)


def car_version(counts: Mapping[str, int], shape_seed: int = 0) -> str:
    """Version of the set that `make_synthetic_cars` makes."""
    return set_version("synthetic_cars", _car_shapes(), split_seeds(counts, shape_seed))


class SyntheticCarsDataModule(Pascal3DDataModule):
    """Loaders of photographs of procedural cars, generated on first use in the layouts of Pascal3D+ and of CMR.

    Cameras are perspective; the scaled orthographic ones of CMR's files are fitted to the key points. With them, val
    and test are different pictures; with the release's annotations both are all of them, as in Pascal3D+.

    Args:
        root: folder of the set; None is ``synthetic_cars-<version>`` below $RECON3D_DATA (else ``./datasets``), so
            sets of different numbers, seeds or code lie beside each other.
        name: of the data set, in Records and tables.
        train_photographs: number of pictures.
        val_photographs: number.
        test_photographs: number.
        shape_seed: chooses cars and pictures; `seed` only orders the training.
        workers: processes that generate; None: the cores this process may use.
        kwargs: see `recon3d.data.pascal3d.Pascal3DDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        name: str = "synthetic_cars",
        train_photographs: int = 400,
        val_photographs: int = 60,
        test_photographs: int = 60,
        shape_seed: int = 0,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.counts = {"train": train_photographs, "val": val_photographs, "test": test_photographs}
        self.shape_seed = shape_seed
        self.workers = workers
        self.version = car_version(self.counts, shape_seed)
        super().__init__(root=resolve_root(root, f"synthetic_cars-{self.version}"), name=name, **kwargs)

    def data_hash(self) -> str:
        """Hash of shapes, numbers and annotations in use, equal on every machine where pixels may not be."""
        return f"{self.version}-{self.annotations}"

    def prepare_data(self) -> None:
        """Generate the set, unless that is done."""
        make_synthetic_cars(self.root, self.counts, self.shape_seed, self.workers)
        super().prepare_data()


@lru_cache(maxsize=1)
def _bird_shapes() -> str:
    """Hash of a bird of every fourth species: changes with what the code makes, not with how it is written."""
    return _hash_of(make_bird(species, species) for species in range(0, synthetic_birds.SPECIES, 4))


@lru_cache(maxsize=1)
def _car_shapes() -> str:
    return _hash_of(make_car(seed) for seed in range(_PROBES))


def _hash_of(objects: Iterable[Bird | Car]) -> str:
    return content_hash(
        *(
            array.tobytes()
            for item in objects
            for array in (item.shape.verts, item.shape.faces, item.shape.face_colors, _rounded(item.keypoints))
        )
    )


def _rounded(values: np.ndarray) -> np.ndarray:
    return (np.rint(1e4 * values) + 0.0).astype(np.int64)
