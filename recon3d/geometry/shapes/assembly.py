"""Puts coloured parts together and hands out the finished `Shape` in the ShapeNet file frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d.geometry.shapes.draws import Draws, Value
from recon3d.geometry.shapes.solids import Floats, Solid, cross

Ranges = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Lowest and highest hue, saturation and value; a hue above 1 wraps round."""

ANY_PAINT: Ranges = ((0.0, 1.0), (0.55, 0.95), (0.45, 0.9))
PALE_PAINT: Ranges = ((0.0, 1.0), (0.0, 0.12), (0.8, 0.96))
GLASS: Ranges = ((0.52, 0.66), (0.25, 0.6), (0.12, 0.32))
METAL: Ranges = ((0.5, 0.7), (0.0, 0.08), (0.5, 0.75))
RUBBER: Ranges = ((0.0, 1.0), (0.0, 0.1), (0.05, 0.16))

_STEP = 1e-5  # grid of the vertices: far above rounding errors of libm, far below what an image or a voxel shows
_LEAST_CONTRAST = 0.1  # smallest difference, in the channel that differs most, between two parts of one object


@dataclass(frozen=True)
class Shape:
    """A coloured triangle mesh of closed, outward-wound components in the frame of a ShapeNet .obj file.

    Frame: +Y up, front towards -Z, right-handed; bounding box centred at the origin, its longest side 1.
    `verts` (V,3), `faces` (F,3), `face_colors` (F,3) RGB in [0,1] on the 8-bit grid, `parts` (F,) index into
    `part_names`; `parameters` are the named draws that made the object.
    """

    verts: NDArray[np.float32]
    faces: NDArray[np.int32]
    face_colors: NDArray[np.float32]
    parts: NDArray[np.int16]
    part_names: tuple[str, ...]
    parameters: dict[str, Value]


def _signed_volume(solid: Solid) -> float:
    a, b, c = (solid.verts[solid.faces[:, k]] for k in range(3))
    return float((a * cross(b, c)).sum()) / 6.0


class Assembly:
    """Collects the parts of one object while it is built."""

    def __init__(self, draws: Draws, paints: Mapping[str, Ranges]) -> None:
        """Start an empty object; `paints` gives the colour range of every part name that may be added."""
        self._draws = draws
        self._paints = paints
        self._solids: list[Solid] = []
        self._parts: list[NDArray[np.int16]] = []
        self._colours: dict[str, tuple[int, int, int]] = {}

    def add(self, part: str, solid: Solid, painted: Mapping[str, NDArray[np.bool_]] | None = None) -> None:
        """Add one component as `part`; `painted` gives some of its faces (mask (F,)) to other parts."""
        if _signed_volume(solid) < 0.0:
            solid = Solid(solid.verts, solid.faces[:, ::-1], solid.span, solid.column)
        owner = np.full(len(solid.faces), self._index(part), np.int16)
        for other, mask in (painted or {}).items():
            if mask.any():
                owner[mask] = self._index(other)
        self._solids.append(solid)
        self._parts.append(owner)

    def add_pair(self, part: str, solid: Solid, painted: Mapping[str, NDArray[np.bool_]] | None = None) -> None:
        """Add one component and its mirror image in the plane x = 0."""
        self.add(part, solid, painted)
        self.add(part, solid.mirrored(), painted)

    def finish(self) -> Shape:
        """Return the object centred, with longest side 1, its vertices rounded to 1e-5."""
        counts = np.cumsum([0] + [len(solid.verts) for solid in self._solids])
        verts = np.concatenate([solid.verts for solid in self._solids])
        faces = np.concatenate([solid.faces + start for solid, start in zip(self._solids, counts, strict=False)])
        parts = np.concatenate(self._parts)
        palette = np.array(list(self._colours.values())) / 255.0
        return Shape(
            verts=normalised(verts),
            faces=faces.astype(np.int32),
            face_colors=palette[parts].astype(np.float32),
            parts=parts,
            part_names=tuple(self._colours),
            parameters=dict(self._draws.used),
        )

    def _index(self, part: str) -> int:
        if part not in self._colours:
            self._colours[part] = self._distinct_colour(part)
        return list(self._colours).index(part)

    def _distinct_colour(self, part: str) -> tuple[int, int, int]:
        attempt = 0
        while True:
            slack = 0.04 * attempt  # a crowded range opens step by step until a colour differs from all others
            hue, saturation, value = (
                low - slack + (high - low + 2.0 * slack) * self._draws.unit(f"colour/{part}/{channel}/{attempt}")
                for channel, (low, high) in zip("hsv", self._paints[part], strict=True)
            )
            colour = _rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
            gaps = [max(abs(a - b) for a, b in zip(colour, c, strict=True)) for c in self._colours.values()]
            if all(gap >= 255.0 * _LEAST_CONTRAST for gap in gaps):
                return colour
            attempt += 1


def normalised(verts: Floats) -> NDArray[np.float32]:
    """Return (V,3) vertices centred on their bounding box, longest side 1, rounded to steps of 1e-5."""
    low, high = verts.min(0), verts.max(0)
    scaled = (verts - 0.5 * (low + high)) / (high - low).max()
    return (np.rint(scaled / _STEP) * _STEP + 0.0).astype(np.float32)  # + 0.0 turns -0.0 into 0.0


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """Return the 8-bit RGB of a hue, saturation and value in [0, 1]."""
    red, green, blue = (
        int(255.0 * value * (1.0 - saturation * max(0.0, min(k, 4.0 - k, 1.0))) + 0.5)
        for k in ((offset + 6.0 * hue) % 6.0 for offset in (5.0, 3.0, 1.0))
    )
    return red, green, blue
