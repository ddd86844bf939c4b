"""Data sets of categories in train, val and test splits, each object seen in several views: what their modules share.

Above `recon3d.data.base`, below the modules of each layout (`shapenet`, `shapenet_points`). A layout says what is in
its folder, how an object is read, and which views an evaluation shows; options, order and loaders are the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch.utils.data import Dataset

from recon3d.data.base import ReconstructionDataModule, ResumableLoader, resolve_root
from recon3d.data.description import read_description
from recon3d.data.nmr_layout import SplitTable, canonical_category
from recon3d.data.npz import DataFileError
from recon3d.data.view_sampling import ViewIndex, balanced_plan, shuffled_plan, world_size
from recon3d.structures import ViewBatch


class MultiViewDataset(Dataset[ViewBatch]):
    """Objects of one split, category after category; `dataset[object, views]` is a `ViewBatch` of one object.

    Args:
        counts: objects of each category.
        n_views: views of each object.
    """

    def __init__(self, counts: Sequence[int], n_views: int) -> None:
        self.counts = tuple(counts)
        self.n_views = n_views
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: ViewIndex) -> ViewBatch:
        position, views = index
        if not 0 <= position < len(self) or not all(0 <= view < self.n_views for view in views):
            raise IndexError(f"{index}: expected an object below {len(self)} and views below {self.n_views}.")
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._read(group, position - int(self._starts[group]), views)

    @abstractmethod
    def _read(self, group: int, row: int, views: tuple[int, ...]) -> ViewBatch:
        """Object number `row` of category number `group`."""


class MultiViewDataModule(ReconstructionDataModule):
    """Train, validation and test loaders of a data set with several views of each object.

    Training gives `train_views` views of an object; validation and test give every object from some input views, in a
    fixed order, each with another view as view 1.

    Attributes:
        official_scale: of a folder without dataset.json.
        distinct_views: the views of a training draw differ, until there are no more; else they may coincide.

    Args:
        root: its folder; None looks at ``$RECON3D_DATA/<name>``, then ``./datasets/<name>``.
        name: of the data set, in Records and tables.
        categories: names, aliases or synset ids; None takes all that are there.
        batch_size: objects in a batch, over all processes together.
        train_views: views of an object in a training batch.
        train_steps_per_epoch: batches that make an epoch; None gives as many draws as there are objects.
        test_views: input views of each object in the test.
        val_views: the same for validation; 0 for no validation.
        n_points: ground-truth points of each object; None gives what the layout has.
        num_workers: processes that load data; 0 loads in the main process.
        seed: of the training order.
        balanced: draw classes uniformly, with replacement; False visits every object once an epoch.
        limit_objects: use the first so many objects of each category and split; None uses all.
    """

    official_scale: ClassVar[str] = "longest_side"
    distinct_views: ClassVar[bool] = False

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
        self.datasets: dict[str, MultiViewDataset] = {}

    @property
    @abstractmethod
    def inventory(self) -> SplitTable:
        """What is in the folder."""
        return self._scan()

    @abstractmethod
    def _open(self, split: str) -> MultiViewDataset:
        """The split of all `categories`, which is there."""

    @abstractmethod
    def _evaluation_plan(self, dataset: MultiViewDataset, split: str) -> Callable[[int], list[ViewIndex]]:
        """The order of an evaluation: every object from ``input_views[split]`` views."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in use: those asked for, or all that are there."""
        return self.requested or self.inventory.categories

    @property
    def scale(self) -> str:
        """From dataset.json; the official files have none, but a rule."""
        description = read_description(self.root)
        return self.official_scale if description is None else description.scale

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Raises:
            DataFileError: a category or split that is not there; the message says what is.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        for split in needed:
            if split not in self.datasets and self.input_views.get(split) != 0:
                self.datasets[split] = self._dataset(split)

    def _dataset(self, split: str) -> MultiViewDataset:
        missing = [category for category in self.categories if (category, split) not in self.inventory.splits]
        if missing:
            raise DataFileError(
                f"{self.root}: no {split} files for {', '.join(missing)}. There are: {self.inventory.describe()}. Add "
                f"the files, or name the categories to use (categories=[...]){' or val_views=0' * (split == 'val')}."
            )
        return self._open(split)

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
            plan = partial(balanced_plan, length=steps * in_step, distinct=self.distinct_views)
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
        return self._loader(dataset, self._evaluation_plan(dataset, split))
