"""One's own pictures as a data module: a folder of images with masks, and, where they are known, cameras.

Above `folder_layout` (what lies where) and `folder_preparation` (small copies); docs/data/own_photographs.md is the
guide, `recon3d data check` examines such a folder. A folder with cameras.csv is a set of objects in several views, on
black, for methods such as softras; one without is a set of photographs with their surroundings, for adaptive_texture
and umr. Both are read as the other data sets of their kind are, by the modules of `multiview` and `photographs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from recon3d.data.base import ReconstructionDataModule, ResumableLoader, resolve_root
from recon3d.data.folder_layout import GUIDE, FolderObject, ImageFolder, scan
from recon3d.data.folder_preparation import Preparation
from recon3d.data.multiview import MultiViewDataModule, MultiViewDataset
from recon3d.data.nmr_layout import canonical_category
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_annotations import Photograph, read_truth
from recon3d.data.photographs import PhotographDataModule
from recon3d.data.view_sampling import ViewIndex
from recon3d.structures import ViewBatch

SCALE = "longest_side"


class FolderViews(MultiViewDataset):
    """Objects of one split with cameras.

    The number of views may differ: an object that has fewer than the most answers to all numbers, evenly spread.

    Args:
        splits: objects of each category.
        preparation: of the folder.
    """

    def __init__(self, splits: Sequence[Sequence[FolderObject]], preparation: Preparation) -> None:
        views = [len(item.views) for objects in splits for item in objects]
        super().__init__([len(objects) for objects in splits], max(views, default=1))
        self.splits = tuple(map(tuple, splits))
        self.views_of = tuple(views)
        self._prepared = [[preparation.views(item) for item in objects] for objects in splits]
        self._truths = [[preparation.truth(item) for item in objects] for objects in splits]

    def _read(self, group: int, row: int, views: tuple[int, ...]) -> ViewBatch:
        item, prepared, truth = self.splits[group][row], self._prepared[group][row], self._truths[group][row]
        own = [view * len(item.views) // self.n_views for view in views]
        rgba = torch.from_numpy(np.array(prepared.images.open()[own])).float() / 255  # (V,4,S,S)
        return ViewBatch(
            images=(rgba[:, :3] * (rgba[:, 3:] > 0))[None],  # straight colours, black behind, as for every data set
            masks=rgba[None, :, 3:],
            cameras=prepared.cameras[torch.tensor([own])],
            sample_id=(f"{item.name}/v{own[0]:02d}",),
            category=(item.category,),
            **({} if truth is None else read_truth(truth, mirrored=False)),
        )


class _FolderViewsModule(MultiViewDataModule):
    """The folder as objects in several views with known cameras."""

    def __init__(self, preparation: Preparation, **kwargs: Any) -> None:
        super().__init__(root=preparation.folder.root, **kwargs)
        self.preparation = preparation

    @property
    def inventory(self) -> ImageFolder:
        return self.preparation.folder

    def data_hash(self) -> str:
        return self.inventory.data_hash(self.preparation.digests)

    def _open(self, split: str) -> FolderViews:
        splits = [self.inventory.splits[category, split][: self.limit_objects] for category in self.categories]
        alone = [item.name for objects in splits for item in objects if len(item.views) == 1]
        if alone:
            raise DataFileError(
                f"{self.root}: {len(alone)} {split} objects with cameras have one view, such as {alone[0]}; expected "
                "two or more. Set cameras: false to read the pictures as single photographs."
            )
        return FolderViews(splits, self.preparation)

    def _evaluation_plan(self, dataset: MultiViewDataset, split: str) -> Callable[[int], list[ViewIndex]]:
        assert isinstance(dataset, FolderViews)
        return partial(
            evaluation_views, views_of=dataset.views_of, n_views=dataset.n_views, inputs=self.input_views[split]
        )


def evaluation_views(epoch: int, views_of: Sequence[int], n_views: int, inputs: int) -> list[ViewIndex]:
    """Every object from evenly spaced input views, at most as many as it has; alike in every epoch.

    View 1 of each is the one a quarter of the object's views further on: a quarter turn, if they go round it.

    Args:
        epoch: number of the epoch.
        views_of: views of each object.
        n_views: the most; views are numbered as `FolderViews` answers.
        inputs: input views of an object.
    """
    plan = []
    for item, count in enumerate(views_of):
        chosen = sorted({index * count // inputs for index in range(inputs)})
        pairs = [(view, (view + max(1, count // 4)) % count) for view in chosen]
        plan += [(item, tuple(-(-view * n_views // count) for view in pair)) for pair in pairs]
    return plan


class _FolderPhotographsModule(PhotographDataModule):
    """The folder as photographs, each of one object."""

    how_to_get: ClassVar[str] = GUIDE
    keypoint_set = None

    def __init__(self, preparation: Preparation, categories: Sequence[str], **kwargs: Any) -> None:
        super().__init__(root=preparation.folder.root, **kwargs)
        self.preparation = preparation
        self._categories = tuple(categories)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._categories

    @property
    def scale(self) -> str:
        return SCALE

    def data_hash(self) -> str:
        return self.preparation.folder.data_hash(self.preparation.digests)

    def photographs(self, split: str) -> Sequence[Photograph]:
        splits = self.preparation.folder.splits
        objects = [item for category in self.categories for item in splits.get((category, split), ())]
        return [photograph for item in objects for photograph in self.preparation.photographs(item)]


class ImageFolderDataModule(ReconstructionDataModule):
    """Loaders of a folder of one's own pictures, in the layout of `recon3d.data.folder_layout`.

    With cameras.csv: several views of each object, cut to the square that NMR's renders show, on black, for methods
    that train on cameras. Without: photographs, cut to the square about the mask as CMR does it, with what is around
    the object. Meshes, where they are there, give points, normals and voxels, which are measured against.

    Args:
        root: the folder; None is ``$RECON3D_DATA/<name>``, then ``./datasets/<name>``.
        name: of the data set, in Records and tables.
        cameras: use cameras.csv where it is there; False reads the pictures as photographs.
        image_size: pixels of the squares.
        categories: to use; None takes all that are there.
        batch_size: objects in a batch, over all processes together.
        train_views: views of an object in a training batch; 1 without cameras.
        train_steps_per_epoch: batches that make an epoch; None gives as many draws as there are objects.
        test_views: input views of each object in the test, at most those it has; photographs are all shown.
        val_views: the same for validation; 0 for no validation.
        mirror: of photographs, flip every other training draw.
        num_workers: processes that load data; 0 loads in the main process.
        seed: of the training order.
        balanced: draw categories uniformly, with replacement; False visits everything once an epoch.
        limit_objects: use the first so many objects (photographs) of each category and split; None uses all.
    """

    def __init__(
        self,
        root: Path | None = None,
        name: str = "image_folder",
        cameras: bool = True,
        image_size: int = 64,
        categories: list[str] | None = None,
        batch_size: int = 16,
        train_views: int = 1,
        train_steps_per_epoch: int | None = None,
        test_views: int = 8,
        val_views: int = 2,
        mirror: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        balanced: bool = True,
        limit_objects: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, num_workers, seed)
        if image_size < 1:
            raise ValueError(f"image_size: expected at least 1, got {image_size}.")
        self.root = resolve_root(root, name)
        self.cameras = cameras
        self.image_size = image_size
        self.requested = categories
        self.train_views = train_views
        self.mirror = mirror
        self._shared: dict[str, Any] = {
            "name": name,
            "batch_size": batch_size,
            "train_views": train_views,
            "train_steps_per_epoch": train_steps_per_epoch,
            "test_views": test_views,
            "val_views": val_views,
            "num_workers": num_workers,
            "seed": seed,
            "balanced": balanced,
            "limit_objects": limit_objects,
        }

    @cached_property
    def folder(self) -> ImageFolder:
        """What is in the folder."""
        return scan(self.root)

    @cached_property
    def preparation(self) -> Preparation:
        """Of its pictures."""
        return Preparation(self.folder, self.image_size, self.cameras)

    @cached_property
    def _module(self) -> _FolderViewsModule | _FolderPhotographsModule:
        """The module that reads the folder: it is not looked at before it is needed."""
        if self.preparation.table is not None:
            return _FolderViewsModule(self.preparation, categories=self.requested, **self._shared)
        if self.train_views != 1:
            missing = "without cameras.csv" if self.cameras else "with cameras: false"
            raise DataFileError(
                f"{self.root}: {missing} a picture is a photograph of its own, and this method trains on "
                f"{self.train_views} views of an object with cameras. {GUIDE}"
            )
        there = self.folder.categories
        categories = list(dict.fromkeys(map(canonical_category, self.requested or there)))
        if unknown := sorted(set(categories) - set(there)):
            raise DataFileError(f"{self.root} has no {', '.join(unknown)}; its categories are {', '.join(there)}.")
        return _FolderPhotographsModule(
            self.preparation, categories, image_size=self.image_size, mirror=self.mirror, **self._shared
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in use: those asked for, or all that are there."""
        return self._module.categories

    @property
    def scale(self) -> str:
        """``longest_side``: cameras and meshes are given in this unit."""
        return SCALE

    def data_hash(self) -> str:
        """Hash of the content of the whole folder, see `ImageFolder.data_hash`; every file is read."""
        return self._module.data_hash()

    def prepare_data(self) -> None:
        """Make the small copies of pictures that are not there yet, in one process of a distributed run.

        Raises:
            DataFileError: files that cannot be used, by name.
        """
        self.preparation.prepare()

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs."""
        self._module.setup(stage)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of `train_views` views, or of jittered, mirrored photographs."""
        return self._module.train_dataloader()

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        """Every object from `val_views` input views; no loader for 0."""
        return self._module.val_dataloader()

    def test_dataloader(self) -> ResumableLoader:
        """Every object from `test_views` input views."""
        return self._module.test_dataloader()

    def training_pass(self) -> DataLoader[ViewBatch]:
        """Every training photograph once, see `PhotographDataModule.training_pass`.

        Raises:
            DataFileError: the folder is read as views with cameras, on black.
        """
        if isinstance(self._module, _FolderPhotographsModule):
            return self._module.training_pass()
        raise DataFileError(
            f"{self.root} has cameras, so its pictures are cut out, and this method trains on photographs with their "
            "surroundings. Add --data.init_args.cameras false."
        )
