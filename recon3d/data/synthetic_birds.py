"""Procedural birds in front of scaled orthographic cameras: what `synthetic_photographs` writes in the layout of CUB.

Between `recon3d.geometry.shapes.bird`, `photograph_scenes` and `cub_writing`. A picture is a pure function of its
number, so that pictures can be made in any order and in parallel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from pytorch3d.transforms import matrix_to_quaternion

from recon3d.data.photograph_scenes import Posed, photograph, truth
from recon3d.geometry.shapes.bird import KEYPOINT_MIRROR, make_bird
from recon3d.geometry.weak_perspective import cmr_to_object, object_camera, weak_perspective_camera

SPECIES = 20
LEAST_KEYPOINTS = 6  # of CMR's training pictures of CUB
_MEAN_OF = 60  # birds whose mean key points are S; apart from every data set's
_MEAN_FIRST = 10**12
_GREY = 0.04  # share of pictures without colour, as a few of CUB are
_CUT = 0.12  # share of birds that leave the picture


@dataclass(frozen=True, eq=False)
class BirdPicture:
    """One photograph of a bird and all that its annotations say, in full-image pixels from 0.

    Attributes:
        seed: its number.
        species: of the bird, 0 to `SPECIES` - 1.
        picture: (H, W, 3) uint8, or (H, W) where it is grey.
        coverage: (H, W) of the bird, in [0, 1].
        box: x1, y1, x2, y2, inclusive; may reach over the border.
        keypoints: (15, 3): x, y, visible.
        rotation: (3, 3) from CMR's frame to image axes (right, down, away).
        scale: pixels of one unit of CMR's frame.
        shift: (2,) pixel at which the origin is seen.
        truth: points, normals, voxels, keypoints in the object frame.
    """

    seed: int
    species: int
    picture: np.ndarray
    coverage: np.ndarray
    box: tuple[float, float, float, float]
    keypoints: np.ndarray
    rotation: np.ndarray
    scale: float
    shift: np.ndarray
    truth: dict[str, np.ndarray]


@lru_cache(maxsize=1)
def _mean() -> np.ndarray:
    """Mean key points (15, 3) of birds whose longest side is 1, in axes of CMR's frame, exactly symmetric."""
    birds = [make_bird(seed % SPECIES, seed).keypoints for seed in range(_MEAN_FIRST, _MEAN_FIRST + _MEAN_OF)]
    mean = _shapenet_to_cmr(np.mean(birds, axis=0))
    return np.asarray(0.5 * (mean + np.array([-1.0, 1.0, 1.0]) * mean[list(KEYPOINT_MIRROR)]))


def mean_keypoints() -> np.ndarray:
    """Mean key points S (15, 3) in CMR's frame, exactly symmetric; the largest distance of two of them is 2."""
    return cmr_size() * _mean()


def cmr_size() -> float:
    """Units of CMR's frame to the longest side of a bird: one number for all birds, so that S is their mean."""
    return 2.0 / float(np.linalg.norm(_mean()[:, None] - _mean()[None], axis=-1).max())


def bird_picture(seed: int) -> BirdPicture:
    """Makes picture number `seed`, the same every time."""
    species = seed % SPECIES
    bird = make_bird(species, seed)
    size = cmr_size()
    points = size * _shapenet_to_cmr(bird.keypoints)
    verts = size * _shapenet_to_cmr(bird.shape.verts.astype(np.float64))
    rng = np.random.default_rng([seed, 4])
    while True:
        rotation = _look(rng)
        frame, scale, shift = _framing(verts @ rotation[:2].T, rng)
        pose = _square_pose(rotation, scale, shift, max(frame))
        item = Posed(
            verts=cmr_to_object(torch.from_numpy(verts)).float(),
            faces=torch.from_numpy(bird.shape.faces).long(),
            colors=torch.from_numpy(bird.shape.face_colors),
            keypoints=cmr_to_object(torch.from_numpy(points)).float(),
            camera=object_camera(weak_perspective_camera(pose[None])),
        )
        picture, (seen,) = photograph([item], frame, rng, perch=True)
        # The places come from the camera that the annotations have, in float64.
        seen.keypoints[:, :2] = scale * points @ rotation[:2].T + shift
        if seen.keypoints[:, 2].sum() >= LEAST_KEYPOINTS:
            break
    if rng.random() < _GREY:
        picture = np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return BirdPicture(
        seed=seed,
        species=species,
        picture=picture,
        coverage=seen.coverage,
        box=_annotated_box(scale * verts @ rotation[:2].T + shift, frame, rng),
        keypoints=seen.keypoints,
        rotation=rotation,
        scale=scale,
        shift=shift,
        truth=truth(item, torch.Generator().manual_seed(seed)),
    )


def _shapenet_to_cmr(points: np.ndarray) -> np.ndarray:
    """Points (..., 3) of a ShapeNet .obj file's frame (X right, Y up, front -Z) in axes of CMR's: (-X, Z, Y)."""
    return np.stack([-points[..., 0], points[..., 2], points[..., 1]], axis=-1)


def _look(rng: np.random.Generator) -> np.ndarray:
    """A camera's rotation (3, 3): most see the side, some three quarters, few the front or the back."""
    side = 90.0 if rng.random() < 0.5 else -90.0
    kind = rng.random()
    if kind < 0.6:
        azimuth = side + rng.normal(0.0, 18.0)
    elif kind < 0.85:
        azimuth = math.copysign(rng.uniform(30.0, 60.0), side)
    elif kind < 0.93:
        azimuth = rng.normal(0.0, 15.0)
    else:
        azimuth = rng.uniform(-180.0, 180.0)
    elevation = np.clip(rng.normal(8.0, 12.0), -20.0, 45.0)
    a, e, roll = (math.radians(angle) for angle in (azimuth, elevation, rng.normal(0.0, 8.0)))
    towards = np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
    up = np.array([0.0, 0.0, 1.0]) - towards[2] * towards
    down = -up / np.linalg.norm(up)
    right = np.cross(down, -towards)
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return np.concatenate([turn @ np.stack([right, down]), [-towards]])


def _framing(flat: np.ndarray, rng: np.random.Generator) -> tuple[tuple[int, int], float, np.ndarray]:
    """Size of the picture, pixels to a unit and where the origin is seen, for vertices (V, 2) along the image axes."""
    width, height = int(rng.integers(88, 129)), int(rng.integers(66, 101))
    if rng.random() < 0.15:
        width, height = height, width
    low, high = flat.min(0), flat.max(0)
    scale = rng.uniform(0.5, 0.92) * float((np.array([width, height]) / (high - low)).min())
    extent = scale * (high - low)
    space = np.array([width, height]) - extent
    corner = space * rng.uniform(0.1, 0.9, 2)
    if rng.random() < _CUT:
        axis = int(rng.integers(2))
        beyond = extent[axis] * rng.uniform(0.03, 0.15)
        corner[axis] = -beyond if rng.random() < 0.5 else space[axis] + beyond
    return (width, height), scale, corner - 0.5 - scale * low


def _annotated_box(
    flat: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The box x1, y1, x2, y2 that an annotator draws: whole pixels, up to one off, and at most 2 beyond the border."""
    low, high = (flat.min(0) + rng.integers(-1, 2, 2), flat.max(0) + rng.integers(-1, 2, 2))
    x1, y1 = (float(max(round(value), -2)) for value in low)
    x2, y2 = (float(min(round(value), limit + 1)) for value, limit in zip(high, size, strict=True))
    return x1, y1, x2, y2


def _square_pose(rotation: np.ndarray, scale: float, shift: np.ndarray, side: int) -> torch.Tensor:
    """CMR's 7-vector of the camera that sees the square of `side` pixels from the upper left corner, in float32."""
    quaternion = matrix_to_quaternion(torch.from_numpy(rotation))
    place = torch.tensor([2 * scale / side, *((2 * shift + 1) / side - 1)], dtype=torch.float64)
    return torch.cat([place, quaternion]).float()
