"""A data set in the official DPC layout, made by hand: its own projection, PIL and SciPy, none of our writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from scipy import ndimage

from tests.geometry.dpc_oracle import dpc_screen

SYNSETS = {"airplane": "02691156", "car": "02958343"}


def corner(seed: int) -> np.ndarray:
    """Three arms of different length and thickness from one corner, diagonal 1, in .obj axes: no symmetry at all."""
    generator = np.random.default_rng(seed)
    arms = [((0.9, 0.15, 0.2), (0, 0, 0)), ((0.2, 0.6, 0.2), (0, 0, 0)), ((0.15, 0.2, 0.7), (0.1, 0, 0))]
    points = np.concatenate([generator.uniform(size=(3000 + 10 * seed, 3)) * size + start for size, start in arms])
    points -= (points.max(0) + points.min(0)) / 2
    return points / np.linalg.norm(np.ptp(points, axis=0))


def positions(seed: int, views: int = 5) -> np.ndarray:
    """Directions all around, at distance 2, in Blender's world."""
    generator = np.random.default_rng(100 + seed)
    azimuth, elevation = generator.uniform(0, 2 * np.pi, views), np.deg2rad(generator.uniform(-20, 40, views))
    level = np.cos(elevation)
    return 2 * np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=1)


def picture(points: np.ndarray, position: np.ndarray, size: int = 128) -> np.ndarray:
    """RGBA (S, S, 4) of a cloud; rows from the top, columns to the right, pixels from edge to edge."""
    screen = dpc_screen(points, position)
    columns = np.floor((screen[:, 0] + 0.5) * size).astype(int)
    rows = np.floor((0.5 - screen[:, 1]) * size).astype(int)
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    mask = ndimage.binary_closing(mask, iterations=2)
    return np.stack([mask * 200, mask * 120, mask * 80, mask * 255], axis=-1).astype(np.uint8)


def write_model(root: Path, category: str, name: str, seed: int, size: int = 128, image: str = "render_{}.png") -> None:
    points = corner(seed)
    folder = root / "renders" / SYNSETS[category] / name
    folder.mkdir(parents=True)
    for view, position in enumerate(positions(seed)):
        Image.fromarray(picture(points, position, size)).save(folder / image.format(view))
        scipy.io.savemat(folder / f"camera_{view}.mat", {"pos": position[None], "extrinsic": np.eye(4)})
        Image.fromarray(np.full((size, size), 65535, np.uint16)).save(folder / f"depth_{view}.png")
    clouds = root / "gt" / "downsampled" / SYNSETS[category]
    clouds.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(clouds / f"{name}.mat", {"points": points})


def joint_list(splits: dict[str, list[str]]) -> str:
    """DRC's .file: 3 lines, 6 lines a split with name and count, 5 lines a model with its id."""
    lines = ["4", "1", str(len(splits))]
    for split, ids in splits.items():
        lines += ["2", "5", split, "4", "2", str(len(ids))]
        for index, name in enumerate(ids):
            lines += ["1", str(index), "2", str(len(name)), name]
    return "\n".join(lines) + "\n"


def write_set(root: Path, size: int = 128) -> None:
    """Airplanes by plain lists (2 / 1 / 1), cars by a joint one (1 / 1 / 1)."""
    lists = {
        "airplane": {"train": ["a0", "a1"], "val": ["a2"], "test": ["a3"]},
        "car": {"train": ["c0"], "val": ["c1"], "test": ["c2"]},
    }
    (root / "splits").mkdir(parents=True)
    for seed, (category, name) in enumerate(
        (c, n) for c, splits in lists.items() for ids in splits.values() for n in ids
    ):
        write_model(root, category, name, seed, size)
    for split, ids in lists["airplane"].items():
        (root / "splits" / f"02691156_{split}.txt").write_text("\n".join(ids) + "\n")
    (root / "splits" / "02958343.file").write_text(joint_list(lists["car"]))
