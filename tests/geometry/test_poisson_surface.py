"""Raw clouds, without normals, to surfaces."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon3d.geometry.poisson import poisson_surface

TORUS = trimesh.creation.torus(0.35, 0.12, major_sections=64, minor_sections=32)


def cloud(n: int = 2000, noise: float = 0.0) -> Tensor:
    points = trimesh.sample.sample_surface(TORUS, n, seed=0)[0]
    return torch.tensor(points + noise * np.random.default_rng(0).standard_normal(points.shape)).float()


def solid(points: Tensor, **options) -> trimesh.Trimesh:
    mesh = poisson_surface(points[None], **options)
    return trimesh.Trimesh(mesh.verts_list()[0].numpy(), mesh.faces_list()[0].numpy(), process=False)


@pytest.mark.parametrize(("n", "noise"), [(500, 0.0), (2000, 0.0), (2000, 0.02), (8000, 0.01)])
def test_a_torus_comes_back_closed_and_outward(n: int, noise: float) -> None:
    mesh = solid(cloud(n, noise))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(TORUS.volume, rel=0.12)  # positive: wound outward
    if noise < 0.02:
        largest = max(mesh.split(only_watertight=False), key=lambda part: part.volume)
        assert largest.euler_number == 0  # the hole is there
        x, y, z = largest.vertices.T
        assert np.abs(np.hypot(np.hypot(x, y) - 0.35, z) - 0.12).max() < 0.04


def test_points_inside_change_little() -> None:
    surface = cloud()
    axis = 0.35 * torch.nn.functional.normalize(surface * torch.tensor([1.0, 1.0, 0.0]), dim=1)
    depth = torch.rand(len(surface), 1, generator=torch.Generator().manual_seed(0)) ** 0.5  # uniform in the tube
    mesh, filled = solid(surface), solid(torch.cat([surface, axis + depth * (surface - axis)]))
    assert filled.is_watertight
    assert filled.volume == pytest.approx(mesh.volume, rel=0.1)


def test_the_same_cloud_gives_the_same_mesh_alone_or_in_a_batch() -> None:
    first, second = cloud(800), cloud(800, 0.02)
    both = poisson_surface(torch.stack([first, second]))
    alone = poisson_surface(second[None])
    assert torch.equal(both.verts_list()[1], alone.verts_list()[0])
    assert torch.equal(both.faces_list()[1], alone.faces_list()[0])


def test_the_surface_moves_and_grows_with_the_cloud() -> None:
    mesh, moved = solid(cloud()), solid(4 * cloud() + torch.tensor([8.0, -4.0, 2.0]))
    assert moved.volume == pytest.approx(64 * mesh.volume, rel=0.01)
    np.testing.assert_allclose(moved.center_mass, 4 * mesh.center_mass + [8, -4, 2], atol=0.02)


def test_clouds_without_a_surface_give_empty_meshes() -> None:
    torus = cloud(100)
    for bad in (torch.full((100, 3), torch.nan), torch.full((100, 3), 0.2), torch.zeros(100, 3), torus * torch.inf):
        meshes = poisson_surface(torch.stack([torus, bad]))
        assert [len(faces) > 0 for faces in meshes.faces_list()] == [True, False]
    assert len(poisson_surface(torch.rand(2, 5, 3)).faces_packed()) == 0
    assert len(poisson_surface(torch.rand(2, 0, 3)).faces_packed()) == 0
    with pytest.raises(ValueError, match="expected points"):
        poisson_surface(torch.rand(10, 3))


def test_screened_poisson_agrees() -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    ours, theirs = solid(cloud(8000)), solid(cloud(8000), backend="open3d")
    assert theirs.volume == pytest.approx(ours.volume, rel=0.02)


def test_a_missing_backend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError, match=r"\.venv/bin/pip install -e '\.\[poisson\]'"):
        solid(cloud(200), backend="open3d")
    with pytest.raises(ValueError, match="spectral or open3d, got 'screened'"):
        solid(cloud(200), backend="screened")
