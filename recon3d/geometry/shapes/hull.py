"""Fuselages of the procedural airplanes: the outline, its windows, canopies and open seats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recon3d.geometry.shapes.assembly import Assembly
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats, ellipsoid, rounded_box, section_loft

_DRAWN = (
    "fineness",
    "section_aspect",
    "squareness",
    "nose_length",
    "bluntness",
    "nose_droop",
    "tail_length",
    "tail_radius",
    "upsweep",
)


class Hull:
    """The fuselage's outline: where its axis runs and how thick it is at each station."""

    def __init__(self, draws: Draws, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Draw the outline from the ranges of a family."""
        number = {name: draws.number(name, *ranges[name]) for name in _DRAWN}
        self.half_width = 0.5 / number["fineness"]
        self.half_height = self.half_width * number["section_aspect"]
        self.nose_length, self.tail_length = number["nose_length"], number["tail_length"]
        self.squareness = number["squareness"]
        self._bluntness, self._droop = number["bluntness"], number["nose_droop"]
        self._tail_radius, self._upsweep = number["tail_radius"], number["upsweep"]

    def size(self, z: Floats) -> Floats:
        """Return the thickness at stations, 0 to 1 of the largest."""
        nose = 1.0 - np.clip(z / self.nose_length, 0.0, 1.0)
        tail = np.clip((z - 1.0 + self.tail_length) / self.tail_length, 0.0, 1.0)
        round_nose, sharp_nose = np.sqrt(1.0 - nose * nose), 1.0 - nose * (0.55 + 0.45 * nose)
        front = self._bluntness * round_nose + (1.0 - self._bluntness) * sharp_nose
        return front * (1.0 - (1.0 - self._tail_radius) * tail * (0.3 + 0.7 * tail))

    def axis(self, z: Floats) -> Floats:
        """Return the height of the section centres."""
        nose, tail = z < self.nose_length, z > 1.0 - self.tail_length
        lift = np.where(tail, self._upsweep, 0.0) - np.where(nose, self._droop, 0.0)
        return lift * (1.0 - self.size(z)) * self.half_height

    def top(self, z: float) -> float:
        """Return the height of the upper surface at one station."""
        at = np.array([z])
        return float((self.axis(at) + self.size(at) * self.half_height)[0])

    def width(self, z: float) -> float:
        """Return the half width at one station."""
        return float(self.size(np.array([z]))[0]) * self.half_width


def add_fuselage(plane: Assembly, draws: Draws, hull: Hull, family: str, engines: str) -> None:
    """Add the hull with its windows, canopy or open seats."""
    turn = np.arange(7) / 6.0
    nose = hull.nose_length * (1.0 - np.cos(0.5 * np.pi * turn))[1:]
    tail = 1.0 - hull.tail_length * (1.0 - turn)
    middle = hull.nose_length + (tail[0] - hull.nose_length) * np.array([0.33, 0.67])
    z = np.concatenate([nose, middle, tail])
    # Thin rows at window height on both sides; elsewhere about every 20 degrees.
    right = np.array([-90.0, -70.0, -50.0, -30.0, -10.0, 8.0, 18.0, 34.0, 52.0, 70.0])
    angles = np.deg2rad(np.concatenate([right, [90.0], 180.0 - right[:0:-1]]))
    centre = np.stack([np.zeros(len(z)), hull.axis(z)], 1)
    half_size = hull.size(z)[:, None] * np.array([hull.half_width, hull.half_height])
    tip = (0.0, float(hull.axis(np.zeros(1))[0]), 0.0)
    body = section_loft(z, centre, half_size, angles, hull.squareness, start=tip)
    painted = {}
    if family in ("airliner", "business_jet", "transport"):
        row = (body.column == 5) | (body.column == 14)
        glazed = family != "transport" or draws.flag("cabin_windows", 0.5)
        cockpit = np.isin(body.span, (2, 3)) & (body.column >= 6) & (body.column <= 13)
        painted["window"] = cockpit | (glazed & row & (body.span >= 5) & (body.span <= 10))
    if engines == "nose_intake":
        painted["intake"] = body.span <= 0
    if family == "fighter":
        painted["engine"] = body.span >= len(z) - 2
    plane.add("fuselage", body, painted)
    if family in ("fighter", "light", "glider"):
        _add_canopy(plane, draws, hull, family)
    if family == "biplane":
        for seat in range(draws.count("open_seats", 1, 2)):
            at = 0.46 + 0.13 * seat
            screen = rounded_box((hull.half_width * 1.2, hull.half_height * 0.7, 0.012)).moved(
                0, hull.top(at), at - 0.04
            )
            plane.add("window", screen)
            plane.add("intake", ellipsoid((0, hull.top(at) * 0.93, at), (hull.half_width * 0.7, 0.012, 0.045)))


def _add_canopy(plane: Assembly, draws: Draws, hull: Hull, family: str) -> None:
    low, high = {"fighter": (0.24, 0.34), "light": (0.36, 0.44), "glider": (0.2, 0.25)}[family]
    middle = draws.number("canopy_station", low, high)
    length = draws.number("canopy_length", 0.16, 0.26)
    rise = draws.number("canopy_height", 0.35, 0.7)
    height = hull.half_height * (rise + 0.35)
    base = hull.top(middle) - 0.35 * hull.half_height
    width = hull.width(middle) * (0.85 if family == "light" else 0.68)
    plane.add("canopy", ellipsoid((0.0, base, middle), (width, height, 0.5 * length * 1.15), 16, 10))
