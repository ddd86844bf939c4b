"""Data sets of annotated photographs, one object on each: what their modules share (CUB, Pascal3D+, synthetic ones).

Above `recon3d.data.base`, `cropping` and `part_maps`; below `cub` and `pascal3d`, which say what is in their folders: a
`Photograph` for every object, all of it in full-image pixels. Cropping, augmentation, order and loaders are the same.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recon3d.data.base import ReconstructionDataModule, ResumableLoader, resolve_root
from recon3d.data.color_jitter import jitter_colors
from recon3d.data.cropping import Crop, crop_camera, crop_keypoints, crop_pixels, square_crop
from recon3d.data.npz import DataFileError
from recon3d.data.part_maps import crop_part_map, keypoint_parts, read_part_map
from recon3d.data.photograph_annotations import (
    KeypointSet,
    Photograph,
    read_mask,
    read_picture,
    read_truth,
    sfm_cameras,
)
from recon3d.data.photograph_sampling import Draw, evaluation_draws, training_draws
from recon3d.data.view_sampling import world_size
from recon3d.structures import Camera, ViewBatch

Parts = Literal["none", "keypoints", "scops"]


class PhotographDataset(Dataset[ViewBatch]):
    """Photographs of one split; `dataset[draw]` is a `ViewBatch` of one object in one view.

    Args:
        photographs: of the split.
        keypoints: of their category; None if they have none.
        image_size: pixels of the crops.
        padding: of the box, see `cropping.square_crop`.
        jitter: greatest move of each of its sides in a draw, as a share.
        parts: which part maps.

    Raises:
        DataFileError: fields that some photographs have and others lack, or part maps that are not there.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        keypoints: KeypointSet | None,
        image_size: int = 256,
        padding: float = 0.05,
        jitter: float = 0.05,
        parts: Parts = "none",
    ) -> None:
        for name in ("keypoints", "pose", "camera", "truth"):
            absent = [photograph.id for photograph in photographs if getattr(photograph, name) is None]
            if 0 < len(absent) < len(photographs):
                raise DataFileError(f"{len(absent)} of {len(photographs)} photographs have no {name}: {absent[0]}, ...")
        absent = [str(photo.parts or photo.id) for photo in photographs if not (photo.parts and photo.parts.is_file())]
        if absent and parts == "scops":
            raise DataFileError(
                f"{len(absent)} of {len(photographs)} photographs have no part map, such as {absent[0]}. Save SCOPS's "
                "there, or set parts: keypoints, or none."
            )
        annotated = any(photograph.keypoints is not None for photograph in photographs)
        if parts == "keypoints" and not (annotated and keypoints is not None and keypoints.parts):
            raise DataFileError("parts: keypoints needs key points that are grouped into parts; choose parts: none.")
        self.photographs = tuple(photographs)
        self.cameras = _full_cameras(photographs)
        self.keypoints = keypoints
        self.image_size = image_size
        self.padding = padding
        self.jitter = jitter
        self.parts = parts

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, draw: Draw) -> ViewBatch:
        photograph = self.photographs[draw.photograph]
        try:
            shifts = [self.jitter * shift for shift in draw.shifts]
            crop = square_crop(photograph.box, self.image_size, self.padding, shifts, draw.mirrored)
        except ValueError as error:
            raise DataFileError(f"{photograph.id}: {error}") from error
        camera = None if self.cameras is None else crop_camera(self.cameras[draw.photograph], crop)
        mask = crop_pixels(read_mask(photograph.mask, photograph.size, photograph.id), crop, fill=0.0)
        points = None
        if photograph.keypoints is not None:
            assert self.keypoints is not None
            points = crop_keypoints(photograph.keypoints, crop, self.keypoints.mirror)
        parts = self._parts(photograph, crop, points, mask)
        return ViewBatch(
            images=crop_pixels(read_picture(photograph.image, photograph.size), crop, fill=1.0)[None, None],
            masks=mask[None, None],
            cameras=None if camera is None else camera.to(torch.float32)[None, None],
            keypoints=None if points is None else points[None, None],
            parts=None if parts is None else parts[None, None],
            sample_id=(f"{photograph.id}/v00",),
            category=(photograph.category,),
            **({} if photograph.truth is None else read_truth(photograph.truth, crop.mirrored)),
        )

    def _parts(self, photograph: Photograph, crop: Crop, keypoints: Tensor | None, mask: Tensor) -> Tensor | None:
        if self.parts == "none":
            return None
        if self.parts == "scops":
            assert photograph.parts is not None
            return crop_part_map(*read_part_map(photograph.parts, photograph.size, photograph.box), crop)
        assert self.keypoints is not None and keypoints is not None
        return keypoint_parts(keypoints, self.keypoints.names, self.keypoints.parts, mask)


def _full_cameras(photographs: Sequence[Photograph]) -> Camera | None:
    if poses := [photograph.pose for photograph in photographs if photograph.pose is not None]:
        return sfm_cameras(poses)
    cameras = [photograph.camera for photograph in photographs if photograph.camera is not None]
    return Camera.cat(cameras) if cameras else None


class PhotographDataModule(ReconstructionDataModule):
    """Train, validation and test loaders of photographs, each with the one view that it has.

    Validation and test show every photograph once, in the order of the data set, neither jittered nor mirrored.

    Attributes:
        how_to_get: said where pictures are missing.

    Args:
        root: its folder; None looks at ``$RECON3D_DATA/<name>``, then ``./datasets/<name>``.
        name: of the data set, in Records and tables.
        batch_size: objects in a batch, over all processes together.
        train_views: 1; a photograph has no other view.
        train_steps_per_epoch: batches that make an epoch, of draws with replacement; None visits every photograph once,
            but for those that are left over from whole batches.
        test_views: at least 1; any number shows the one view.
        val_views: the same for validation; 0 for no validation.
        image_size: pixels of the square crops.
        padding: share of the box's width and height that is added on each side.
        jitter: greatest further move of each side in training, as a share.
        mirror: flip every other training draw, with its key points and camera.
        parts: part maps from SCOPS's files, from key points, or none.
        num_workers: processes that load data; 0 loads in the main process.
        seed: of order, jitter and mirroring.
        balanced: draw categories uniformly, then photographs, with replacement.
        limit_objects: use the first so many photographs of each category and split; None uses all.
        color_jitter: strength of the change of colours in training, see `color_jitter.jitter_colors`; 0 for none.
    """

    how_to_get: ClassVar[str] = ""

    def __init__(
        self,
        root: Path | None = None,
        name: str = "photographs",
        batch_size: int = 16,
        train_views: int = 1,
        train_steps_per_epoch: int | None = None,
        test_views: int = 1,
        val_views: int = 1,
        image_size: int = 256,
        padding: float = 0.05,
        jitter: float = 0.05,
        mirror: bool = True,
        parts: Parts = "none",
        num_workers: int = 0,
        seed: int = 0,
        balanced: bool = False,
        limit_objects: int | None = None,
        color_jitter: float = 0.0,
    ) -> None:
        super().__init__(name, batch_size, num_workers, seed)
        if train_views != 1:
            raise ValueError(
                f"train_views: a photograph shows its object from one view, got {train_views}. Methods that train on "
                "several views of an object need a data set that has them, such as synthetic."
            )
        least = {
            "train_steps_per_epoch": (train_steps_per_epoch, 1),
            "test_views": (test_views, 1),
            "val_views": (val_views, 0),
            "image_size": (image_size, 1),
            "padding": (padding, 0),
            "jitter": (jitter, 0),
            "color_jitter": (color_jitter, 0),
            "limit_objects": (limit_objects, 1),
        }
        for option, (value, minimum) in least.items():
            if value is not None and value < minimum:
                raise ValueError(f"{option}: expected at least {minimum}, got {value}.")
        self.root = resolve_root(root, name)
        self.train_steps_per_epoch = train_steps_per_epoch
        self.validated = val_views > 0
        self.image_size = image_size
        self.padding = padding
        self.jitter = jitter
        self.mirror = mirror
        self.parts: Parts = parts
        self.balanced = balanced
        self.limit_objects = limit_objects
        self.color_jitter = color_jitter
        self.datasets: dict[str, PhotographDataset] = {}

    @abstractmethod
    def photographs(self, split: str) -> Sequence[Photograph]:
        """All photographs of train, val or test, in the order of the data set; none where it has no such split."""

    @property
    @abstractmethod
    def keypoint_set(self) -> KeypointSet | None:
        """The key points of all photographs, or None."""

    @property
    def scale(self) -> str:
        """``keypoints``: the largest distance of two mean key points is 1."""
        return "keypoints"

    def data_hash(self) -> str:
        """Hash of the annotations of the test photographs, and of the sizes of their files. No picture is opened.

        Part maps are left out: nothing is measured against them.
        """
        digest = hashlib.sha256()
        photographs = self.photographs("test")
        self._check_files("test", photographs)
        for photograph in photographs:
            digest.update(repr(photograph.content()).encode())
        return digest.hexdigest()[:16]

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Raises:
            DataFileError: a split without photographs, or files of them that are not there.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]:
            if split not in self.datasets and (split != "val" or self.validated):
                self.datasets[split] = self._open(split)

    def _open(self, split: str) -> PhotographDataset:
        photographs, counts = [], Counter[str]()
        for photograph in self.photographs(split):
            counts[photograph.category] += 1
            if self.limit_objects is None or counts[photograph.category] <= self.limit_objects:
                photographs.append(photograph)
        if not photographs:
            raise DataFileError(
                f"{self.root}: no {split} photographs. {self.how_to_get}{' Or set val_views=0.' * (split == 'val')}"
            )
        self._check_files(split, photographs)
        return PhotographDataset(photographs, self.keypoint_set, self.image_size, self.padding, self.jitter, self.parts)

    def _check_files(self, split: str, photographs: Sequence[Photograph]) -> None:
        absent = [
            file
            for photo in photographs
            for file in (photo.image, photo.mask, photo.truth)
            if isinstance(file, Path) and not file.is_file()
        ]
        if absent:
            raise DataFileError(
                f"{self.root}: {len(absent)} files of the {len(photographs)} {split} photographs are not there, such "
                f"as {absent[0]}. {self.how_to_get}"
            )

    def train_dataloader(self) -> ResumableLoader:
        """Batches of jittered, mirrored draws; `balanced` and `train_steps_per_epoch` say of which photographs.

        A last batch that is not full is left out, as in CMR and UMR: batch norm refuses a batch of one.
        """
        dataset, length = self.datasets["train"], None
        if self.balanced or self.train_steps_per_epoch is not None:
            length = (self.train_steps_per_epoch or -(-len(dataset) // self.batch_size)) * self.batch_size
        categories = [photograph.category if self.balanced else "" for photograph in dataset.photographs]
        plan = partial(
            training_draws,
            categories=categories,
            length=length,
            mirror=self.mirror,
            world=world_size(),
            seed=self.seed,
        )
        return self._loader(dataset, plan, whole_batches=True)

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        """Every photograph once; no loader for val_views=0."""
        return self._evaluation_loader("val") if self.validated else []

    def test_dataloader(self) -> ResumableLoader:
        """Every photograph once."""
        return self._evaluation_loader("test")

    def training_pass(self) -> DataLoader[ViewBatch]:
        """Every training photograph once, in order, neither jittered nor mirrored; all of them in every process.

        For what a method computes of the training set beside its training, such as statistics.
        """
        dataset = self.datasets["train"]
        draws = evaluation_draws(0, count=len(dataset))
        return DataLoader(dataset, self.batch_size_each, sampler=draws, collate_fn=ViewBatch.collate)

    def _evaluation_loader(self, split: str) -> ResumableLoader:
        dataset = self.datasets[split]
        return self._loader(dataset, partial(evaluation_draws, count=len(dataset)))

    def on_after_batch_transfer(self, batch: ViewBatch, dataloader_idx: int) -> ViewBatch:
        """Change the colours of training images, on the device; the changes depend on seed, epoch and sample only."""
        if not self.color_jitter or self.trainer is None or not self.trainer.training:
            return batch
        return jitter_colors(batch, self.color_jitter, (self.seed, self.trainer.current_epoch))
