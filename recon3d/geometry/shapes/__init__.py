"""Procedural airplanes, cars and chairs: the objects of the embedded `synthetic` data set, in pure NumPy.

`make_shape(category, seed)` -> `Shape`: coloured closed meshes in the frame of a ShapeNet .obj file.
"""

from __future__ import annotations

from collections.abc import Callable

from recon3d.geometry.shapes.airplane import build_airplane
from recon3d.geometry.shapes.assembly import Assembly, Shape
from recon3d.geometry.shapes.car import build_car
from recon3d.geometry.shapes.chair import build_chair
from recon3d.geometry.shapes.draws import Draws

__all__ = ["CATEGORIES", "Shape", "make_shape"]

_BUILDERS: dict[str, Callable[[Draws], Assembly]] = {
    "airplane": build_airplane,
    "car": build_car,
    "chair": build_chair,
}
CATEGORIES: tuple[str, ...] = tuple(_BUILDERS)


def make_shape(category: str, seed: int) -> Shape:
    """Return object number `seed` of a category, the same on every machine.

    Args:
        category: one of `CATEGORIES`.
        seed: any non-negative integer; different seeds give different objects.

    Raises:
        ValueError: the category is unknown or the seed negative.
    """
    if category not in _BUILDERS:
        raise ValueError(f"unknown category {category!r}; the procedural categories are {', '.join(CATEGORIES)}")
    return _BUILDERS[category](Draws(CATEGORIES.index(category), seed)).finish()
