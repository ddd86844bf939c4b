"""Release 1.1 of Pascal3D+ on disk (Xiang et al. 2014): lists and annotations. Read by `pascal3d`.

The folder ``PASCAL3D+_release1.1`` as its archive unpacks it::

    Annotations/<class>_{imagenet,pascal}/<id>.mat   record: imgsize, objects[] with class, bbox, anchors, viewpoint...
    Images/<class>_{imagenet,pascal}/<id>.{JPEG,jpg}
    Image_sets/<class>_imagenet_{train,val}.txt      ids, one a line
    PASCAL/VOCdevkit/VOC2012/ImageSets/Main/{train,val}.txt
    CAD/                                             see `pascal3d_cads`

Everything in MATLAB counts from 1; what this file gives counts from 0. No path is taken from a .mat file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from recon3d.data.mat_structs import field, field_names, load_variable, number, numbers
from recon3d.data.npz import DataFileError
from recon3d.geometry.viewpoints import VIEWPORT, Viewpoint

FOLDER = "PASCAL3D+_release1.1"
CLASSES = (
    "aeroplane",
    "bicycle",
    "boat",
    "bottle",
    "bus",
    "car",
    "chair",
    "diningtable",
    "motorbike",
    "sofa",
    "train",
    "tvmonitor",
)
SOURCES = ("imagenet", "pascal")
Split = Literal["train", "val"]
WHERE_FROM = (
    f"Release 1.1 is one archive, {FOLDER}.zip, from cvgl.stanford.edu/projects/pascal3d.html; unpack it whole. "
    "docs/data/pascal3d.md says what lies where."
)
_SUFFIXES = (".JPEG", ".jpg", ".jpeg", ".JPG", ".png")
_VOC_LISTS = "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of a record; pixels, `number` and `cad_index` count from 0.

    Attributes:
        number: in the record, among objects of all categories.
        box: x1, y1, x2, y2, inclusive; may reach over the border.
        truncated: cut by the border, in the annotator's view.
        occluded: partly hidden.
        difficult: Pascal VOC's mark.
        cad_index: of the model chosen for it; None where there is none.
        anchors: x, y of the visible key points, by name.
        viewpoint: None without a fine one: no viewpoint at all, or distance 0.
    """

    number: int
    box: tuple[float, float, float, float]
    truncated: bool
    occluded: bool
    difficult: bool
    cad_index: int | None
    anchors: dict[str, tuple[float, float]]
    viewpoint: Viewpoint | None


@dataclass(frozen=True)
class Record:
    """What a file of annotations says about its picture.

    Attributes:
        size: width and height.
        count: number of objects of all categories.
        objects: those of one category.
    """

    size: tuple[int, int]
    count: int
    objects: tuple[AnnotatedObject, ...]


@dataclass(frozen=True)
class AnnotationFile:
    """Where the annotations of one picture lie; `source` is imagenet or pascal."""

    root: Path
    category: str
    source: str
    id: str

    @property
    def name(self) -> str:
        """Folder and id, unique in the release: ``car_pascal/2008_000027``."""
        return f"{self.category}_{self.source}/{self.id}"

    @property
    def path(self) -> Path:
        """The .mat file."""
        return self.root / "Annotations" / f"{self.name}.mat"

    @property
    def image(self) -> Path:
        """The picture.

        Raises:
            DataFileError: there is none.
        """
        stem = self.root / "Images" / self.name
        for suffix in _SUFFIXES:
            if (path := stem.with_name(stem.name + suffix)).is_file():
                return path
        raise DataFileError(f"{stem}{_SUFFIXES[0]}: no such picture, nor with another suffix. {WHERE_FROM}")


def is_release(root: Path, category: str) -> bool:
    """Whether a folder (`FOLDER`) has annotations of a class."""
    return any((root / "Annotations" / f"{category}_{source}").is_dir() for source in SOURCES)


def list_annotations(
    root: Path, category: str, split: Split, by: Literal["pascal", "imagenet"]
) -> list[AnnotationFile]:
    """The files of a split, sorted within each source.

    Args:
        root: the folder `FOLDER`.
        category: of `CLASSES`.
        split: train or val.
        by: ``pascal`` splits as Kanazawa et al. 2018 (CMR) and most papers: train is all of ImageNet and the pictures
            on VOC2012's train list, val those on its val list. ``imagenet`` splits the ImageNet pictures by their own
            lists and leaves Pascal's out.

    Raises:
        DataFileError: a list or a folder is missing or empty, or a line is no plain id.
    """
    if by == "imagenet":
        return _listed(root, category, "imagenet", root / "Image_sets" / f"{category}_imagenet_{split}.txt")
    voc = _listed(root, category, "pascal", root / _VOC_LISTS / f"{split}.txt", all_classes=True)
    if split == "val":
        return voc
    folder = root / "Annotations" / f"{category}_imagenet"
    if not folder.is_dir():
        raise DataFileError(f"{folder}: no such folder. {WHERE_FROM}")
    return [AnnotationFile(root, category, "imagenet", path.stem) for path in sorted(folder.glob("*.mat"))] + voc


def _listed(root: Path, category: str, source: str, path: Path, all_classes: bool = False) -> list[AnnotationFile]:
    """The annotations of the ids in a list; `all_classes`: it also has pictures without this class."""
    if not path.is_file():
        raise DataFileError(f"{path}: no such list. {WHERE_FROM}")
    folder = root / "Annotations" / f"{category}_{source}"
    if not folder.is_dir():
        raise DataFileError(f"{folder}: no such folder. {WHERE_FROM}")
    there = {entry.stem for entry in folder.glob("*.mat")}
    ids = path.read_text(encoding="utf-8").split()
    if bad := [name for name in ids if Path(name).name != name or "\\" in name]:
        raise DataFileError(f"{path}: expected ids, one a line, got {bad[0]!r}.")
    absent = [name for name in ids if name not in there]
    if absent and not all_classes:
        raise DataFileError(
            f"{path}: {len(absent)} of {len(ids)} ids have no file in {folder}, such as {absent[0]}. {WHERE_FROM}"
        )
    found = sorted(set(ids) & there)
    if not found:
        raise DataFileError(f"{path}: not one of its {len(ids)} ids has a file in {folder}. {WHERE_FROM}")
    return [AnnotationFile(root, category, source, name) for name in found]


def read_record(path: Path, category: str) -> Record:
    """The annotations of one picture; of objects of other categories than `category` nothing else is read.

    Raises:
        DataFileError: not readable, or not what the release has.
    """
    record = load_variable(path, "record", WHERE_FROM)
    size = numbers(record, "imgsize", path)
    if len(size) < 2 or not (size[:2] >= 1).all():
        raise DataFileError(f"{path}: expected imgsize (width, height, channels), got {size.tolist()}.")
    objects = np.atleast_1d(field(record, "objects", path))
    places = [f"{path}, object {number + 1}" for number in range(len(objects))]
    return Record(
        (int(size[0]), int(size[1])),
        len(objects),
        tuple(
            _object(item, number, where)
            for number, (item, where) in enumerate(zip(objects, places, strict=True))
            if str(field(item, "class", where)) == category
        ),
    )


def _object(item: Any, index: int, where: str) -> AnnotatedObject:
    box = numbers(item, "bbox", where) - 1
    if box.shape != (4,) or not (np.isfinite(box).all() and box[0] <= box[2] and box[1] <= box[3]):
        raise DataFileError(f"{where}: expected bbox (x1, y1, x2, y2), got {(box + 1).tolist()}.")
    flags = {name: bool(number(item, name, where, 0.0)) for name in ("truncated", "occluded", "difficult")}
    cad = int(number(item, "cad_index", where, 0.0))
    return AnnotatedObject(
        number=index,
        box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        **flags,
        cad_index=cad - 1 if cad >= 1 else None,
        anchors=_anchors(getattr(item, "anchors", None), where),
        viewpoint=_viewpoint(getattr(item, "viewpoint", None), f"{where}, viewpoint"),
    )


def _anchors(anchors: Any, where: str) -> dict[str, tuple[float, float]]:
    visible = {}
    for name in field_names(anchors):
        anchor = getattr(anchors, name)
        if number(anchor, "status", where, 0.0) != 1:
            continue
        place = numbers(anchor, "location", f"{where}, anchor {name}")
        if place.shape != (2,) or not np.isfinite(place).all():
            raise DataFileError(
                f"{where}, anchor {name}: status 1 needs a location (x, y), got {place.tolist()}. Fetch the file again."
            )
        visible[name] = (float(place[0]) - 1, float(place[1]) - 1)
    return visible


def _viewpoint(value: Any, where: str) -> Viewpoint | None:
    if number(value, "distance", where, 0.0) == 0:
        return None
    values = {name: number(value, name, where, np.nan) for name in ("azimuth", "elevation", "distance", "theta")}
    values |= {name: number(value, name, where, np.nan) - 1 for name in ("px", "py")}
    values |= {"focal": number(value, "focal", where, 1.0), "viewport": number(value, "viewport", where, VIEWPORT)}
    positive = all(values[name] > 0 for name in ("distance", "focal", "viewport"))
    if not positive or not np.isfinite(list(values.values())).all():
        raise DataFileError(
            f"{where}: expected finite numbers, of them distance, focal and viewport positive, got {values}."
        )
    return Viewpoint(**{name: torch.tensor(one, dtype=torch.float64) for name, one in values.items()})
