"""The solver on shapes with known normals, against their closed forms; and its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from recon3d.geometry.normals import nearest_neighbours
from recon3d.geometry.poisson import level_set, poisson_indicator

R = 128
RADIUS = 0.3


def sphere(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    normals = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    normals = normals / normals.norm(dim=1, keepdim=True)
    return 0.5 + RADIUS * normals, normals


def torus(n: int, ring: float = 0.3, tube: float = 0.1) -> tuple[Tensor, Tensor]:
    """Uniform by area: the chance of an angle on the tube goes with the distance from the axis."""
    generator = torch.Generator().manual_seed(0)
    u, v, chance = torch.rand(3, 4 * n, generator=generator).unbind()
    u, v = 2 * math.pi * u, 2 * math.pi * v
    kept = (chance * (ring + tube) < ring + tube * v.cos()).nonzero()[:n, 0]
    u, v = u[kept], v[kept]
    normals = torch.stack([v.cos() * u.cos(), v.sin(), v.cos() * u.sin()], dim=1)
    return 0.5 + tube * normals + ring * torch.stack([u.cos(), 0 * u, u.sin()], dim=1), normals


def grid(r: int = R) -> Tensor:
    """Coordinates (r,r,r,3) of the values of a field, relative to the centre of the unit cube."""
    axis = torch.arange(r) / r - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def solve(points: Tensor, normals: Tensor, weights: Tensor | None = None, sigma: float = 2.0) -> Tensor:
    return poisson_indicator(points * R, normals, weights, shape=(R, R, R), sigma=sigma)


def surface(phi: Tensor) -> trimesh.Trimesh:
    verts, faces = level_set(phi)
    return trimesh.Trimesh(verts.numpy() / len(phi), faces.numpy(), process=False)


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_a_sphere_has_its_volume_and_its_inside(sigma: float) -> None:
    phi = solve(*sphere(8000), sigma=sigma)
    mesh = surface(phi)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.005)
    assert iou(phi < 0, grid().norm(dim=-1) < RADIUS) > 0.995
    # Vertex mapping: index i is at i / R, on both sides of the grid.
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - 0.5, axis=1), RADIUS, atol=0.2 / R)


def test_a_torus_keeps_its_hole() -> None:
    phi = solve(*torus(8000))
    mesh = surface(phi)
    assert mesh.is_watertight
    assert mesh.euler_number == 0  # genus 1
    x, y, z = grid().unbind(-1)
    assert iou(phi < 0, ((x**2 + z**2).sqrt() - 0.3) ** 2 + y**2 < 0.1**2) > 0.99


def test_inside_is_negative_and_the_corner_is_half() -> None:
    phi = solve(*sphere(2000))
    assert float(phi[R // 2, R // 2, R // 2]) == pytest.approx(-0.5, abs=0.1)
    assert float(phi[0, 0, 0]) == 0.5
    assert float(phi[0].min()) > 0.4


def test_half_a_cell_of_translation_keeps_the_volume() -> None:
    points, normals = sphere(8000)
    volumes = [surface(solve(points + shift / R, normals)).volume for shift in (0.0, 0.5)]
    assert volumes[1] == pytest.approx(volumes[0], rel=1e-3)


def test_only_the_directions_of_normals_count() -> None:
    points, normals = sphere(500)
    field = {"shape": (24, 24, 24), "sigma": 1.0}
    phi = poisson_indicator(points * 24, normals, **field)
    torch.testing.assert_close(poisson_indicator(points * 24, 7.3 * normals, **field), phi, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        poisson_indicator(points * 24, normals, torch.full((500,), 0.01), **field), phi, atol=1e-5, rtol=0
    )


def test_areas_undo_uneven_density() -> None:
    points, normals = sphere(16000)
    dense = points[:, 0] > 0.5
    kept = dense | (torch.arange(len(points)) % 5 == 0)  # 5 : 1
    points, normals = points[kept], normals[kept]
    areas = nearest_neighbours(points, 6)[0].square().mean(dim=1)
    inside = grid().norm(dim=-1) < RADIUS
    assert iou(solve(points, normals, areas) < 0, inside) > 0.98
    assert iou(solve(points, normals) < 0, inside) < 0.95


def test_a_batch_is_its_clouds_and_weight_zero_leaves_points_out() -> None:
    points, normals = zip(sphere(300), torus(300), strict=True)
    field = {"shape": (20, 24, 18), "sigma": 1.0}
    scale = torch.tensor(field["shape"])
    single = [poisson_indicator(p * scale, n, **field) for p, n in zip(points, normals, strict=True)]
    both = poisson_indicator(torch.stack(points)[None] * scale, torch.stack(normals)[None], **field)
    assert both.shape == (1, 2, 20, 24, 18)
    torch.testing.assert_close(both[0], torch.stack(single), atol=1e-5, rtol=0)
    more = torch.cat([points[0], torch.rand(40, 3)]) * scale, torch.cat([normals[0], torch.ones(40, 3)])
    weights = torch.cat([torch.ones(300), torch.zeros(40)])
    torch.testing.assert_close(poisson_indicator(*more, weights, **field), single[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shape", [(16, 18, 20), (15, 16, 21)])
def test_a_mirrored_cloud_has_the_mirrored_field(shape: tuple[int, int, int], axis: int) -> None:
    """Without smoothing, where the Nyquist frequencies of even axes count in full."""
    points, normals = (value.double() for value in sphere(200))
    points = points * torch.tensor(shape)
    mirrored, turned = points.clone(), normals.clone()
    mirrored[:, axis], turned[:, axis] = shape[axis] - points[:, axis], -normals[:, axis]
    phi = poisson_indicator(points, normals, shape=shape, sigma=0.0)
    other = poisson_indicator(mirrored, turned, shape=shape, sigma=0.0)
    expected = phi.roll(-1, dims=axis).flip(axis)  # index i goes to -i of the periodic grid
    torch.testing.assert_close(other, expected, atol=1e-10, rtol=0)


def test_gradients_are_exact() -> None:
    points, normals = sphere(6)
    generator = torch.Generator().manual_seed(1)
    weights = 0.5 + torch.rand(6, generator=generator, dtype=torch.float64)
    inputs = [(points * 16).double(), normals.double(), weights]
    assert torch.autograd.gradcheck(
        lambda p, n, w: poisson_indicator(p, n, w, shape=(16, 16, 16), sigma=1.0)[1::8, ::8, ::8],
        [value.requires_grad_() for value in inputs],
    )


def test_gradient_descent_moves_a_cloud_onto_a_target() -> None:
    points, normals = sphere(200)
    target = poisson_indicator(points * 16, normals, shape=(16, 16, 16)).tanh()
    moved = (0.5 + 0.8 * (points - 0.5)).requires_grad_()
    losses = []
    for _ in range(40):
        loss = (poisson_indicator(moved * 16, normals, shape=(16, 16, 16)).tanh() - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            moved -= 0.005 * gradient / gradient.norm(dim=1).mean()
        losses.append(float(loss.detach()))
    assert min(losses) < 0.1 * losses[0]


@pytest.mark.parametrize("seed", range(3))
def test_level_sets_are_closed_even_through_grid_points(seed: int) -> None:
    coarse = torch.randn(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(seed))
    phi = torch.nn.functional.interpolate(coarse, (24, 28, 31), mode="trilinear", align_corners=True)[0, 0]
    phi[phi.abs() < 0.02] = 0.0
    verts, faces = level_set(phi)
    mesh = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
    assert len(faces) > 1000
    assert mesh.is_watertight
    # Negative is inside: the volume is the number of cells where the field is.
    assert mesh.volume == pytest.approx(int((phi < 0).sum()), rel=0.1)


def test_a_field_of_one_sign_has_no_surface() -> None:
    verts, faces = level_set(torch.full((4, 5, 6), 0.5))
    assert verts.shape == faces.shape == (0, 3)


def test_agrees_with_screened_poisson() -> None:
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    points, normals = torus(8000)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.double().numpy()))
    cloud.normals = open3d.utility.Vector3dVector(normals.double().numpy())
    theirs, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=7, n_threads=1)
    mesh = surface(solve(points, normals))
    # From the vertices of each to so many samples of the other that the gaps between these are small.
    hausdorff = 0.0
    theirs = trimesh.Trimesh(np.asarray(theirs.vertices), np.asarray(theirs.triangles), process=False)
    for one, other in ((mesh, theirs), (theirs, mesh)):
        samples = trimesh.sample.sample_surface(other, 500_000, seed=0)[0]
        hausdorff = max(hausdorff, cKDTree(samples).query(one.vertices)[0].max())
    assert hausdorff < 1 / R


def test_bad_input_is_refused() -> None:
    points, normals = sphere(10)
    for bad in ((points[:5], normals), (points[0], normals[0]), (points[:, :2], normals[:, :2])):
        with pytest.raises(ValueError, match="expected points and normals"):
            poisson_indicator(*bad, shape=(8, 8, 8))
    with pytest.raises(ValueError, match="expected points and normals"):
        poisson_indicator(points, normals, torch.ones(9), shape=(8, 8, 8))
    for value in (8.0, -0.1, torch.nan):
        moved = points.clone()
        moved[3, 1] = value
        with pytest.raises(ValueError, match="scale and shift the cloud into"):
            poisson_indicator(moved, normals, shape=(8, 8, 8))
