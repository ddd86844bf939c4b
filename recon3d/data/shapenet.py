"""Data sets in the NMR layout as loaders of `ViewBatch`: ShapeNet as Kato et al. released it, and all rendered by us.

Reads what `nmr_layout` describes, through memory maps, so a set far larger than memory trains; gives the methods two
views of an object, the evaluator one input view, a second one a quarter turn away, points and voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon3d.data.description import fingerprint
from recon3d.data.multiview import MultiViewDataModule, MultiViewDataset
from recon3d.data.nmr_layout import Inventory, SplitArrays, open_split, scan
from recon3d.data.npz import ArrayFile, DataFileError
from recon3d.data.view_sampling import ViewIndex, evaluation_plan, quarter_turn
from recon3d.geometry.cameras import nmr_cameras
from recon3d.structures import ViewBatch


class ShapeNetDataset(MultiViewDataset):
    """Objects of one split in the NMR layout.

    Args:
        splits: arrays of each category, as `nmr_layout.open_split` gives them; all with the same views, image size and
            fields.
        n_points: use the first so many ground-truth points of each object; None uses all.
        limit_objects: use the first so many objects of each category; None uses all.

    Raises:
        DataFileError: categories that differ in what they hold, or fewer points than `n_points`.
    """

    def __init__(
        self, splits: Sequence[SplitArrays], n_points: int | None = None, limit_objects: int | None = None
    ) -> None:
        shapes = {split.category: (split.images.shape[1:], split.points and split.points.shape[1:]) for split in splits}
        if len(set(shapes.values())) != 1:
            raise DataFileError(
                "Expected images (V,4,S,S) and points (P,3) of one shape in all categories, got "
                f"{shapes}. Render them alike, or choose `categories` that agree."
            )
        first = splits[0]
        if n_points is not None and (first.points is None or first.points.shape[1] < n_points):
            have = "no points" if first.points is None else f"{first.points.shape[1]} points an object"
            raise DataFileError(f"n_points={n_points}, but {first.images.path.parent} holds {have}; lower n_points.")
        self.splits = tuple(splits)
        self.n_points = n_points
        counts = [len(s) if limit_objects is None else min(len(s), limit_objects) for s in splits]
        super().__init__(counts, first.images.shape[1])
        self.cameras = nmr_cameras(self.n_views)
        self._open: dict[ArrayFile, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A memory map pickles as its data; each worker opens its own.
        return self.__dict__ | {"_open": {}}

    def _read(self, group: int, row: int, views: tuple[int, ...]) -> ViewBatch:
        split = self.splits[group]
        rgba = torch.from_numpy(self._array(split.images)[row, list(views)]).float() / 255  # (V,4,S,S)
        return ViewBatch(
            # The official files have colours where nothing is; the background of a ViewBatch is black.
            images=(rgba[:, :3] * (rgba[:, 3:] > 0))[None],
            masks=rgba[None, :, 3:],
            cameras=self.cameras[torch.tensor([views])],
            points=self._row(split.points, row, self.n_points),
            normals=self._row(split.normals, row, self.n_points),
            voxels=torch.from_numpy(np.array(self._array(split.voxels)[row]))[None],
            sample_id=(f"{split.category}/{split.ids[row]}/v{views[0]:02d}",),
            category=(split.category,),
        )

    def _array(self, file: ArrayFile) -> np.ndarray:
        if file not in self._open:
            self._open[file] = file.open()
        return self._open[file]

    def _row(self, file: ArrayFile | None, row: int, length: int | None) -> Tensor | None:
        if file is None:
            return None
        return torch.from_numpy(self._array(file)[row, :length].astype(np.float32))[None]


class ShapeNetDataModule(MultiViewDataModule):
    """Train, validation and test loaders of a data set in the NMR layout; see `MultiViewDataModule` for the options.

    Validation and test show evenly spaced input views, from 1 to the number of views, each with the view 90 degrees
    further in azimuth as view 1. `n_points` takes the first so many ground-truth points. 64 objects in a batch, 2 views
    of each, 24 input views in the test, and balanced drawing are those of both papers, Kato et al. 2018 and Liu et al.
    2019.
    """

    @cached_property
    def inventory(self) -> Inventory:
        """What is in the folder."""
        return scan(self.root)

    def _open(self, split: str) -> ShapeNetDataset:
        splits = [open_split(self.inventory.splits[category, split]) for category in self.categories]
        return ShapeNetDataset(splits, self.n_points, self.limit_objects)

    def _evaluation_plan(self, dataset: MultiViewDataset, split: str) -> Callable[[int], list[ViewIndex]]:
        inputs = self.input_views[split]
        if inputs > dataset.n_views:
            raise ValueError(f"{split}_views={inputs}, but {self.root} has {dataset.n_views} views of an object.")
        return partial(
            evaluation_plan, n_objects=len(dataset), n_views=dataset.n_views, inputs=inputs, second=quarter_turn
        )

    def data_hash(self) -> str:
        """Hash of the content of the whole folder (`description.fingerprint`), whichever categories are in use."""
        return fingerprint(self.inventory)

    def prepare_data(self) -> None:
        """Unpack compressed arrays, once, in one process of a distributed run."""
        for split in ("train", "val", "test"):
            for category in self.categories:
                if (category, split) in self.inventory.splits:
                    open_split(self.inventory.splits[category, split])
