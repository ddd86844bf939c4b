"""Backs and arm rests of the procedural chairs.

A back is designed flat, in (across, up from the seat, forward) coordinates, then bent: leaned back by its rake,
hollowed across and curved along its height. Everything fixed to it goes through the same bend.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from recon3d.geometry.shapes.assembly import Assembly
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Floats, Solid, rounded_box, sheet_loft, tube

_STYLES = {
    "dining": ("solid", "slats", "ladder", "spindles", "frame", "hoop"),
    "office": ("padded", "padded", "ladder"),
    "stool": ("solid", "ladder"),
    "cantilever": ("solid", "padded", "frame"),
    "easy": ("padded", "slats", "ladder", "solid"),
}
_ARMS = {
    "dining": ("none", "none", "none", "open"),
    "office": ("none", "t_shaped", "open"),
    "cantilever": ("none", "open"),
    "easy": ("open", "open", "closed", "none"),
}


class Back:
    """The bent surface of a back and the seat it stands on."""

    def __init__(
        self,
        draws: Draws,
        family: str,
        seat: tuple[float, float, float],
        narrowing: float,
        round_seat: bool,
        ranges: Mapping[str, tuple[float, float]],
    ) -> None:
        """Draw the back of a chair with seat width, depth and upper height `seat`."""
        self.family = family
        self.width, self.depth, self.seat_height = seat
        self.height = draws.number("back_height", *ranges["back_height"])
        self.half = 0.5 * self.width * (1.0 - narrowing) * (0.62 if round_seat else 0.94)
        self.foot = self.depth * (0.36 if round_seat else 0.5) - 0.025
        self.top_width = draws.number("back_top_width", 0.78, 1.12)
        angle = draws.number("back_rake", *ranges["back_rake"]) * (np.pi / 180.0)
        self._slope = float(np.sin(angle) / np.cos(angle))
        self._hollow = draws.number("back_hollow", 0.0, 0.1)
        self._curl = draws.number("back_curl", -0.05, 0.08)

    def bent(self, flat: Floats) -> Floats:
        """Return world positions (...,3) of flat back coordinates (...,3)."""
        across, up, forward = flat[..., 0], flat[..., 1], flat[..., 2]
        share = np.clip(up / self.height, 0.0, 1.2)
        side = across / self.half
        x = across * (1.0 + (self.top_width - 1.0) * share)
        z = self.foot - forward + self._slope * up + self._curl * share * share
        return np.stack([x, self.seat_height + up, z - self._hollow * (side * side - 1.0) * share], -1)

    def add(self, chair: Assembly, part: str, solid: Solid) -> None:
        """Add a solid given in flat coordinates."""
        chair.add(part, solid.mapped(self.bent))

    def bar(self, points: list[tuple[float, float]], radii: tuple[float, float], square: bool) -> Solid:
        """Return a bar through (across, up) points, with enough joints to follow the bend."""
        corners = np.array([[x, y, 0.0] for x, y in points])
        share = np.arange(5)[:, None] / 5.0
        path = [a + share * (b - a) for a, b in itertools.pairwise(corners)]
        line = np.concatenate([*path, corners[-1:]])
        return tube(line, np.broadcast_to(np.array(radii), (len(line), 2)), 8, 1.0 if square else 0.0, (0.0, 0.0, 1.0))

    def plate(self, low: float, high: float, half: float, thick: float, rounding: float, gap: float = 0.0) -> Solid:
        """Return a panel between two heights; `rounding` cuts its corners, `gap` moves it forward."""
        up = np.concatenate([[0.0, 0.03, 0.1], np.linspace(0.2, 0.8, 4), [0.9, 0.97, 1.0]])
        edge = np.abs(2.0 * up - 1.0)
        ease = np.clip((edge - 0.6) / 0.4, 0.0, 1.0)
        narrow = 1.0 - rounding * (1.0 - np.sqrt(1.0 - 0.96 * ease * ease))
        column = np.array([-1.0, -0.94, -0.6, -0.2, 0.2, 0.6, 0.94, 1.0])
        bulge = np.where(np.abs(column) > 0.95, 0.55, 1.0)[None] * np.where(edge > 0.97, 0.55, 1.0)[:, None]
        grid = np.empty((len(up), len(column), 3))
        grid[..., 0] = half * narrow[:, None] * column
        grid[..., 1] = (low + (high - low) * up)[:, None]
        front, rear = grid.copy(), grid
        front[..., 2] = gap + 0.5 * thick * bulge
        rear[..., 2] = gap - 0.5 * thick * bulge
        return sheet_loft(front, rear)


def add_back(chair: Assembly, draws: Draws, back: Back) -> None:
    """Add the back in one of its styles."""
    style = draws.option("back", _STYLES[back.family])
    if style == "padded":
        _add_pad(chair, draws, back)
        return
    post = draws.number("post_thickness", 0.012, 0.022)
    if style == "solid":
        _add_panel(chair, draws, back, post)
        return
    low, high, half = -0.03, back.height, back.half - post
    square = draws.option("post_section", ("square", "round")) == "square"
    if style == "hoop":
        arc = np.arange(1, 8) * (np.pi / 8.0)
        bow = [(half * float(np.cos(a)), 0.55 * high + 0.45 * high * float(np.sin(a))) for a in arc]
        path = np.array(
            [
                (half, low),
                (half, 0.3 * high),
                (half, 0.55 * high),
                *bow,
                (-half, 0.55 * high),
                (-half, 0.3 * high),
                (-half, low),
            ]
        )
        line = np.concatenate([path, np.zeros((len(path), 1))], 1)
        back.add(chair, "back", tube(line, post, 8, 1.0 if square else 0.0, (0.0, 0.0, 1.0)))
    else:
        for side in (-half, half):
            back.add(chair, "back", back.bar([(side, low), (side, high)], (post, post), square))
    if style in ("slats", "spindles", "hoop"):
        _add_uprights(chair, draws, back, style, half, post)
    else:
        rungs = draws.count("rungs", 2, 5) if style == "ladder" else 1
        tall = draws.number("rung_height", 0.35, 0.75)
        if style == "frame":
            lower, upper = 0.3 * high, 0.97 * high
            back.add(chair, "cushion", back.plate(lower, upper, half, 1.2 * post, 0.1))
            return
        start = draws.number("rung_start", 0.15, 0.35) * high
        pitch = (high - start) / rungs
        for k in range(rungs):
            bottom = start + k * pitch
            back.add(chair, "back", back.plate(bottom, bottom + tall * pitch, half + 0.3 * post, post, 0.05))


def _add_pad(chair: Assembly, draws: Draws, back: Back) -> None:
    thick = draws.number("pad_thickness", 0.04, 0.11)
    lift = draws.number("back_lift", 0.02, 0.3) * back.height
    back.add(chair, "back", back.plate(lift, back.height, back.half, thick, draws.number("back_rounding", 0.05, 0.6)))
    stem = back.bar([(0.0, -0.04), (0.0, lift + 0.3 * back.height)], (0.04, 0.012), True)
    back.add(chair, "column", stem.mapped(lambda flat: flat - np.array([0.0, 0.0, 0.4 * thick])))


def _add_panel(chair: Assembly, draws: Draws, back: Back, post: float) -> None:
    raised = draws.flag("back_raised", 0.65)  # a gap between the seat and the panel, which then stands on two bars
    lift = draws.number("back_lift", 0.1, 0.4) * back.height if raised else -0.02
    rounding = draws.number("back_rounding", 0.05, 0.6)
    back.add(chair, "back", back.plate(lift, back.height, back.half, 1.4 * post, rounding))
    if raised:
        for side in (-0.6 * back.half, 0.6 * back.half):
            back.add(chair, "back", back.bar([(side, -0.03), (side, lift + 0.1)], (0.8 * post, 0.8 * post), True))


def _add_uprights(chair: Assembly, draws: Draws, back: Back, style: str, half: float, post: float) -> None:
    count = draws.count("uprights", 3, 8)
    high, rail = back.height, draws.number("rail_height", 0.04, 0.1)
    low = -0.02 if style != "slats" else draws.number("lower_rail", 0.1, 0.3) * high
    if style != "hoop":
        back.add(chair, "back", back.plate(high - rail, high + 0.01, half + post, 1.6 * post, 0.2))
    if style == "slats":
        back.add(chair, "back", back.plate(low - 0.02, low + 0.02, half, 1.4 * post, 0.05))
    wide = draws.number("upright_width", 0.25, 0.6) * half / (count + 1.0)
    for k in range(count):
        x = half * (2.0 * (k + 1.0) / (count + 1.0) - 1.0)
        top = high - 0.5 * rail
        if style == "hoop":
            share = x / half
            top = 0.55 * high + 0.45 * high * float(np.sqrt(1.0 - share * share))
        radii = (wide, 0.4 * post) if style == "slats" else (0.5 * post, 0.5 * post)
        back.add(chair, "back", back.bar([(x, low), (x, top)], radii, style == "slats"))


def add_arms(chair: Assembly, draws: Draws, family: str, back: Back) -> None:
    """Add a pair of arm rests, or none."""
    style = draws.option("arms", _ARMS[family])
    if style == "none":
        return
    rise = draws.number("arm_height", 0.16, 0.25)
    wide = draws.number("arm_width", 0.035, 0.075)
    front = -draws.number("arm_reach", 0.15, 0.48) * back.depth
    x, y = 0.5 * back.width + 0.2 * wide, back.seat_height + rise
    rear = float(back.bent(np.array([back.half, rise, 0.0]))[2]) + 0.01
    if style == "closed":
        side = rounded_box((wide, rise + 0.1, rear - front), 0.6, 0.3, 4, 2)
        chair.add_pair("arm", side.moved(x + 0.1 * wide, y - 0.5 * (rise + 0.1), 0.5 * (front + rear)))
        return
    end = 0.15 * back.depth if style == "t_shaped" else rear
    rest = rounded_box((wide, 0.03, end - front), 0.7, 0.5, 4, 2)
    chair.add_pair("arm", rest.moved(x, y, 0.5 * (front + end)))
    foot = back.seat_height - 0.02
    if style == "t_shaped":
        middle = 0.5 * (front + end)
        path = [(0.6 * x, foot - 0.04, middle), (x, foot - 0.02, middle), (x, y, middle)]
        chair.add_pair("arm", tube(path, [[0.014, 0.025]] * 3, 8, 1.0))
    else:
        path = [(0.5 * back.width - 0.025, foot, front + 0.05), (x, y, front + 0.03)]
        chair.add_pair("arm", tube(path, 0.4 * wide, 8))
        chair.add_pair("arm", tube([(back.half - 0.01, foot, back.foot), (x, y, rear - 0.03)], 0.013, 8))
