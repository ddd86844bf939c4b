from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image


@pytest.fixture(scope="session")
def egg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mesh of 80 faces that lies far from the origin and has three different sides."""
    solid = trimesh.creation.icosphere(subdivisions=1)
    solid.vertices = solid.vertices * [2.0, 1.5, 1.0] + [10.0, -4.0, 3.0]
    path = tmp_path_factory.mktemp("mesh") / "egg.obj"
    solid.export(path)
    return path


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of diagonal red and yellow stripes."""
    row, column = np.mgrid[0:48, 0:64]
    pixels = np.where(((row + column) // 5 % 2)[..., None], (200, 20, 30), (250, 210, 40)).astype(np.uint8)
    path = tmp_path_factory.mktemp("image") / "stripes.png"
    Image.fromarray(pixels).save(path)
    return path
