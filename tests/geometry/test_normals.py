"""Shell and orientation on shapes whose normals are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon3d.geometry.normals import NEIGHBOURS, OrientedPoints, exposure, nearest_neighbours, oriented_points

SHAPES = {
    "ball": trimesh.creation.icosphere(subdivisions=4, radius=0.4),
    "torus": trimesh.creation.torus(0.35, 0.1, major_sections=64, minor_sections=32),
    "box": trimesh.creation.box((0.9, 0.3, 0.5)),
    "plate": trimesh.creation.box((1.0, 0.06, 0.8)),  # thinner than a neighbourhood is wide
    "bowl": trimesh.creation.annulus(0.3, 0.4, 0.4),  # has an inner wall
}


def cloud(name: str, n: int = 2000, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    points, face = trimesh.sample.sample_surface(SHAPES[name], n, seed=0)
    shift = noise * np.random.default_rng(0).standard_normal(points.shape)
    return torch.tensor(points + shift).float(), torch.tensor(SHAPES[name].face_normals[face]).float()


def agreement(shell: OrientedPoints, points: Tensor, normals: Tensor) -> Tensor:
    """Cosines of the angles to the true normals; the shell's points are points of the cloud."""
    distance, index = torch.cdist(shell.points, points, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    assert float(distance.max()) == 0
    return (shell.normals * normals[index]).sum(dim=1)


@pytest.mark.parametrize(("noise", "wrong"), [(0.0, 0.002), (0.01, 0.03)])
@pytest.mark.parametrize("name", SHAPES)
def test_normals_point_outward(name: str, noise: float, wrong: float) -> None:
    points, normals = cloud(name, noise=noise)
    shell = oriented_points(points)
    cosine = agreement(shell, points, normals)
    assert len(shell.points) > 0.9 * len(points)
    torch.testing.assert_close(shell.normals.norm(dim=1), torch.ones(len(shell.points)))
    assert float((cosine < 0).float().mean()) <= wrong
    assert math.degrees(math.acos(float(cosine.median()))) < 25


def test_a_filled_cloud_gives_its_shell() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6000, 3, generator=generator)
    points = 0.4 * points / points.norm(dim=1, keepdim=True) * torch.rand(6000, 1, generator=generator) ** (1 / 3)
    shell = oriented_points(points)
    radius = shell.points.norm(dim=1)
    outer = (points.norm(dim=1) > 0.38).sum()
    assert float((radius < 0.25).float().mean()) < 0.03
    assert int((radius > 0.38).sum()) > 0.9 * outer
    assert float(((shell.points * shell.normals).sum(dim=1) > 0).float().mean()) > 0.97


def test_stray_points_are_left_out() -> None:
    points, _ = cloud("torus")
    strays = torch.tensor([[0.9, 0.9, 0.9], [-0.9, 0.2, -0.9], [0.0, 1.0, 0.1]])
    shell = oriented_points(torch.cat([points, strays]))
    assert not any((shell.points == stray).all(dim=1).any() for stray in strays)
    assert len(shell.points) > 0.95 * len(points)


def test_areas_follow_the_density() -> None:
    points, _ = cloud("ball", 6000)
    kept = (points[:, 0] > 0) | (torch.arange(6000) % 4 == 0)
    shell = oriented_points(points[kept])
    ratio = shell.areas[shell.points[:, 0] < -0.1].mean() / shell.areas[shell.points[:, 0] > 0.1].mean()
    assert float(ratio) == pytest.approx(4, rel=0.15)


def test_no_point_counts_for_a_whole_side() -> None:
    points, _ = cloud("ball", 3000)
    kept = (points[:, 1] < 0) | (torch.arange(3000) % 8 == 0)
    shell = oriented_points(points[kept])
    assert float(shell.areas.max() / shell.areas.median()) == pytest.approx(5)


def test_exposure_of_a_sphere_points_out() -> None:
    points, normals = cloud("ball", 3000)
    seen = exposure(points, 0.03)
    # A convex point is seen from half the sphere at most: mean of max(0, cos) over directions is 1/4.
    assert 0.05 < float(seen.norm(dim=1).mean()) < 0.25
    cosine = torch.nn.functional.cosine_similarity(seen, normals)
    assert float(cosine.min()) > 0.6
    assert float(cosine.mean()) > 0.9
    hidden = exposure(torch.cat([points, torch.zeros(1, 3)]), 0.04)[-1]
    assert float(hidden.norm()) < 0.02


def test_the_same_whatever_the_scale_and_place() -> None:
    points, _ = cloud("torus", 1000)
    shell, moved = oriented_points(points), oriented_points(8.0 * points + 16.0)
    assert len(moved.points) == pytest.approx(len(shell.points), abs=20)
    mutual = torch.cdist(moved.points / 8 - 2, shell.points, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    same = mutual.values < 1e-4
    assert float(same.float().mean()) > 0.98
    cosine = (moved.normals * shell.normals[mutual.indices]).sum(dim=1)[same]
    assert float((cosine > 0.99).float().mean()) > 0.95


def test_neighbours_are_the_nearest() -> None:
    points, _ = cloud("box", 300)
    distances, index = nearest_neighbours(points, 7)
    true = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf)
    expected = true.sort(dim=1)
    torch.testing.assert_close(distances.double(), expected.values[:, :7], atol=1e-6, rtol=0)
    torch.testing.assert_close(true.gather(1, index), expected.values[:, :7], atol=1e-6, rtol=0)


def test_clouds_without_a_surface_give_nothing() -> None:
    assert len(oriented_points(torch.full((100, 3), 0.3)).points) == 0
    assert len(oriented_points(0.3 + 1e-8 * torch.rand(100, 3)).points) == 0
    groups = torch.rand(3, 3).repeat_interleave(20, dim=0)
    shell = oriented_points(groups)
    assert bool(torch.isfinite(shell.normals).all()) and bool(torch.isfinite(shell.areas).all())
    assert len(oriented_points(torch.rand(NEIGHBOURS + 1, 3)).points) in (0, NEIGHBOURS + 1)
