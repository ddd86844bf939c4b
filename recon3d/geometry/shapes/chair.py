"""Procedural chairs: dining and office chairs, stools, cantilevers, easy chairs, block armchairs.

Built in metres, y up from the floor, the sitter looks along -z, x across; the seat's middle stands over the origin.
"""

from __future__ import annotations

import numpy as np

from recon3d.geometry.shapes.assembly import ANY_PAINT, METAL, RUBBER, Assembly, Ranges
from recon3d.geometry.shapes.chair_back import Back, add_arms, add_back
from recon3d.geometry.shapes.chair_base import add_base
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import rounded_box

_WOOD: Ranges = ((0.04, 0.11), (0.35, 0.75), (0.25, 0.75))
_PAINTED: dict[str, Ranges] = {
    "leg": METAL,
    "seat": ANY_PAINT,
    "back": ANY_PAINT,
    "arm": ANY_PAINT,
    "cushion": ANY_PAINT,
    "stretcher": METAL,
    "foot": METAL,
    "column": METAL,
    "caster": RUBBER,
    "body": ANY_PAINT,
}
_WOODEN = {**_PAINTED, **dict.fromkeys(("leg", "seat", "back", "arm", "stretcher"), _WOOD)}

FAMILIES = (*("dining",) * 5, *("office",) * 3, *("stool",) * 2, *("cantilever",) * 2, *("easy",) * 3, *("block",) * 3)

_SEATS = {"stool": ("round", "square"), "dining": ("square", "square", "square", "round")}

# Metres, degrees for angles, shares for the rest.
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "dining": {
        "seat_width": (0.38, 0.5), "seat_depth": (0.36, 0.48), "seat_height": (0.41, 0.49),
        "seat_thickness": (0.025, 0.07), "back_height": (0.36, 0.62), "back_rake": (2.0, 16.0),
    },
    "office": {
        "seat_width": (0.42, 0.54), "seat_depth": (0.4, 0.5), "seat_height": (0.42, 0.54),
        "seat_thickness": (0.05, 0.1), "back_height": (0.32, 0.72), "back_rake": (3.0, 18.0),
    },
    "stool": {
        "seat_width": (0.3, 0.42), "seat_depth": (0.3, 0.4), "seat_height": (0.4, 0.8),
        "seat_thickness": (0.025, 0.08), "back_height": (0.12, 0.28), "back_rake": (2.0, 14.0),
    },
    "cantilever": {
        "seat_width": (0.42, 0.54), "seat_depth": (0.42, 0.5), "seat_height": (0.42, 0.48),
        "seat_thickness": (0.025, 0.07), "back_height": (0.32, 0.5), "back_rake": (5.0, 20.0),
    },
    "easy": {
        "seat_width": (0.52, 0.68), "seat_depth": (0.48, 0.6), "seat_height": (0.33, 0.43),
        "seat_thickness": (0.06, 0.16), "back_height": (0.42, 0.75), "back_rake": (10.0, 32.0),
    },
    "block": {
        "seat_width": (0.48, 0.72), "seat_depth": (0.5, 0.66), "seat_height": (0.38, 0.46),
        "seat_thickness": (0.12, 0.2), "back_height": (0.34, 0.66), "back_rake": (3.0, 16.0),
    },
}  # fmt: skip


def build_chair(draws: Draws) -> Assembly:
    """Return the parts of the chair that `draws` describes."""
    family = draws.option("family", FAMILIES)
    wooden = family in ("dining", "stool", "easy") and draws.flag("wooden", 0.6)
    chair = Assembly(draws, _WOODEN if wooden else _PAINTED)
    ranges = _RANGES[family]
    width, height, thickness = (draws.number(n, *ranges[n]) for n in ("seat_width", "seat_height", "seat_thickness"))
    round_seat = draws.option("seat", _SEATS.get(family, ("square",))) == "round"
    depth = width if round_seat else draws.number("seat_depth", *ranges["seat_depth"])
    if family == "block":
        _add_block(chair, draws, width, depth, height, thickness)
        return chair
    narrowing = 0.0 if round_seat else draws.number("seat_narrowing", 0.0, 0.2)
    corner = 1.0 if round_seat else draws.number("seat_corner", 0.08, 0.55)
    seat = rounded_box((width, thickness, depth), corner, draws.number("seat_bevel", 0.2, 0.9), 6, 3)
    dish = draws.number("seat_dish", 0.0, 0.03)

    def shape_seat(verts: np.ndarray) -> np.ndarray:
        x, y, z = verts[:, 0], verts[:, 1], verts[:, 2]
        sides = (2.0 * x / width) * (2.0 * x / width)
        back = 0.5 + z / depth
        return np.stack([x * (1.0 - narrowing * back), y + dish * (sides - 0.5) + height - 0.5 * thickness, z], 1)

    chair.add("seat", seat.mapped(shape_seat))
    backless = family == "stool" and draws.flag("backless", 0.75)
    if family != "office" and not backless and draws.flag("seat_cushion", 0.35):
        plump = draws.number("cushion_thickness", 0.04, 0.1)
        pad = rounded_box((0.92 * width, plump, 0.9 * depth), max(corner, 0.3), 0.9, 5, 3)
        chair.add("cushion", pad.mapped(shape_seat).moved(0.0, 0.5 * (plump + thickness), -0.01))
    add_base(chair, draws, family, (width, depth, height - thickness), narrowing)
    if backless:
        return chair
    back = Back(draws, family, (width, depth, height), narrowing, round_seat, ranges)
    add_back(chair, draws, back)
    if family != "stool":
        add_arms(chair, draws, family, back)
    return chair


def _add_block(chair: Assembly, draws: Draws, width: float, depth: float, height: float, thickness: float) -> None:
    """Add an upholstered armchair: plinth, cushions, closed arms, padded back, short feet."""
    ranges = _RANGES["block"]
    arm = draws.number("arm_width", 0.09, 0.22)
    arm_height = draws.number("arm_height", 0.12, 0.26)
    rise = draws.number("back_height", *ranges["back_height"])
    rake = draws.number("back_rake", *ranges["back_rake"])
    thick = draws.number("back_thickness", 0.12, 0.22)
    soft = draws.number("softness", 0.2, 0.7)
    feet = draws.number("foot_height", 0.04, 0.15)
    plinth = height - thickness
    slope = np.tan(rake * np.pi / 180.0)
    total = depth + 0.7 * thick
    box = rounded_box((width + 0.02, plinth - feet, total), 0.15, 0.1, 4, 2)
    chair.add("body", box.moved(0.0, 0.5 * (plinth + feet), 0.35 * thick))
    pad = rounded_box((0.99 * width, thickness, depth), 0.25, (0.3, 0.9), 5, 3)
    chair.add("cushion", pad.moved(0.0, plinth + 0.49 * thickness, -0.01))
    back = rounded_box((width + 0.5 * arm, rise + height - plinth, thick), 0.8, (0.1, min(0.9, soft)), 5, 3)
    middle = 0.5 * (rise + height + plinth)

    def lean(verts: np.ndarray) -> np.ndarray:
        y = verts[:, 1] + middle
        return np.stack([verts[:, 0], y, verts[:, 2] + 0.5 * depth + slope * (y - plinth)], 1)

    chair.add("back", back.mapped(lean))
    if draws.flag("back_cushion", 0.5):
        cushion = rounded_box((0.94 * width, 0.75 * rise + 0.05, 0.7 * thick), 0.9, 0.6, 5, 3)
        low = height + 0.5 * (0.75 * rise + 0.05) - middle - 0.01
        chair.add("cushion", cushion.moved(0.0, low, -0.5 * thick).mapped(lean))
    style = draws.option("arms", ("closed", "closed", "rolled", "none"))
    if style != "none":
        tall = arm_height + height - feet
        side = rounded_box((arm, tall, total - 0.04), 0.5, (0.05, min(0.9, soft)), 4, 3)
        chair.add_pair("arm", side.moved(0.5 * (width + arm), feet + 0.5 * tall, 0.3 * thick))
        if style == "rolled":
            roll = draws.number("roll_size", 0.62, 0.85) * arm
            bolster = rounded_box((2.0 * roll, total - 0.02, 2.0 * roll), 1.0, 0.08, 6)
            # Stand the bolster's axis along z.
            lying = bolster.mapped(lambda verts: verts[:, [0, 2, 1]])
            chair.add_pair("arm", lying.moved(0.5 * (width + arm) + 0.2 * roll, feet + tall - 0.4 * roll, 0.3 * thick))
    outer = 0.5 * width + (0.0 if style == "none" else 0.6 * arm) - 0.06
    foot = rounded_box((0.07, feet + 0.04, 0.07), draws.number("foot_corner", 0.2, 1.0), 0.1, 4, 1)
    for z in (-0.5 * depth + 0.07, 0.5 * depth):
        chair.add_pair("foot", foot.moved(outer, 0.5 * feet + 0.02, z))
