"""Lifting surfaces of the procedural airplanes: wings, tailplanes, fins, winglets and the places on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.geometry.shapes.solids import Floats, Solid, loft

# Chord fractions of the aerofoil ring from the trailing edge over the top to the leading edge and back below.
_CHORDWISE = np.array([1.0, 0.8, 0.5, 0.25, 0.08, 0.0, 0.08, 0.25, 0.5, 0.8])
_SIDE = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0, -1.0, -1.0, -1.0])


def _half_thickness(x: Floats) -> Floats:
    """Return the half thickness of a NACA four-digit aerofoil of unit thickness, closed at the trailing edge."""
    root = 0.2969 * np.sqrt(x)
    return 5.0 * (root - 0.1260 * x - 0.3516 * x * x + 0.2843 * x * x * x - 0.1036 * (x * x) * (x * x))


_HALF_THICKNESS = _SIDE * _half_thickness(_CHORDWISE)


def aerofoil_loft(leading: Floats, chord: Floats, thickness: Floats, normal: Floats) -> Solid:
    """Return the solid through aerofoil sections.

    Args:
        leading: (S,3) leading-edge points; the chord runs towards +z.
        chord: (S,) chord lengths.
        thickness: (S,) thickness over chord.
        normal: (S,3) unit direction of the thickness, perpendicular to z.
    """
    rings = leading[:, None] + normal[:, None] * (_HALF_THICKNESS[None] * (chord * thickness)[:, None])[..., None]
    rings[..., 2] += _CHORDWISE * chord[:, None]
    return loft(rings)


@dataclass(frozen=True)
class Planform:
    """One half of a symmetric surface, seen from the place where both halves meet.

    Lengths in fuselage lengths, angles in degrees. `kink` is the share of the half span up to which the trailing edge
    is straight across the flow (0: none), as on airliners.
    """

    root: tuple[float, float, float]
    half_span: float
    root_chord: float
    taper: float
    sweep: float
    dihedral: float
    thickness: float
    kink: float = 0.0

    def leading_edge(self, share: Floats) -> Floats:
        """Return (S,3) leading-edge points of the right half at shares of the half span."""
        out = share * self.half_span
        lean, back = np.deg2rad(self.dihedral), np.deg2rad(self.sweep)
        x, y, z = self.root
        return np.stack([x + out * np.cos(lean), y + out * np.sin(lean), z + out * np.sin(back) / np.cos(back)], 1)

    def chord(self, share: Floats) -> Floats:
        """Return (S,) chord lengths at shares of the half span."""
        plain = self.root_chord * (1.0 - (1.0 - self.taper) * share)
        if self.kink == 0.0:
            return plain
        back = np.deg2rad(self.sweep)
        slope = self.half_span * np.sin(back) / np.cos(back)
        straight = self.root_chord * (1.0 - (1.0 - self.taper) * self.kink) + slope * (self.kink - share)
        return np.where(share < self.kink, straight, plain)

    def place(self, share: float) -> tuple[float, float, float, float]:
        """Return x, y, z of the leading edge and the chord at one share of the right half span."""
        at = np.array([share])
        x, y, z = self.leading_edge(at)[0].tolist()
        return x, y, z, float(self.chord(at)[0])


def mean_chord_offset(half_span: float, root_chord: float, taper: float, sweep: float) -> float:
    """Return how far a quarter of the mean aerodynamic chord lies behind the root's leading edge."""
    out = half_span * (1.0 + 2.0 * taper) / (3.0 * (1.0 + taper))
    mean = root_chord * (2.0 / 3.0) * (1.0 + taper + taper * taper) / (1.0 + taper)
    back = np.deg2rad(sweep)
    return float(out * np.sin(back) / np.cos(back) + 0.25 * mean)


def whole_wing(plan: Planform, winglet: float = 0.0, stations: int = 7) -> Solid:
    """Return both halves as one solid from tip to tip.

    Args:
        plan: the half that is mirrored; its root must lie on x = 0.
        winglet: height of up-turned tips as a share of the half span, 0 for plain rounded tips.
        stations: sections on each half.
    """
    share = np.concatenate([np.arange(stations) / (stations - 1.0), [plan.kink] if plan.kink else []])
    share = np.sort(share)[1:]
    if plan.kink:
        share = share[np.abs(np.diff(share, prepend=0.0)) > 0.02]
    leading, chord = plan.leading_edge(share), plan.chord(share)
    lean = np.full(len(share), np.deg2rad(plan.dihedral))
    thickness = plan.thickness * (1.0 - 0.35 * share)
    if winglet:
        height, tip = winglet * plan.half_span, chord[-1]
        up = np.array([[0.25, 0.15, 0.3], [0.42, 0.55, 0.7], [0.55, 1.0, 1.1]])
        leading = np.concatenate([leading, leading[-1] + up * height])
        chord = np.concatenate([chord, tip * np.array([0.9, 0.7, 0.45])])
        lean = np.concatenate([lean, np.deg2rad(np.array([35.0, 65.0, 72.0]))])
        thickness = np.concatenate([thickness, np.full(3, thickness[-1])])
    else:
        out = leading[-1:] - leading[-2:-1]
        leading = np.concatenate([leading, leading[-1:] + out * 0.06 + [[0.0, 0.0, 0.25 * chord[-1]]]])
        chord = np.concatenate([chord, chord[-1:] * 0.6])
        lean, thickness = np.append(lean, lean[-1]), np.append(thickness, 0.6 * thickness[-1])
    normal = np.stack([-np.sin(lean), np.cos(lean), np.zeros(len(lean))], 1)
    flip = np.array([-1.0, 1.0, 1.0])
    middle = plan.place(0.0)
    return aerofoil_loft(
        np.concatenate([leading[::-1] * flip, [middle[:3]], leading]),
        np.concatenate([chord[::-1], [middle[3]], chord]),
        np.concatenate([thickness[::-1], [plan.thickness], thickness]),
        np.concatenate([normal[::-1] * flip, [[0.0, 1.0, 0.0]], normal]),
    )


def half_wing(plan: Planform, stations: int = 5) -> Solid:
    """Return one half alone, closed at its root: fins (dihedral 90), ventral fins, pylons."""
    share = np.append(np.arange(stations) / (stations - 1.0), 1.03)
    leading, chord = plan.leading_edge(share), plan.chord(share)
    chord[-1] *= 0.7
    leading[-1, 2] += 0.2 * plan.chord(share[-1:])[0]
    lean = np.full(len(share), np.deg2rad(plan.dihedral))
    normal = np.stack([-np.sin(lean), np.cos(lean), np.zeros(len(lean))], 1)
    return aerofoil_loft(leading, chord, plan.thickness * (1.0 - 0.3 * share), normal)
