"""The embedded data set: procedural airplanes, cars and chairs, made on first use, with no download.

Objects come from `recon3d.geometry.shapes`; views, voxels and files are made as for any folder of meshes.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from recon3d.data.base import resolve_root
from recon3d.data.building import RenderReport, Source, build_dataset, content_hash, dataset_version
from recon3d.data.meshes import ColoredMesh
from recon3d.data.multiview import MultiViewDataModule
from recon3d.data.nmr_layout import SPLITS
from recon3d.data.object_views import SETTINGS, Layout
from recon3d.data.shapenet import ShapeNetDataModule
from recon3d.data.shapenet_points import ShapeNetPointsDataModule
from recon3d.geometry.shapes import CATEGORIES, make_shape

NAMES: dict[Layout, str] = {"nmr": "synthetic", "dpc": "synthetic_points"}
# Every split of every `shape_seed` has so many seeds of its own, taken from the first: splits never share an object,
# and a larger set contains the smaller one.
SEEDS_IN_A_SPLIT = 1_000_000
_PROBES = 4  # objects of each category that tell one version of the shapes from another


def synthetic_sources(objects: dict[str, int], shape_seed: int = 0) -> list[Source]:
    """Lists the objects of a synthetic data set; the same on every machine.

    Args:
        objects: {split: objects per category}, for train, val and test.
        shape_seed: another number gives a set of other objects.

    Raises:
        ValueError: a count outside 0 to `SEEDS_IN_A_SPLIT`, or a negative `shape_seed`.
    """
    for split in SPLITS:
        if not 0 <= objects[split] <= SEEDS_IN_A_SPLIT:
            raise ValueError(f"Expected 0 to {SEEDS_IN_A_SPLIT} {split} objects per category, got {objects[split]}.")
    if shape_seed < 0:
        raise ValueError(f"Expected shape_seed at least 0, got {shape_seed}.")
    return [
        Source(
            category=category,
            id=f"{seed:08d}",
            split=split,
            load=partial(_load, category, seed),
            content=f"{_shapes_version()} {seed}",
            origin=f"make_shape({category!r}, {seed})",
        )
        for category in CATEGORIES
        for split in SPLITS
        for seed in _seeds(split, objects[split], shape_seed)
    ]


def make_synthetic(
    out: Path,
    objects: dict[str, int],
    shape_seed: int = 0,
    *,
    layout: Layout = "nmr",
    image_size: int = 64,
    workers: int | None = None,
) -> RenderReport:
    """Makes the data set of `synthetic_sources` in a layout; see `recon3d.data.building.build_dataset`.

    Meshes, voxels and splits are equal bit for bit on every machine; views and points up to rounding.
    """
    return build_dataset(
        synthetic_sources(objects, shape_seed),
        out,
        SETTINGS[layout](image_size=image_size),
        name=NAMES[layout],
        origin="recon3d.geometry.shapes (procedural)",
        workers=workers,
    )


class _Synthetic(MultiViewDataModule):
    """Generates the set on first use; in front of the module that reads its layout."""

    layout: ClassVar[Layout]

    def __init__(
        self,
        root: Path | None = None,
        name: str = "synthetic",
        train_objects: int = 200,
        val_objects: int = 20,
        test_objects: int = 20,
        image_size: int = 64,
        shape_seed: int = 0,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.objects = {"train": train_objects, "val": val_objects, "test": test_objects}
        self.render_size = image_size
        self.shape_seed = shape_seed
        self.workers = workers
        settings = SETTINGS[self.layout](image_size=image_size)
        self.version = dataset_version(synthetic_sources(self.objects, shape_seed), settings)
        super().__init__(root=resolve_root(root, f"{NAMES[self.layout]}-{self.version}"), name=name, **kwargs)

    def data_hash(self) -> str:
        """Hash of the shapes, their splits and the rendering, equal on every machine where pixels may not be."""
        return self.version

    def prepare_data(self) -> None:
        """Generate the set, unless that is done."""
        make_synthetic(
            self.root,
            self.objects,
            self.shape_seed,
            layout=self.layout,
            image_size=self.render_size,
            workers=self.workers,
        )
        super().prepare_data()


class SyntheticDataModule(_Synthetic, ShapeNetDataModule):
    """Loaders of procedural airplanes, cars and chairs, 24 views each, generated on first use.

    Args:
        root: folder of the set; None is ``synthetic-<version>`` below $RECON3D_DATA (else ``./datasets``), so sets of
            different numbers, seeds or code lie beside each other.
        name: of the data set, in Records and tables.
        train_objects: per category.
        val_objects: per category.
        test_objects: per category.
        image_size: pixels.
        shape_seed: chooses the objects; `seed` only orders the training.
        workers: processes that generate; None: the cores this process may use.
        kwargs: see `recon3d.data.shapenet.ShapeNetDataModule`.
    """

    layout: ClassVar[Layout] = "nmr"


class SyntheticPointsDataModule(_Synthetic, ShapeNetPointsDataModule):
    """The objects of `SyntheticDataModule` in the DPC layout: 5 views each in random directions, the diagonal is 1.

    Its arguments, and those of `recon3d.data.shapenet_points.ShapeNetPointsDataModule` but for `image_size`, which is
    that of the views as they are rendered. The folder is ``synthetic_points-<version>``.
    """

    layout: ClassVar[Layout] = "dpc"


def _seeds(split: str, count: int, shape_seed: int) -> range:
    first = (shape_seed * len(SPLITS) + SPLITS.index(split)) * SEEDS_IN_A_SPLIT
    return range(first, first + count)


def _load(category: str, seed: int) -> ColoredMesh:
    shape = make_shape(category, seed)
    return ColoredMesh(
        torch.from_numpy(shape.verts), torch.from_numpy(shape.faces).long(), torch.from_numpy(shape.face_colors)
    )


@lru_cache(maxsize=1)
def _shapes_version() -> str:
    """Hash of a few objects of each category: changes with what the code makes, not with how it is written."""
    shapes = [make_shape(category, seed) for category in CATEGORIES for seed in range(_PROBES)]
    return content_hash(
        *(array.tobytes() for shape in shapes for array in (shape.verts, shape.faces, shape.face_colors))
    )
