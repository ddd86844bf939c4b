"""Cameras in pixels against PyTorch3D's reading of OpenCV's matrices and plain pinhole arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch3d.utils import cameras_from_opencv_projection
from scipy.spatial.transform import Rotation

from recon3d.geometry.cameras import look_at_camera, project
from recon3d.geometry.pixel_cameras import camera_matrices, matrix_cameras, pixel_camera, square_camera

WIDTH, HEIGHT = 120, 90


@pytest.fixture
def opencv():
    """Four cameras that have the origin in front of them: matrices (N, 3, 4), focal, centre."""
    rotation = Rotation.random(4, random_state=3).as_matrix()
    shift = np.random.default_rng(4).normal(size=(4, 3, 1)) * 0.1 + [[0], [0], [2.5]]
    focal, center = np.array([[80.0, 85.0]] * 4), np.array([[55.0, 47.5]] * 4)
    return tuple(map(torch.from_numpy, (np.concatenate([rotation, shift], axis=2), focal, center)))


@pytest.fixture
def points():
    return torch.from_numpy(np.random.default_rng(5).uniform(-0.5, 0.5, (7, 3)))


def pinhole(matrices, focal, center, points):
    """Pixels (N, P, 2) by K (R x + t)."""
    seen = torch.einsum("nij,pj->npi", matrices[:, :, :3], points) + matrices[:, None, :, 3]
    return seen[..., :2] / seen[..., 2:] * focal[:, None] + center[:, None]


def test_a_pixel_camera_projects_to_minus_the_pixel(opencv, points):
    camera = matrix_cameras(*opencv, "opencv")
    torch.testing.assert_close(-project(camera, points)[..., :2], pinhole(*opencv, points))


def test_opencv_is_read_as_pytorch3d_reads_it(opencv, points):
    matrices, focal, center = (value.float() for value in opencv)
    intrinsic = torch.eye(3).repeat(4, 1, 1)
    intrinsic[:, [0, 1], [0, 1]], intrinsic[:, :2, 2] = focal, center
    size = torch.tensor([[HEIGHT, WIDTH]] * 4)
    theirs = cameras_from_opencv_projection(matrices[:, :, :3], matrices[:, :, 3], intrinsic, size)
    camera = matrix_cameras(matrices, focal, center, "opencv")
    pixels = theirs.transform_points_screen(points.float().expand(4, -1, -1), image_size=size)[..., :2]
    torch.testing.assert_close(-project(camera, points.float())[..., :2], pixels, atol=1e-3, rtol=0)


def test_opengl_is_opencv_with_y_and_z_turned(opencv, points):
    matrices, focal, center = opencv
    turned = matrices * torch.tensor([1.0, -1.0, -1.0])[:, None]
    camera = matrix_cameras(turned, focal, center, "opengl")
    torch.testing.assert_close(-project(camera, points)[..., :2], pinhole(*opencv, points))


@pytest.mark.parametrize("convention", ["opencv", "opengl"])
def test_matrices_come_back(opencv, convention):
    camera = matrix_cameras(*opencv, convention)
    torch.testing.assert_close(camera_matrices(camera, convention), opencv[0])


def test_a_square_has_its_own_ndc(opencv, points):
    squares = torch.tensor([[10.5, -4.25, 77.0]] * 4)
    camera = square_camera(matrix_cameras(*opencv, "opencv"), squares)
    corner, side = squares[:, None, :2], squares[:, None, 2:]
    expected = 1 - 2 * (pinhole(*opencv, points) - corner) / side
    torch.testing.assert_close(project(camera, points)[..., :2], expected)


def test_a_look_at_camera_spans_the_longer_side(points):
    look_at = look_at_camera(2.2, 20.0, 30.0, 20.0)
    camera = pixel_camera(look_at, torch.tensor([[WIDTH, HEIGHT]]))
    ndc = project(look_at, points.float())[..., :2]
    pixels = -project(camera, points.float())[..., :2]
    torch.testing.assert_close(pixels, (1 - ndc) * WIDTH / 2 - torch.tensor([0.0, (WIDTH - HEIGHT) / 2]))


def test_a_whole_square_picture_is_the_look_at_camera():
    look_at = look_at_camera(2.2, 20.0, 30.0, 20.0)
    camera = square_camera(pixel_camera(look_at, torch.tensor([[64, 64]])), torch.tensor([[0.0, 0.0, 64.0]]))
    torch.testing.assert_close(camera.focal, look_at.focal)
    torch.testing.assert_close(camera.center, look_at.center)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, f, c: (m * torch.tensor([-1.0, 1.0, 1.0])[:, None], f, c), "matrix 0: the determinant is -1"),
        (lambda m, f, c: (m * 1.2, f, c), "orthonormal"),
        (lambda m, f, c: (m * float("nan"), f, c), "finite"),
        (lambda m, f, c: (m, -f, c), "positive focal"),
        (lambda m, f, c: (m[:, :, :3], f, c), r"expected matrices \(N, 3, 4\)"),
    ],
)
def test_what_is_no_camera_is_refused(opencv, change, message):
    with pytest.raises(ValueError, match=message):
        matrix_cameras(*change(*opencv), "opencv")
