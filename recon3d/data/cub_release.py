"""The release of CUB-200-2011 on disk (Wah et al. 2011): its lists, boxes, parts and segmentations. Read by `cub`.

::

    CUB_200_2011/images/<ccc.Class>/<Name>.jpg
    CUB_200_2011/images.txt                 id path
    CUB_200_2011/classes.txt                class name
    CUB_200_2011/image_class_labels.txt     id class
    CUB_200_2011/train_test_split.txt       id, 1 for training
    CUB_200_2011/bounding_boxes.txt         id x y width height
    CUB_200_2011/parts/parts.txt            part name
    CUB_200_2011/parts/part_locs.txt        id part x y visible
    segmentations/<ccc.Class>/<Name>.png    an archive of its own; here or in CUB_200_2011

Pixels count from 1 in these files (the boxes of CMR's, which do, are the same numbers), and from 0 in what this module
gives. Segmentations are grey, levels 0 to 255 by how many of the annotators chose a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from recon3d.data.cmr_files import picture_path
from recon3d.data.cropping import Box
from recon3d.data.npz import DataFileError

FOLDER = "CUB_200_2011"
PARTS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
WHERE_FROM = (
    "CUB-200-2011 is CUB_200_2011.tgz, and its segmentations segmentations.tgz, from "
    "vision.caltech.edu/datasets/cub_200_2011; unpack both. Its pictures may be used for non-commercial research and "
    "education. docs/data/cub.md says what lies where."
)


@dataclass(frozen=True, eq=False)
class ReleasedImage:
    """One picture of the release, in 0-based pixels.

    Attributes:
        path: below images/ and, with the suffix .png, below segmentations/.
        training: in the official split.
        box: inclusive.
        keypoints: (15, 3): x, y, visible.
    """

    path: PurePosixPath
    training: bool
    box: Box
    keypoints: np.ndarray


def read_release(root: Path) -> tuple[ReleasedImage, ...]:
    """All pictures in the order of images.txt; the files are checked against each other.

    Args:
        root: the folder `FOLDER`.

    Raises:
        DataFileError: a file is missing, a line is not what it should be, or an id is not in all files.
    """
    paths = _table(root / "images.txt", 1)
    names = {int(number): name for number, (name,) in _table(root / "classes.txt", 1).items()}
    labels = _table(root / "image_class_labels.txt", 1, paths)
    splits = _table(root / "train_test_split.txt", 1, paths)
    boxes = _table(root / "bounding_boxes.txt", 4, paths)
    keypoints = _read_keypoints(root / "parts", paths)
    images = []
    for number, (text,) in paths.items():
        path = picture_path(text, f"{root / 'images.txt'}, id {number}")
        label = names.get(int(_number(labels[number][0], root / "image_class_labels.txt", number)))
        if label != str(path.parent):
            raise DataFileError(
                f"{root}: image {number} lies in {path.parent}, its class is {label}: images.txt, classes.txt and "
                f"image_class_labels.txt are not of one release. {WHERE_FROM}"
            )
        if splits[number][0] not in ("0", "1"):
            raise DataFileError(
                f"{root / 'train_test_split.txt'}, id {number}: expected 0 or 1, got {splits[number][0]}."
            )
        x, y, width, height = (_number(value, root / "bounding_boxes.txt", number) for value in boxes[number])
        if min(width, height) <= 0:
            raise DataFileError(f"{root / 'bounding_boxes.txt'}, id {number}: expected width and height above 0.")
        images.append(
            ReleasedImage(
                path=path,
                training=splits[number][0] == "1",
                box=(x - 1, y - 1, x + width - 2, y + height - 2),
                keypoints=keypoints[number],
            )
        )
    return tuple(images)


def find_segmentations(root: Path) -> Path:
    """The folder of segmentations of a data root.

    Raises:
        DataFileError: there is none.
    """
    for folder in (root / "segmentations", root / FOLDER / "segmentations"):
        if folder.is_dir():
            return folder
    raise DataFileError(f"{root / 'segmentations'}: no such folder, nor {FOLDER}/segmentations. {WHERE_FROM}")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        DataFileError: missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataFileError(f"{path}: not readable as an image ({error}). {WHERE_FROM}") from error


def _read_keypoints(folder: Path, paths: dict[str, list[str]]) -> dict[str, np.ndarray]:
    names = {number: " ".join(words) for number, words in _table(folder / "parts.txt", None).items()}
    if list(names.items()) != [(str(i + 1), name) for i, name in enumerate(PARTS)]:
        raise DataFileError(f"{folder / 'parts.txt'}: expected the 15 parts {PARTS}, got {names}. {WHERE_FROM}")
    file = folder / "part_locs.txt"
    found: dict[str, dict[int, tuple[float, ...]]] = {number: {} for number in paths}
    for words in _lines(file):
        if len(words) != 5 or words[0] not in found or words[1] not in names or words[4] not in ("0", "1"):
            raise DataFileError(f"{file}: expected lines of id, part, x, y, visible (0 or 1), got {' '.join(words)!r}.")
        x, y = (_number(value, file, words[0]) for value in words[2:4])
        found[words[0]][int(words[1])] = (x - 1, y - 1, 1.0) if words[4] == "1" else (0.0, 0.0, 0.0)
    if short := [number for number, parts in found.items() if len(parts) != len(PARTS)]:
        raise DataFileError(
            f"{file}: expected {len(PARTS)} parts of each image, {short[0]} has {len(found[short[0]])}."
        )
    return {number: np.array([parts[i + 1] for i in range(len(PARTS))]) for number, parts in found.items()}


def _table(path: Path, columns: int | None, ids: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Lines by their first word; `columns` further words on each, and the lines of `ids`."""
    table: dict[str, list[str]] = {}
    for words in _lines(path):
        if not words[0].isdecimal() or words[0] in table or (columns is not None and len(words) != 1 + columns):
            raise DataFileError(
                f"{path}: expected lines of a number, each another one, and {columns or 'some'} words; got "
                f"{' '.join(words)!r}. {WHERE_FROM}"
            )
        table[words[0]] = words[1:]
    if ids is not None and table.keys() != ids.keys():
        odd = sorted(table.keys() ^ ids.keys(), key=int)
        raise DataFileError(
            f"{path}: expected the {len(ids)} ids of images.txt, {len(odd)} are in one only, such as {odd[0]}. "
            f"{WHERE_FROM}"
        )
    return table


def _lines(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise DataFileError(f"{path}: no such file. {WHERE_FROM}")
    lines = [words for line in path.read_text(encoding="utf-8").splitlines() if (words := line.split())]
    if not lines:
        raise DataFileError(f"{path}: the file is empty. {WHERE_FROM}")
    return lines


def _number(text: str, path: Path, number: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataFileError(f"{path}, id {number}: expected a number, got {text!r}.")
    return value
