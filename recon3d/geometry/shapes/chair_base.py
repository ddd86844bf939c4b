"""What carries the seat of a procedural chair: legs with stretchers, a pedestal, sled or cantilever frames."""

from __future__ import annotations

import numpy as np

from recon3d.geometry.shapes.assembly import Assembly
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import ellipsoid, lathe, torus, tube

Point = tuple[float, float, float]

_BASES = {
    "dining": ("four_legs",) * 5 + ("sled",),
    "office": ("star",),
    "stool": ("four_legs", "four_legs", "three_legs", "disc"),
    "cantilever": ("cantilever", "cantilever", "sled"),
    "easy": ("four_legs", "four_legs", "star", "sled"),
}


def add_base(chair: Assembly, draws: Draws, family: str, seat: tuple[float, float, float], narrowing: float) -> None:
    """Add legs, pedestal or frames under a seat of width, depth and under-side height `seat`."""
    kind = draws.option("base", _BASES[family])
    width, depth, height = seat
    if kind in ("four_legs", "three_legs"):
        _add_legs(chair, draws, kind, seat, narrowing)
    elif kind == "star":
        _add_star(chair, draws, height, 0.5 * max(width, depth))
    elif kind == "disc":
        _add_disc(chair, draws, height, 0.5 * width)
    else:
        _add_frames(chair, draws, kind, seat)


def _add_legs(chair: Assembly, draws: Draws, kind: str, seat: tuple[float, float, float], narrowing: float) -> None:
    width, depth, height = seat
    square = draws.option("leg_section", ("square", "round")) == "square"
    sides, squareness = (8, 1.0) if square else (10, 0.0)
    thick = draws.number("leg_thickness", 0.014, 0.028)
    taper = draws.number("leg_taper", 0.5, 1.0)
    splay = draws.number("leg_splay", 0.0, 0.2) * height
    inset = draws.number("leg_inset", 1.1, 1.8) * thick
    top = height + 0.012
    x, z = 0.5 * width - inset, 0.5 * depth - inset
    if draws.used.get("seat") == "round":
        x, z = 0.7 * x, 0.7 * z
    heads = [(x, -z), (x * (1.0 - narrowing), z)]
    if kind == "three_legs":
        reach = 0.8 * x
        heads = [(reach * 0.866, reach * 0.5)]
    legs: list[tuple[Point, Point]] = []
    for px, pz in heads:
        length = np.sqrt(px * px + pz * pz)
        legs.append(((px, top, pz), (px + splay * px / length, 0.0, pz + splay * pz / length)))
    share = np.array([0.0, 0.3, 0.6, 0.85, 1.0])
    radius = thick * (1.0 - (1.0 - taper) * share)
    for head, foot in legs:
        path = np.array(head) + share[:, None] * (np.array(foot) - np.array(head))
        chair.add_pair("leg", tube(path, radius, sides, squareness))
    if kind == "three_legs":
        front = np.array([0.0, top, -reach]) + share[:, None] * np.array([0.0, -top, -splay])
        chair.add("leg", tube(front, radius, sides, squareness))
        if height > 0.55:
            chair.add("stretcher", torus(reach + 0.6 * splay, 0.011).moved(0.0, 0.4 * height))
        return
    _add_stretchers(chair, draws, legs, 0.6 * thick)


def _add_stretchers(chair: Assembly, draws: Draws, legs: list[tuple[Point, Point]], thick: float) -> None:
    kind = draws.option("stretchers", ("none", "h", "box", "sides"))
    if kind == "none":
        return
    level = draws.number("stretcher_level", 0.2, 0.55)
    front, back = (np.array(foot) + level * (np.array(head) - np.array(foot)) for head, foot in legs)
    mirror = np.array([-1.0, 1.0, 1.0])
    chair.add_pair("stretcher", tube([front, back], thick, 8))
    if kind == "h":
        middle = 0.5 * (front + back)
        chair.add("stretcher", tube([middle * mirror, middle], thick, 8))
    if kind == "box":
        chair.add("stretcher", tube([front * mirror, front], thick, 8))
        chair.add("stretcher", tube([back * mirror, back], thick, 8))


def _add_star(chair: Assembly, draws: Draws, height: float, half: float) -> None:
    arms = draws.count("star_arms", 4, 5)
    reach = half * draws.number("star_reach", 0.95, 1.3)
    thick = draws.number("column_radius", 0.025, 0.04)
    wheels = draws.flag("casters", 0.65)
    hub = draws.number("hub_height", 0.08, 0.14)
    tip = 0.075 if wheels else 0.025
    stem = [(0.0, 0.04), (1.5 * thick, 0.045), (1.4 * thick, hub), (thick, hub + 0.02), (thick, 0.7 * height),
            (0.7 * thick, 0.72 * height), (0.7 * thick, height), (0.0, height + 0.01)]  # fmt: skip
    chair.add("column", lathe(stem, 14, "y"))
    plate = [(0.0, -0.03), (0.35 * half, -0.028), (0.45 * half, 0.0), (0.45 * half, 0.012), (0.0, 0.014)]
    chair.add("column", lathe(plate, 14, "y").moved(0.0, height))
    share = np.array([0.0, 0.4, 1.0])
    radii = np.stack([np.array([0.024, 0.022, 0.016]), np.array([0.026, 0.02, 0.012])], 1)
    for k in range(arms):
        angle = 2.0 * np.pi * (k + 0.5) / arms
        out = np.array([np.sin(angle), 0.0, np.cos(angle)])
        path = share[:, None] * (reach * out) + np.array([0.0, 1.0, 0.0]) * (hub + (tip - hub) * share)[:, None]
        chair.add("foot", tube(path, radii, 8, 1.0, (-out[2], 0.0, out[0])))
        if wheels:
            chair.add("caster", ellipsoid(reach * out + np.array([0.0, 0.032, 0.0]), (0.032, 0.032, 0.024), 10, 6))


def _add_disc(chair: Assembly, draws: Draws, height: float, half: float) -> None:
    reach = half * draws.number("disc_reach", 0.95, 1.3)
    thick = draws.number("column_radius", 0.022, 0.04)
    foot = [(0.0, 0.0), (reach, 0.0), (reach, 0.015), (0.5 * reach, 0.035), (1.6 * thick, 0.06), (0.0, 0.065)]
    chair.add("foot", lathe(foot, 24, "y"))
    stem = [(0.0, 0.05), (thick, 0.051), (thick, 0.55 * height), (0.75 * thick, 0.57 * height),
            (0.75 * thick, height), (0.0, height + 0.01)]  # fmt: skip
    chair.add("column", lathe(stem, 14, "y"))
    if height > 0.5:
        ring = draws.number("foot_ring", 0.5, 0.85) * reach
        chair.add("stretcher", torus(ring, 0.011).moved(0.0, 0.35 * height))
        chair.add("stretcher", tube([(-ring, 0.35 * height, 0.0), (ring, 0.35 * height, 0.0)], 0.008, 8))


def _add_frames(chair: Assembly, draws: Draws, kind: str, seat: tuple[float, float, float]) -> None:
    width, depth, height = seat
    thick = draws.number("tube_radius", 0.011, 0.02)
    flat = draws.option("tube_section", ("round", "square")) == "square"
    x = 0.5 * width - draws.number("frame_inset", 0.0, 0.05)
    front, back = -0.5 * depth + 0.03, 0.5 * depth - 0.03
    lean = draws.number("frame_lean", 0.0, 0.08)
    bend = draws.number("frame_bend", 0.03, 0.08)
    floor, top = thick, height - 0.2 * thick
    if kind == "sled":
        corners = [
            (top, front + 0.1),
            (top, front),
            (floor, front - lean),
            (floor, back + lean),
            (top, back),
            (top, back - 0.1),
        ]
    else:  # the seat hangs on the front uprights alone
        corners = [(top, back), (top, front), (floor, front - 0.3 * lean), (floor, back + lean)]
    path = _rounded(np.array([[x, y, z] for y, z in corners]), bend)
    chair.add_pair("leg", tube(path, thick, 8, 1.0 if flat else 0.0, (1.0, 0.0, 0.0)))
    rail = back + lean - 0.03 if kind == "cantilever" else front + 0.1
    level = floor if kind == "cantilever" else top
    chair.add("stretcher", tube([(-x, level, rail), (x, level, rail)], 0.9 * thick, 8))


def _rounded(corners: np.ndarray, radius: float) -> np.ndarray:
    """Return a polyline with each inner corner replaced by a three-point bend that starts `radius` before it."""
    points = [corners[0]]
    for before, corner, after in zip(corners[:-2], corners[1:-1], corners[2:], strict=True):
        entry, leave = before - corner, after - corner
        a = corner + entry * (radius / np.sqrt((entry * entry).sum()))
        b = corner + leave * (radius / np.sqrt((leave * leave).sum()))
        points += [a, 0.25 * (a + b) + 0.5 * corner, b]
    return np.array([*points, corners[-1]])
