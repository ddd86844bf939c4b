"""CUB-200-2011 as photographs of birds: with CMR's annotations and cameras, or as its release alone has it.

Above `cmr_files` and `cub_release`, beside `pascal3d`. In the folder::

    CUB_200_2011/, segmentations/           see `cub_release`; of the first, CMR's annotations need images/ only
    data/<split>_cub_cleaned.mat            see `cmr_files`; train, and val and test, or testval in their place
    sfm/anno_<split>.mat
    scops/<ccc.Class>/<Name>.npy            part maps, optional: see `part_maps`; or <Name>_<number>.npy, as in UMR
    truth/<ccc.Class>/<Name>.npz            ours, in synthetic sets only
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np

from recon3d.data import cub_release
from recon3d.data.cmr_files import CMRObject, read_mean_shape, read_objects, read_poses
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_annotations import KeypointSet, Photograph, SfMPose
from recon3d.data.photographs import PhotographDataModule

logger = logging.getLogger(__name__)

CATEGORY = "bird"
KEYPOINTS = (
    "Back", "Beak", "Belly", "Breast", "Crown", "FHead", "LEye", "LLeg", "LWing", "Nape", "REye", "RLeg", "RWing",
    "Tail", "Throat",
)  # fmt: skip
MIRROR = (0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14)
# Which key points stand for SCOPS's parts: ours.
KEYPOINT_PARTS = {
    "head": ("Beak", "Crown", "FHead", "LEye", "REye"),
    "neck": ("Nape", "Throat"),
    "back": ("Back", "LWing", "RWing", "Tail"),
    "belly": ("Belly", "Breast", "LLeg", "RLeg"),
}
CMR_FILES = (
    "CMR's annotations of CUB are the folders data and sfm of its cub archive, linked from github.com/akanazawa/cmr; "
    "copy both here, or set annotations: release to do with the release alone, without cameras. docs/data/cub.md says "
    "what lies where."
)
SPLIT_SEED = 100  # of our halves of testval, where CMR's are not there
HOLD_OUT = 10  # of the release's training pictures one in so many validates


class CUBDataModule(PhotographDataModule):
    """Loaders of CUB-200-2011, one category, 15 key points; see `PhotographDataModule` for the other options.

    With CMR's annotations there are 5,964 photographs to train, with at least 6 visible key points, and 5,747 others,
    with at least 7, in two halves for val and test. The official halves, 2,874 each, share one photograph.

    Args:
        root: its folder; None looks at ``$RECON3D_DATA/cub``, then ``./datasets/cub``.
        name: of the data set, in Records and tables.
        annotations: ``cmr``, with masks and cameras from CMR's files; or ``release``: the release's boxes, key points
            and segmentations, no cameras, all 5,794 test pictures, one in 10 of the 5,994 training pictures held out
            for val.
        keep_shared: leave the photograph that val and test share in val too, as CMR's lists have it.
        kwargs: see `PhotographDataModule`.
    """

    how_to_get: ClassVar[str] = cub_release.WHERE_FROM

    def __init__(
        self,
        root: Path | None = None,
        name: str = "cub",
        annotations: Literal["cmr", "release"] = "cmr",
        keep_shared: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, name=name, **kwargs)
        self.annotations = annotations
        self.keep_shared = keep_shared
        self._files: dict[str, tuple[Photograph, ...]] = {}
        self._splits: dict[str, Sequence[Photograph]] = {}

    @property
    def categories(self) -> tuple[str, ...]:
        """One for all birds; the class of CUB is the first part of a sample's id."""
        return (CATEGORY,)

    @cached_property
    def keypoint_set(self) -> KeypointSet:
        """The 15 parts, with the mean shape of the training split where there are CMR's annotations."""
        shape, triangles = None, None
        if self.annotations == "cmr":
            shape, triangles = read_mean_shape(self.root / "sfm" / "anno_train.mat", len(KEYPOINTS), CMR_FILES)
        return KeypointSet(KEYPOINTS, MIRROR, shape, triangles, KEYPOINT_PARTS)

    def photographs(self, split: str) -> Sequence[Photograph]:
        """All photographs of a split, in the order of the files; read once.

        Raises:
            DataFileError: files that are missing, or not what they should be.
        """
        if split not in self._splits:
            self._splits[split] = self._list(split)
        return self._splits[split]

    def _list(self, split: str) -> Sequence[Photograph]:
        if self.annotations == "release":
            return self._released(split)
        if split == "train":
            return self._annotated("train")
        official = [self._annotation_file(half).is_file() for half in ("val", "test")]
        if any(official) or not self._annotation_file("testval").is_file():
            photographs, test = self._annotated(split), self._annotated("test")
        else:
            both = self._annotated("testval")
            logger.warning(
                "%s has no lists of val and test: halves of testval by our own seed. They are not those of CMR.",
                self.root,
            )
            order, half = np.random.default_rng(SPLIT_SEED).permutation(len(both)), (len(both) + 1) // 2
            val, test = (tuple(both[i] for i in sorted(part)) for part in (order[half - 1 :], order[:half]))
            photographs = test if split == "test" else val
        return photographs if split == "test" else self._without(photographs, test)

    def _without(self, photographs: Sequence[Photograph], test: Sequence[Photograph]) -> Sequence[Photograph]:
        tested = {photograph.id for photograph in test}
        shared = [photograph.id for photograph in photographs if photograph.id in tested]
        if shared:
            logger.info(
                "%s: %d of the %d photographs of val are in test too (%s); %s.",
                self.root,
                len(shared),
                len(photographs),
                shared[0],
                "kept in both" if self.keep_shared else "left out of val (keep_shared: true keeps them)",
            )
        return photographs if self.keep_shared else [item for item in photographs if item.id not in tested]

    def _annotation_file(self, split: str) -> Path:
        return self.root / "data" / f"{split}_cub_cleaned.mat"

    def _annotated(self, split: str) -> tuple[Photograph, ...]:
        """The photographs of CMR's two files of a split, read once."""
        if split not in self._files:
            annotations, cameras = self._annotation_file(split), self.root / "sfm" / f"anno_{split}.mat"
            objects = read_objects(annotations, len(KEYPOINTS), CMR_FILES)
            poses = read_poses(cameras, CMR_FILES)
            if len(objects) != len(poses):
                raise DataFileError(
                    f"{annotations} has {len(objects)} objects, {cameras} {len(poses)} cameras; they belong together, "
                    f"object by object. {CMR_FILES}"
                )
            self._files[split] = tuple(self._photograph(*pair) for pair in zip(objects, poses, strict=True))
        return self._files[split]

    def _photograph(self, item: CMRObject, pose: SfMPose) -> Photograph:
        return Photograph(
            id=item.id,
            category=CATEGORY,
            image=self.root / cub_release.FOLDER / "images" / item.path,
            size=item.size,
            box=item.box,
            mask=item.mask,
            keypoints=item.keypoints,
            pose=pose,
            parts=self._part_map(item.path, item.number),
            truth=self._truth(item.id),
        )

    @cached_property
    def _release(self) -> tuple[cub_release.ReleasedImage, ...]:
        return cub_release.read_release(self.root / cub_release.FOLDER)

    def _released(self, split: str) -> tuple[Photograph, ...]:
        folder, segmentations = self.root / cub_release.FOLDER, cub_release.find_segmentations(self.root)
        images = self._release
        training = [image for image in images if image.training]
        chosen = {
            "train": [image for number, image in enumerate(training) if number % HOLD_OUT],
            "val": training[::HOLD_OUT],
            "test": [image for image in images if not image.training],
        }[split]
        return tuple(
            Photograph(
                id=str(image.path.with_suffix("")),
                category=CATEGORY,
                image=folder / "images" / image.path,
                size=cub_release.picture_size(folder / "images" / image.path),
                box=image.box,
                mask=segmentations / image.path.with_suffix(".png"),
                keypoints=image.keypoints,
                parts=self._part_map(image.path),
                truth=self._truth(str(image.path.with_suffix(""))),
            )
            for image in chosen
        )

    def _part_map(self, path: PurePosixPath, number: int | None = None) -> Path | None:
        """SCOPS's map of a picture, or of object `number` of an annotation file, which UMR looks for."""
        if self.parts != "scops":
            return None
        stem = self.root / "scops" / path.with_suffix("")
        names = [stem.name] if number is None else [f"{stem.name}_{number}", stem.name]
        found = [
            file for name in names for suffix in (".npz", ".npy") if (file := stem.parent / f"{name}{suffix}").is_file()
        ]
        return found[0] if found else stem.parent / f"{stem.name}.npy"

    def _truth(self, name: str) -> Path | None:
        folder = self.root / "truth"
        return folder / f"{name}.npz" if folder.is_dir() else None
