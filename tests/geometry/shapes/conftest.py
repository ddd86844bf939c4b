import numpy as np
import pytest

from recon3d.geometry import shapes
from recon3d.geometry.shapes import CATEGORIES
from recon3d.geometry.shapes.draws import Draws


@pytest.fixture
def build():
    """Builds one object with some parameters fixed: build(category, seed, name=value, ...)."""

    def build_shape(category, seed=0, **overrides):
        return shapes._BUILDERS[category](Draws(CATEGORIES.index(category), seed, overrides)).finish()

    return build_shape


@pytest.fixture
def options():
    """Collects the text and true/false parameters of a category over seeds 0..199."""

    def collect(category):
        found = {}
        for seed in range(200):
            for name, value in shapes.make_shape(category, seed).parameters.items():
                if isinstance(value, str | bool):
                    found.setdefault(name, set()).add(value)
        return found

    return collect


@pytest.fixture
def part_points():
    """Returns the vertices (V,3) that belong to a part of a shape."""

    def points(shape, part):
        faces = shape.faces[shape.parts == shape.part_names.index(part)]
        return shape.verts[np.unique(faces)].astype(np.float64)

    return points
