from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.interpolate import RegularGridInterpolator

from recon3d.apps.editing import baking
from recon3d.apps.editing.baking import PADDING, bake, sample_cube
from recon3d.apps.mesh_files import write_textured_mesh


def cubes(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, size, size, size, 3, generator=torch.Generator().manual_seed(seed))


def barycentric(points: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1, 1, 1], points)


def expected(cube: torch.Tensor, weights: np.ndarray) -> np.ndarray:
    """Trilinear interpolation by SciPy."""
    nodes = np.arange(len(cube))
    return RegularGridInterpolator((nodes,) * 3, cube.double().numpy())(weights * (len(cube) - 1))


@pytest.mark.parametrize("size", [2, 4, 5])
def test_sampling_is_trilinear(size: int) -> None:
    textures, weights = cubes(3, size), np.concatenate([np.eye(3), barycentric(50)])
    found = sample_cube(textures, torch.from_numpy(weights))
    for face in range(3):
        np.testing.assert_allclose(found[face], expected(textures[face], weights), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("size", [2, 4])
def test_texels_hold_the_colour_of_the_cube_there(n: int, size: int) -> None:
    """Where the centre of a texel lies in a face, by the written uv alone, the image has the cube's colour."""
    textures = cubes(n, size)
    image, uv, face_uv = bake(textures)
    pixels = np.asarray(image).astype(float) / 255
    width, height = image.size
    seen = np.zeros((height, width), dtype=int)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    centres = np.stack([(columns + 0.5) / width, 1 - (rows + 0.5) / height], axis=-1).reshape(-1, 2)
    for face in range(n):
        triangle = uv[face_uv[face]].numpy()
        matrix = np.concatenate([triangle.T, np.ones((1, 3))])
        weights = np.linalg.solve(matrix, np.concatenate([centres.T, np.ones((1, len(centres)))])).T
        inside = (weights > -1e-9).all(axis=1)
        found = pixels.reshape(-1, 3)[inside]
        legs = baking.MAX_DETAIL * (size - 1)
        assert len(found) == (legs + 1) * (legs + 2) // 2
        np.testing.assert_allclose(found, expected(textures[face], weights[inside].clip(0, 1)), atol=0.51 / 255)
        seen.reshape(-1)[inside] += 1
    assert seen.max() == 1  # no texel belongs to two faces


def test_no_colour_of_another_face_is_near() -> None:
    """Within the padding around a triangle all texels are its own, so averages of neighbours never mix faces."""
    n = 9
    textures = torch.zeros(n, 2, 2, 2, 3)
    textures[:] = (torch.arange(n) * 25 + 10)[:, None, None, None, None] / 255
    image, uv, face_uv = bake(textures)
    pixels = np.asarray(image)[..., 0]
    size = np.array(image.size)
    for face in range(n):
        corners = uv[face_uv[face]].numpy()
        corners[:, 1] = 1 - corners[:, 1]
        low, high = ((corners * size - 0.5).round().astype(int)[[0, -1]]).tolist()
        column, row = low
        leg = high[1] - row
        around = pixels[row - PADDING : row + leg + 1 + PADDING, column - PADDING : column + leg + 1 + PADDING]
        assert (around == 25 * face + 10).all()


def test_bilinear_filtering_along_the_edges_stays_close() -> None:
    # A cube that is linear in w is linear on the face: bilinear filtering anywhere in the triangle gives it exactly,
    # were it not for texels beyond the edges, which hold the nearest colour inside.
    corner_colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    node = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 4)] * 3, indexing="ij"), dim=-1)
    image, uv, face_uv = bake((node @ corner_colors)[None])
    pixels = np.asarray(image).astype(float) / 255
    height, width = pixels.shape[:2]
    sample = RegularGridInterpolator((np.arange(height), np.arange(width)), pixels)
    weights = np.concatenate([barycentric(200), np.roll(barycentric(50) * [1, 1, 0], 1, axis=1)])
    weights /= weights.sum(axis=1, keepdims=True)
    at = weights @ uv[face_uv[0]].numpy()
    found = sample(np.stack([(1 - at[:, 1]) * height - 0.5, at[:, 0] * width - 0.5], axis=1))
    step = 1 / (3 * baking.MAX_DETAIL)
    assert np.abs(found - weights).max() < 0.6 * step


def test_a_written_mesh_shows_the_colours_of_the_cubes(tmp_path: Path) -> None:
    solid = trimesh.creation.icosphere(subdivisions=1)
    verts, faces = torch.tensor(solid.vertices), torch.tensor(solid.faces)
    textures = cubes(len(faces), 4)
    image, uv, face_uv = bake(textures)
    write_textured_mesh(tmp_path / "a.glb", verts, faces, uv, face_uv, image)
    (back,) = trimesh.load_scene(tmp_path / "a.glb", process=False).geometry.values()
    weights = np.eye(3)
    for corner in range(3):
        shown = back.visual.material.to_simple().to_color(back.visual.uv[back.faces[:, corner]])[:, :3] / 255
        wanted = np.stack([expected(texture, weights[corner : corner + 1])[0] for texture in textures])
        np.testing.assert_allclose(shown, wanted, atol=0.51 / 255)


def test_many_faces_get_smaller_cells_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    textures = torch.zeros(16, 4, 4, 4, 3)  # 4 x 4 cells of 3 d + 5 texels, d the detail
    for comfortable, width in ((4096, 4 * 17), (67, 4 * 14), (56, 4 * 14), (55, 4 * 11), (32, 4 * 8), (31, 4 * 8)):
        monkeypatch.setattr(baking, "COMFORTABLE", comfortable)
        assert bake(textures).image.size == (width, width)
    monkeypatch.setattr(baking, "LARGEST", 31)
    with pytest.raises(ValueError, match=r"32 pixels a side, and 31 is the most.*--texture-size"):
        bake(textures)


def test_an_atlas_has_no_empty_rows() -> None:
    assert bake(torch.zeros(5, 2, 2, 2, 3)).image.size == (3 * 9, 2 * 9)
