"""One procedural object to a synthetic photograph: background, light, pixels, mask, box, key points, true shape.

The step between `recon3d.geometry.shapes` and the writers of the layouts (`cub_writing`, `pascal3d_writing`). Nothing
here knows a layout; everything is in full-image pixels, 0-based, the centre of the first pixel at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from recon3d.data.object_views import VOXEL_RESOLUTION
from recon3d.geometry.cameras import project
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera

TRUTH_POINTS = 2_000
_ANTI_ALIAS = 2
_TOLERANCE = 0.04  # object units that may lie before a visible key point: round parts hide their own outlines
_SKIES = ((0.55, 0.7, 0.85), (0.8, 0.85, 0.88), (0.45, 0.6, 0.8), (0.72, 0.72, 0.7))
_GROUNDS = ((0.25, 0.38, 0.16), (0.4, 0.45, 0.2), (0.42, 0.34, 0.24), (0.5, 0.47, 0.42), (0.2, 0.28, 0.18),
            (0.55, 0.5, 0.35), (0.3, 0.33, 0.36))  # fmt: skip
_BARKS = ((0.3, 0.23, 0.17), (0.42, 0.36, 0.3), (0.22, 0.18, 0.15))


@dataclass(frozen=True)
class Posed:
    """An object on a picture.

    Attributes:
        verts: (V, 3) in the object frame.
        faces: (F, 3).
        colors: (F, 3).
        keypoints: (K, 3) in the object frame.
        camera: (1,), sees the **square** of `side` pixels whose upper left corner is that of the picture.
    """

    verts: torch.Tensor
    faces: torch.Tensor
    colors: torch.Tensor
    keypoints: torch.Tensor
    camera: Camera


@dataclass(frozen=True)
class Seen:
    """What a picture shows of one object.

    Attributes:
        coverage: (H, W) in [0, 1], not covered by other objects.
        box: of its pixels, inclusive.
        keypoints: (K, 3): x, y, visible; the place is also right where it is 0.
        shown: share of its pixels in the picture that other objects leave.
    """

    coverage: np.ndarray
    box: tuple[float, float, float, float]
    keypoints: np.ndarray
    shown: float


def photograph(
    objects: list[Posed], size: tuple[int, int], rng: np.random.Generator, perch: bool = False
) -> tuple[np.ndarray, list[Seen]]:
    """Renders objects over a background.

    Args:
        objects: one or several; what is nearer to the camera hides what is behind.
        size: width and height in pixels.
        rng: of background, light and noise.
        perch: let the first object now and then stand on a branch.

    Returns:
        Picture (H, W, 3) uint8, and what it shows of each object.
    """
    width, height = size
    renders = [_render(item, size) for item in objects]
    nearest = np.min([depth for _, _, depth in renders], axis=0)
    seen = []
    shown = np.zeros((height, width, 3))
    covered = np.zeros((height, width))
    for item, (color, mask, depth) in zip(objects, renders, strict=True):
        coverage = mask * (depth <= nearest)
        shown += color * coverage[..., None]
        covered += coverage
        shown_share = float(coverage.sum() / max(mask.sum(), 1.0))
        seen.append(Seen(coverage, _box(coverage), _keypoints(item, max(size), nearest), shown_share))
    scene = background(size, rng)
    if perch and rng.random() < 0.5:
        _add_branch(scene, seen[0].box, rng)
    tint = rng.uniform(0.95, 1.05, 3) * rng.uniform(1.0, 1.3)
    picture = np.clip(shown * tint, 0.0, 1.0) + scene * (1.0 - covered)[..., None]
    picture += rng.normal(0.0, rng.uniform(0.004, 0.015), picture.shape)
    return (255.0 * np.clip(picture, 0.0, 1.0) + 0.5).astype(np.uint8), seen


def truth(item: Posed, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Surface samples, their normals, voxels and key points of an object, in the object frame."""
    points, normals, _ = sample_surface(item.verts, item.faces, TRUTH_POINTS, generator)
    return {
        "points": points.numpy().astype(np.float32),
        "normals": normals.numpy().astype(np.float32),
        "voxels": voxelize(item.verts, item.faces, VOXEL_RESOLUTION).numpy(),
        "keypoints": item.keypoints.numpy().astype(np.float32),
    }


def write_truth(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what `truth` gives as the .npz that `recon3d.data.photograph_annotations.read_truth` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A picture (H, W, 3) in [0, 1] of nothing in particular: a gradient under smooth noise, out-of-focus blobs."""
    width, height = size
    above = np.array(_pick(_SKIES if rng.random() < 0.5 else _GROUNDS, rng))
    below = np.array(_pick(_GROUNDS, rng))
    horizon, blur = rng.uniform(0.2, 0.9), rng.uniform(0.05, 0.6)
    share = np.clip((np.arange(height) / height - horizon) / blur + 0.5, 0.0, 1.0)[:, None, None]
    scene = np.broadcast_to(above * (1.0 - share) + below * share, (height, width, 3)).copy()
    for _ in range(int(rng.integers(0, 5))):
        color = np.array(_pick(_GROUNDS + _SKIES, rng))
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.06, 0.25) * width
        rows, columns = np.mgrid[:height, :width]
        distance = np.hypot(rows - y, columns - x)
        scene += (color - scene) * (0.7 / (1.0 + np.exp(distance - radius)))[..., None]
    contrast = rng.uniform(0.05, 0.2)
    for cells, weight in ((4, 1.0), (9, 0.6), (22, 0.5)):
        noise = rng.normal(0.0, 1.0, (cells, cells, 3)) * 0.35 + rng.normal(0.0, 1.0, (cells, cells, 1))
        zoom = (height / cells, width / cells, 1)
        scene += contrast * weight * 0.5 * ndimage.zoom(noise, zoom, order=3, grid_mode=True, mode="nearest")
    return np.asarray(np.clip(scene, 0.02, 1.0))


def _add_branch(scene: np.ndarray, box: tuple[float, float, float, float], rng: np.random.Generator) -> None:
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]]
    thick, slope = rng.uniform(0.02, 0.06) * scene.shape[1], rng.uniform(-0.15, 0.15)
    middle = box[3] + 0.6 * thick + slope * (columns - 0.5 * (box[0] + box[2]))
    across = (rows - middle) / thick
    bark = np.array(_pick(_BARKS, rng)) * (1.0 - 0.45 * across + rng.normal(0.0, 0.08, across.shape))[..., None]
    inside = 1.0 / (1.0 + np.exp(6.0 * (np.abs(across) - 1.0) * thick))
    scene += (np.clip(bark, 0.0, 1.0) - scene) * inside[..., None]


def _render(item: Posed, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (H, W, 3), coverage (H, W) and depth (H, W) of one object; only the square around it is rendered."""
    width, height = size
    side = max(size)
    pixels = 0.5 * (side * (1.0 - project(item.camera, item.verts[None])[0, :, :2]) - 1.0)
    left, top = (int(value) - 1 for value in pixels.amin(0).floor())
    part = int((pixels.amax(0) - pixels.amin(0)).amax()) + 4
    ratio, corner = side / part, item.camera.center.new_tensor([left, top])
    camera = replace(
        item.camera,
        focal=item.camera.focal * ratio,
        center=(item.camera.center - 1.0) * ratio + 1.0 + 2.0 * corner / part,
    )
    render = render_hard(item.verts[None], item.faces, camera, part, item.colors, _ANTI_ALIAS)
    color, mask, depth = np.zeros((height, width, 3)), np.zeros((height, width)), np.full((height, width), np.inf)
    rows, columns = (slice(*np.clip((start, start + part), 0, end)) for start, end in ((top, height), (left, width)))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    color[rows, columns] = render.image[0].permute(1, 2, 0).numpy()[inner]
    mask[rows, columns] = render.mask[0, 0].numpy()[inner]
    depth[rows, columns] = render.depth[0, 0].numpy()[inner]
    return color, mask, depth


def _keypoints(item: Posed, side: int, depth: np.ndarray) -> np.ndarray:
    place = project(item.camera, item.keypoints[None])[0].double().numpy()
    x, y = (0.5 * (side * (1.0 - place[:, k]) - 1.0) for k in (0, 1))
    height, width = depth.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    before = depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    visible = inside & (place[:, 2] <= before + _TOLERANCE)
    return np.stack([x, y, visible.astype(float)], 1)


def _box(coverage: np.ndarray) -> tuple[float, float, float, float]:
    """Box of the pixels that are at least half covered; zeros if there are none."""
    rows, columns = np.nonzero(coverage >= 0.5)
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())


def _pick(options: tuple[tuple[float, float, float], ...], rng: np.random.Generator) -> tuple[float, float, float]:
    return options[int(rng.integers(len(options)))]
