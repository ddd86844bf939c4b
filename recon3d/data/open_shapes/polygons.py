"""Triangles of planar polygons: what both file readers need, since catalogues hold n-gons and often concave ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CONVEX_TOLERANCE = 1e-6  # a corner may turn back by this share of the sharpest one: rounding in the files


class Triangles(NamedTuple):
    """Triangle mesh on the way through the build: verts (V,3) float64, faces (F,3) int64."""

    verts: NDArray[np.float64]
    faces: NDArray[np.int64]


def join(parts: Sequence[Triangles]) -> Triangles:
    """One mesh of several, in order; an empty mesh of none."""
    if not parts:
        return Triangles(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    starts = np.cumsum([0, *(len(part.verts) for part in parts[:-1])])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Triangles(np.concatenate([part.verts for part in parts]), np.concatenate(faces))


def triangulate(points: NDArray[np.float64], loop: Sequence[int]) -> list[tuple[int, int, int]]:
    """Triangles of one polygon: a fan if it is convex, ear clipping otherwise.

    Args:
        points: all vertices of the mesh, (V,3).
        loop: indices of the polygon's corners in order, at least 3.

    Returns:
        len(loop) - 2 index triples with the winding of `loop`. A polygon that crosses itself or has no area still
        gives that many, with overlaps.
    """
    fan = [(loop[0], loop[i], loop[i + 1]) for i in range(1, len(loop) - 1)]
    if len(loop) == 3:
        return fan
    corners = points[list(loop)]
    following = np.roll(corners, -1, 0)
    # Newell's method: right for concave polygons, where the cross product at one corner may point backwards
    lead, lag = following - corners, following + corners
    normal = -np.array([(lead[:, a] * lag[:, b]).sum() for a, b in ((1, 2), (2, 0), (0, 1))])
    length = np.linalg.norm(normal)
    if length < 1e-20:
        return fan
    normal /= length
    turn = np.cross(lead, np.roll(lead, -1, 0)) @ normal
    if (turn >= -_CONVEX_TOLERANCE * np.abs(turn).max()).all():
        return fan
    dominant = int(np.argmax(np.abs(normal)))
    plane = corners[:, [(1, 2), (2, 0), (0, 1)][dominant]]
    if normal[dominant] < 0:
        plane = plane[:, ::-1]  # counter-clockwise in the plane, whatever side it is seen from
    return [(loop[a], loop[b], loop[c]) for a, b, c in _clip_ears([(x, y) for x, y in plane.tolist()])]


def _clip_ears(plane: list[tuple[float, float]]) -> list[tuple[int, int, int]]:
    """Triangles of a counter-clockwise polygon, cut off one convex corner at a time."""

    def doubled_area(a: int, b: int, c: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = plane[a], plane[b], plane[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    def is_ear(a: int, b: int, c: int) -> bool:
        if doubled_area(a, b, c) <= 0:
            return False
        # a corner that coincides with one of the ear's own (a bridge to a hole) does not block it
        own = (plane[a], plane[b], plane[c])
        others = (other for other in rest if plane[other] not in own)
        return not any(
            min(doubled_area(a, b, other), doubled_area(b, c, other), doubled_area(c, a, other)) >= 0
            for other in others
        )

    rest, triangles = list(range(len(plane))), []
    while len(rest) > 3:
        for position in range(len(rest)):
            ear = rest[position - 1], rest[position], rest[(position + 1) % len(rest)]
            if is_ear(*ear):
                triangles.append(ear)
                rest.pop(position)
                break
        else:  # no ear left: the rest is collinear or crosses itself
            return triangles + [(rest[0], rest[i], rest[i + 1]) for i in range(1, len(rest) - 1)]
    return [*triangles, (rest[0], rest[1], rest[2])]
