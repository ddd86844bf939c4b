"""Data sets in the NMR layout as loaders of `ViewBatch`: ShapeNet as Kato et al. released it, and all rendered by us.

Reads what `nmr_layout` describes, through memory maps, so a set far larger than memory trains; gives the methods two
views of an object, the evaluator one input view, a second one a quarter turn away, points and voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from recon3d.data.base import ReconstructionDataModule, ResumableLoader, resolve_root
from recon3d.data.description import fingerprint, read_description
from recon3d.data.nmr_layout import Inventory, SplitArrays, canonical_category, open_split, scan
from recon3d.data.npz import ArrayFile, DataFileError
from recon3d.data.view_sampling import ViewIndex, balanced_plan, evaluation_plan, shuffled_plan, world_size
from recon3d.geometry.cameras import nmr_cameras
from recon3d.structures import ViewBatch


class ShapeNetDataset(Dataset[ViewBatch]):
    """Objects of one split, category after category; `dataset[object, views]` is a `ViewBatch` of one object.

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
        self.n_views: int = first.images.shape[1]
        self.cameras = nmr_cameras(self.n_views)
        self.counts = tuple(len(s) if limit_objects is None else min(len(s), limit_objects) for s in splits)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._open: dict[ArrayFile, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A memory map pickles as its data; each worker opens its own.
        return self.__dict__ | {"_open": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: ViewIndex) -> ViewBatch:
        position, views = index
        if not 0 <= position < len(self) or not all(0 <= view < self.n_views for view in views):
            raise IndexError(f"{index}: expected an object below {len(self)} and views below {self.n_views}.")
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        split, row = self.splits[group], position - int(self._starts[group])
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


class ShapeNetDataModule(ReconstructionDataModule):
    """Train, validation and test loaders of a data set in the NMR layout.

    Training gives `train_views` views of an object; validation and test give every object from evenly spaced input
    views, in a fixed order, each with the view 90 degrees further in azimuth as view 1.

    Args:
        root: its folder; None looks at ``$RECON3D_DATA/<name>``, then ``./datasets/<name>``.
        name: of the data set, in Records and tables.
        categories: names, aliases or synset ids; None takes all that are there.
        batch_size: objects in a batch, over all processes together; 64 in both papers.
        train_views: views of an object in a training batch; 2 in both papers.
        train_steps_per_epoch: batches that make an epoch; None gives as many draws as there are objects.
        test_views: input views of each object in the test, from 1 to the number of views; 24 in both papers.
        val_views: the same for validation; 0 for no validation.
        n_points: use the first so many ground-truth points of each object; None uses all.
        num_workers: processes that load data; 0 loads in the main process.
        seed: of the training order.
        balanced: draw classes uniformly, with replacement, as both papers' code; False visits every object once an
            epoch.
        limit_objects: use the first so many objects of each category and split; None uses all.
    """

    def __init__(
        self,
        root: Path | None = None,
        name: str = "shapenet",
        categories: list[str] | None = None,
        batch_size: int = 64,
        train_views: int = 2,
        train_steps_per_epoch: int | None = None,
        test_views: int = 24,
        val_views: int = 4,
        n_points: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        balanced: bool = True,
        limit_objects: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, num_workers, seed)
        positive = {
            "train_views": train_views,
            "train_steps_per_epoch": train_steps_per_epoch,
            "test_views": test_views,
            "n_points": n_points,
            "limit_objects": limit_objects,
        }
        for option, value in positive.items():
            if value is not None and value < 1:
                raise ValueError(f"{option}: expected at least 1, got {value}.")
        if not balanced and train_steps_per_epoch is not None:
            raise ValueError("balanced=False visits every object once an epoch; leave train_steps_per_epoch out.")
        self.root = resolve_root(root, name)
        self.requested = None if categories is None else tuple(dict.fromkeys(map(canonical_category, categories)))
        self.train_views = train_views
        self.train_steps_per_epoch = train_steps_per_epoch
        self.input_views = {"val": val_views, "test": test_views}
        self.n_points = n_points
        self.balanced = balanced
        self.limit_objects = limit_objects
        self.datasets: dict[str, ShapeNetDataset] = {}

    @cached_property
    def inventory(self) -> Inventory:
        """What is in the folder."""
        return scan(self.root)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in use: those asked for, or all that are there."""
        return self.requested or self.inventory.categories

    @property
    def scale(self) -> str:
        """From dataset.json; the official files, which have none, scale the longest side to 1."""
        description = read_description(self.root)
        return "longest_side" if description is None else description.scale

    def data_hash(self) -> str:
        """Hash of the content of the whole folder (`description.fingerprint`), whichever categories are in use."""
        return fingerprint(self.inventory)

    def prepare_data(self) -> None:
        """Unpack compressed arrays, once, in one process of a distributed run."""
        for split in ("train", "val", "test"):
            for category in self.categories:
                if (category, split) in self.inventory.splits:
                    open_split(self.inventory.splits[category, split])

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Raises:
            DataFileError: a category or split that is not there; the message says what is.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        for split in needed:
            if split not in self.datasets and self.input_views.get(split) != 0:
                self.datasets[split] = self._dataset(split)

    def _dataset(self, split: str) -> ShapeNetDataset:
        missing = [category for category in self.categories if (category, split) not in self.inventory.splits]
        if missing:
            raise DataFileError(
                f"{self.root}: no {split} files for {', '.join(missing)}. There are: {self.inventory.describe()}. Add "
                f"the files, or name the categories to use (categories=[...]){' or val_views=0' * (split == 'val')}."
            )
        splits = [open_split(self.inventory.splits[category, split]) for category in self.categories]
        return ShapeNetDataset(splits, self.n_points, self.limit_objects)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of `train_views` views; the options `balanced` and `train_steps_per_epoch` say which objects."""
        dataset, world = self.datasets["train"], world_size()
        if 0 in dataset.counts:
            empty = self.categories[dataset.counts.index(0)]
            raise DataFileError(f"{self.root}: {empty} has no training objects; name the other categories.")
        plan: Callable[[int], list[ViewIndex]]
        if self.balanced:
            in_step = self.batch_size
            steps = self.train_steps_per_epoch or -(-len(dataset) // in_step)
            plan = partial(balanced_plan, length=steps * in_step)
        else:
            plan = partial(shuffled_plan, world=world)
        plan = partial(
            plan, counts=dataset.counts, n_views=dataset.n_views, views_each=self.train_views, seed=self.seed
        )
        return self._loader(dataset, plan)

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        """Every object from `val_views` input views; no loader for 0."""
        return self._evaluation_loader("val") if self.input_views["val"] else []

    def test_dataloader(self) -> ResumableLoader:
        """Every object from `test_views` input views."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> ResumableLoader:
        dataset = self.datasets[split]
        if self.input_views[split] > dataset.n_views:
            raise ValueError(
                f"{split}_views={self.input_views[split]}, but {self.root} has {dataset.n_views} views of an object."
            )
        plan = partial(evaluation_plan, n_objects=len(dataset), n_views=dataset.n_views, inputs=self.input_views[split])
        return self._loader(dataset, plan)
