"""DPC's camera, written out step by step from its code's formulas in NumPy: what `geometry.cameras` is judged by."""

from __future__ import annotations

import math

import numpy as np


def quaternion_product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    vector = p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])
    return np.array([p[0] * q[0] - p[1:] @ q[1:], *vector])


def dpc_screen(points: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Image x (right) and y (up) in image widths, and depth, of .obj points (P, 3): DPC's formulas, step by step."""
    c = position / np.linalg.norm(position)
    t = math.hypot(c[0], c[1])
    yaw = math.acos(c[0] / t)
    if c[1] / t > 0:
        yaw = 2 * math.pi - yaw
    yaw, pitch = yaw + math.pi, math.asin(c[2])
    turns = ((0.0, (1.0, 0, 0)), (pitch, (0, 0, 1.0)), (yaw, (0, 1.0, 0)))  # roll, pitch, yaw
    q = np.array([1.0, 0, 0, 0])
    for angle, axis in turns:
        q = quaternion_product(q, np.array([math.cos(angle / 2), *(math.sin(angle / 2) * np.array(axis))]))
    conjugate = q * [1, -1, -1, -1]
    # q v q* is linear in v: of the three axes it gives that of every point.
    axes = [quaternion_product(quaternion_product(q, np.array([0, *axis])), conjugate)[1:] for axis in np.eye(3)]
    turned = points @ np.array(axes)
    depth = turned[:, 0] + 2.0
    return np.column_stack([1.875 * turned[:, 2] / depth, 1.875 * turned[:, 1] / depth, depth])


def dpc_permuted(extrinsic: np.ndarray) -> np.ndarray:
    """Rows depth, up, right for .obj points: what DPC's code makes of a stored matrix, rows and columns by number."""
    e = extrinsic
    return np.array(
        [
            [-e[2, 0], e[2, 2], e[2, 1], e[2, 3]],
            [e[1, 0], -e[1, 2], -e[1, 1], e[1, 3]],
            [-e[0, 0], e[0, 2], e[0, 1], e[0, 3]],
        ]
    )
