"""Data sets in the DPC layout as loaders of `ViewBatch`: ShapeNet as DPC's authors rendered it, and sets made by us.

Reads what `dpc_layout` describes, file by file when an object is drawn; gives the methods several views of an object
from arbitrary directions, the evaluator one input view and the next one, ground-truth points, and voxels where the set
has them (ours do, the official one does not).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d.data import dpc_layout
from recon3d.data.description import read_description
from recon3d.data.dpc_layout import Catalogue, ModelFiles
from recon3d.data.multiview import MultiViewDataModule, MultiViewDataset
from recon3d.data.npz import DataFileError
from recon3d.data.view_sampling import ViewIndex, evaluation_plan
from recon3d.geometry.cameras import dpc_cameras
from recon3d.structures import ViewBatch

logger = logging.getLogger(__name__)

KEPT_BYTES = 128 * 2**20  # of ground truth in each process, about 900 objects of 10,000 points with voxels


class ShapeNetPointsDataset(MultiViewDataset):
    """Objects of one split in the DPC layout.

    A field is there if all objects have it. Where only some have ground-truth points, `points` is None.

    Args:
        splits: objects of each category.
        n_views: views of each object.
        image_size: pixels that images are resized to; None gives them as they are.
        n_points: points drawn from each ground-truth cloud, see `resample`.
    """

    def __init__(
        self, splits: Sequence[Sequence[ModelFiles]], n_views: int, image_size: int | None, n_points: int
    ) -> None:
        super().__init__([len(models) for models in splits], n_views)
        self.splits = tuple(map(tuple, splits))
        self.image_size = image_size
        self.n_points = n_points
        models = [model for models in self.splits for model in models]
        without = [model for model in models if model.cloud is None]
        self.has_points = bool(models) and not without
        if without and len(without) < len(models):
            logger.warning(
                "%d of %d objects have no ground-truth cloud, such as %s/%s: all go without points.",
                len(without),
                len(models),
                without[0].category,
                without[0].id,
            )
        self.has_voxels = bool(models) and all((model.folder / dpc_layout.VOXELS_FILE).is_file() for model in models)
        self._views: dict[Path, tuple[list[Path], Tensor]] = {}
        self._truths: dict[Path, tuple[Tensor | None, Tensor | None]] = {}  # the one used last is the last

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_views": {}, "_truths": {}}  # each worker reads its own

    def _read(self, group: int, row: int, views: tuple[int, ...]) -> ViewBatch:
        model = self.splits[group][row]
        if model.folder not in self._views:
            files = dpc_layout.view_files(model.folder, self.n_views)
            positions = np.stack([dpc_layout.read_position(camera) for _, camera in files])
            self._views[model.folder] = [image for image, _ in files], torch.from_numpy(positions)
        images, positions_ = self._views[model.folder]
        points, voxels = self._truth(model)
        rgba = _stack([images[view] for view in views], self.image_size)
        return ViewBatch(
            images=(rgba[:, :3] * (rgba[:, 3:] > 0))[None],  # straight colours, black behind, as for every data set
            masks=rgba[None, :, 3:],
            cameras=dpc_cameras(positions_[list(views)][None]),
            points=points,
            voxels=voxels,
            sample_id=(f"{model.category}/{model.id}/v{views[0]:02d}",),
            category=(model.category,),
        )

    def _truth(self, model: ModelFiles) -> tuple[Tensor | None, Tensor | None]:
        """Points and voxels of an object, kept: most methods train on images alone, and every draw would read these."""
        truth = self._truths.pop(model.folder, None) or self._read_truth(model)
        self._truths[model.folder] = truth
        each = sum(value.nbytes for value in truth if value is not None)  # the same for every object
        while len(self._truths) * each > KEPT_BYTES:
            del self._truths[next(iter(self._truths))]
        return truth

    def _read_truth(self, model: ModelFiles) -> tuple[Tensor | None, Tensor | None]:
        points = voxels = None
        if self.has_points:
            assert model.cloud is not None
            cloud = dpc_layout.read_cloud(model.cloud)
            points = torch.from_numpy(resample(cloud, self.n_points, f"{model.category}/{model.id}"))[None]
        if self.has_voxels:
            voxels = torch.from_numpy(dpc_layout.read_voxels(model.folder))[None]
        return points, voxels


def resample(cloud: np.ndarray, count: int, name: str) -> np.ndarray:
    """Draw `count` points of a cloud (M,3), the same for the same `name`.

    Without replacement; where `count` is larger than M, every point comes once before one comes twice, and so on.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    order = np.random.default_rng(seed).permutation(len(cloud))
    return np.ascontiguousarray(cloud[np.resize(order, count)])


def resize(rgba: Tensor, size: int) -> Tensor:
    """Images (V,4,S,S) with straight alpha to (V,4,size,size), antialiased bilinear.

    Colours are weighed with their alpha, so that what is stored behind an object does not colour its outline.
    """
    alpha = rgba[:, 3:]
    small = F.interpolate(
        torch.cat([rgba[:, :3] * alpha, alpha], dim=1), (size, size), mode="bilinear", antialias=True
    ).clamp(0, 1)
    colors = small[:, :3] / small[:, 3:].clamp(min=torch.finfo(rgba.dtype).tiny)
    return torch.cat([colors.clamp(0, 1), small[:, 3:]], dim=1)


def _stack(paths: Sequence[Path], size: int | None) -> Tensor:
    arrays = [dpc_layout.read_image(path) for path in paths]
    if len({array.shape for array in arrays}) != 1:
        raise DataFileError(f"{paths[0].parent}: expected views of one size, got {[a.shape[-1] for a in arrays]}.")
    rgba = torch.from_numpy(np.stack(arrays)).float() / 255  # (V,4,S,S)
    return rgba if size is None or size == rgba.shape[-1] else resize(rgba, size)


class ShapeNetPointsDataModule(MultiViewDataModule):
    """Train, validation and test loaders of a data set in the DPC layout.

    The views of a training draw differ. Validation and test show evenly spaced input views, each with the view of the
    next number, from another direction, as view 1. Where a preset asks for more input views than there are, all are
    shown.

    Args:
        root: see `recon3d.data.multiview.MultiViewDataModule`, as for all that is not explained here.
        name: of the data set, in Records and tables.
        image_size: pixels that images are resized to, such as 32, 64 or 128; None gives them as they are.
        n_points: points drawn from each ground-truth cloud, whose size differs, see `resample`.
        train_views: views of an object in a training batch; 4 in DPC.
        test_views: input views of each object in the test; all 5 in DPC.
        val_views: the same for validation; 0 for no validation.
        kwargs: see `recon3d.data.multiview.MultiViewDataModule`.
    """

    official_scale: ClassVar[str] = "diagonal"
    distinct_views: ClassVar[bool] = True

    def __init__(
        self,
        root: Path | None = None,
        name: str = "shapenet_points",
        image_size: int | None = None,
        n_points: int = 10_000,
        train_views: int = 4,
        test_views: int = dpc_layout.VIEWS,
        val_views: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root=root,
            name=name,
            n_points=n_points,
            train_views=train_views,
            test_views=test_views,
            val_views=val_views,
            **kwargs,
        )
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size: expected at least 1, got {image_size}.")
        self.resized_to = image_size

    @cached_property
    def inventory(self) -> Catalogue:
        """What is in the folder."""
        return dpc_layout.scan(self.root)

    def data_hash(self) -> str:
        """Hash of the ids, and of the names and sizes of all files (`dpc_layout.fingerprint`)."""
        return dpc_layout.fingerprint(self.inventory)

    def _open(self, split: str) -> ShapeNetPointsDataset:
        assert self.n_points is not None  # has a default that is not None
        description = read_description(self.root)
        n_views = dpc_layout.VIEWS if description is None else description.n_views
        splits = [self.inventory.splits[category, split][: self.limit_objects] for category in self.categories]
        return ShapeNetPointsDataset(splits, n_views, self.resized_to, self.n_points)

    def _evaluation_plan(self, dataset: MultiViewDataset, split: str) -> Callable[[int], list[ViewIndex]]:
        inputs = min(self.input_views[split], dataset.n_views)
        return partial(
            evaluation_plan,
            n_objects=len(dataset),
            n_views=dataset.n_views,
            inputs=inputs,
            second=partial(_next, n_views=dataset.n_views),
        )


def _next(view: int, n_views: int) -> int:
    return (view + 1) % n_views
