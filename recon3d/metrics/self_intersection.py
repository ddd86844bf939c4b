"""Counts the pairs of faces of a mesh that pass through each other.

Broad phase: sort and sweep along x. Narrow phase: the interval test of Möller 1997 ("A fast triangle-triangle
intersection test"), in float64, with a tolerance so that float32 vertices of touching faces do not count.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

# In object units: float32 coordinates of 0.5 are 6e-8 apart. Closer than this to a plane is on it; an overlap that is
# shorter than this is a touch.
TOLERANCE = 1e-7
DEGENERATE_HEIGHT = 1e-6  # object units; a face whose smallest height is below has no reliable plane


def face_heights(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest height of triangles (F,3,3): twice the area over the longest edge, 0 for a single point; (F,)."""
    edges = corners[:, [1, 2, 0]] - corners
    longest = np.linalg.norm(edges, axis=2).max(axis=1)
    double_area = np.linalg.norm(np.cross(edges[:, 0], -edges[:, 2]), axis=1)
    return np.divide(double_area, longest, out=np.zeros_like(longest), where=longest > 0)


def count_self_intersections(verts: ArrayLike, faces: ArrayLike) -> int:
    """Count the unordered pairs of faces that share no vertex and intersect.

    Two faces intersect when they cross along a segment, or lie in one plane and overlap with positive area. Touching in
    a point or along an edge is no intersection, nor is resting on a plane from one side. Degenerate faces (height below
    1e-6) are left out, `mesh_health.count_degenerate_faces` counts them.

    Args:
        verts: (V, 3), finite, in the object frame (tolerances are in object units).
        faces: (F, 3) indices into `verts`.

    Returns:
        The count; F (F-1) / 2 at most. Time grows with the pairs that overlap along x.
    """
    index = np.ascontiguousarray(faces, dtype=np.int64).reshape(-1, 3)
    corners = np.asarray(verts, dtype=np.float64)[index]
    sound = face_heights(corners) >= DEGENERATE_HEIGHT
    index, corners = index[sound], corners[sound]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    low, high = corners.min(axis=1), corners.max(axis=1)
    order = np.argsort(low[:, 0], kind="stable")
    return int(_count(corners[order], normals[order], index[order], low[order], high[order], TOLERANCE))


# Below, corners are rows of (3,3) arrays and everything else is scalars: temporary arrays would cost most of the time.
@njit(cache=True)
def _count(corners, normals, index, low, high, tolerance):
    count = 0
    n = len(index)
    for i in range(n):
        for j in range(i + 1, n):
            if low[j, 0] > high[i, 0]:
                break
            if low[j, 1] > high[i, 1] or low[i, 1] > high[j, 1] or low[j, 2] > high[i, 2] or low[i, 2] > high[j, 2]:
                continue
            shared = False
            for a in range(3):
                for b in range(3):
                    shared = shared or index[i, a] == index[j, b]
            if not shared and _intersect(corners[i], corners[j], normals[i], normals[j], tolerance):
                count += 1
    return count


@njit(cache=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True)
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(cache=True)
def _height(point, origin, normal, tolerance):
    """Signed distance of a point to a plane, snapped to 0 within the tolerance."""
    distance = (
        (point[0] - origin[0]) * normal[0] + (point[1] - origin[1]) * normal[1] + (point[2] - origin[2]) * normal[2]
    )
    return distance if abs(distance) > tolerance else 0.0


@njit(cache=True)
def _one_sided(a, b, c):
    """Whether three points lie on one side of the plane or touch it, and not all of them in it."""
    low, high = min(a, b, c), max(a, b, c)
    return (low >= 0.0 and high > 0.0) or (high <= 0.0 and low < 0.0)


@njit(cache=True)
def _intersect(p, q, normal_p, normal_q, tolerance):
    p0 = _height(p[0], q[0], normal_q, tolerance)
    p1 = _height(p[1], q[0], normal_q, tolerance)
    p2 = _height(p[2], q[0], normal_q, tolerance)
    if _one_sided(p0, p1, p2):
        return False
    q0 = _height(q[0], p[0], normal_p, tolerance)
    q1 = _height(q[1], p[0], normal_p, tolerance)
    q2 = _height(q[2], p[0], normal_p, tolerance)
    if _one_sided(q0, q1, q2):
        return False
    if p0 == p1 == p2 or q0 == q1 == q2:  # all 0, else they would be on one side
        return _overlap_in_plane(p, q, normal_p, tolerance)
    line = _cross(normal_p, normal_q)
    p_low, p_high = _interval(p, p0, p1, p2, line)
    q_low, q_high = _interval(q, q0, q1, q2, line)
    return min(p_high, q_high) - max(p_low, q_low) > tolerance * np.sqrt(_dot(line, line))


@njit(cache=True)
def _interval(triangle, d0, d1, d2, line):
    """Where a triangle crosses the other's plane, as lowest and highest position along the common line."""
    t0, t1, t2 = _dot(triangle[0], line), _dot(triangle[1], line), _dot(triangle[2], line)
    low, high = np.inf, -np.inf
    for a, b, at_a, at_b in ((d0, d1, t0, t1), (d1, d2, t1, t2), (d2, d0, t2, t0)):
        if a == 0.0:
            low, high = min(low, at_a), max(high, at_a)
        elif a * b < 0.0:
            crossing = at_a + (at_b - at_a) * a / (a - b)
            low, high = min(low, crossing), max(high, crossing)
    return low, high


@njit(cache=True)
def _overlap_in_plane(p, q, normal, tolerance):
    """Whether two coplanar triangles overlap: none of the in-plane normals of the six edges separates them."""
    for triangle in (p, q):
        for a in range(3):
            axis = _cross(normal, triangle[(a + 1) % 3] - triangle[a])
            p0, p1, p2 = _dot(p[0], axis), _dot(p[1], axis), _dot(p[2], axis)
            q0, q1, q2 = _dot(q[0], axis), _dot(q[1], axis), _dot(q[2], axis)
            overlap = min(max(p0, p1, p2), max(q0, q1, q2)) - max(min(p0, p1, p2), min(q0, q1, q2))
            if overlap <= tolerance * np.sqrt(_dot(axis, axis)):
                return False
    return True
