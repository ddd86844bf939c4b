"""Engines of the procedural airplanes: nacelles on pylons, propellers, intakes, tip tanks."""

from __future__ import annotations

import numpy as np

from recon3d.geometry.shapes.assembly import Assembly
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.hull import Hull
from recon3d.geometry.shapes.solids import Bools, Solid, lathe, section_loft, tube
from recon3d.geometry.shapes.wings import Planform, aerofoil_loft, half_wing


def add_engines(plane: Assembly, draws: Draws, hull: Hull, wing: Planform, engines: str) -> None:
    """Add the engines of the named layout with their pylons, propellers or intakes."""
    if engines == "none":
        return
    if engines == "nose_propeller":
        radius = draws.number("propeller_radius", 0.11, 0.17)
        _add_propeller(plane, draws, (0.0, float(hull.axis(np.zeros(1))[0]), -0.004), radius, 0.35 * hull.half_width)
        if draws.flag("radial_engine", 0.35):
            cowl = hull.half_height * 1.05
            profile = [
                (0.0, 0.02),
                (0.75 * cowl, 0.0),
                (0.97 * cowl, 0.02),
                (cowl, 0.06),
                (0.9 * cowl, 0.13),
                (0.0, 0.14),
            ]
            ring = lathe(profile, 16)
            plane.add("engine", ring, {"intake": ring.span == -1})
        return
    if engines == "nose_intake":
        return
    if engines == "side_intakes":
        _add_side_intakes(plane, draws, hull)
        return
    radius = draws.number("engine_radius", 0.42, 0.62) * hull.half_width
    length = radius * draws.number("engine_length", 3.6, 5.2)
    if engines == "two_rear":
        station = draws.number("engine_station", 0.69, 0.79)
        x, y = hull.width(station) + 1.25 * radius, 0.45 * hull.half_height
        plane.add_pair("engine", *_nacelle(radius, length, (x, y, station - 0.5 * length)))
        pylon = aerofoil_loft(
            np.array([[0.3 * x, y, station - 0.3 * length], [x, y, station - 0.2 * length]]),
            np.full(2, 0.6 * length),
            np.full(2, 0.15),
            np.array([[0.0, 1.0, 0.0]] * 2),
        )
        plane.add_pair("fuselage", pylon)
        return
    inner = draws.number("engine_place", 0.3, 0.38)
    for share in (inner, inner + 0.3)[: 2 if engines.startswith("four") else 1]:
        x, y, z, chord = wing.place(share)
        if engines.endswith("propellers"):
            slim = 0.65 * radius
            front = z - 0.55 * length
            profile = [(0.0, 0.0), (0.6, 0.0), (1.0, 0.12), (1.05, 0.5), (0.7, 0.85), (0.15, 1.0), (0.0, 1.0)]
            scaled = [(slim * r, (length * 0.45 + chord) * t) for r, t in profile]
            plane.add_pair("engine", lathe(scaled, 12).moved(x, y - 0.2 * slim, front))
            for side in (1.0, -1.0):
                _add_propeller(plane, draws, (side * x, y - 0.2 * slim, front), radius * 2.3, 0.5 * slim)
        else:
            drop = radius * draws.number("engine_drop", 1.15, 1.5)
            front = z - length * draws.number("engine_lead", 0.45, 0.7)
            plane.add_pair("engine", *_nacelle(radius, length, (x, y - drop, front)))
            plan = Planform((x, y - drop, front + 0.25 * length), drop * 0.98, 0.75 * length, 0.9, 30.0, 90.0, 0.12)
            plane.add_pair("wing", half_wing(plan, 2))


def _nacelle(radius: float, length: float, front: tuple[float, float, float]) -> tuple[Solid, dict[str, Bools]]:
    """Return a turbofan with a hollow intake and its paint; `front` is the middle of the lip."""
    lip = 0.8 * radius
    profile = [
        (0.0, 0.16),
        (0.98 * lip, 0.18),
        (lip, 0.03),
        (0.9 * radius, 0.0),
        (radius, 0.14),
        (0.98 * radius, 0.45),
        (0.68 * radius, 0.82),
        (0.42 * radius, 0.84),
        (0.36 * radius, 0.95),
        (0.0, 1.06),
    ]
    solid = lathe([(r, length * t) for r, t in profile], 14).moved(*front)
    return solid, {"intake": solid.span <= 0}


def _add_propeller(
    plane: Assembly, draws: Draws, hub: tuple[float, float, float], radius: float, spinner: float
) -> None:
    x, y, z = hub
    blades = draws.count("propeller_blades", 2, 4)
    pitch = np.deg2rad(25.0)
    along = np.array([0.05, 0.35, 0.7, 1.0]) * radius
    chord = np.array([0.05, 0.095, 0.09, 0.04]) * radius
    flat = np.stack([chord, np.full(4, 0.02 * radius)], 1)
    for blade in range(blades):
        turn = 2.0 * np.pi * (blade / blades + draws.unit("propeller_phase"))
        out = np.array([np.cos(turn), np.sin(turn), 0.0])
        across = np.array([-np.sin(turn) * np.cos(pitch), np.cos(turn) * np.cos(pitch), np.sin(pitch)])
        path = np.array([x, y, z - 0.4 * spinner]) + along[:, None] * out
        plane.add("propeller", tube(path, flat[:, ::-1], 8, 0.0, across))
    nose = [(0.0, -1.5), (0.45, -1.2), (0.8, -0.6), (1.0, 0.0), (1.0, 0.6), (0.0, 0.6)]
    plane.add("spinner", lathe([(spinner * r, spinner * t) for r, t in nose], 12).moved(x, y, z))


def _add_side_intakes(plane: Assembly, draws: Draws, hull: Hull) -> None:
    start = draws.number("intake_station", 0.32, 0.42)
    size = draws.number("intake_size", 0.45, 0.75) * hull.half_width
    z = start + (0.9 - start) * np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    grow = np.array([1.0, 1.1, 1.1, 0.95, 0.6])
    x = hull.half_width * np.array([1.12, 1.1, 1.0, 0.85, 0.5])
    centre = np.stack([x, np.full(5, -0.1 * hull.half_height)], 1)
    half_size = np.stack([0.6 * size * grow, size * grow], 1)
    angles = np.arange(12, dtype=np.float64) * (np.pi / 6.0)
    duct = section_loft(z, centre, half_size, angles, 0.8)
    plane.add_pair("fuselage", duct, {"intake": duct.span == -1})


def add_tip_tanks(plane: Assembly, draws: Draws, wing: Planform) -> None:
    """Add slender tanks at the wing tips."""
    x, y, z, chord = wing.place(1.0)
    length = chord * draws.number("tank_length", 1.3, 2.2)
    thick = 0.08 * length
    profile = [(0.0, -0.5), (0.5, -0.42), (0.9, -0.25), (1.0, 0.0), (0.8, 0.25), (0.4, 0.43), (0.0, 0.5)]
    tank = lathe([(thick * r, length * t) for r, t in profile], 12)
    plane.add_pair("store", tank.moved(x, y, z + 0.5 * chord))
