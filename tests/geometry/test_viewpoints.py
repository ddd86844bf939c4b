"""Viewpoints of Pascal3D+, against the release's equations written out one number at a time."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from recon3d.geometry.cameras import project
from recon3d.geometry.viewpoints import CadFrame, Viewpoint, camera_viewpoint, viewpoint_camera

NAMES = [field.name for field in fields(Viewpoint)]


def viewpoints(rows):
    return Viewpoint(*torch.tensor(rows, dtype=torch.float64).unbind(-1))


@pytest.fixture
def random_rows():
    generator = np.random.default_rng(0)
    low = [0, -80, 2, -170, 100, 100, 1, 3000]
    high = [360, 80, 30, 170, 400, 300, 1.5, 3000]
    return generator.uniform(low, high, (30, 8))


def pixel(row, point):
    """Where the point is seen, by plain arithmetic."""
    azimuth, elevation, distance, theta, px, py, focal, viewport = row
    a, e, t = (math.radians(angle) for angle in (azimuth, elevation, theta))
    x = point[0] - distance * math.cos(e) * math.sin(a)
    y = point[1] + distance * math.cos(e) * math.cos(a)
    z = point[2] - distance * math.sin(e)
    # Rz(-a)
    x, y = math.cos(-a) * x - math.sin(-a) * y, math.sin(-a) * x + math.cos(-a) * y
    # Rx(-(90 degrees - e))
    f = -(math.pi / 2 - e)
    y, z = math.cos(f) * y - math.sin(f) * z, math.sin(f) * y + math.cos(f) * z
    p, q = viewport * focal * x / -z, viewport * focal * y / -z
    p, q = math.cos(t) * p - math.sin(t) * q, math.sin(t) * p + math.cos(t) * q
    return px + p, py - q, -z


def test_sees_what_the_equations_say(random_rows):
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (30, 7, 3))
    expected = np.array(
        [[pixel(row, point) for point in cloud] for row, cloud in zip(random_rows, points, strict=True)]
    )
    seen = project(viewpoint_camera(viewpoints(random_rows)), torch.tensor(points)).numpy()
    np.testing.assert_allclose(-seen[..., :2], expected[..., :2], rtol=1e-9)
    np.testing.assert_allclose(seen[..., 2], expected[..., 2], rtol=1e-9)


def test_azimuth_0_sees_the_front_and_90_the_left():
    rows = [[0, 0, 10, 0, 0, 0, 1, 3000], [90, 0, 10, 0, 0, 0, 1, 3000]]
    corners = torch.tensor([[0.0, -0.5, 0.0], [0.5, 0.0, 0.0]], dtype=torch.float64)  # front; left
    depth = project(viewpoint_camera(viewpoints(rows)), corners.expand(2, 2, 3))[..., 2]
    np.testing.assert_allclose(depth, [[9.5, 10], [10, 9.5]])


def test_round_trip(random_rows):
    back = camera_viewpoint(viewpoint_camera(viewpoints(random_rows)))
    random_rows[:, 7] *= random_rows[:, 6]  # the product is what a camera knows
    random_rows[:, 6] = 1
    for column, name in enumerate(NAMES):
        np.testing.assert_allclose(getattr(back, name), random_rows[:, column], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("elevation", [90, -90])
def test_from_straight_above_and_below_the_camera_comes_back(elevation):
    camera = viewpoint_camera(viewpoints([[30, elevation, 5, 20, 1, 2, 1, 3000]]))
    back = camera_viewpoint(camera)
    assert back.theta.item() == 0
    for name in ("R", "T", "focal", "center"):
        torch.testing.assert_close(getattr(viewpoint_camera(back), name), getattr(camera, name), atol=1e-6, rtol=0)


def test_object_frame_sees_the_same(random_rows):
    generator = torch.Generator().manual_seed(0)
    verts = torch.rand(30, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.4, 1.0, 0.3]) + 0.2
    frame = CadFrame.of(verts)
    camera = viewpoint_camera(viewpoints(random_rows))
    here, there = project(camera, verts), project(frame.object_camera(camera), frame.to_object(verts))
    torch.testing.assert_close(there[..., :2], here[..., :2], rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(there[..., 2] * frame.size, here[..., 2])
    torch.testing.assert_close(frame.to_cad(frame.to_object(verts)), verts)
    back = camera_viewpoint(frame.cad_camera(frame.object_camera(camera)))
    np.testing.assert_allclose(back.azimuth, random_rows[:, 0], rtol=1e-7)
    np.testing.assert_allclose(back.distance, random_rows[:, 2], rtol=1e-7)


def test_the_object_frame_is_centred_faces_x_and_its_longest_side_is_1():
    frame = CadFrame.of(torch.tensor([[1.0, 2.0, 3.0], [2.0, 6.0, 4.5]]))
    corners = frame.to_object(torch.tensor([[1.0, 2.0, 3.0], [2.0, 6.0, 4.5]]))
    # The first corner is front (-y), right (-x), low: +X, +Z (right of something that faces +X), -Y.
    assert corners.tolist() == [[0.5, -0.1875, 0.125], [-0.5, 0.1875, -0.125]]
    assert torch.linalg.det(frame._axes).item() == pytest.approx(1)


def test_refusals(random_rows):
    rows = random_rows[:2].copy()
    rows[1, 2] = 0
    with pytest.raises(ValueError, match="distance must be positive"):
        viewpoint_camera(viewpoints(rows))
    rows[1, 2] = math.nan
    with pytest.raises(ValueError, match="distance is not finite"):
        viewpoint_camera(viewpoints(rows))
    good = viewpoints(random_rows)
    with pytest.raises(ValueError, match="fields of one shape"):
        replace(good, theta=good.theta[:1])
    camera = viewpoint_camera(good)
    with pytest.raises(ValueError, match="does not look at the origin"):
        camera_viewpoint(replace(camera, T=camera.T + 0.1))
    with pytest.raises(ValueError, match="orthographic ones"):
        camera_viewpoint(replace(camera, orthographic=True))
    with pytest.raises(ValueError, match="one focal length"):
        camera_viewpoint(replace(camera, focal=camera.focal * torch.tensor([1.0, 2.0])))
    with pytest.raises(ValueError, match="no extent"):
        CadFrame.of(torch.ones(4, 3))
