"""Pascal3D+ as photographs with key points, masks and cameras: CMR's annotations of it, or the release's own.

Above `photographs`. CMR's files (`cmr_files`) have masks, key points and scaled orthographic cameras from structure
from motion; release 1.1 (`pascal3d_objects`) has key points, perspective cameras and a CAD model for each object, of
which masks and true shapes are made on first use::

    <root>/PASCAL3D+_release1.1/                          pictures of both, annotations of the release
    <root>/data/<class>_{train,val}.mat                   CMR's annotations, see `cmr_files`
    <root>/data/<class>_kps.mat                           kp_names, kp_perm_inds: names and mirror partners, from 1
    <root>/sfm/<class>_{train,val}.mat                    CMR's cameras
    <root>/truth/<id>.npz                                 true shapes that go with CMR's cameras, of synthetic sets
    <root>/derived/                                       what is made of the CAD models
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from recon3d.data import pascal3d_release
from recon3d.data.cmr_files import read_mean_shape, read_objects, read_poses
from recon3d.data.mat_structs import load_variable
from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d_objects import FLAWS, Flaw, ReleaseObjects, SplitBy
from recon3d.data.photograph_annotations import KeypointSet, Photograph
from recon3d.data.photographs import PhotographDataModule

Annotations = Literal["cmr", "release"]
CMR_FILES = (
    "CMR's annotations of Pascal3D+ are the folders data and sfm of its p3d archive, linked from github.com/akanazawa/"
    "cmr, branch p3d; copy both here, or set annotations: release. docs/data/pascal3d.md says what lies where."
)
# Which key points of a car stand for the parts of its pseudo part maps: ours; SCOPS has no official parts of cars.
CAR_PARTS = {
    "front": ("left_front_light", "right_front_light"),
    "back": ("left_back_trunk", "right_back_trunk"),
    "roof": (
        "upper_left_windshield", "upper_right_windshield", "upper_left_rearwindow", "upper_right_rearwindow",
    ),
    "wheels": ("left_front_wheel", "right_front_wheel", "left_back_wheel", "right_back_wheel"),
}  # fmt: skip


class Pascal3DDataModule(PhotographDataModule):
    """Train, validation and test loaders of one class of Pascal3D+. There is no test split: test is val, as in papers.

    With CMR's files the scale is that of key points, cameras are scaled orthographic, and there is no true shape. With
    the release, cameras are perspective, the longest side of every CAD model is 1, and points, normals, voxels and
    masks are those of the models.

    Args:
        root: its folder; None looks at ``$RECON3D_DATA/<name>``, then ``./datasets/<name>``.
        name: of the data set, in Records and tables.
        category: one of the release's 12 classes.
        annotations: ``cmr``, ``release``, or ``auto``: what is there, CMR's before the release's.
        split_by: of the release. ``pascal``: train on ImageNet's pictures and VOC2012's train list, validate on its val
            list, as CMR; ``imagenet``: ImageNet's pictures alone, by their own lists.
        include: of the release: objects that are truncated, occluded or difficult are left out unless named here; CMR's
            files have none of them.
        cache: of what is made of the CAD models; None is ``<root>/derived``.
        kwargs: see `recon3d.data.photographs.PhotographDataModule`.
    """

    how_to_get: ClassVar[str] = pascal3d_release.WHERE_FROM

    def __init__(
        self,
        root: Path | None = None,
        name: str = "pascal3d",
        category: str = "car",
        annotations: Literal["auto", "cmr", "release"] = "auto",
        split_by: SplitBy = "pascal",
        include: list[Flaw] | None = None,
        cache: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, name=name, **kwargs)
        if category not in pascal3d_release.CLASSES:
            raise ValueError(f"category: expected one of {', '.join(pascal3d_release.CLASSES)}, got {category!r}.")
        if unknown := set(include or ()) - set(FLAWS):
            raise ValueError(f"include: expected some of {', '.join(FLAWS)}, got {', '.join(sorted(unknown))}.")
        if self.parts == "scops":
            raise ValueError("parts: SCOPS's maps are read for birds only; choose none, or keypoints for cars.")
        self.category = category
        self.asked = annotations
        release = self.root / pascal3d_release.FOLDER
        self.objects = ReleaseObjects(release, category, split_by, include or (), cache or self.root / "derived")
        self._photographs: dict[str, Sequence[Photograph]] = {}

    @cached_property
    def annotations(self) -> Annotations:
        """Those in use.

        Raises:
            DataFileError: those asked for are not there.
        """
        there: list[Annotations] = []
        if any((self.root / "data" / f"{self.category}_{part}.mat").is_file() for part in ("train", "val")):
            there.append("cmr")
        if pascal3d_release.is_release(self.objects.root, self.category):
            there.append("release")
        for kind in there:
            if self.asked in ("auto", kind):
                return kind
        asked = "" if self.asked == "auto" else f"{self.asked} "
        raise DataFileError(
            f"{self.root}: no {asked}annotations of {self.category}; there are {', '.join(there) or 'none'}. CMR's are "
            f"data/{self.category}_train.mat and its siblings, the release's {pascal3d_release.FOLDER}/Annotations. "
            f"{self.how_to_get}"
        )

    def prepare_data(self) -> None:
        """With the release's annotations, make the masks and shapes that are not in the cache: once, in one process."""
        super().prepare_data()
        if self.annotations == "release":
            self.objects.fill_cache()

    @property
    def categories(self) -> tuple[str, ...]:
        """The class."""
        return (self.category,)

    @property
    def scale(self) -> str:
        """``keypoints`` with CMR's annotations, ``longest_side`` with the release's."""
        return "longest_side" if self.annotations == "release" else super().scale

    @property
    def test_split(self) -> str:
        """``val``, but for sets whose CMR's annotations have a test split."""
        own = self.annotations == "cmr" and (self.root / "data" / f"{self.category}_test.mat").is_file()
        return "test" if own else "val"

    def photographs(self, split: str) -> Sequence[Photograph]:
        """All photographs of a split; test is val, unless there are CMR's files of it, as in synthetic sets."""
        release = self.annotations == "release"
        split = self.test_split if split == "test" else split
        if split not in self._photographs:
            part: pascal3d_release.Split = "train" if split == "train" else "val"
            self._photographs[split] = self.objects.photographs(part) if release else self._cmr_photographs(split)
        return self._photographs[split]

    @cached_property
    def keypoint_set(self) -> KeypointSet | None:
        """CMR's key points, or the anchors of the CAD models."""
        found = self.objects.keypoint_set if self.annotations == "release" else self._cmr_keypoints()
        if found is None or not set().union(*CAR_PARTS.values()) <= set(found.names):
            return found
        return replace(found, parts=CAR_PARTS)

    def data_hash(self) -> str:
        """Hash of annotations and sizes of files of test, and of the CAD models; of nothing that is rendered."""
        return self.objects.content_hash() if self.annotations == "release" else super().data_hash()

    def _cmr_photographs(self, split: str) -> tuple[Photograph, ...]:
        annotations = self.root / "data" / f"{self.category}_{split}.mat"
        cameras = self.root / "sfm" / f"{self.category}_{split}.mat"
        objects = read_objects(annotations, len(self._cmr_keypoints().names), CMR_FILES)
        poses = read_poses(cameras, CMR_FILES)
        if len(objects) != len(poses):
            raise DataFileError(
                f"{annotations} has {len(objects)} objects, {cameras} {len(poses)} cameras; they belong together, "
                f"object by object. {CMR_FILES}"
            )
        truth = self.root / "truth"
        return tuple(
            Photograph(
                id=item.id,
                category=self.category,
                image=self.objects.root / "Images" / item.path,
                size=item.size,
                box=item.box,
                mask=item.mask,
                keypoints=item.keypoints,
                pose=pose,
                truth=truth / f"{item.id}.npz" if truth.is_dir() else None,
            )
            for item, pose in zip(objects, poses, strict=True)
        )

    def _cmr_keypoints(self) -> KeypointSet:
        path = self.root / "data" / f"{self.category}_kps.mat"
        names = [str(name).strip() for name in np.atleast_1d(load_variable(path, "kp_names", CMR_FILES))]
        partners = np.atleast_1d(load_variable(path, "kp_perm_inds", CMR_FILES))
        if sorted(partners.tolist()) != list(range(1, len(names) + 1)):
            raise DataFileError(
                f"{path}: expected kp_perm_inds to be a permutation of 1 to {len(names)}, the number of kp_names, got "
                f"{partners.tolist()}. {CMR_FILES}"
            )
        # The same in both files; a copy without the training split will do to validate.
        files = [self.root / "sfm" / f"{self.category}_{split}.mat" for split in ("train", "val")]
        found = next((file for file in files if file.is_file()), files[0])
        shape, triangles = read_mean_shape(found, len(names), CMR_FILES)
        return KeypointSet(tuple(names), tuple((partners.astype(int) - 1).tolist()), shape, triangles)
