from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon3d.geometry.marching import voxel_surface

R = 32


def as_trimesh(voxels: torch.Tensor) -> trimesh.Trimesh:
    mesh = voxel_surface(voxels[None])
    return trimesh.Trimesh(mesh.verts_list()[0].numpy(), mesh.faces_list()[0].numpy(), process=False)


def test_bounds_are_the_borders_of_the_cells_in_object_axes() -> None:
    voxels = torch.zeros(R, R, R, dtype=torch.bool)
    voxels[4:10, 12:16, 20:31] = True  # [y, x, z]
    # Cell i spans [(i - R/2) / (R-1), (i + 1 - R/2) / (R-1)].
    expected = (np.array([[12, 4, 20], [16, 10, 31]]) - R / 2) / (R - 1)
    mesh = as_trimesh(voxels)
    np.testing.assert_allclose(mesh.bounds, expected, atol=1e-6)
    # Edges and corners are cut: a little less than the cuboid.
    cuboid = np.prod(expected[1] - expected[0])
    assert 0.85 * cuboid < mesh.volume < cuboid


def test_surfaces_are_closed_and_wound_outward() -> None:
    cells = (torch.arange(R) + 0.5 - R / 2) / (R - 1)
    y, x, z = torch.meshgrid(cells, cells, cells, indexing="ij")
    ball = as_trimesh(x**2 + y**2 + z**2 < 0.4**2)
    assert ball.is_watertight
    assert ball.is_winding_consistent
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)  # positive: outward
    noise = as_trimesh(torch.rand(R, R, R, generator=torch.Generator().manual_seed(0)) > 0.5)
    assert noise.is_watertight


def test_what_touches_the_border_of_the_grid_is_closed_too() -> None:
    full = as_trimesh(torch.ones(4, 4, 4, dtype=torch.bool))
    assert full.is_watertight
    np.testing.assert_allclose(full.bounds, np.array([[-2, -2, -2], [2, 2, 2]]) / 3, atol=1e-6)


def test_empty_grids_give_empty_meshes_in_place() -> None:
    voxels = torch.zeros(3, 8, 8, 8, dtype=torch.bool)
    voxels[1, 2:5, 2:5, 2:5] = True
    meshes = voxel_surface(voxels)
    assert [len(faces) > 0 for faces in meshes.faces_list()] == [False, True, False]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="expected bool"):
        voxel_surface(torch.zeros(1, 8, 8, 8))
    with pytest.raises(ValueError, match="expected bool"):
        voxel_surface(torch.zeros(8, 8, 8, dtype=torch.bool))
