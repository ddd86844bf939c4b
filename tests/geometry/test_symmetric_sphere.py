"""Counts of the authors' template (measured on their files), symmetry, winding and texture coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from recon3d.geometry.symmetric_sphere import symmetric_sphere, symmetrise


@pytest.fixture(scope="module")
def sphere():
    return symmetric_sphere()


def test_counts_of_the_papers(sphere):
    assert sphere.half.shape == (337, 3) and sphere.n_side == 305
    assert sphere.faces.shape == (1280, 3) and sphere.n_own == 32
    assert int((sphere.half[:, 0].abs() < 1e-6).sum()) == 32
    assert (sphere.half[32:, 0] > 0).all()


def test_is_a_closed_sphere_wound_outwards(sphere):
    mesh = trimesh.Trimesh(symmetrise(sphere.half, sphere.n_side).numpy(), sphere.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert 4.0 < mesh.volume < 4 / 3 * np.pi
    assert np.allclose(np.linalg.norm(mesh.vertices, axis=1), 1)


def test_whatever_the_half_the_whole_is_its_own_mirror_image(sphere):
    half = torch.randn(2, 337, 3, generator=torch.Generator().manual_seed(0))
    half[:, :32, 0] = 0
    whole = symmetrise(half, sphere.n_side)
    mirrored = whole * torch.tensor([-1.0, 1.0, 1.0])
    assert whole.shape == (2, 642, 3)
    assert cKDTree(whole[0].numpy()).query(mirrored[0].numpy())[0].max() == 0


def test_mirrored_faces_follow_in_order_and_share_the_texture(sphere):
    whole = symmetrise(sphere.half, sphere.n_side)
    corners = whole[sphere.faces]
    left, right = corners[32 : 32 + 624], corners[32 + 624 :]
    assert torch.equal(right, (left * torch.tensor([-1.0, 1.0, 1.0]))[:, [1, 0, 2]])
    assert torch.equal(sphere.uv[32 + 624 :], sphere.uv[32 : 32 + 624][:, [1, 0, 2]])


def test_texture_coordinates_are_the_angles(sphere):
    corners = symmetrise(sphere.half, sphere.n_side)[sphere.faces][: 32 + 624].double()
    inside = corners[..., :2].norm(dim=-1) > 1e-3
    u, v = sphere.uv[: 32 + 624].unbind(-1)
    x, y, z = corners.unbind(-1)
    expected = np.angle((x + 1j * y).numpy()) / np.pi
    assert np.allclose(u[inside], expected[inside.numpy()], atol=1e-6)
    assert np.allclose(v, 1 - 2 * np.arcsin(np.clip(z, -1, 1)) / np.pi - 1, atol=1e-3)
    # Nothing is torn by the seam, also not at the poles.
    assert (u.amax(dim=1) - u.amin(dim=1)).max() < 0.4


def test_too_coarse_a_sphere_is_refused():
    with pytest.raises(ValueError, match="level of at least 1, got 0"):
        symmetric_sphere(0)
