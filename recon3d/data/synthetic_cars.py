"""Procedural cars in perspective: what `synthetic_photographs` writes in the layouts of Pascal3D+ and of CMR.

Between `recon3d.geometry.shapes.car_keypoints`, `photograph_scenes` and `pascal3d_writing`. A picture is a pure
function of its number, so that pictures can be made in any order and in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from recon3d.data.photograph_scenes import Posed, Seen, photograph, truth
from recon3d.geometry.cameras import project
from recon3d.geometry.shapes.car_keypoints import KEYPOINT_MIRROR, Car, make_car
from recon3d.geometry.viewpoints import CadFrame, Viewpoint, viewpoint_camera
from recon3d.geometry.weak_perspective import OBJECT_SCALE
from recon3d.structures import Camera

CADS = 10  # as the release has of cars
_CADS_FIRST = 2 * 10**12  # seeds of the CAD models and of the cars whose mean key points are S: of no data set's cars
_MEAN_OF = 60
_VIEWPORT = 6.0  # of a picture's longer side: 3000 for pictures of 500 pixels, of which these are the reduction
_TWO = 0.15  # share of pictures with two cars
_CUT = 0.08  # share of single cars that leave the picture
_OCCLUDED = 0.97  # share of its pixels that an object must show
_FRAME = CadFrame(torch.zeros(3, dtype=torch.float64), torch.ones((), dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class CarObject:
    """One car on a picture; pixels from 0, `cad` from 0.

    Attributes:
        coverage: (H, W) in [0, 1], of what no other car hides.
        box: x1, y1, x2, y2, inclusive; of the visible pixels.
        keypoints: (12, 3): x, y, visible.
        viewpoint: scalar, float64.
        cad: number of the model that is most like it.
        truncated: leaves the picture.
        occluded: is partly behind another car.
        rotation: (3, 3) of the nearest scaled orthographic camera, from CMR's frame to image axes (right, down, away).
        scale: of it, pixels to one unit of CMR's frame.
        shift: (2,) of it, pixel at which the origin is seen.
        error: root mean square distance of its key points from the true ones, by the longer side of the box.
        truth: points, normals, voxels, keypoints in the object frame that goes with CMR's.
    """

    coverage: np.ndarray
    box: tuple[float, float, float, float]
    keypoints: np.ndarray
    viewpoint: Viewpoint
    cad: int
    truncated: bool
    occluded: bool
    rotation: np.ndarray
    scale: float
    shift: np.ndarray
    error: float
    truth: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class CarPicture:
    """One photograph (H, W, 3) uint8 of one or two cars."""

    seed: int
    picture: np.ndarray
    objects: tuple[CarObject, ...]


@lru_cache(maxsize=1)
def cad_models() -> tuple[Car, ...]:
    """The cars that serve as CAD models."""
    return tuple(make_car(seed) for seed in range(_CADS_FIRST, _CADS_FIRST + CADS))


def cad_axes(points: np.ndarray) -> np.ndarray:
    """Points (..., 3) of a ShapeNet .obj file's frame (X right, Y up, front -Z) in axes of CAD models: (-X, Z, Y)."""
    return np.stack([-points[..., 0], points[..., 2], points[..., 1]], axis=-1).astype(np.float64)


@lru_cache(maxsize=1)
def _mean() -> np.ndarray:
    cars = [make_car(seed).keypoints for seed in range(_CADS_FIRST, _CADS_FIRST + _MEAN_OF)]
    mean = cad_axes(np.mean(cars, axis=0))
    return np.asarray(0.5 * (mean + np.array([-1.0, 1.0, 1.0]) * mean[list(KEYPOINT_MIRROR)]))


def cmr_size() -> float:
    """Units of CMR's frame to the longest side of a car: one number for all cars."""
    return 2.0 / float(np.linalg.norm(_mean()[:, None] - _mean()[None], axis=-1).max())


def mean_keypoints() -> np.ndarray:
    """Mean key points S (12, 3) in CMR's frame, exactly symmetric; the largest distance of two of them is 2."""
    return cmr_size() * _mean()


def car_picture(seed: int) -> CarPicture:
    """Makes picture number `seed`, the same every time."""
    rng = np.random.default_rng([seed, 5])
    width, height = int(rng.integers(92, 133)), int(rng.integers(70, 101))
    count = 2 if rng.random() < _TWO else 1
    # Cars of a picture have numbers of their own, apart from those of other pictures.
    cars = [make_car(2 * seed + k) for k in range(count)]
    cut = count == 1 and rng.random() < _CUT
    views = [_viewpoint(car, k, count, (width, height), cut, rng) for k, car in enumerate(cars)]
    items = [_posed(car, view, max(width, height)) for car, view in zip(cars, views, strict=True)]
    picture, seen = photograph(items, (width, height), rng)
    objects = tuple(
        _object(car, view, item, one, cut, seed) for car, view, item, one in zip(cars, views, items, seen, strict=True)
    )
    return CarPicture(seed, picture, objects)


def _viewpoint(
    car: Car, slot: int, slots: int, size: tuple[int, int], cut: bool, rng: np.random.Generator
) -> Viewpoint:
    """A viewpoint from which the car fills much of its share of the picture's width."""
    angles = {
        "azimuth": rng.uniform(0.0, 360.0),
        "elevation": float(np.clip(rng.normal(9.0, 7.0), -2.0, 40.0)),
        "theta": rng.normal(0.0, 4.0),
    }
    room = np.array([size[0] / slots, size[1]])
    view = _as_viewpoint(angles | {"distance": 5.0, "px": 0.0, "py": 0.0}, max(size))
    share = rng.uniform(0.55, 0.92)
    for _ in range(3):  # how large a car looks is nearly in proportion to 1 / distance
        low, high = _extent(car, view)
        distance = float(view.distance) * float(((high - low) / room).max()) / share
        view = replace(view, distance=torch.tensor(max(distance, 1.5), dtype=torch.float64))
    low, high = _extent(car, view)
    corner = np.array([slot * room[0], 0.0]) + (room - (high - low)) * rng.uniform(0.1, 0.9, 2)
    if cut:
        beyond = (high - low)[0] * rng.uniform(0.1, 0.3)
        corner[0] = -beyond if rng.random() < 0.5 else size[0] - (high - low)[0] + beyond
    px, py = (torch.tensor(value, dtype=torch.float64) for value in corner - 0.5 - low)
    return replace(view, px=px, py=py)


def _as_viewpoint(values: dict[str, float], side: int) -> Viewpoint:
    values = values | {"focal": 1.0, "viewport": _VIEWPORT * side}
    return Viewpoint(**{name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})


def _extent(car: Car, view: Viewpoint) -> tuple[np.ndarray, np.ndarray]:
    pixels = _pixels(view, cad_axes(car.shape.verts))
    return pixels.min(0), pixels.max(0)


def _pixels(view: Viewpoint, points: np.ndarray) -> np.ndarray:
    """Full-image pixels (P, 2) of points in the frame of CAD models."""
    return np.asarray(-project(viewpoint_camera(view), torch.from_numpy(points))[:, :2].numpy())


def _posed(car: Car, view: Viewpoint, side: int) -> Posed:
    """The car in the object frame whose unit is its longest side, before the camera of the picture's square."""
    pixels = _FRAME.object_camera(viewpoint_camera(view))
    camera: Camera = replace(pixels, focal=pixels.focal * 2 / side, center=(2 * pixels.center - 1) / side + 1)
    return Posed(
        verts=_FRAME.to_object(torch.from_numpy(cad_axes(car.shape.verts))).float(),
        faces=torch.from_numpy(car.shape.faces).long(),
        colors=torch.from_numpy(car.shape.face_colors),
        keypoints=_FRAME.to_object(torch.from_numpy(cad_axes(car.keypoints))).float(),
        camera=camera[None].to(dtype=torch.float32),
    )


def _object(car: Car, view: Viewpoint, item: Posed, seen: Seen, cut: bool, seed: int) -> CarObject:
    places = _pixels(view, cad_axes(car.keypoints))
    seen.keypoints[:, :2] = places
    rotation, scale, shift = fit_weak_perspective(cmr_size() * cad_axes(car.keypoints), places, view)
    off = scale * cmr_size() * cad_axes(car.keypoints) @ rotation[:2].T + shift - places
    x1, y1, x2, y2 = seen.box
    size = OBJECT_SCALE * cmr_size()  # from the unit of the longest side to that of CMR's object frame
    scaled = replace(item, verts=item.verts * size, keypoints=item.keypoints * size)
    differences = [np.abs(car.keypoints - model.keypoints).sum() for model in cad_models()]
    return CarObject(
        coverage=seen.coverage,
        box=seen.box,
        keypoints=seen.keypoints,
        viewpoint=view,
        cad=int(np.argmin(differences)),
        truncated=cut,
        occluded=seen.shown < _OCCLUDED,
        rotation=rotation,
        scale=scale,
        shift=shift,
        error=float(np.sqrt((off**2).sum(1).mean()) / max(x2 - x1 + 1, y2 - y1 + 1)),
        truth=truth(scaled, torch.Generator().manual_seed(seed)),
    )


def fit_weak_perspective(
    points: np.ndarray, pixels: np.ndarray, view: Viewpoint
) -> tuple[np.ndarray, float, np.ndarray]:
    """The scaled orthographic camera that is nearest to a perspective one on some points, by least squares.

    Args:
        points: (K, 3) in CMR's frame.
        pixels: (K, 2) where they are seen.
        view: from which they are seen; where the search starts.

    Returns:
        Rotation (3, 3) to image axes (right, down, away), scale, shift (2,): pixels are near
        ``scale * rotation[:2] @ point + shift``.
    """
    start = viewpoint_camera(view).R.numpy().T * np.array([[-1.0], [-1.0], [1.0]])
    scale = float(view.viewport / view.distance) / cmr_size()

    def residual(x: np.ndarray) -> np.ndarray:
        rotation = Rotation.from_rotvec(x[:3]).as_matrix() @ start
        return np.asarray((scale * np.exp(x[3]) * points @ rotation[:2].T + scale * x[4:] - pixels).ravel())

    first = np.concatenate([np.zeros(4), pixels.mean(0) / scale])
    found = least_squares(residual, first, xtol=1e-12, ftol=1e-12, gtol=1e-12).x
    return Rotation.from_rotvec(found[:3]).as_matrix() @ start, scale * float(np.exp(found[3])), scale * found[4:]
