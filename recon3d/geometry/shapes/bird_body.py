"""The trunk of the procedural birds: vent, belly, breast, neck and head as one loft along a spine.

First step of `bird`: `BirdBody` draws the proportions and says where the surface is, so that wings, eyes, feathers and
key points find it. Lengths in body lengths; x right, y up, z to the back; the bird is its own mirror image in x = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats, Solid, loft

Proportions = Mapping[str, tuple[float, float]]

SIDES = 52
_BETWEEN = 5  # rings from one control station to the next
TRUNK_END = 0.52  # the trunk runs along its axis from about -0.45 to here
# Trunk: place on the axis, half width, half height above the axis and below it (shares of the girth).
_TRUNK = np.array(
    [[0.52, 0.12, 0.1, 0.1], [0.47, 0.36, 0.3, 0.34], [0.36, 0.66, 0.54, 0.7], [0.2, 0.9, 0.82, 0.96],
     [0.02, 1.0, 0.97, 1.08], [-0.16, 1.0, 1.0, 1.06], [-0.32, 0.88, 0.9, 0.96]]
)  # fmt: skip
# Head: place ahead of its centre and radius, in head radii; the rest of the sphere closes the loft.
_HEAD = np.array([[-0.2, 1.0], [0.25, 0.98], [0.55, 0.84], [0.78, 0.63], [0.92, 0.39]])
HEAD_START = float(len(_TRUNK) + 1)  # stations before it are trunk (0 to 6) and neck (7)


@dataclass(frozen=True)
class BirdBody:
    """Proportions and posture of one bird.

    Attributes:
        pitch: radians that the trunk leans up from level.
        girth: largest half width of the trunk.
        head_radius: of the head.
        neck: how far the head's centre is from the shoulders.
        neck_angle: radians above level at which the neck rises.
        head_width: half width of the head by its half height.
    """

    pitch: float
    girth: float
    head_radius: float
    neck: float
    neck_angle: float
    head_width: float

    @classmethod
    def drawn(cls, draws: Draws, ranges: Proportions) -> BirdBody:
        """Draw the proportions from `ranges` of a family; `ranges` has angles in degrees."""
        degrees = np.pi / 180.0
        return cls(
            pitch=degrees * draws.number("pitch", *ranges["pitch"]),
            girth=draws.number("girth", *ranges["girth"]),
            head_radius=draws.number("head_radius", *ranges["head_radius"]),
            neck=draws.number("neck", *ranges["neck"]),
            neck_angle=degrees * draws.number("neck_angle", *ranges["neck_angle"]),
            head_width=draws.number("head_width", 0.82, 0.94),
        )

    def place(self, along: Floats | float, right: Floats | float, up: Floats | float) -> Floats:
        """Return points given in axes of the trunk (backwards along it, right, up from it), broadcast to (...,3)."""
        along, right, up = np.broadcast_arrays(*(np.asarray(value, float) for value in (along, right, up)))
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        return np.stack([right, cosine * up - sine * along, sine * up + cosine * along], -1)

    def trunk_radii(self, along: Floats | float) -> tuple[Floats, Floats, Floats]:
        """Return half width, half height above and half height below the trunk's axis at places along it."""
        profile = _smooth(_TRUNK, 12)[::-1]
        places = np.asarray(along, float)
        radii = [np.asarray(np.interp(places, profile[:, 0], self.girth * profile[:, k])) for k in (1, 2, 3)]
        return radii[0], radii[1], radii[2]

    def trunk_point(self, along: Floats | float, angle: Floats | float, out: Floats | float = 0.0) -> Floats:
        """Return points (...,3) on the trunk, moved outwards; `angle` is 0 on the back, pi on the belly, + right."""
        width, above, below = self.trunk_radii(along)
        sine, cosine = np.sin(angle), np.cos(angle)
        tall = np.where(cosine > 0.0, above, below)
        return self.place(along, (width + out) * sine, (tall + out) * cosine)

    @property
    def head(self) -> Floats:
        """Centre (3,) of the head."""
        shoulder = self.place(-0.32, 0.0, 0.0)
        rise = self.neck * np.array([0.0, np.sin(self.neck_angle), -np.cos(self.neck_angle)])
        return shoulder + rise

    def head_point(self, ahead: float, angle: float, out: float = 0.0) -> Floats:
        """Return a point (3,) on the head, `ahead` of its centre in head radii; `angle` as in `trunk_point`."""
        ring = np.sqrt(max(1.0 - ahead * ahead, 0.0)) + out
        offset = np.array([ring * self.head_width * np.sin(angle), ring * np.cos(angle), -ahead])
        return self.head + self.head_radius * offset

    def stations(self) -> Floats:
        """Return control stations (S,7): centre y, z; half width, height above, height below; normal angle; number."""
        trunk = self.place(_TRUNK[:, 0], 0.0, 0.0)
        head, radius = self.head, self.head_radius
        rows = [[y, z, *(self.girth * _TRUNK[k, 1:]), self.pitch] for k, (_, y, z) in enumerate(trunk.tolist())]
        # One station between shoulders and head; its ring is as thick as what it joins, so that necks stay feathered.
        y, z = 0.5 * (trunk[-1, 1:] + head[1:])
        thick = 0.5 * (0.88 * self.girth + radius)
        slim = 1.0 - 0.6 * max(self.neck - 0.3, 0.0)
        rows.append([y, z, 0.96 * slim * thick, slim * thick, slim * thick, 0.6 * self.neck_angle])
        for ahead, share in _HEAD.tolist():
            ring = radius * share
            rows.append([head[1], head[2] - radius * ahead, self.head_width * ring, ring, ring, 0.0])
        return np.column_stack([np.array(rows), np.arange(len(rows), dtype=float)])

    def solid(self) -> tuple[Solid, Floats, Floats]:
        """Return the trunk with neck and head, and of every face its station number and angle (F,)."""
        rows = _smooth(self.stations(), _BETWEEN)
        angle = np.arange(SIDES) * (2.0 * np.pi / SIDES)
        sine, cosine = np.sin(angle), np.cos(angle)
        tall = np.where(cosine > 0.0, rows[:, 3, None], rows[:, 4, None]) * cosine
        rings = np.empty((len(rows), SIDES, 3))
        rings[..., 0] = rows[:, 2, None] * sine
        rings[..., 1] = rows[:, 0, None] + np.cos(rows[:, 5, None]) * tall
        rings[..., 2] = rows[:, 1, None] + np.sin(rows[:, 5, None]) * tall
        end = self.head - np.array([0.0, 0.0, self.head_radius])
        solid = loft(rings, end=end)
        number = np.concatenate([[0.0], 0.5 * (rows[1:, 6] + rows[:-1, 6]), [rows[-1, 6] + 0.5]])[solid.span + 1]
        turn = (solid.column + 0.5) * (2.0 * np.pi / SIDES)
        return solid, number, turn.astype(np.float64)


def _smooth(rows: Floats, between: int) -> Floats:
    """Return rows (S,C) with `between` - 1 new ones in every gap, on Catmull-Rom curves through them."""
    padded = np.concatenate([2.0 * rows[:1] - rows[1:2], rows, 2.0 * rows[-1:] - rows[-2:-1]])
    t = (np.arange(between) / between)[:, None, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = b + 0.5 * t * ((c - a) + t * ((2.0 * a - 5.0 * b + 4.0 * c - d) + t * (3.0 * (b - c) + d - a)))
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, rows.shape[1]), rows[-1:]])
