"""The objects of Pascal3D+'s release as `Photograph`s: cameras of the viewpoints, masks and truth of the CAD models.

Between `pascal3d_release`, `pascal3d_cads` and `pascal3d`. An object is in the frame of its CAD model, whose longest
side is 1. Its mask is the silhouette of the model: whole, even where something else hides the object.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d_cads import TRUE_POINTS, CadModel, cad_keypoints, read_cads, silhouette, write_truth
from recon3d.data.pascal3d_release import (
    WHERE_FROM,
    AnnotationFile,
    Split,
    list_annotations,
    read_record,
)
from recon3d.data.photograph_annotations import KeypointSet, Photograph, mask_png
from recon3d.files import write_whole
from recon3d.geometry.viewpoints import Viewpoint, viewpoint_camera
from recon3d.structures import Camera

logger = logging.getLogger(__name__)

SplitBy = Literal["pascal", "imagenet"]
Flaw = Literal["truncated", "occluded", "difficult"]
FLAWS: tuple[Flaw, ...] = ("truncated", "occluded", "difficult")


@dataclass(frozen=True, eq=False)
class UsableObject:
    """An object with a viewpoint and a CAD model, and the picture it is on.

    Attributes:
        file: of its annotations.
        id: name of the file; where it has several objects, with ``@`` and the number of this one in it, from 0.
        size: width and height of the picture.
        box: x1, y1, x2, y2, inclusive, from 0.
        anchors: by name, the visible ones.
        viewpoint: fine one.
        cad: number of its CAD model, from 0.
    """

    file: AnnotationFile
    id: str
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    anchors: dict[str, tuple[float, float]]
    viewpoint: Viewpoint
    cad: int


class ReleaseObjects:
    """The objects of one class of the release.

    Attributes:
        left_out: per split that was read, how many objects are not in use, by reason.

    Args:
        root: the folder that the archive unpacks to.
        category: of `pascal3d_release.CLASSES`.
        split_by: see `pascal3d_release.list_annotations`.
        include: objects with these flaws are used too.
        cache: where masks and true shapes are kept.
    """

    def __init__(self, root: Path, category: str, split_by: SplitBy, include: Collection[Flaw], cache: Path) -> None:
        self.root = root
        self.category = category
        self.split_by: SplitBy = split_by
        self.include = frozenset(include)
        self.cache = cache
        self.left_out: dict[Split, Counter[str]] = {}
        self._usable: dict[Split, list[UsableObject]] = {}

    @cached_property
    def cads(self) -> tuple[CadModel, ...]:
        """The CAD models."""
        return read_cads(self.root, self.category)

    @cached_property
    def keypoint_set(self) -> KeypointSet | None:
        """The anchors of the CAD models; None where only the .off files are there, which have none."""
        return cad_keypoints(self.cads)

    def usable(self, split: Split) -> list[UsableObject]:
        """The objects of a split with all that is needed; the others are counted in `left_out`."""
        if split not in self._usable:
            counts = Counter[str]()
            self._usable[split] = [
                usable
                for file in list_annotations(self.root, self.category, split, self.split_by)
                for usable in self._of_file(file, counts)
            ]
            self.left_out[split] = counts
            if counts:
                reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
                logger.info("%s %s: %d objects, left out %s", self.category, split, len(self._usable[split]), reasons)
        return self._usable[split]

    def fill_cache(self) -> None:
        """Make the masks and shapes of all objects that are not in the cache.

        Raises:
            DataFileError: as `photographs`.
        """
        for split in ("train", "val"):
            self.photographs(split)

    def photographs(self, split: Split) -> list[Photograph]:
        """The objects of a split; masks and shapes that are not in the cache are made.

        Raises:
            DataFileError: files of the release that are missing or damaged, or a cache that cannot be written.
        """
        usable = self.usable(split)
        truths = [self.cache / f"truth/{self.category}_{key}.npz" for key in self._cad_keys]
        masks = [self.cache / f"masks/{one.id}_{self._mask_key(one)}.png" for one in usable]
        try:
            for number, path in enumerate(truths):
                if not path.is_file():
                    write_truth(self.cads[number], path, seed=number)
            missing = [(one, path) for one, path in zip(usable, masks, strict=True) if not path.is_file()]
            title = f"Silhouettes of CAD models, {self.category} {split}"
            for one, path in track(missing, title, console=Console(stderr=True), disable=not missing):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, mask_png(self._silhouette(one)))
        except OSError as error:
            raise DataFileError(
                f"{self.cache}: masks and shapes of the CAD models cannot be kept there ({error}). Name a folder that "
                "can be written: cache=..."
            ) from error
        return [self._photograph(one, mask, truths[one.cad]) for one, mask in zip(usable, masks, strict=True)]

    def content_hash(self) -> str:
        """Hash of the CAD models, and of annotations and sizes of the pictures of val, which test is (16 hex digits).

        What is rendered of the models is left out: its pixels may differ by rounding from machine to machine.
        """
        anchors = [[(name, place.tolist()) for name, place in sorted(cad.anchors.items())] for cad in self.cads]
        digest = hashlib.sha256(repr((self._cad_keys, anchors)).encode())
        for one in self.usable("val"):
            said = (one.id, one.box, sorted(one.anchors.items()), self._mask_key(one))
            digest.update(repr((said, one.file.image.stat().st_size)).encode())
        return digest.hexdigest()[:16]

    def _of_file(self, file: AnnotationFile, left_out: Counter[str]) -> list[UsableObject]:
        record = read_record(file.path, self.category)
        usable = []
        for item in record.objects:
            if flaws := [flaw for flaw in FLAWS if getattr(item, flaw) and flaw not in self.include]:
                left_out[flaws[0]] += 1
            elif item.viewpoint is None:
                left_out["without a fine viewpoint"] += 1
            elif item.cad_index is None:
                left_out["without a CAD model"] += 1
            elif item.cad_index >= len(self.cads):
                raise DataFileError(
                    f"{file.path}, object {item.number + 1}: cad_index {item.cad_index + 1}, but {self.category} has "
                    f"{len(self.cads)} CAD models. {WHERE_FROM}"
                )
            else:
                name = file.name if record.count == 1 else f"{file.name}@{item.number}"
                usable.append(
                    UsableObject(file, name, record.size, item.box, item.anchors, item.viewpoint, item.cad_index)
                )
        return usable

    def _photograph(self, one: UsableObject, mask: Path, truth: Path) -> Photograph:
        keypoints = None
        if self.keypoint_set is not None:
            places = [one.anchors.get(name) for name in self.keypoint_set.names]
            keypoints = np.array([(0.0, 0.0, 0.0) if place is None else (*place, 1.0) for place in places])
        return Photograph(
            id=one.id,
            category=self.category,
            image=one.file.image,
            size=one.size,
            box=one.box,
            mask=mask,
            keypoints=keypoints,
            camera=self._camera(one),
            truth=truth,
        )

    def _camera(self, one: UsableObject) -> Camera:
        """Full-image camera (1,) of the object frame."""
        return self.cads[one.cad].frame.object_camera(viewpoint_camera(one.viewpoint))[None]

    def _silhouette(self, one: UsableObject) -> np.ndarray:
        model = self.cads[one.cad]
        return silhouette(model.object_verts(), torch.from_numpy(model.faces), self._camera(one), one.size)

    @cached_property
    def _cad_keys(self) -> list[str]:
        """Number and hash of each model: what is made of it is made again when it changes."""
        keys = []
        for number, model in enumerate(self.cads):
            digest = hashlib.sha256(repr((TRUE_POINTS, model.verts.shape)).encode())
            digest.update(model.verts.tobytes())
            digest.update(model.faces.tobytes())
            keys.append(f"{number + 1:02d}_{digest.hexdigest()[:10]}")
        return keys

    def _mask_key(self, one: UsableObject) -> str:
        numbers = [getattr(one.viewpoint, field.name).item() for field in fields(Viewpoint)]
        return hashlib.sha256(repr((numbers, one.size, self._cad_keys[one.cad])).encode()).hexdigest()[:10]
