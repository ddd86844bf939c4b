"""Procedural perching birds with folded wings, in species: the objects of the data set `synthetic_birds`.

`make_bird(species, seed)` puts together `bird_body` (trunk, neck, head), `bird_parts` (limbs) and `bird_plumage`
(colours), and marks the 15 key points of CUB-200-2011 on them. Pure NumPy; z from the bill (negative) to the tail, y up
from the ground, x right, exactly symmetric about x = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from recon3d.geometry.shapes.assembly import Shape, normalised
from recon3d.geometry.shapes.bird_body import BirdBody
from recon3d.geometry.shapes.bird_parts import (
    Limbs,
    bill,
    bill_axis,
    eye,
    eye_point,
    leg,
    leg_path,
    tail,
    tail_point,
    wing,
    wing_point,
)
from recon3d.geometry.shapes.bird_plumage import Plumage
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats, Solid, cross

KEYPOINTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape", "right eye",
    "right leg", "right wing", "tail", "throat",
)  # fmt: skip
"""Names and order of CUB's parts.txt (Wah et al. 2011)."""
KEYPOINT_MIRROR = (0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14)

_SPECIES_STREAM, _BIRD_STREAM = 1000, 1001  # apart from the categories of `make_shape`

# Body lengths, head radii and degrees; see `BirdBody` and `Limbs`.
_COMMON = {
    "pitch": (14.0, 32.0), "girth": (0.24, 0.3), "head_radius": (0.15, 0.175), "neck": (0.24, 0.3),
    "neck_angle": (32.0, 50.0), "wing_tip": (0.52, 0.66), "wing_depth": (0.72, 0.92), "tail_length": (0.34, 0.5),
    "tail_width": (0.09, 0.14), "tail_angle": (-8.0, 10.0), "fork": (-0.12, 0.05), "bill_length": (0.11, 0.16),
    "bill_height": (0.22, 0.3), "bill_curve": (0.02, 0.1), "leg": (0.16, 0.24),
}  # fmt: skip
_FAMILIES: dict[str, Mapping[str, tuple[float, float]]] = {
    "finch": {"bill_length": (0.1, 0.14), "bill_height": (0.42, 0.58), "girth": (0.27, 0.32), "fork": (0.0, 0.08)},
    "warbler": {"girth": (0.22, 0.26), "bill_height": (0.16, 0.22), "bill_length": (0.11, 0.15)},
    "sparrow": {"bill_height": (0.32, 0.42), "bill_length": (0.09, 0.13), "tail_angle": (-4.0, 14.0)},
    "thrush": {"pitch": (24.0, 40.0), "leg": (0.24, 0.32), "bill_length": (0.14, 0.19)},
    "jay": {"tail_length": (0.55, 0.75), "tail_width": (0.11, 0.15), "bill_length": (0.17, 0.22),
            "girth": (0.23, 0.27)},
    "wren": {"girth": (0.28, 0.33), "tail_length": (0.24, 0.32), "tail_angle": (25.0, 45.0), "pitch": (8.0, 18.0),
             "bill_height": (0.13, 0.18), "bill_length": (0.14, 0.2), "bill_curve": (0.12, 0.25)},
    "flycatcher": {"pitch": (34.0, 48.0), "leg": (0.12, 0.17), "bill_height": (0.2, 0.26)},
    "swallow": {"wing_tip": (0.78, 0.92), "fork": (0.15, 0.3), "tail_length": (0.42, 0.55), "leg": (0.08, 0.12),
                "bill_length": (0.06, 0.09), "girth": (0.21, 0.25), "wing_depth": (0.6, 0.75)},
    "kingfisher": {"bill_length": (0.36, 0.48), "bill_height": (0.26, 0.34), "head_radius": (0.19, 0.22),
                   "tail_length": (0.2, 0.28), "leg": (0.08, 0.11), "bill_curve": (0.0, 0.03), "girth": (0.26, 0.3)},
    "blackbird": {"bill_length": (0.17, 0.22), "bill_height": (0.24, 0.3), "tail_length": (0.48, 0.62),
                  "leg": (0.22, 0.3)},
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)
_EYE = 0.17  # radius of an eye in head radii
_SPREAD = 0.25  # of a family's ranges that the birds of one species cover


@dataclass(frozen=True)
class Bird:
    """A bird and its key points.

    `keypoints` (15,3) lie on the surface of `shape`, in its frame and in the order `KEYPOINTS`.
    """

    shape: Shape
    keypoints: Floats


def species_name(species: int) -> str:
    """Return a name such as ``Blue_backed_Finch``; not unique."""
    family, plumage = _species(species)[:2]
    mark = f"{plumage.tones['cap']}_capped" if plumage.marks["cap"] else f"{plumage.tones['back']}_backed"
    return f"{mark.capitalize()}_{family.capitalize()}"


def make_bird(species: int, seed: int) -> Bird:
    """Return bird number `seed` of a species, the same on every machine.

    Args:
        species: any non-negative integer; gives family, proportions, palette and marks.
        seed: any non-negative integer; gives posture and what differs between birds of one kind.

    Raises:
        ValueError: a negative number.
    """
    body, limbs, draws = _anatomy(species, seed)
    plumage = _species(species)[1].varied(draws)
    parts: list[tuple[str, Solid, Floats]] = []

    def add(part: str, solid: Solid, colors: Floats) -> None:
        solid = _outward(solid)
        parts.append((part, solid, np.broadcast_to(colors, (len(solid.faces), 3))))

    def add_pair(part: str, solid: Solid, colors: Floats) -> None:
        add(part, solid, colors)
        add(part, solid.mirrored(), colors)

    trunk, station, angle = body.solid()
    centre = trunk.verts[trunk.faces].mean(1)
    add("body", trunk, plumage.trunk(station, angle, centre, eye_point(body, 0.0), body.head_radius))
    solid, along, down = wing(body, limbs)
    add_pair("wing", solid, plumage.wing(along, down))
    solid, along, across = tail(body, limbs)
    add("tail", solid, plumage.tail(along, across))
    solid, along, angle = bill(body, limbs)
    add("bill", solid, plumage.bill(along, angle))
    add_pair("eye", eye(body, _EYE), np.array([0.05, 0.04, 0.04]))
    thigh, rest = leg(body, limbs)
    add_pair("thigh", thigh, plumage.colors["belly"])
    for solid in rest:
        add_pair("leg", solid, 0.8 * plumage.colors["leg"])
    counts = np.cumsum([0] + [len(solid.verts) for _, solid, _ in parts])
    names = tuple(dict.fromkeys(part for part, _, _ in parts))
    verts = np.concatenate([solid.verts for _, solid, _ in parts])
    centre, size = 0.5 * (verts.min(0) + verts.max(0)), np.ptp(verts, axis=0).max()
    colors = np.concatenate([color for _, _, color in parts])
    shape = Shape(
        verts=normalised(verts),
        faces=np.concatenate([p[1].faces + start for p, start in zip(parts, counts, strict=False)]).astype(np.int32),
        face_colors=(np.rint(255.0 * np.clip(colors, 0.0, 1.0)) / 255.0).astype(np.float32),
        parts=np.concatenate([np.full(len(s.faces), names.index(part), np.int16) for part, s, _ in parts]),
        part_names=names,
        parameters=dict(draws.used),
    )
    return Bird(shape, (_landmarks(body, limbs) - centre) / size)


@lru_cache(maxsize=256)
def _species(species: int) -> tuple[str, Plumage, dict[str, tuple[float, float]]]:
    """Return family, plumage and the ranges of proportions of a species."""
    draws = Draws(_SPECIES_STREAM, species)
    family = FAMILIES[species % len(FAMILIES)]
    ranges = {}
    for name, (low, high) in (_COMMON | dict(_FAMILIES[family])).items():
        start = low + (1.0 - _SPREAD) * (high - low) * draws.unit(f"range/{name}")
        ranges[name] = (start, start + _SPREAD * (high - low))
    return family, Plumage.drawn(draws), ranges


def _anatomy(species: int, seed: int) -> tuple[BirdBody, Limbs, Draws]:
    """Return proportions and posture of a bird, and the draws they came from."""
    draws = Draws(_BIRD_STREAM + species, seed)
    ranges = _species(species)[2]
    return BirdBody.drawn(draws, ranges), Limbs.drawn(draws, ranges), draws


def _landmarks(body: BirdBody, limbs: Limbs) -> Floats:
    """Return the key points (15,3) in the axes of the body."""
    right_eye = eye_point(body, _EYE)
    _, ankle, foot = leg_path(body, limbs)
    right_leg = 0.5 * (ankle + foot)
    right_wing = wing_point(body, limbs, 0.35, 0.5, 1.0)
    flip = np.array([-1.0, 1.0, 1.0])
    points = np.stack([
        body.trunk_point(0.0, 0.0), bill_axis(body, limbs, 1.0), body.trunk_point(0.1, np.pi),
        body.trunk_point(-0.3, np.pi), body.head_point(0.0, 0.0),
        body.head_point(0.72, 0.0), right_eye * flip, right_leg * flip, right_wing * flip, body.head_point(-0.45, 0.0),
        right_eye, right_leg, right_wing, tail_point(body, limbs, 1.0, 0.0, 1.0), body.head_point(0.5, np.pi),
    ])  # fmt: skip
    # sin(pi) is not quite 0: make the points of the middle lie in it, so that the mirror image is exact.
    return 0.5 * (points + flip * points[list(KEYPOINT_MIRROR)])


def _outward(solid: Solid) -> Solid:
    a, b, c = (solid.verts[solid.faces[:, k]] for k in range(3))
    inside_out = float((a * cross(b, c)).sum()) < 0.0
    return Solid(solid.verts, solid.faces[:, ::-1], solid.span, solid.column) if inside_out else solid
