"""Closed solids from which the procedural objects are assembled: lofts, lathes, tubes, slabs.

First step in the flow of the embedded data set: `solids` -> `airplane` / `car` / `chair` -> `assembly` -> `make_shape`.
Every function returns one closed, consistently wound component; `assembly` turns it outward. Axes: x right, y up, z to
the back.
All arithmetic is elementwise float64 (no BLAS, no long sums), so results agree to the last few bits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Solid:
    """One closed triangle mesh with the place of every face on the loft that made it.

    `verts` (V,3), `faces` (F,3). `span` (F,) is the gap between two rings that the face lies in (-1 and S-1 are the two
    caps), `column` (F,) the gap between two points of a ring: the two together let a caller paint windows on a body.
    """

    verts: Floats
    faces: Ints
    span: Ints
    column: Ints

    def mapped(self, function: Callable[[Floats], Floats]) -> Solid:
        """Return the solid with `function`, (V,3) -> (V,3), applied to its vertices."""
        return replace(self, verts=function(self.verts))

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        """Return the solid shifted by (x, y, z)."""
        return replace(self, verts=self.verts + np.array([x, y, z]))

    def mirrored(self) -> Solid:
        """Return the mirror image in the plane x = 0, with the winding kept."""
        return replace(self, verts=self.verts * np.array([-1.0, 1.0, 1.0]), faces=self.faces[:, ::-1])


@lru_cache(maxsize=512)
def _loft_topology(stations: int, sides: int, strip_caps: bool) -> tuple[Ints, Ints, Ints]:
    """Return faces, spans and columns of a loft; vertices are the rings in order, then two cap centres (fan caps)."""
    station, side = np.divmod(np.arange((stations - 1) * sides), sides)
    following = (side + 1) % sides
    a, b = station * sides + side, station * sides + following
    wall = np.stack([a, b, b + sides, a, b + sides, a + sides], 1).reshape(-1, 3)
    last = (stations - 1) * sides
    if strip_caps:  # ring point i faces ring point sides-1-i: the cap follows a bent section where a fan would leave it
        i = np.arange(sides // 2 - 1)
        near, far = i, sides - 1 - i
        cap = np.stack([near, far, far - 1, near, far - 1, near + 1], 1).reshape(-1, 3)
        cap_column = np.repeat(i, 2)
    else:
        i = np.arange(sides)
        cap = np.stack([np.full(sides, stations * sides), (i + 1) % sides, i], 1)
        cap_column = i
    other = cap[:, ::-1] + (last if strip_caps else 0)
    if not strip_caps:
        other = np.stack([i + last, (i + 1) % sides + last, np.full(sides, stations * sides + 1)], 1)
    faces = np.concatenate([wall, cap, other]).astype(np.int32)
    span = np.concatenate([np.repeat(station, 2), np.full(len(cap), -1), np.full(len(cap), stations - 1)])
    column = np.concatenate([np.repeat(side, 2), cap_column, cap_column])
    return faces, span.astype(np.int32), column.astype(np.int32)


def loft(rings: Floats, start: ArrayLike | None = None, end: ArrayLike | None = None) -> Solid:
    """Return the solid that runs through closed rings.

    Args:
        rings: (S,N,3) with S >= 2 rings of N >= 3 points, point i of one ring joined to point i of the next.
        start: apex (3,) of the first cap; None puts it at the middle of the first ring's bounding box.
        end: the same for the last ring.
    """
    stations, sides = rings.shape[:2]
    faces, span, column = _loft_topology(stations, sides, False)
    first = 0.5 * (rings[0].min(0) + rings[0].max(0)) if start is None else np.asarray(start, float)
    last = 0.5 * (rings[-1].min(0) + rings[-1].max(0)) if end is None else np.asarray(end, float)
    return Solid(np.concatenate([rings.reshape(-1, 3), [first, last]]), faces, span, column)


def sheet_loft(near: Floats, far: Floats) -> Solid:
    """Return the closed solid between two grids of points (R,C,3) that face each other at a distance."""
    rings = np.concatenate([near, far[:, ::-1]], 1)
    faces, span, column = _loft_topology(rings.shape[0], rings.shape[1], True)
    return Solid(rings.reshape(-1, 3), faces, span, column)


@lru_cache(maxsize=64)
def unit_ring(sides: int, squareness: float = 0.0) -> Floats:
    """Return (N,2) points of a ring of half width 1 between a circle (squareness 0) and a rounded square (1).

    The square end is the superellipse x^8 + y^8 = 1, whose eighth root is three square roots.
    """
    angle = np.arange(sides, dtype=np.float64) * (2.0 * np.pi / sides)
    return _superellipse(angle, squareness)


def _superellipse(angle: Floats, squareness: float) -> Floats:
    cosine, sine = np.cos(angle), np.sin(angle)
    power = (cosine * cosine) * (cosine * cosine), (sine * sine) * (sine * sine)
    eighth = np.sqrt(np.sqrt(np.sqrt(power[0] * power[0] + power[1] * power[1])))
    radius = (1.0 - squareness) + squareness / eighth
    return np.stack([cosine * radius, sine * radius], 1)


def section_loft(
    z: Floats,
    centre: Floats,
    half_size: Floats,
    angles: Floats,
    squareness: float,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Solid:
    """Return a body along z with elliptic to rounded-square sections: fuselages, intakes, canopies.

    Args:
        z: (S,) station positions, increasing.
        centre: (S,2) x, y of the section centres.
        half_size: (S,2) half width and half height.
        angles: (N,) increasing angles in radians of the ring points, from +x towards +y.
        squareness: 0 elliptic to 1 rounded square.
        start: apex (3,) before the first section, None for a flat cap.
        end: the same behind the last section.
    """
    xy = centre[:, None] + half_size[:, None] * _superellipse(angles, squareness)
    return loft(np.concatenate([xy, np.broadcast_to(z[:, None, None], (*xy.shape[:2], 1))], 2), start, end)


def lathe(profile: Sequence[tuple[float, float]], sides: int, axis: str = "z") -> Solid:
    """Return the solid of revolution of a profile.

    Args:
        profile: (radius, position along the axis) pairs; first and last lie on the axis (radius 0), the others off it.
        sides: points around.
        axis: "x", "y" or "z", through the origin.
    """
    if profile[0][0] != 0.0 or profile[-1][0] != 0.0:
        raise ValueError(
            f"a lathe profile must start and end on the axis (radius 0), got {profile[0]} and {profile[-1]}"
        )
    order = {"x": [2, 0, 1], "y": [1, 2, 0], "z": [0, 1, 2]}[axis]
    points = np.array(profile)
    ring = unit_ring(sides)
    rings = np.empty((len(points) - 2, sides, 3))
    rings[..., :2] = points[1:-1, 0, None, None] * ring
    rings[..., 2] = points[1:-1, 1, None]
    start, end = np.array([0.0, 0.0, points[0, 1]]), np.array([0.0, 0.0, points[-1, 1]])
    return loft(rings[..., order], start[order], end[order])


def ellipsoid(centre: ArrayLike, radii: ArrayLike, sides: int = 14, stations: int = 8) -> Solid:
    """Return an ellipsoid with semi-axes `radii` (3,), its poles on the z axis."""
    angle = np.arange(stations + 1) * (np.pi / stations)
    radius, along = np.sin(angle), -np.cos(angle)
    profile = [(0.0, -1.0), *zip(radius[1:-1].tolist(), along[1:-1].tolist(), strict=True), (0.0, 1.0)]
    return lathe(profile, sides).mapped(lambda verts: verts * np.asarray(radii, float) + np.asarray(centre, float))


def cross(a: Floats, b: Floats) -> Floats:
    """Return the cross products of vectors (...,3), without the overhead of `numpy.cross`."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _unit(vectors: Floats) -> Floats:
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return vectors / np.sqrt(x * x + y * y + z * z)[..., None]


def _tube_rings(path: Floats, tangent: Floats, radii: Floats, ring: Floats, reference: Floats) -> Floats:
    side = _unit(cross(tangent, reference))
    other = cross(side, tangent)
    return (
        path[:, None]
        + side[:, None] * (ring[None, :, 0, None] * radii[:, None, :1])
        + other[:, None] * (ring[None, :, 1, None] * radii[:, None, 1:])
    )


def tube(
    path: ArrayLike,
    radius: ArrayLike,
    sides: int = 10,
    squareness: float = 0.0,
    reference: ArrayLike | None = None,
) -> Solid:
    """Return a tube or bar along a polyline.

    Args:
        path: (P,3) corner points, P >= 2.
        radius: half thickness: a number, (P,), or (P,2) for (across `reference`, along `reference`).
        sides: points around.
        squareness: 0 round to 1 square.
        reference: (3,) direction never parallel to the path, for a planar path best the plane's normal;
            None takes z, or x where the path runs mostly along z.
    """
    points: Floats = np.asarray(path, np.float64)
    ends = np.concatenate([points[1:2] - points[:1], points[2:] - points[:-2], points[-1:] - points[-2:-1]])
    tangent = _unit(ends)
    if reference is None:
        reference = (1.0, 0.0, 0.0) if abs(float(_unit(points[-1] - points[0])[2])) > 0.9 else (0.0, 0.0, 1.0)
    radii = np.asarray(radius, float)
    radii = np.broadcast_to(radii[..., None] if radii.ndim < 2 else radii, (len(points), 2))
    return loft(_tube_rings(points, tangent, radii, unit_ring(sides, squareness), np.asarray(reference, float)))


def torus(radius: float, thickness: float, sides: int = 24, around: int = 8) -> Solid:
    """Return a torus about the y axis with the given centre-line radius and half thickness."""
    turn, ring = unit_ring(sides), unit_ring(around)
    verts = np.empty((sides, around, 3))
    verts[..., 0] = turn[:, None, 0] * (radius + thickness * ring[:, 0])
    verts[..., 1] = thickness * ring[:, 1]
    verts[..., 2] = turn[:, None, 1] * (radius + thickness * ring[:, 0])
    wall, span, column = (a[: 2 * sides * around] for a in _loft_topology(sides + 1, around, False))
    return Solid(verts.reshape(-1, 3), wall % np.int32(sides * around), span, column)


@lru_cache(maxsize=16)
def _corner_directions(per_corner: int) -> tuple[Floats, Floats]:
    quarter = np.arange(per_corner) * (0.5 * np.pi / (per_corner - 1))
    angle = (quarter[None] + (0.5 * np.pi) * np.arange(4)[:, None]).reshape(-1)
    quadrant = np.repeat(np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]), per_corner, 0)
    return np.stack([np.cos(angle), np.sin(angle)], 1), quadrant


def rounded_box(
    size: ArrayLike,
    corner: float = 0.3,
    bevel: ArrayLike = 0.15,
    per_corner: int = 3,
    steps: int = 2,
    top_scale: tuple[float, float] = (1.0, 1.0),
) -> Solid:
    """Return an upright box with rounded vertical edges and bevelled rims, centred at the origin.

    Args:
        size: (3,) width x, height y, depth z.
        corner: radius of the vertical edges as a share (0, 1] of half the smaller of width and depth; 1 makes almost a
            disc of a square plan (0.97 is used, so that neighbouring corners keep apart).
        bevel: rounding of the bottom and the top rim as a share (0, 0.95] of half the height, one number or two.
        per_corner: points on each vertical edge.
        steps: bands of each bevel.
        top_scale: width and depth of the top relative to the bottom.
    """
    width, height, depth = np.asarray(size, float).tolist()
    radius = min(corner, 0.97) * 0.5 * min(width, depth)
    direction, quadrant = _corner_directions(per_corner)
    bottom, top = np.broadcast_to(np.asarray(bevel, float), (2,)).tolist()
    turn = np.arange(steps + 1) * (0.5 * np.pi / steps)
    level = np.concatenate([bottom * (1.0 - np.cos(turn)) - 1.0, 1.0 - top * (1.0 - np.sin(turn))])
    sunk = [min(rim * 0.5 * height, 0.9 * radius) for rim in (bottom, top)]
    inset = np.concatenate([sunk[0] * (1.0 - np.sin(turn)), sunk[1] * (1.0 - np.cos(turn))])
    edge = np.array([0.5 * width - radius, 0.5 * depth - radius]) * quadrant
    plan = edge[None] + (radius - inset)[:, None, None] * direction[None]
    share = 0.5 + 0.5 * level
    rings = np.empty((len(level), len(direction), 3))
    rings[..., 0] = plan[..., 0] * (1.0 + (top_scale[0] - 1.0) * share)[:, None]
    rings[..., 1] = (0.5 * height * level)[:, None]
    rings[..., 2] = plan[..., 1] * (1.0 + (top_scale[1] - 1.0) * share)[:, None]
    return loft(rings)


def turned(points: Floats, axis: str, degrees: float) -> Floats:
    """Return points (...,3) turned about a coordinate axis, right-handed."""
    angle = degrees * (np.pi / 180.0)
    cosine, sine = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    result = points.copy()
    result[..., i] = cosine * points[..., i] - sine * points[..., j]
    result[..., j] = sine * points[..., i] + cosine * points[..., j]
    return result
