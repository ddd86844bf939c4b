"""Writes photographs of birds in the layout of CUB-200-2011 and of CMR's annotations of it; the opposite of `cub`.

Between `synthetic_birds` and `synthetic_photographs`. Pictures, segmentations and true shapes are written one by one,
by workers (`write_bird`); lists and annotations at the end (`write_annotations`). `cub_release` and `cmr_files` have
the formats; all files count pixels from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial import Delaunay

from recon3d.data.cub_release import FOLDER, PARTS
from recon3d.data.mat_writing import struct_array, write_mat
from recon3d.data.photograph_scenes import write_truth
from recon3d.data.synthetic_birds import BirdPicture
from recon3d.files import write_whole
from recon3d.geometry.shapes.bird import species_name

JPEG_QUALITY = 95
VOTES = 5  # segmentations are shares of so many annotators


@dataclass(frozen=True, eq=False)
class WrittenBird:
    """What the lists and annotations need of a picture that is written; pixels from 0.

    Attributes:
        path: below images/.
        mask: (H, W) bool, as the segmentation says at half of its levels.
    """

    path: str
    species: int
    box: tuple[float, float, float, float]
    keypoints: np.ndarray
    rotation: np.ndarray
    scale: float
    shift: np.ndarray
    mask: np.ndarray


def write_bird(root: Path, bird: BirdPicture) -> WrittenBird:
    """Writes picture, segmentation and true shape of a bird below `root`."""
    name = species_name(bird.species)
    stem = f"{class_name(bird.species)}/{name}_{bird.seed:07d}"
    votes = np.rint(VOTES * bird.coverage).astype(np.uint8) * (255 // VOTES)
    picture, segmentation, truth = (
        root / FOLDER / "images" / f"{stem}.jpg",
        root / "segmentations" / f"{stem}.png",
        root / "truth" / f"{stem}.npz",
    )
    for path in (picture, segmentation):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bird.picture).save(picture, quality=JPEG_QUALITY)
    Image.fromarray(votes).save(segmentation)
    write_truth(truth, bird.truth)
    return WrittenBird(
        path=f"{stem}.jpg",
        species=bird.species,
        box=bird.box,
        keypoints=bird.keypoints,
        rotation=bird.rotation,
        scale=bird.scale,
        shift=bird.shift,
        mask=votes >= 128,
    )


def class_name(species: int) -> str:
    """Folder of a species, such as ``001.Brown_backed_Finch``."""
    return f"{species + 1:03d}.{species_name(species)}"


def write_annotations(
    root: Path, splits: Mapping[str, Sequence[WrittenBird]], mean_keypoints: np.ndarray, species: int
) -> None:
    """Writes CUB's text files, and CMR's .mat files of the splits and of testval.

    Args:
        root: as for `write_bird`.
        splits: of train, val and test; the release's test pictures are both val and test.
        mean_keypoints: S (15, 3), in CMR's frame.
        species: number of classes.
    """
    order = sorted((bird.path, split, bird) for split, birds in splits.items() for bird in birds)
    folder = root / FOLDER
    tables = {
        "images.txt": [f"{k} {path}" for k, (path, _, _) in enumerate(order, 1)],
        "classes.txt": [f"{k + 1} {class_name(k)}" for k in range(species)],
        "image_class_labels.txt": [f"{k} {bird.species + 1}" for k, (_, _, bird) in enumerate(order, 1)],
        "train_test_split.txt": [f"{k} {int(split == 'train')}" for k, (_, split, _) in enumerate(order, 1)],
        "bounding_boxes.txt": [f"{k} {_box_text(bird.box)}" for k, (_, _, bird) in enumerate(order, 1)],
        "parts/parts.txt": [f"{k} {name}" for k, name in enumerate(PARTS, 1)],
        "parts/part_locs.txt": [
            f"{k} {part} {x + 1:.3f} {y + 1:.3f} 1" if visible else f"{k} {part} 0.0 0.0 0"
            for k, (_, _, bird) in enumerate(order, 1)
            for part, (x, y, visible) in enumerate(bird.keypoints, 1)
        ],
    }
    for name, lines in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, ("\n".join(lines) + "\n").encode())
    mean = {"S": np.ascontiguousarray(mean_keypoints.T), "conv_tri": tetrahedra_sides(mean_keypoints)}
    for split, kept in {**{name: (name,) for name in splits}, "testval": ("val", "test")}.items():
        birds = [bird for _, own, bird in order if own in kept]
        if not birds:
            continue
        write_mat(root / "data" / f"{split}_cub_cleaned.mat", {"images": struct_array([*map(_image, birds)])})
        poses = {"sfm_anno": struct_array([*map(_pose, birds)])}
        write_mat(root / "sfm" / f"anno_{split}.mat", poses | (mean if split in ("train", "testval") else {}))


def tetrahedra_sides(points: np.ndarray) -> np.ndarray:
    """Sides of a Delaunay tetrahedralisation, uint8 (T, 3), four for each tetrahedron, counting from 1: conv_tri."""
    sides = Delaunay(points).simplices[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]]
    return np.asarray(sides.reshape(-1, 3) + 1, dtype=np.uint8)


def _box_text(box: tuple[float, float, float, float]) -> str:
    x1, y1, x2, y2 = box
    return f"{x1 + 1:.1f} {y1 + 1:.1f} {x2 - x1 + 1:.1f} {y2 - y1 + 1:.1f}"


def _image(bird: WrittenBird) -> dict[str, Any]:
    x1, y1, x2, y2 = (value + 1.0 for value in bird.box)
    visible = bird.keypoints[:, 2:]
    parts = np.concatenate([(bird.keypoints[:, :2] + 1.0) * visible, visible], axis=1)
    return {
        "rel_path": bird.path,
        "bbox": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        "parts": np.ascontiguousarray(parts.T),
        "mask": bird.mask.astype(np.uint8),
    }


def _pose(bird: WrittenBird) -> dict[str, Any]:
    return {"rot": bird.rotation, "scale": bird.scale, "trans": bird.shift + 1.0}
