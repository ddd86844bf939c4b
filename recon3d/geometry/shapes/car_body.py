"""Hull and greenhouse of the procedural cars: a hull lofted along the length, a cabin lofted from belt to roof."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recon3d.geometry.shapes.assembly import Assembly
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import Bools, Floats, loft, rounded_box


class CarBody:
    """The proportions of a car: metres; z along the car from -length/2 (front), y from the ground.

    Drawn as shares: wheelbase, front_overhang (front end to front axle), cowl (foot of the windscreen), screen_run (how
    far the windscreen leans back) and deck (boot lid or load bed) of the length; rear_run (how far the rear window
    leans) of what is left for the roof; belt_height, nose_height and deck_height of the
    height; hood_bulge is how much of its rise the bonnet has done after a quarter of its length.
    """

    def __init__(self, draws: Draws, family: str, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Draw the proportions from the ranges of a family."""
        self.family = family
        self.length, self.width, self.height = (draws.number(n, *ranges[n]) for n in ("length", "width", "height"))
        half = 0.5 * self.length
        front = -half + self.length * draws.number("front_overhang", *ranges["front_overhang"])
        self.axles = (front, front + self.length * draws.number("wheelbase", *ranges["wheelbase"]))
        self.clearance = draws.number("clearance", *ranges["clearance"])
        self.wheel_radius = draws.number("wheel_radius", *ranges["wheel_radius"])
        self.belt = self.height * draws.number("belt_height", *ranges["belt_height"])
        self.nose = self.height * draws.number("nose_height", *ranges["nose_height"])
        self.tail = self.height * draws.number("deck_height", *ranges["deck_height"])
        self.cowl = -half + self.length * draws.number("cowl", *ranges["cowl"])
        self.screen_run = self.length * draws.number("screen_run", *ranges["screen_run"])
        self.deck_start = half - self.length * draws.number("deck", *ranges["deck"])
        roof = self.deck_start - self.cowl - self.screen_run
        self.rear_run = roof * draws.number("rear_run", *ranges["rear_run"])
        self.hood_bulge = draws.number("hood_bulge", 0.35, 0.75)
        self.plan_taper = draws.number("plan_taper", 0.04, 0.14)
        self.shoulder = draws.number("shoulder", 0.03, 0.1)
        self.edge_rounding = draws.number("edge_rounding", 0.03, 0.11)
        self.flare = draws.number("fender_flare", 0.0, 0.06)
        self.bed_floor = 0.5 * (2.12 * self.wheel_radius + self.belt)

    def half_width(self, z: Floats) -> Floats:
        """Return the half width at stations: tapered towards both ends, flared at the wheels."""
        end = np.clip((np.abs(z) - 0.2 * self.length) / (0.3 * self.length), 0.0, 1.0)
        width = 0.5 * self.width * (1.0 - self.plan_taper * end * end)
        for axle in self.axles:
            near = np.clip(1.0 - np.abs(z - axle) / (1.7 * self.wheel_radius), 0.0, 1.0)
            width = width + self.flare * near * near * (3.0 - 2.0 * near)
        return width

    def top(self, z: Floats) -> Floats:
        """Return the height of bonnet, belt line and deck."""
        half = 0.5 * self.length
        x = [-half, -half + 0.25 * (self.cowl + half), self.cowl, self.deck_start]
        y = [self.nose, self.nose + self.hood_bulge * (self.belt - self.nose), self.belt]
        if self.family == "pickup":
            x += [self.deck_start + 0.02, half]
            y += [self.belt, self.bed_floor, self.bed_floor]
        else:
            x += [half]
            y += [self.tail, self.tail - 0.04]
        return np.interp(z, x, y)

    def bottom(self, z: Floats) -> Floats:
        """Return the height of the sill, lifted over the wheels and towards both ends."""
        end = np.clip((np.abs(z) - 0.42 * self.length) / (0.08 * self.length), 0.0, 1.0)
        level = self.clearance + 0.1 * end
        arch = 1.13 * self.wheel_radius
        for axle in self.axles:
            reach = np.maximum(arch * arch - (z - axle) * (z - axle), 0.0)
            level = np.maximum(level, np.where(reach > 0.0, self.wheel_radius + np.sqrt(reach), 0.0))
        return level


def _stations(body: CarBody) -> Floats:
    half, arch = 0.5 * body.length, 1.13 * body.wheel_radius
    ends = np.array([0.0, 0.025, 0.07, 0.14])
    cuts = [-half + ends, half - ends, [-half + 0.25 * (body.cowl + half), body.cowl, body.deck_start]]
    if body.family == "pickup":
        cuts.append([body.deck_start + 0.02])
    around = np.cos(np.arange(9) * (np.pi / 8.0))
    for axle in body.axles:
        # A pair of stations at each foot of the arch makes its edge upright.
        cuts.append(axle + arch * around)
        cuts.append([axle - arch - 0.012, axle + arch + 0.012])
    cuts.append(0.5 * (body.axles[0] + body.axles[1]) + np.array([-0.15, 0.15]) * body.length)
    z = np.sort(np.concatenate([np.asarray(cut, float) for cut in cuts]))
    z = z[(z >= -half) & (z <= half)]
    return z[np.diff(z, prepend=-body.length) > 0.008]


# Section of the right side from sill to roof line: share of the half width, share of the height, shoulder weight.
_SIDE = np.array(
    [[0.9, 0.0, 0.0], [0.985, 0.06, 0.0], [1.0, 0.35, 0.0], [1.0, 0.6, 0.0], [0.985, 0.82, 0.3], [0.93, 0.95, 1.0],
     [0.8, 1.0, 1.0], [0.4, 1.02, 1.0]]
)  # fmt: skip


def add_body(car: Assembly, body: CarBody) -> None:
    """Add the hull with bonnet, arches and deck, and the floor between the wheels."""
    z = _stations(body)
    half = 0.5 * body.length
    low, high, wide = body.bottom(z), body.top(z), body.half_width(z)
    inset = np.clip((0.14 - (half - np.abs(z))) / 0.14, 0.0, 1.0)  # rounds both ends
    wide = wide * (1.0 - 0.12 * inset * inset)
    drop = inset * inset * body.edge_rounding
    high = np.maximum(high - drop, body.clearance + 0.16)
    wing = np.maximum(high, low + 0.05)  # big wheels push the wings up above the bonnet
    x = wide[:, None] * (_SIDE[:, 0] - body.shoulder * _SIDE[:, 2])
    y = low[:, None] + (wing - low)[:, None] * _SIDE[:, 1]
    y[:, -1] = high + 0.01
    right = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], 2)
    ridge = np.stack([np.zeros(len(z)), high + 0.02, z], 1)[:, None]
    belly = np.stack([np.zeros(len(z)), np.minimum(low, high - 0.06), z], 1)[:, None]
    flip = np.array([-1.0, 1.0, 1.0])
    car.add("body", loft(np.concatenate([belly, right, ridge, right[:, ::-1] * flip], 1)))
    inner = body.width - 2.1 * 0.68 * body.wheel_radius
    deep = body.nose - body.clearance - 0.1
    floor = rounded_box((inner, deep, 0.86 * body.length), 0.2, 0.2)
    car.add("bumper", floor.moved(0.0, body.clearance + 0.01 + 0.5 * deep, 0.0))


def add_cabin(car: Assembly, draws: Draws, body: CarBody) -> None:
    """Add the greenhouse: windows between pillars, leaning inwards and to front and rear, under a domed roof."""
    tumblehome = (
        draws.number("tumblehome", 0.04, 0.1) if body.family == "van" else draws.number("tumblehome", 0.1, 0.24)
    )
    bow = draws.number("screen_bow", 0.03, 0.12)
    crown = draws.number("roof_crown", 0.02, 0.07)
    pane = draws.number("pane_height", 0.78, 0.88)
    share = np.array([-0.25, 0.0, 0.1, 0.45, pane, 0.94, 1.0])
    sunk = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.09])
    rise = body.height - crown - body.belt
    front = body.cowl + body.screen_run * share + 1.2 * sunk
    rear = body.deck_start - body.rear_run * share - 1.2 * sunk
    # Full sides belong to roofs and vans; lids of saloons leave the greenhouse narrower than the hull.
    wide = 0.5 * body.width * (0.95 - body.shoulder) * (1.0 - tumblehome * np.maximum(share, 0.0)) - 0.6 * sunk
    along, glass = _side_pattern(draws, body)
    across = np.array([-0.93, -0.5, 0.0, 0.5, 0.93])
    ring = []
    for s, f, r, w in zip(share.tolist(), front.tolist(), rear.tolist(), wide.tolist(), strict=True):
        level = body.belt + rise * s
        plan = 1.0 - 0.5 * body.plan_taper * np.abs(2.0 * along - 1.0)
        side = np.stack([w * plan, np.full(len(along), level), f + (r - f) * along], 1)
        nose = np.stack([w * plan[0] * across, np.full(5, level), f - bow * (1.0 - across * across)], 1)
        back = np.stack([w * plan[-1] * across[::-1], np.full(5, level), r + 0.5 * bow * (1.0 - across * across)], 1)
        ring.append(np.concatenate([nose, side, back, side[::-1] * np.array([-1.0, 1.0, 1.0])]))
    rings = np.stack(ring)
    roof_middle = np.array([0.0, body.height, 0.5 * (front[-1] + rear[-1])])
    cabin = loft(rings, end=roof_middle)
    cells = _glass_cells(glass, rear_glass=body.family != "van" or draws.flag("rear_window", 0.6))
    painted = {"window": np.isin(cabin.span, (2, 3)) & cells[cabin.column]}
    if draws.flag("two_tone_roof", 0.2):
        painted["roof"] = cabin.span >= 4
    car.add("body", cabin, painted)


def _side_pattern(draws: Draws, body: CarBody) -> tuple[Floats, Bools]:
    """Return pillar edges (N,) along the side as shares and which of the gaps between them (N-1,) are glass."""
    options = {
        "sports": (1,),
        "pickup": (1, 2),
        "hatchback": (2, 2, 1),
        "sedan": (2, 2, 3),
        "van": (1, 3),
    }.get(body.family, (2, 3))
    windows = int(draws.option("side_windows", tuple(str(n) for n in options)))
    pillar = draws.number("pillar_width", 0.025, 0.05)
    last = 0.36 if body.family == "van" and windows == 1 else 1.0 - 1.5 * pillar
    edge = np.linspace(1.2 * pillar, last + pillar, windows + 1)
    # The last pane of three is a short quarter light on cars, a full one on vans.
    if windows == 3 and body.family != "van":
        edge[1:3] = edge[0] + (edge[3] - edge[0]) * np.array([0.4, 0.78])
    panes = np.stack([edge[:-1], edge[1:] - pillar], 1).reshape(-1)
    along = np.concatenate([[0.0], panes, [1.0]])
    return along, np.arange(len(along) - 1) % 2 == 1


def _glass_cells(side: Bools, rear_glass: bool) -> Bools:
    """Return which gaps of the cabin ring (N,) are glass, in its order: front, right side, rear, left side."""
    screen = np.array([True] * 4)
    post = np.array([False])
    return np.concatenate([screen, post, side, post, screen & rear_glass, post, side[::-1], post])
