"""Procedural airplanes: airliners, transports, business jets, fighters, light planes, biplanes, gliders.

Built with the fuselage of length 1 along z from the nose at 0 to the tail at 1, wings along x, +y up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon3d.geometry.shapes.assembly import ANY_PAINT, GLASS, METAL, PALE_PAINT, RUBBER, Assembly, Ranges
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.engines import add_engines, add_tip_tanks
from recon3d.geometry.shapes.hull import Hull, add_fuselage
from recon3d.geometry.shapes.solids import lathe, tube
from recon3d.geometry.shapes.wings import Planform, half_wing, mean_chord_offset, whole_wing

PAINTS: dict[str, Ranges] = {
    "fuselage": ANY_PAINT,
    "wing": ANY_PAINT,
    "tail": ANY_PAINT,
    "engine": ANY_PAINT,
    "window": GLASS,
    "canopy": GLASS,
    "intake": RUBBER,
    "propeller": METAL,
    "spinner": ANY_PAINT,
    "strut": METAL,
    "wheel": RUBBER,
    "store": PALE_PAINT,
}
# A pale hull under a bright tail is the commonest livery of the families that carry passengers.
_LIVERY: dict[str, Ranges] = {**PAINTS, "fuselage": PALE_PAINT, "wing": ((0.5, 0.7), (0.0, 0.12), (0.55, 0.8))}

FAMILIES = (
    *("airliner",) * 4,
    *("transport",) * 2,
    *("business_jet",) * 2,
    *("fighter",) * 3,
    *("light",) * 3,
    *("biplane",) * 2,
    "glider",
    "glider",
)

# family -> parameter -> lowest and highest value: shares of the fuselage length, of each other, or degrees.
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "airliner": {
        "fineness": (7.5, 12.0), "section_aspect": (0.95, 1.2), "squareness": (0.0, 0.15), "nose_length": (0.09, 0.17),
        "bluntness": (0.5, 0.95), "nose_droop": (0.1, 0.35), "tail_length": (0.25, 0.38), "tail_radius": (0.06, 0.2),
        "upsweep": (0.45, 0.9), "span": (0.8, 1.08), "root_chord": (0.15, 0.21), "taper": (0.22, 0.38),
        "sweep": (22.0, 37.0), "dihedral": (3.0, 7.5), "wing_station": (0.44, 0.5), "fin_height": (0.12, 0.19),
        "fin_sweep": (32.0, 44.0), "tail_span": (0.3, 0.42),
    },
    "transport": {
        "fineness": (6.0, 8.5), "section_aspect": (1.0, 1.2), "squareness": (0.1, 0.4), "nose_length": (0.1, 0.17),
        "bluntness": (0.6, 1.0), "nose_droop": (0.1, 0.4), "tail_length": (0.33, 0.45), "tail_radius": (0.08, 0.2),
        "upsweep": (0.7, 1.0), "span": (0.9, 1.25), "root_chord": (0.12, 0.17), "taper": (0.35, 0.6),
        "sweep": (0.0, 24.0), "dihedral": (-4.0, 3.0), "wing_station": (0.4, 0.46), "fin_height": (0.15, 0.22),
        "fin_sweep": (20.0, 40.0), "tail_span": (0.33, 0.45),
    },
    "business_jet": {
        "fineness": (7.0, 9.5), "section_aspect": (0.95, 1.1), "squareness": (0.0, 0.2), "nose_length": (0.17, 0.28),
        "bluntness": (0.15, 0.6), "nose_droop": (0.1, 0.45), "tail_length": (0.3, 0.42), "tail_radius": (0.08, 0.2),
        "upsweep": (0.4, 0.8), "span": (0.8, 1.1), "root_chord": (0.15, 0.21), "taper": (0.25, 0.45),
        "sweep": (8.0, 34.0), "dihedral": (2.0, 6.0), "wing_station": (0.48, 0.55), "fin_height": (0.13, 0.19),
        "fin_sweep": (35.0, 52.0), "tail_span": (0.3, 0.4),
    },
    "fighter": {
        "fineness": (7.5, 11.0), "section_aspect": (0.8, 1.15), "squareness": (0.1, 0.6), "nose_length": (0.25, 0.4),
        "bluntness": (0.0, 0.25), "nose_droop": (0.0, 0.5), "tail_length": (0.15, 0.35), "tail_radius": (0.45, 0.75),
        "upsweep": (0.0, 0.4), "span": (0.5, 0.78), "root_chord": (0.24, 0.34), "taper": (0.12, 0.45),
        "sweep": (20.0, 48.0), "dihedral": (-4.0, 3.0), "wing_station": (0.55, 0.62), "fin_height": (0.12, 0.2),
        "fin_sweep": (35.0, 55.0), "tail_span": (0.28, 0.42),
    },
    "light": {
        "fineness": (4.8, 7.5), "section_aspect": (1.0, 1.35), "squareness": (0.15, 0.65), "nose_length": (0.14, 0.24),
        "bluntness": (0.6, 1.0), "nose_droop": (0.0, 0.35), "tail_length": (0.42, 0.58), "tail_radius": (0.08, 0.2),
        "upsweep": (0.3, 0.9), "span": (1.1, 1.5), "root_chord": (0.17, 0.24), "taper": (0.5, 1.0),
        "sweep": (-3.0, 8.0), "dihedral": (1.0, 7.0), "wing_station": (0.32, 0.4), "fin_height": (0.14, 0.22),
        "fin_sweep": (10.0, 42.0), "tail_span": (0.36, 0.48),
    },
    "biplane": {
        "fineness": (5.5, 8.0), "section_aspect": (1.0, 1.3), "squareness": (0.2, 0.7), "nose_length": (0.1, 0.2),
        "bluntness": (0.7, 1.0), "nose_droop": (0.0, 0.2), "tail_length": (0.45, 0.62), "tail_radius": (0.08, 0.2),
        "upsweep": (0.2, 0.7), "span": (1.05, 1.45), "root_chord": (0.16, 0.22), "taper": (0.75, 1.0),
        "sweep": (-2.0, 9.0), "dihedral": (0.5, 5.0), "wing_station": (0.28, 0.34), "fin_height": (0.11, 0.18),
        "fin_sweep": (5.0, 40.0), "tail_span": (0.34, 0.46),
    },
    "glider": {
        "fineness": (9.0, 13.0), "section_aspect": (1.0, 1.25), "squareness": (0.0, 0.2), "nose_length": (0.2, 0.32),
        "bluntness": (0.2, 0.6), "nose_droop": (0.2, 0.5), "tail_length": (0.5, 0.62), "tail_radius": (0.12, 0.25),
        "upsweep": (0.2, 0.7), "span": (1.6, 2.1), "root_chord": (0.1, 0.15), "taper": (0.3, 0.6),
        "sweep": (-2.0, 4.0), "dihedral": (1.5, 5.0), "wing_station": (0.36, 0.41), "fin_height": (0.14, 0.2),
        "fin_sweep": (8.0, 30.0), "tail_span": (0.35, 0.46),
    },
}  # fmt: skip

_POSITIONS = {
    "airliner": ("low",),
    "transport": ("high",),
    "business_jet": ("low",),
    "fighter": ("low", "mid", "high"),
    "light": ("low", "high", "high"),
    "biplane": ("low",),
    "glider": ("mid", "high"),
}
_TAILS = {
    "airliner": ("conventional",) * 4 + ("t_tail",),
    "transport": ("t_tail", "conventional", "twin_fin"),
    "business_jet": ("t_tail", "t_tail", "cruciform"),
    "fighter": ("conventional", "twin_fin", "tailless"),
    "light": ("conventional", "conventional", "t_tail", "v_tail"),
    "biplane": ("conventional",),
    "glider": ("t_tail", "v_tail", "conventional"),
}
_ENGINES = {
    "airliner": ("two_under_wing", "two_under_wing", "four_under_wing", "two_rear"),
    "transport": ("two_propellers", "four_propellers", "two_under_wing", "four_under_wing"),
    "business_jet": ("two_rear",),
    "fighter": ("side_intakes", "nose_intake"),
    "light": ("nose_propeller", "nose_propeller", "nose_propeller", "two_propellers"),
    "biplane": ("nose_propeller",),
    "glider": ("none",),
}


def build_airplane(draws: Draws) -> Assembly:
    """Return the parts of the airplane that `draws` describes."""
    family = draws.option("family", FAMILIES)
    pale = family in ("airliner", "business_jet", "glider", "transport") and draws.flag("pale_livery", 0.65)
    plane = Assembly(draws, _LIVERY if pale else PAINTS)
    hull = Hull(draws, _RANGES[family])
    engines = draws.option("engines", _ENGINES[family])
    add_fuselage(plane, draws, hull, family, engines)
    position = draws.option("wing_position", _POSITIONS[family])
    wing = _wing_plan(draws, hull, family, position)
    winglet = 0.0
    if family in ("airliner", "business_jet", "glider") and draws.flag("winglets", 0.5):
        winglet = draws.number("winglet_height", 0.06, 0.13)
    plane.add("wing", whole_wing(wing, winglet))
    if family == "biplane":
        _add_upper_wing(plane, draws, hull, wing)
    _add_tail(plane, draws, hull, wing, family, engines)
    add_engines(plane, draws, hull, wing, engines)
    if family in ("light", "biplane") and draws.flag("fixed_gear", 0.8):
        _add_gear(plane, draws, hull, wing.root[2] + 0.25 * wing.root_chord)
    if family == "light" and position == "high" and draws.flag("wing_struts", 0.7):
        x, y, z, chord = wing.place(draws.number("strut_foot", 0.4, 0.6))
        foot = (hull.half_width * 0.8, -hull.half_height * 0.8, z + 0.35 * chord)
        plane.add_pair("strut", tube([foot, (x, y, z + 0.35 * chord)], [[0.01, 0.005]] * 2))
    if family in ("fighter", "light") and draws.flag("tip_tanks", 0.25):
        add_tip_tanks(plane, draws, wing)
    return plane


def _wing_plan(draws: Draws, hull: Hull, family: str, position: str) -> Planform:
    ranges = _RANGES[family]
    span, root_chord, taper, sweep, dihedral, station = (
        draws.number(name, *ranges[name])
        for name in ("span", "root_chord", "taper", "sweep", "dihedral", "wing_station")
    )
    if family == "fighter" and draws.flag("delta_wing", 0.4):
        root_chord, taper, sweep = 1.45 * root_chord, 0.35 * taper, 35.0 + 0.5 * sweep
    half = 0.5 * span
    height = {"low": -0.72, "mid": 0.0, "high": 0.88}[position] * hull.half_height
    kink = draws.number("wing_kink", 0.25, 0.4) if family == "airliner" else 0.0
    thickness = draws.number("wing_thickness", 0.09, 0.15) * (0.6 if family == "fighter" else 1.0)
    front = station - mean_chord_offset(half, root_chord, taper, sweep)
    return Planform((0.0, height, front), half, root_chord, taper, sweep, dihedral, thickness, kink)


def _add_upper_wing(plane: Assembly, draws: Draws, hull: Hull, lower: Planform) -> None:
    gap = draws.number("wing_gap", 1.9, 2.6) * hull.half_height
    stagger = draws.number("stagger", -0.02, 0.09)
    x, y, z = lower.root
    longer = draws.number("upper_span", 1.0, 1.18)
    upper = replace(lower, root=(x, y + gap, z - stagger), half_span=lower.half_span * longer)
    plane.add("wing", whole_wing(upper))
    bays = draws.count("strut_bays", 1, 2)
    for share in [*np.linspace(0.85, 0.45, bays).tolist(), 0.08]:
        for along in (0.2, 0.7):
            x0, y0, z0, chord = lower.place(share)
            x1, y1, z1, _ = upper.place(share / longer)
            foot = (x0, hull.half_height * 0.5 if share < 0.1 else y0, z0 + along * chord)
            plane.add_pair("strut", tube([foot, (x1, y1, z1 + along * chord)], [[0.006, 0.008]] * 2, 6))


def _add_tail(plane: Assembly, draws: Draws, hull: Hull, wing: Planform, family: str, engines: str) -> None:
    options = ("t_tail",) if engines == "two_rear" and family == "airliner" else _TAILS[family]
    kind = draws.option("tail", options)
    ranges = _RANGES[family]
    span = draws.number("tail_span", *ranges["tail_span"])
    tail_sweep = draws.number("tail_sweep", 0.7, 1.0) * wing.sweep + 4.0
    chord = 0.5 * span * draws.number("tail_chord", 0.42, 0.58)
    if kind == "v_tail":
        lean = draws.number("v_angle", 32.0, 48.0)
        root = (0.0, float(hull.axis(np.array([0.95]))[0]), 0.97 - 1.1 * chord)
        plane.add("tail", whole_wing(Planform(root, 0.55 * span, 1.1 * chord, 0.6, tail_sweep, lean, 0.1), stations=5))
        return
    fin_sweep = draws.number("fin_sweep", *ranges["fin_sweep"])
    fin_height = draws.number("fin_height", *ranges["fin_height"])
    fin_chord = fin_height * draws.number("fin_chord", 0.85, 1.15)
    fin_root = (0.0, hull.top(0.93) - 0.12 * hull.half_height, 0.99 - fin_chord)
    fin = Planform(fin_root, fin_height, fin_chord, 0.8 if kind == "t_tail" else 0.45, fin_sweep, 90.0, 0.1)
    if kind == "twin_fin":
        x, y = (0.42 * span, 0.02) if family == "transport" else (0.75 * hull.half_width, 0.0)
        cant = 90.0 if family == "transport" else draws.number("fin_cant", 62.0, 90.0)
        base = float(hull.axis(np.array([0.92]))[0]) - y
        twin = replace(fin, root=(x, base, fin_root[2]), dihedral=cant, half_span=0.9 * fin_height)
        plane.add_pair("tail", half_wing(twin))
    else:
        plane.add("tail", half_wing(fin))
    if kind == "tailless":
        return
    height = {"t_tail": 0.97, "cruciform": 0.5}.get(kind)
    if height is None:
        root = (0.0, float(hull.axis(np.array([0.92]))[0]), 0.97 - chord)
    else:
        _, y, z, _ = fin.place(height)
        root = (0.0, y, z + 0.02)
    lean = draws.number("tail_dihedral", -2.0, 7.0)
    plane.add("tail", whole_wing(Planform(root, 0.5 * span, chord, 0.55, max(tail_sweep, 2.0), lean, 0.1), stations=5))


def _add_gear(plane: Assembly, draws: Draws, hull: Hull, station: float) -> None:
    radius = draws.number("wheel_radius", 0.022, 0.036)
    track = draws.number("track", 0.09, 0.15)
    ground = -hull.half_height - draws.number("leg_length", 0.05, 0.09)
    width = 0.45 * radius
    profile = [(0.0, -0.8), (0.7, -1.0), (1.0, -0.5), (1.0, 0.5), (0.7, 1.0), (0.0, 0.8)]
    wheel = lathe([(radius * r, width * t) for r, t in profile], 14, "x")
    tail_wheel = draws.flag("tail_wheel", 0.5)
    main = station + (-0.02 if tail_wheel else 0.09)
    plane.add_pair("wheel", wheel.moved(track, ground, main))
    plane.add_pair(
        "strut", tube([(0.6 * hull.half_width, -0.7 * hull.half_height, main), (track, ground, main)], 0.008)
    )
    if tail_wheel:
        low = float(hull.axis(np.array([0.93]))[0]) - 0.035
        plane.add("wheel", wheel.mapped(lambda verts: 0.5 * verts).moved(0.0, low, 0.93))
        plane.add("strut", tube([(0.0, low, 0.93), (0.0, low + 0.04, 0.92)], 0.006))
    else:
        plane.add("wheel", wheel.mapped(lambda verts: 0.8 * verts).moved(0.0, ground, 0.1))
        plane.add("strut", tube([(0.0, ground, 0.1), (0.0, -0.5 * hull.half_height, 0.11)], 0.007))
