"""The 12 key points of Pascal3D+'s cars on procedural cars: objects of the data set `synthetic_cars`.

Above `car`. Wheels, lamps and panes are found on the finished mesh, so the points lie on it whatever the car's form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from recon3d.geometry.shapes import CATEGORIES, Shape
from recon3d.geometry.shapes.car import build_car
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Bools, Floats

KEYPOINTS = (
    "left_back_trunk", "right_back_wheel", "right_front_light", "right_front_wheel", "right_back_trunk",
    "left_back_wheel", "left_front_light", "left_front_wheel", "upper_left_rearwindow", "upper_right_windshield",
    "upper_right_rearwindow", "upper_left_windshield",
)  # fmt: skip
"""Names and order of CMR's car_kps.mat."""
KEYPOINT_MIRROR = (4, 5, 6, 7, 0, 1, 2, 3, 10, 11, 8, 9)

# Every key point has to be there: no car without a roof, no van without a rear window.
_CLOSED = {"open_top": False, "rear_window": True}


@dataclass(frozen=True)
class Car:
    """A car as `make_shape` gives it, and its key points (12,3) in the order `KEYPOINTS`, in the frame of `shape`."""

    shape: Shape
    keypoints: Floats


def make_car(seed: int) -> Car:
    """Return car number `seed`, with a closed roof and a rear window; exactly symmetric about x = 0.

    Raises:
        ValueError: a negative seed.
    """
    shape = build_car(Draws(CATEGORIES.index("car"), seed, _CLOSED)).finish()
    right = _right_side(shape)
    flip = np.array([-1.0, 1.0, 1.0])
    points = {f"right_{name}" if name[0] != "_" else f"upper_right{name}": point for name, point in right.items()}
    points |= {name.replace("right", "left"): flip * point for name, point in points.items()}
    return Car(shape, np.stack([points[name] for name in KEYPOINTS]))


def _right_side(shape: Shape) -> dict[str, Floats]:
    """Return the places of the six key points of the right side."""
    p = {name: float(value) for name, value in shape.parameters.items() if isinstance(value, int | float)}
    wheels = _components(shape, ("tyre", "rim"))[:4]  # front right and left, rear right and left; a spare comes after
    front, rear = (0.5 * (wheel.min(0) + wheel.max(0)) for wheel in (wheels[0], wheels[2]))
    hubs = {
        "front_wheel": np.array([wheels[0][:, 0].max(), front[1], front[2]]),
        "back_wheel": np.array([wheels[2][:, 0].max(), rear[1], rear[2]]),
    }
    lamp = _components(shape, ("headlight",))[0]
    light = 0.5 * (lamp.min(0) + lamp.max(0))
    light[2] = lamp[:, 2].min()
    # The parameters are metres above the ground and behind the front axle; the wheels tell how long a metre is.
    metre = (rear[2] - front[2]) / (p["wheelbase"] * p["length"])
    ground = wheels[0][:, 1].min()
    high = p["height"] * (p["belt_height"] if shape.parameters["family"] == "pickup" else p["deck_height"])
    behind = front[2] + metre * p["length"] * (1.0 - p["front_overhang"])
    corner = np.array([0.42 * metre * p["width"], ground + metre * high, behind])
    body = np.concatenate(_components(shape, ("body",)))
    trunk = body[((body - corner) ** 2).sum(1).argmin()]
    return {
        **hubs,
        "front_light": light,
        "back_trunk": trunk,
        "_windshield": _pane_corner(shape, front=True),
        "_rearwindow": _pane_corner(shape, front=False),
    }


def _pane_corner(shape: Shape, *, front: bool) -> Floats:
    """Return the upper right corner of the windscreen or the rear window."""
    corners = shape.verts[shape.faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    ahead = normal[:, 2] < 0.0 if front else normal[:, 2] > 0.0
    pane = corners[_of(shape, ("window",)) & ahead & (np.abs(normal[:, 0]) < 0.6)].reshape(-1, 3)
    top = pane[pane[:, 1] > pane[:, 1].max() - 1e-4]
    return np.asarray(top[top[:, 0].argmax()])


def _components(shape: Shape, parts: tuple[str, ...]) -> list[Floats]:
    """Return the vertices (n,3) of each connected piece of some parts, in the order in which they were added."""
    faces = shape.faces[_of(shape, parts)]
    used, index = np.unique(faces, return_inverse=True)
    a, b, c = index.reshape(-1, 3).T
    edges = (np.ones(2 * len(a)), (np.concatenate([a, b]), np.concatenate([b, c])))
    _, label = connected_components(coo_matrix(edges, shape=(len(used), len(used))), directed=False)
    order = dict.fromkeys(label.tolist())
    return [shape.verts[used[label == one]].astype(np.float64) for one in order]


def _of(shape: Shape, parts: tuple[str, ...]) -> Bools:
    return np.isin(shape.parts, [shape.part_names.index(part) for part in parts if part in shape.part_names])
