"""CUB in its official layouts, made by hand: text files, PIL and SciPy, none of our readers or writers.

Six pictures of 64x48, one of them grey, one with transparency; three train, B with a backslash in its path, C with two
objects; CMR's halves of the rest share E. Boxes touch and cross the border. Key points are where the cameras see them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT = 64, 48
PARTS = (
    "back beak belly breast crown forehead left_eye left_leg left_wing nape right_eye right_leg right_wing tail throat"
)
MIRROR = np.array([1, 2, 3, 4, 5, 6, 11, 12, 13, 10, 7, 8, 9, 14, 15]) - 1  # fact sheet 5.2
PICTURES = {  # number: class, name, in the official training set
    1: ("001.Alpha_Bird", "Alpha_0001_10", True),
    2: ("001.Alpha_Bird", "Alpha_0002_20", True),
    3: ("002.Beta_Bird", "Beta_0003_30", True),
    4: ("002.Beta_Bird", "Beta_0004_40", False),
    5: ("002.Beta_Bird", "Beta_0005_50", False),
    6: ("002.Beta_Bird", "Beta_0006_60", False),
}
BOXES = {  # 1-based, inclusive: inside, touching two borders, crossing two, ...
    1: (10, 8, 41, 37),
    2: (1, 1, 40, 30),
    3: (30, 20, 70, 55),
    4: (5, 10, 60, 40),
    5: (20, 5, 45, 44),
    6: (3, 3, 50, 25),
    7: (2, 4, 28, 20),  # another bird on picture 3
}
SPLITS = {"train": [1, 2, 3, 7], "val": [5, 6], "test": [4, 5], "testval": [4, 5, 6]}


def mean_shape() -> np.ndarray:
    """S (3, 15): symmetric under x -> -x and `MIRROR`, no other symmetry."""
    generator = np.random.default_rng(5)
    shape = generator.normal(size=(3, 15)) * [[0.3], [0.6], [0.3]]
    for a, b in enumerate(MIRROR):
        if a == b:
            shape[0, a] = 0
        elif a < b:
            shape[:, b] = shape[:, a] * (-1, 1, 1)
    return shape


def pose(number: int) -> dict[str, np.ndarray]:
    """rot, scale and trans of a bird, by structure from motion."""
    generator = np.random.default_rng(number)
    return {
        "rot": Rotation.random(random_state=number).as_matrix(),
        "scale": np.float64(10 + generator.random() * 5),
        "trans": np.array([30.0, 22.0]) + generator.normal(size=2),
    }


def parts(number: int) -> np.ndarray:
    """(3, 15): x, y, visible, 1-based; all where the camera sees them, number 3 + `number` is hidden."""
    camera = pose(number)
    places = camera["scale"] * camera["rot"][:2] @ mean_shape() + camera["trans"][:, None]
    seen = np.ones((1, 15))
    seen[:, 3 + number] = 0
    return np.concatenate([places * seen, seen])


def mask(number: int) -> np.ndarray:
    """(H, W) of 0 and 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    x1, y1, x2, y2 = BOXES[number]
    return (((x - (x1 + x2) / 2) * 2.2 / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) * 2 / (y2 - y1)) ** 2 < 1).astype(
        np.uint8
    )


def picture(number: int) -> np.ndarray:
    """RGB (H, W, 3), smooth enough to be seen, with some noise."""
    generator = np.random.default_rng(100 + number)
    if number == 2:
        return np.repeat(generator.integers(0, 200, (HEIGHT, WIDTH, 1), dtype=np.uint8), 3, axis=2)
    return generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_pictures(root: Path) -> None:
    """images/, lossless whatever their suffix says; number 2 grey, number 4 with an alpha channel."""
    for number, (folder, name, _) in PICTURES.items():
        path = root / "CUB_200_2011" / "images" / folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(number)
        if number == 2:
            pixels = pixels[..., 0]
        elif number == 4:
            pixels = np.concatenate([pixels, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)
        Image.fromarray(pixels).save(path, "PNG")


def write_release(root: Path) -> Path:
    """All of the original release and its segmentations; returns the data root."""
    write_pictures(root)
    folder = root / "CUB_200_2011"
    classes = sorted({entry[0] for entry in PICTURES.values()})
    lines: dict[str, list[str]] = {
        "classes.txt": [f"{i} {name}" for i, name in enumerate(classes, 1)],
        "images.txt": [f"{n} {c}/{name}.jpg" for n, (c, name, _) in PICTURES.items()],
        "image_class_labels.txt": [f"{n} {classes.index(c) + 1}" for n, (c, _, _) in PICTURES.items()],
        "train_test_split.txt": [f"{n} {int(training)}" for n, (_, _, training) in PICTURES.items()],
        "bounding_boxes.txt": [
            f"{n} {x1:.1f} {y1:.1f} {x2 - x1 + 1:.1f} {y2 - y1 + 1:.1f}"
            for n, (x1, y1, x2, y2) in BOXES.items()
            if n in PICTURES
        ],
        "parts/parts.txt": [f"{i} {name.replace('_', ' ')}" for i, name in enumerate(PARTS.split(), 1)],
        "parts/part_locs.txt": [
            f"{n} {i} {x:.6f} {y:.6f} {int(seen)}" for n in PICTURES for i, (x, y, seen) in enumerate(parts(n).T, 1)
        ],
    }
    (folder / "parts").mkdir()
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    for number, (category, name, _) in PICTURES.items():
        path = root / "segmentations" / category / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        votes = np.where(mask(number) == 1, 204, 51).astype(np.uint8)  # four of five annotators, one of five
        if number == 3:
            votes = np.repeat(votes[..., None], 4, axis=2)  # a few official ones have more channels
            votes[..., 3] = 255
        Image.fromarray(votes).save(path)
    return root


def write_mat(path: Path, name: str, structs: list[dict[str, Any]], **others: np.ndarray) -> None:
    """A struct array as MATLAB has it, and further variables."""
    array = np.zeros((1, len(structs)), [(key, object) for key in structs[0]])
    for i, fields in enumerate(structs):
        array[0, i] = tuple(fields.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: array, **others})


def annotation(number: int, backslash: bool = False) -> dict[str, Any]:
    """One struct of `images`."""
    folder, name, _ = PICTURES[3 if number == 7 else number]
    return {
        "rel_path": f"{folder}{chr(92) if backslash else '/'}{name}.jpg",
        "bbox": dict(zip(("x1", "y1", "x2", "y2"), map(float, BOXES[number]), strict=True)),
        "parts": parts(number),
        "mask": mask(number),
    }


def write_cmr(root: Path, splits: tuple[str, ...] = ("train", "val", "test", "testval")) -> Path:
    """The pictures and CMR's files of the splits; returns the data root."""
    write_pictures(root)
    shape = {"S": mean_shape(), "conv_tri": np.array([[1, 2, 15], [3, 4, 5]], np.uint8)}
    for split in splits:
        numbers = SPLITS[split]
        items = [annotation(number, backslash=number == 2) for number in numbers]
        write_mat(root / "data" / f"{split}_cub_cleaned.mat", "images", items)
        cameras = [pose(number) for number in numbers]
        write_mat(root / "sfm" / f"anno_{split}.mat", "sfm_anno", cameras, **(shape if split == "train" else {}))
    return root
