"""Procedural cars: sedans, hatchbacks, estates, SUVs, vans, pickups and sports cars.

Built in metres, z from the front bumper (negative) to the rear, y up from the ground, x across.
`car_body` makes the hull and the greenhouse; this file draws the proportions and hangs on wheels and fittings.
"""

from __future__ import annotations

import numpy as np

from recon3d.geometry.shapes.assembly import ANY_PAINT, GLASS, METAL, RUBBER, Assembly, Ranges
from recon3d.geometry.shapes.car_body import CarBody, add_body, add_cabin
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import lathe, rounded_box, tube, turned

PAINTS: dict[str, Ranges] = {
    "body": ((0.0, 1.0), (0.0, 0.95), (0.35, 0.97)),
    "roof": ANY_PAINT,
    "window": GLASS,
    "tyre": RUBBER,
    "rim": ((0.5, 0.7), (0.0, 0.1), (0.6, 0.85)),
    "bumper": ((0.5, 0.7), (0.0, 0.15), (0.2, 0.4)),
    "headlight": ((0.1, 0.16), (0.05, 0.3), (0.9, 1.0)),
    "taillight": ((0.97, 1.02), (0.8, 1.0), (0.6, 0.9)),
    "grille": ((0.5, 0.7), (0.0, 0.2), (0.15, 0.35)),
    "mirror": ((0.5, 0.7), (0.0, 0.15), (0.15, 0.35)),
    "spoiler": ANY_PAINT,
    "rack": METAL,
    "seat": ((0.02, 0.12), (0.2, 0.7), (0.3, 0.7)),
    "bed": ((0.5, 0.7), (0.0, 0.15), (0.3, 0.45)),
}

FAMILIES = (
    *("sedan",) * 4,
    *("hatchback",) * 4,
    *("estate",) * 2,
    *("suv",) * 3,
    *("van",) * 3,
    *("pickup",) * 2,
    *("sports",) * 3,
)

# Metres, degrees, or shares as `CarBody` says.
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "sedan": {
        "length": (4.3, 5.1), "width": (1.7, 1.9), "height": (1.38, 1.5), "wheelbase": (0.57, 0.63),
        "front_overhang": (0.17, 0.21), "clearance": (0.14, 0.2), "wheel_radius": (0.29, 0.35),
        "belt_height": (0.58, 0.66), "nose_height": (0.4, 0.5), "cowl": (0.24, 0.31), "screen_run": (0.12, 0.18),
        "rear_run": (0.25, 0.46), "deck": (0.1, 0.19), "deck_height": (0.6, 0.68),
    },
    "hatchback": {
        "length": (3.4, 4.3), "width": (1.6, 1.8), "height": (1.4, 1.56), "wheelbase": (0.6, 0.67),
        "front_overhang": (0.16, 0.2), "clearance": (0.14, 0.2), "wheel_radius": (0.27, 0.33),
        "belt_height": (0.56, 0.64), "nose_height": (0.4, 0.5), "cowl": (0.2, 0.27), "screen_run": (0.14, 0.21),
        "rear_run": (0.06, 0.27), "deck": (0.015, 0.05), "deck_height": (0.56, 0.64),
    },
    "estate": {
        "length": (4.4, 5.0), "width": (1.7, 1.9), "height": (1.42, 1.55), "wheelbase": (0.56, 0.62),
        "front_overhang": (0.17, 0.21), "clearance": (0.14, 0.21), "wheel_radius": (0.29, 0.35),
        "belt_height": (0.57, 0.64), "nose_height": (0.4, 0.48), "cowl": (0.23, 0.29), "screen_run": (0.12, 0.17),
        "rear_run": (0.04, 0.14), "deck": (0.012, 0.03), "deck_height": (0.57, 0.64),
    },
    "suv": {
        "length": (4.1, 4.9), "width": (1.75, 2.0), "height": (1.62, 1.9), "wheelbase": (0.57, 0.63),
        "front_overhang": (0.16, 0.2), "clearance": (0.22, 0.32), "wheel_radius": (0.34, 0.42),
        "belt_height": (0.58, 0.64), "nose_height": (0.48, 0.57), "cowl": (0.22, 0.29), "screen_run": (0.07, 0.15),
        "rear_run": (0.04, 0.18), "deck": (0.012, 0.03), "deck_height": (0.58, 0.64),
    },
    "van": {
        "length": (4.4, 5.6), "width": (1.75, 2.05), "height": (1.85, 2.5), "wheelbase": (0.56, 0.65),
        "front_overhang": (0.15, 0.2), "clearance": (0.16, 0.24), "wheel_radius": (0.3, 0.36),
        "belt_height": (0.48, 0.56), "nose_height": (0.36, 0.46), "cowl": (0.06, 0.19), "screen_run": (0.07, 0.15),
        "rear_run": (0.0, 0.05), "deck": (0.01, 0.02), "deck_height": (0.48, 0.56),
    },
    "pickup": {
        "length": (4.7, 5.7), "width": (1.75, 2.0), "height": (1.65, 1.9), "wheelbase": (0.57, 0.63),
        "front_overhang": (0.15, 0.19), "clearance": (0.25, 0.36), "wheel_radius": (0.35, 0.42),
        "belt_height": (0.6, 0.66), "nose_height": (0.52, 0.59), "cowl": (0.21, 0.27), "screen_run": (0.08, 0.13),
        "rear_run": (0.03, 0.13), "deck": (0.28, 0.45), "deck_height": (0.6, 0.64),
    },
    "sports": {
        "length": (3.9, 4.7), "width": (1.75, 2.0), "height": (1.1, 1.3), "wheelbase": (0.55, 0.62),
        "front_overhang": (0.19, 0.24), "clearance": (0.1, 0.15), "wheel_radius": (0.29, 0.34),
        "belt_height": (0.6, 0.68), "nose_height": (0.46, 0.56), "cowl": (0.26, 0.37), "screen_run": (0.14, 0.2),
        "rear_run": (0.35, 0.6), "deck": (0.04, 0.14), "deck_height": (0.62, 0.74),
    },
}  # fmt: skip


def build_car(draws: Draws) -> Assembly:
    """Return the parts of the car that `draws` describes."""
    family = draws.option("family", FAMILIES)
    car = Assembly(draws, PAINTS)
    body = CarBody(draws, family, _RANGES[family])
    add_body(car, body)
    if family == "sports" and draws.flag("open_top", 0.3):
        _add_open_cockpit(car, body)
    else:
        add_cabin(car, draws, body)
        if family in ("estate", "suv", "van") and draws.flag("roof_rack", 0.45):
            _add_roof_rack(car, draws, body)
    if family == "pickup":
        _add_bed(car, draws, body)
    _add_wheels(car, draws, body)
    _add_front_and_rear(car, draws, body)
    if draws.flag("mirrors", 0.8):
        size = draws.number("mirror_size", 0.8, 1.25)
        mirror = rounded_box(np.array([0.22, 0.13, 0.1]) * size, 0.6, 0.5)
        at = body.cowl + 0.35 * body.screen_run
        out = float(body.half_width(np.array([at]))[0])
        part = "body" if draws.flag("painted_mirrors", 0.5) else "mirror"
        car.add_pair(part, mirror.moved(out, body.belt + 0.03, at))
    if family in ("sedan", "hatchback", "sports"):
        _add_spoiler(car, draws, body)
    if family == "suv" and draws.flag("spare_wheel", 0.35):
        spare = lathe([(0.0, -0.1), (0.8, -0.1), (1.0, -0.06), (1.0, 0.06), (0.8, 0.1), (0.0, 0.1)], 20)
        radius = 0.9 * body.wheel_radius
        spare = spare.mapped(lambda verts: verts * np.array([radius, radius, 1.0]))
        car.add("tyre", spare.moved(0.0, 0.62 * body.belt + 0.1, 0.5 * body.length + 0.06))
    return car


def _add_wheels(car: Assembly, draws: Draws, body: CarBody) -> None:
    width = body.wheel_radius * draws.number("tyre_width", 0.58, 0.78)
    rim = draws.number("rim_size", 0.6, 0.78)
    dish = draws.number("rim_dish", 0.05, 0.25)
    profile = [
        (0.0, -0.5), (0.8, -0.5), (1.0, -0.36), (1.0, 0.36), (0.92, 0.5), (rim, 0.5), (0.94 * rim, 0.5 - dish),
        (0.3, 0.48 - dish), (0.22, 0.5), (0.0, 0.5),
    ]  # fmt: skip
    wheel = lathe([(body.wheel_radius * r, width * t) for r, t in profile], 20, "x")
    painted = {"rim": wheel.span >= 4}
    for axle in body.axles:
        car.add_pair(
            "tyre", wheel.moved(0.5 * body.width - 0.52 * width + body.flare, body.wheel_radius, axle), painted
        )


def _add_front_and_rear(car: Assembly, draws: Draws, body: CarBody) -> None:
    front, rear = -0.5 * body.length, 0.5 * body.length
    thick = draws.number("bumper_height", 0.1, 0.18)
    level = body.clearance + 0.06 + 0.5 * thick
    bumper = rounded_box((0.93 * body.width, thick, 0.32), 0.6, 0.35)
    style = draws.option("bumpers", ("painted", "dark", "dark"))
    for z in (front + 0.1, rear - 0.1):
        car.add("body" if style == "painted" else "bumper", bumper.moved(0.0, level, z))
    size = draws.number("headlight_size", 0.8, 1.3)
    place = 0.34 * body.width
    height = body.nose - body.edge_rounding - 0.05
    if draws.option("headlights", ("round", "wide", "wide")) == "round":
        lamp = lathe([(0.0, -0.16), (0.7, -0.14), (1.0, 0.0), (1.0, 0.3), (0.0, 0.3)], 14)
        lamp = lamp.mapped(lambda verts: verts * np.array([0.11 * size, 0.11 * size, 0.5]))
        lamp = lamp.moved(0.0, 0.0, 0.055)
    else:
        lamp = rounded_box((0.38 * size, 0.13 * size, 0.3), 0.5, 0.4).moved(0.0, 0.0, 0.125)
    car.add_pair("headlight", lamp.moved(place, height, front))
    if draws.flag("grille", 0.7):
        grille = rounded_box((0.38 * body.width, draws.number("grille_height", 0.1, 0.24), 0.12), 0.5, 0.3)
        car.add("grille", grille.moved(0.0, height - 0.01, front + 0.045))
    upright = draws.option("taillights", ("wide", "upright")) == "upright"
    lamp = rounded_box((0.14, 0.32, 0.2) if upright else (0.4, 0.13, 0.2), 0.5, 0.3)
    car.add_pair("taillight", lamp.moved(0.38 * body.width, body.tail - 0.24, rear - 0.09))


def _add_spoiler(car: Assembly, draws: Draws, body: CarBody) -> None:
    kind = draws.option("spoiler", ("none", "none", "none", "none", "lip", "lip", "wing"))
    if kind == "none":
        return
    rear = 0.5 * body.length
    chord = draws.number("spoiler_chord", 0.18, 0.3)
    if kind == "lip" or body.family == "hatchback":
        height, at = body.tail, rear - 0.5 * chord - 0.04
        if body.family == "hatchback":
            height, at = body.height - 0.05, body.deck_start - body.rear_run + 0.35 * chord
        lip = rounded_box((0.74 * body.width, 0.07, chord), 0.5, 0.5)
        lip = lip.mapped(lambda verts: turned(verts, "x", -8.0))
        car.add("spoiler", lip.moved(0.0, height + 0.02, at))
        return
    rise = draws.number("spoiler_height", 0.12, 0.26)
    blade = rounded_box((0.86 * body.width, 0.045, chord), 0.4, 0.5).mapped(lambda verts: turned(verts, "x", -8.0))
    car.add("spoiler", blade.moved(0.0, body.tail + rise, rear - 0.6 * chord))
    post = rounded_box((0.04, rise + 0.12, 0.6 * chord), 0.5, 0.1)
    car.add_pair("spoiler", post.moved(0.3 * body.width, body.tail + 0.5 * rise - 0.06, rear - 0.6 * chord))


def _add_roof_rack(car: Assembly, draws: Draws, body: CarBody) -> None:
    start, end = body.cowl + body.screen_run + 0.15, body.deck_start - body.rear_run - 0.15
    x, y = 0.33 * body.width, body.height + 0.05
    rail = tube(
        [(x, y - 0.09, start), (x, y, start + 0.12), (x, y, end - 0.12), (x, y - 0.09, end)], 0.022, 8, 0.0, (1, 0, 0)
    )
    car.add_pair("rack", rail)
    for share in np.linspace(0.2, 0.8, draws.count("rack_bars", 0, 4)).tolist():
        z = start + share * (end - start)
        car.add("rack", tube([(-x, y, z), (x, y, z)], 0.02, 8))


def _add_bed(car: Assembly, draws: Draws, body: CarBody) -> None:
    start, end = body.deck_start + 0.02, 0.5 * body.length - 0.03
    floor, top = body.bed_floor, body.belt + 0.02
    wall = rounded_box((0.1, top - floor + 0.2, end - start), 0.3, 0.1)
    middle = 0.5 * (top + floor) - 0.1
    car.add_pair("body", wall.moved(0.5 * body.width - 0.09, middle, 0.5 * (start + end)))
    gate = rounded_box((body.width - 0.16, top - floor + 0.2, 0.09), 0.3, 0.1)
    car.add("body", gate.moved(0.0, middle, end - 0.045))
    car.add("body", gate.moved(0.0, middle, start + 0.03))
    liner = rounded_box((body.width - 0.3, 0.06, end - start - 0.1), 0.3, 0.3)
    car.add("bed", liner.moved(0.0, floor + 0.02, 0.5 * (start + end)))
    if draws.flag("roll_bar", 0.4):
        x, y, z = 0.4 * body.width, body.height - 0.15, start + 0.25
        path = [
            (-x, top - 0.1, z),
            (-x, y - 0.1, z),
            (-x + 0.1, y, z),
            (x - 0.1, y, z),
            (x, y - 0.1, z),
            (x, top - 0.1, z),
        ]
        car.add("rack", tube(path, 0.04, 8))


def _add_open_cockpit(car: Assembly, body: CarBody) -> None:
    belt, start, end = body.belt, body.cowl + 0.12, body.deck_start - 0.35 * body.rear_run
    tub = rounded_box((0.72 * body.width, 0.08, end - start), 0.5, 0.3)
    car.add("grille", tub.moved(0.0, belt + 0.02, 0.5 * (start + end)))
    rise = 0.8 * (body.height - belt)
    screen = rounded_box((0.78 * body.width, rise + 0.12, 0.03), 0.6, 0.1, top_scale=(0.85, 1.0))
    screen = screen.mapped(lambda verts: turned(verts, "x", 38.0))
    car.add("window", screen.moved(0.0, belt + 0.4 * rise, body.cowl + 0.3))
    back = rounded_box((0.46, 0.6, 0.16), 0.7, 0.5).mapped(lambda verts: turned(verts, "x", 14.0))
    base = rounded_box((0.48, 0.16, 0.5), 0.5, 0.6)
    at = start + 0.62 * (end - start)
    car.add_pair("seat", back.moved(0.2 * body.width, belt + 0.16, at + 0.2))
    car.add_pair("seat", base.moved(0.2 * body.width, belt + 0.03, at - 0.08))
