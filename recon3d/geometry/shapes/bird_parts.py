"""What hangs on the trunk of a procedural bird: folded wings, tail, bill, eyes, legs with feet.

Between `bird_body` and `bird`. Every function returns one closed solid of the right side or of the middle, with the
places of its faces that the plumage needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.geometry.shapes.bird_body import TRUNK_END, BirdBody, Proportions
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats, Solid, ellipsoid, loft, sheet_loft, tube

_SHOULDER = -0.33  # front of the folded wing on the trunk's axis
_RINGS, _ACROSS = 30, 14


@dataclass(frozen=True)
class Limbs:
    """Proportions of one bird's limbs, in body lengths.

    Attributes:
        wing_tip: where the folded wing ends on the trunk's axis.
        wing_depth: share of the flank that the wing covers.
        tail_length: beyond the trunk.
        tail_width: half width at the end.
        tail_angle: radians that the tail is raised above the trunk's axis.
        fork: by how much of its length the outer tail feathers are longer (above 0) or shorter than the middle.
        bill_length: from the head.
        bill_height: half height of the bill's root in head radii.
        bill_curve: how far the tip is bent down, by its length.
        leg: from the belly to the ground.
    """

    wing_tip: float
    wing_depth: float
    tail_length: float
    tail_width: float
    tail_angle: float
    fork: float
    bill_length: float
    bill_height: float
    bill_curve: float
    leg: float

    @classmethod
    def drawn(cls, draws: Draws, ranges: Proportions) -> Limbs:
        """Draw the proportions from `ranges` of a family; `ranges` has angles in degrees."""
        values = {name: draws.number(name, *ranges[name]) for name in cls.__dataclass_fields__}
        return cls(**values | {"tail_angle": np.pi / 180.0 * values["tail_angle"]})


def wing(body: BirdBody, limbs: Limbs) -> tuple[Solid, Floats, Floats]:
    """Return the folded right wing, and of every face how far it is along (0 shoulder, 1 tip) and down the wing."""
    along = np.linspace(0.0, 1.0, _RINGS)[:, None]
    down = np.linspace(0.0, 1.0, _ACROSS)[None]
    outer = wing_point(body, limbs, along, down, 1.0)
    inner = wing_point(body, limbs, along, down, -1.0)
    solid = sheet_loft(outer, inner)
    centre = np.stack([np.broadcast_to(along, outer.shape[:2]), np.broadcast_to(down, outer.shape[:2])], -1)
    ring = np.concatenate([centre, centre[:, ::-1]], 1).reshape(-1, 2)
    place: Floats = ring[solid.faces].mean(1)
    return solid, place[:, 0], place[:, 1]


def wing_point(body: BirdBody, limbs: Limbs, along: Floats | float, down: Floats | float, side: float) -> Floats:
    """Return points (...,3) of the right wing's outer (`side` 1) or hidden (-1) sheet, at shares along and down it."""
    along, down = np.asarray(along, float), np.asarray(down, float)
    axis = _SHOULDER + (limbs.wing_tip - _SHOULDER) * along
    front = np.sqrt(np.clip(1.0 - (1.0 - along / 0.16) ** 2, 0.0, 1.0) * (along < 0.16) + (along >= 0.16))
    taper = np.clip((1.0 - along) / 0.75, 0.0, 1.0)
    taper = np.sqrt(taper * (2.0 - taper)) * (0.35 + 0.65 * taper)
    top = 0.95 - 0.5 * front + 0.12 * along
    deep = limbs.wing_depth * front * taper
    angle = top + 1.25 * deep * down
    # Past the trunk the wing goes on over the tail, ever slimmer.
    width, above, below = body.trunk_radii(axis)
    beyond = np.clip((axis - 0.2) / (limbs.wing_tip - 0.2), 0.0, 1.0)
    slim = body.girth * (0.86 - 0.66 * beyond)
    width = np.maximum(width, slim)
    above = np.maximum(above, 0.8 * slim)
    tall = np.where(np.cos(angle) > 0.0, above, below)
    swell = 4.0 * down * (1.0 - down)
    thick = 0.012 + 0.03 * np.sqrt(swell) * (0.35 + 0.65 * taper) * front
    out = thick if side > 0.0 else -0.6 * thick - 0.004
    return body.place(axis, (width + out) * np.sin(angle), (tall + out) * np.cos(angle))


def tail(body: BirdBody, limbs: Limbs) -> tuple[Solid, Floats, Floats]:
    """Return the tail, and of every face how far it is along (0 root, 1 end) and across (-1 to 1, right positive)."""
    along = np.linspace(0.0, 1.0, 22)[:, None]
    across = np.linspace(-1.0, 1.0, 21)[None]
    upper, lower = (tail_point(body, limbs, along, across, side) for side in (1.0, -1.0))
    solid = sheet_loft(upper, lower)
    centre = np.stack([np.broadcast_to(along, upper.shape[:2]), np.broadcast_to(across, upper.shape[:2])], -1)
    ring = np.concatenate([centre, centre[:, ::-1]], 1).reshape(-1, 2)
    place = ring[solid.faces].mean(1)
    return solid, place[:, 0], place[:, 1]


def tail_point(body: BirdBody, limbs: Limbs, along: Floats | float, across: Floats | float, side: float) -> Floats:
    """Return points (...,3) of the tail's upper (`side` 1) or lower (-1) sheet."""
    along, across = np.asarray(along, float), np.asarray(across, float)
    root = 0.4
    reach = (TRUNK_END - root + limbs.tail_length) * (1.0 + limbs.fork * across * across * along)
    width = 0.3 * body.girth + (limbs.tail_width - 0.3 * body.girth) * along
    sag = 0.3 * across * across * width  # the fan is a low roof
    thick = 0.03 * (1.0 - 0.7 * along) * np.sqrt(np.clip(1.0 - 0.95 * across * across, 0.0, 1.0))
    ahead = along * reach
    up = np.sin(limbs.tail_angle) * ahead - sag + side * thick + 0.1 * body.girth
    return body.place(root + np.cos(limbs.tail_angle) * ahead, width * across, up)


def bill(body: BirdBody, limbs: Limbs) -> tuple[Solid, Floats, Floats]:
    """Return the bill, and of every face how far it is along (0 root, 1 tip) and its angle (0 on top)."""
    share = np.array([0.0, 0.12, 0.25, 0.4, 0.55, 0.7, 0.82, 0.92, 0.98])
    angle = np.arange(16) * (2.0 * np.pi / 16)
    centre = np.stack([bill_axis(body, limbs, s) for s in share.tolist()])
    slim = (1.0 - share) ** 0.8
    tall = limbs.bill_height * body.head_radius * np.maximum(slim, 0.06)
    rings = np.empty((len(share), len(angle), 3))
    rings[..., 0] = 0.8 * tall[:, None] * np.sin(angle)
    rings[..., 1] = centre[:, 1, None] + tall[:, None] * np.cos(angle)
    rings[..., 2] = centre[:, 2, None]
    solid = loft(rings, end=bill_axis(body, limbs, 1.0))
    along = np.concatenate([[0.0], 0.5 * (share[1:] + share[:-1]), [1.0]])[solid.span + 1].astype(np.float64)
    turn = (solid.column + 0.5) * (2.0 * np.pi / 16)
    return solid, along, turn.astype(np.float64)


def bill_axis(body: BirdBody, limbs: Limbs, share: float) -> Floats:
    """Return a point (3,) of the bill's axis, 0 inside the head to 1 at the tip."""
    root = 0.75 * body.head_radius
    ahead = root + share * (0.25 * body.head_radius + limbs.bill_length)
    down = 0.12 * body.head_radius + limbs.bill_curve * limbs.bill_length * share * share
    return body.head + np.array([0.0, -down, -ahead])


def eye(body: BirdBody, size: float) -> Solid:
    """Return the right eye, of radius `size` in head radii."""
    radius = size * body.head_radius
    return ellipsoid(eye_point(body, 0.0), (radius, radius, radius), 14, 10)


def eye_point(body: BirdBody, out: float) -> Floats:
    """Return the middle (3,) of the right eye, moved outwards by `out` head radii."""
    return body.head_point(0.42, 1.25, -0.05 + out)


def leg(body: BirdBody, limbs: Limbs) -> tuple[Solid, list[Solid]]:
    """Return the feathered thigh, and shank and toes, of the right leg."""
    hip, ankle, foot = leg_path(body, limbs)
    share = np.array([0.0, 0.25, 0.5, 0.7, 0.85, 0.95, 1.0])
    thick = 0.02 + 0.085 * np.sqrt(1.0 - share * share)
    thigh = tube(hip + share[:, None] * (ankle - hip), thick, 16, reference=(1.0, 0.0, 0.0))
    shank = tube([ankle + np.array([0.0, 0.02, 0.0]), foot], 0.017, 8, reference=(1.0, 0.0, 0.0))
    toes = []
    for turn, length in ((-0.45, 0.15), (0.0, 0.18), (0.45, 0.15), (np.pi, 0.1)):
        step = length * np.array([np.sin(turn), 0.0, -np.cos(turn)])
        toes.append(tube([foot, foot + 0.6 * step, foot + step - [0.0, 0.012, 0.0]], [0.017, 0.014, 0.006], 6,
                         reference=(0.0, 1.0, 0.0)))  # fmt: skip
    return thigh, [shank, *toes]


def leg_path(body: BirdBody, limbs: Limbs) -> tuple[Floats, Floats, Floats]:
    """Return hip, ankle and foot (3,) of the right leg, under the middle of what it carries."""
    hip = body.trunk_point(0.12, 2.55, -0.06)
    ankle = np.array([0.5 * body.girth, hip[1] - 0.1 - 0.3 * limbs.leg, hip[2] + 0.05])
    return hip, ankle, np.array([0.55 * body.girth, hip[1] - 0.1 - limbs.leg, hip[2] - 0.04])
