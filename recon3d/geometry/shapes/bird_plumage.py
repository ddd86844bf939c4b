"""Colours of the procedural birds: soft layers of plumage painted on the faces of the parts.

Between `bird_body` / `bird_parts`, which say where a face lies, and `bird`. A species draws its palette and its marks;
every function returns one RGB colour in [0, 1] per face.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from recon3d.geometry.shapes.bird_body import HEAD_START
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats

# Hue, saturation and value of feathers.
_TONES = {
    "brown": ((0.05, 0.1), (0.35, 0.6), (0.3, 0.55)),
    "grey": ((0.55, 0.62), (0.03, 0.15), (0.4, 0.65)),
    "black": ((0.6, 0.68), (0.1, 0.25), (0.07, 0.16)),
    "white": ((0.08, 0.12), (0.0, 0.08), (0.9, 0.97)),
    "buff": ((0.08, 0.12), (0.25, 0.45), (0.75, 0.9)),
    "olive": ((0.15, 0.2), (0.4, 0.6), (0.4, 0.6)),
    "yellow": ((0.125, 0.15), (0.65, 0.85), (0.85, 0.97)),
    "orange": ((0.05, 0.09), (0.75, 0.95), (0.8, 0.95)),
    "red": ((0.97, 1.02), (0.75, 0.95), (0.6, 0.85)),
    "blue": ((0.57, 0.63), (0.55, 0.85), (0.5, 0.85)),
    "teal": ((0.46, 0.52), (0.5, 0.8), (0.35, 0.6)),
    "violet": ((0.75, 0.8), (0.3, 0.55), (0.3, 0.5)),
}
_BACKS = (*("brown",) * 3, *("grey",) * 2, "olive", "olive", "blue", "blue", "black", "red", "teal", "violet")
_BELLIES = (*("white",) * 3, "buff", "buff", "yellow", "yellow", "grey", "orange")
_ACCENTS = ("red", "yellow", "orange", "blue", "black", "white", "teal", "brown")
_BILLS = ("black", "black", "grey", "orange", "yellow", "red")


@dataclass(frozen=True)
class Plumage:
    """Palette and marks of a species.

    Attributes:
        tones: name of the tone of each colour, by its place: back, belly, breast, cap, mark, wing, tail, bill, leg.
        colors: RGB (3,) of each.
        marks: strength in [0, 1] of each mark; 0 is absent.
    """

    tones: dict[str, str]
    colors: dict[str, Floats]
    marks: dict[str, float]

    @classmethod
    def drawn(cls, draws: Draws) -> Plumage:
        """Draw a species' palette and marks."""
        back = draws.option("back", _BACKS)
        belly = draws.option("belly", tuple(tone for tone in _BELLIES if tone != back))
        accents = tuple(tone for tone in _ACCENTS if tone not in (back, belly))
        tones = {
            "back": back,
            "belly": belly,
            "breast": draws.option("breast", (belly, belly, back, *accents)),
            "cap": draws.option("cap", (back, *accents)),
            "mark": draws.option("mark", tuple(tone for tone in ("black", "white", "black", "buff") if tone != back)),
            "wing": draws.option("wing", (back, back, "black", "grey", "brown")),
            "tail": draws.option("tail", (back, back, "black", "brown")),
            "bill": draws.option("bill", _BILLS),
            "leg": draws.option("leg", ("black", "brown", "orange", "grey")),
        }
        wanted = {
            "throat": 0.45, "breast": 0.6, "cap": 0.65, "eye_line": 0.4, "brow": 0.35, "eye_ring": 0.35,
            "collar": 0.25, "wing_bars": 0.6, "wing_patch": 0.25, "breast_streaks": 0.35, "breast_spots": 0.2,
            "back_streaks": 0.3, "tail_bands": 0.3, "tail_tip": 0.4, "hood": 0.2, "rump": 0.25, "flank": 0.3,
        }  # fmt: skip
        marks = {name: float(draws.flag(name, chance)) for name, chance in wanted.items()}
        return cls(tones, {place: _color(draws, place, tone) for place, tone in tones.items()}, marks)

    def varied(self, draws: Draws) -> Plumage:
        """Return the plumage of one bird of the species: other brightness, marks more and less strong."""
        light = draws.number("brightness", 0.88, 1.1)
        colors = {
            place: np.clip(color * light * np.array([draws.number(f"{place}_{c}", 0.94, 1.06) for c in "rgb"]), 0, 1)
            for place, color in self.colors.items()
        }
        marks = {name: share * draws.number(f"{name}_strength", 0.75, 1.0) for name, share in self.marks.items()}
        return Plumage(self.tones, colors, marks)

    def trunk(self, station: Floats, angle: Floats, centre: Floats, eye: Floats, head_radius: float) -> Floats:
        """Return colours (F,3) of trunk, neck and head.

        Args:
            station: (F,) number along the control stations of `BirdBody`, 0 at the vent.
            angle: (F,) around, 0 on the back, pi on the belly.
            centre: (F,3) middles of the faces.
            eye: (3,) middle of the right eye.
            head_radius: to which marks on the head scale.
        """
        c, m = self.colors, self.marks
        side = np.abs(np.mod(angle + np.pi, 2.0 * np.pi) - np.pi)  # 0 back, pi belly, the same left and right
        x = np.abs(centre[:, 0])
        ahead, above = (eye[2] - centre[:, 2]) / head_radius, (centre[:, 1] - eye[1]) / head_radius
        on_head = _rise(station, HEAD_START - 0.6, HEAD_START + 0.1)
        paint = np.broadcast_to(c["back"], (len(station), 3)).copy()
        scallops = 0.5 + 0.5 * np.sin(9.0 * station) * np.sin(11.0 * side + 4.0 * np.sin(9.0 * station))
        paint = paint * (1.0 - 0.12 * scallops * (1.0 - on_head))[:, None]
        streaks = _rise(np.sin(21.0 * side + 1.2 * np.sin(3.0 * station)), 0.1, 0.7) * (1.0 - on_head)
        paint = _over(paint, c["mark"] * 0.5 + c["back"] * 0.3, 0.7 * m["back_streaks"] * streaks)
        lower = _rise(side, 1.45, 1.95)
        paint = _over(paint, c["belly"], lower * (1.0 - on_head))
        paint = _over(paint, 0.5 * (c["breast"] + c["belly"]), m["flank"] * lower * _fall(side, 2.1, 2.5))
        paint = _over(paint, c["breast"], m["rump"] * _fall(station, 1.8, 2.4) * _fall(side, 0.9, 1.3))
        front = _rise(station, 4.0, 4.8) * _fall(station, HEAD_START - 0.6, HEAD_START)
        paint = _over(paint, c["breast"], m["breast"] * front * _rise(side, 1.3, 1.75))
        chest = _rise(station, 3.0, 3.6) * _fall(station, 6.6, 7.2) * _rise(side, 1.5, 1.9)
        drops = _rise(np.sin(20.0 * side) * np.sin(7.5 * station), 0.3, 0.55)
        lines = _rise(np.sin(20.0 * side + 2.0 * np.sin(2.3 * station)) + 0.7 * np.sin(6.0 * station), 0.7, 1.0)
        dark = 0.25 * c["back"] + 0.2 * c["mark"]
        paint = _over(paint, dark, 0.85 * m["breast_streaks"] * chest * lines)
        paint = _over(paint, dark, 0.9 * m["breast_spots"] * (1.0 - m["breast_streaks"]) * chest * drops)
        paint = _over(paint, c["mark"], m["collar"] * _rise(station, 6.6, 6.9) * _fall(station, 7.15, 7.4))
        # The head: cheeks between back and belly, then cap, throat, lines and the ring about the eye.
        cheek = 0.75 * c["back"] + 0.25 * c["belly"]
        paint = _over(paint, cheek, on_head * _rise(side, 1.0, 1.5))
        paint = _over(paint, c["cap"], m["hood"] * _rise(station, 6.9, 7.3))
        below = _rise(-above, 0.38, 0.6) * _rise(station, 6.8, 7.3)
        throat = c["cap"] if m["hood"] else (c["breast"] if self.tones["breast"] != self.tones["back"] else c["belly"])
        paint = _over(paint, c["belly"], 0.7 * (1.0 - m["hood"]) * below)
        paint = _over(paint, throat, m["throat"] * below * _rise(ahead, -0.9, -0.4))
        paint = _over(paint, c["cap"], m["cap"] * _rise(above, 0.28, 0.45) * on_head)
        brow = _rise(above, 0.12, 0.2) * _fall(above, 0.34, 0.44) * on_head * _rise(ahead, -1.3, -1.0)
        paint = _over(paint, c["belly"], m["brow"] * brow)
        line = _fall(np.abs(above - 0.08 * ahead), 0.1, 0.2) * on_head * _rise(ahead, -1.25, -0.95)
        paint = _over(paint, c["mark"], m["eye_line"] * line * _rise(x, 0.2 * head_radius, 0.4 * head_radius))
        from_eye = np.sqrt(((centre - eye) ** 2)[:, 1:].sum(1)) / head_radius
        ring = _fall(from_eye, 0.24, 0.3) * _rise(x, 0.4 * head_radius, 0.6 * head_radius)
        return _over(paint, c["belly"], m["eye_ring"] * ring)

    def wing(self, along: Floats, down: Floats) -> Floats:
        """Return colours (F,3) of a wing at shares along it and from its upper to its lower edge."""
        c, m = self.colors, self.marks
        paint = np.broadcast_to(c["back"], (len(along), 3)).copy()
        scales = np.sin(40.0 * along + 3.0 * np.sin(18.0 * down)) * np.sin(18.0 * down)
        paint = paint * (1.0 - 0.14 * _rise(scales, -0.2, 0.8))[:, None]
        # Flight feathers fan out from the shoulder: pale edges between dark vanes.
        flight = _rise(along + 0.25 * down, 0.4, 0.5)
        vane = np.mod(7.0 * (down + 0.35 * along), 1.0)
        edge = _fall(np.minimum(vane, 1.0 - vane), 0.1, 0.22)
        paint = _over(paint, 0.85 * c["wing"], flight)
        pale = np.clip(0.6 * c["wing"] + 0.4 * c["belly"], 0.0, 1.0)
        paint = _over(paint, pale, 0.75 * flight * edge * _fall(along, 0.75, 0.95))
        paint = _over(paint, 0.35 * c["wing"], flight * _rise(along, 0.68, 0.85))
        lift = along + 0.25 * down
        for start in (0.26, 0.42):
            bar = _rise(lift, start, start + 0.03) * _fall(lift, start + 0.07, start + 0.1)
            paint = _over(paint, 0.15 * c["back"] + 0.85 * c["belly"], 0.9 * m["wing_bars"] * bar)
        patch = _rise(lift, 0.5, 0.55) * _fall(along, 0.62, 0.7) * _rise(down, 0.3, 0.45)
        paint = _over(paint, c["cap"], m["wing_patch"] * patch)
        return _over(paint, c["breast"], m["wing_patch"] * _fall(along, 0.1, 0.16))

    def tail(self, along: Floats, across: Floats) -> Floats:
        """Return colours (F,3) of the tail at shares along it and places across (-1 to 1)."""
        c, m = self.colors, self.marks
        paint = np.broadcast_to(c["tail"], (len(along), 3)).copy()
        seam = np.abs(np.sin(4.5 * np.pi * across))
        paint = paint * (1.0 - 0.3 * _fall(seam, 0.2, 0.5))[:, None]
        paint = _over(paint, 0.4 * c["tail"], 0.8 * m["tail_bands"] * _rise(np.sin(26.0 * along), 0.1, 0.5))
        paint = _over(paint, c["belly"], 0.9 * m["tail_tip"] * _rise(along - 0.06 * across * across, 0.82, 0.88))
        return _over(paint, c["belly"], 0.6 * m["wing_bars"] * _rise(np.abs(across), 0.8, 0.9))

    def bill(self, along: Floats, angle: Floats) -> Floats:
        """Return colours (F,3) of the bill: darker on top and at the tip, the gape a dark line."""
        gape = _fall(np.abs(np.abs(np.sin(angle)) - 1.0), 0.02, 0.08)
        shade = 1.0 - 0.25 * _rise(np.cos(angle), -0.1, 0.3) - 0.3 * _rise(along, 0.7, 1.0) - 0.3 * gape
        return np.clip(self.colors["bill"] * shade[:, None], 0.0, 1.0)


def _color(draws: Draws, place: str, tone: str) -> Floats:
    h, s, v = (draws.number(f"{place}_{c}", *limits) for c, limits in zip("hsv", _TONES[tone], strict=True))
    return np.array(colorsys.hsv_to_rgb(h % 1.0, s, v))


def _rise(value: Floats, low: float, high: float) -> Floats:
    """Return 0 below `low`, 1 above `high`, and a smooth step between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _fall(value: Floats, low: float, high: float) -> Floats:
    return 1.0 - _rise(value, low, high)


def _over(under: Floats, color: Floats, cover: Floats) -> Floats:
    """Return colours (F,3) with `color` (3,) laid over them by `cover` (F,)."""
    return under + (color - under) * cover[:, None]
