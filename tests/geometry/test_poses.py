import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from recon3d.geometry.cameras import NMR_DISTANCE, camera_centers, nmr_cameras, project
from recon3d.geometry.poses import camera_quaternion, posed_camera, rotation_angle, turn_world


def quaternions(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_view_coordinates_are_turned_and_shifted_as_scipy_does():
    q, points = quaternions(5), np.random.default_rng(0).normal(size=(20, 3))
    camera = posed_camera(q, distance=2.0, focal=3.75)
    view = torch.tensor(points) @ camera.R + camera.T[:, None]
    for index, turn in enumerate(Rotation.from_quat(q.numpy(), scalar_first=True)):
        np.testing.assert_allclose(view[index], turn.apply(points) + np.array([0, 0, 2]), atol=1e-12)


def test_camera_of_dpc_projects_as_published():
    # x' = 1.875 x / (z + 2) in units of the image width; NDC spans 2 of them.
    point = torch.tensor([[0.3, -0.2, 0.1]])
    ndc = project(posed_camera(torch.tensor([1.0, 0, 0, 0]), distance=2.0, focal=3.75), point)
    assert ndc[0, :2].tolist() == pytest.approx([2 * 1.875 * 0.3 / 2.1, 2 * 1.875 * -0.2 / 2.1])


def test_look_at_cameras_there_and_back():
    cameras = nmr_cameras()
    again = posed_camera(camera_quaternion(cameras), NMR_DISTANCE, 1 / np.tan(np.deg2rad(15)))
    for name in ("R", "T", "focal", "center"):
        torch.testing.assert_close(getattr(again, name), getattr(cameras, name), atol=1e-5, rtol=1e-5)


def test_quaternions_there_and_back():
    q = quaternions(200)
    back = camera_quaternion(posed_camera(q, 2.0, 3.0))
    unit = q / q.norm(dim=-1, keepdim=True)
    assert bool((back[:, 0] >= 0).all())
    torch.testing.assert_close(back, unit * unit[:, :1].sign())


def test_centres_are_at_the_distance():
    centers = camera_centers(posed_camera(quaternions(9), 1.7, 2.0))
    torch.testing.assert_close(centers.norm(dim=-1), torch.full((9,), 1.7, dtype=torch.float64))


def test_gradient():
    points = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def seen(q):
        return project(posed_camera(q, 2.0, 3.75)[:, None], points)

    assert torch.autograd.gradcheck(seen, (quaternions(3).requires_grad_(),))


def test_leading_shapes():
    assert posed_camera(quaternions(6).reshape(2, 3, 4), 2.0, 3.0).shape == (2, 3)
    assert posed_camera(quaternions(1)[0], 2.0, 3.0).shape == ()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="1 of zeros"):
        posed_camera(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), 2.0, 3.0)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        posed_camera(torch.ones(2, 3), 2.0, 3.0)
    with pytest.raises(ValueError, match=r"positive, got 0.0 and 3.0"):
        posed_camera(torch.ones(4), 0.0, 3.0)


def test_turned_world_looks_the_same():
    turn = torch.tensor(Rotation.random(random_state=4).as_matrix())
    camera = posed_camera(quaternions(5), 2.0, 3.75)
    points = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(project(turn_world(camera, turn), points @ turn), project(camera, points))


def test_angles_are_those_of_scipy():
    first, second = quaternions(500), quaternions(500, seed=1)
    turns = [Rotation.from_quat(value.numpy(), scalar_first=True) for value in (first, second)]
    np.testing.assert_allclose(
        rotation_angle(first, second), np.rad2deg((turns[0].inv() * turns[1]).magnitude()), atol=1e-9
    )


def test_small_and_large_angles_in_single_precision():
    angles = torch.tensor([0.0, 0.01, 1.0, 90.0, 179.99, 180.0])
    half = torch.deg2rad(angles) / 2
    q = torch.stack([half.cos(), torch.zeros(6), half.sin(), torch.zeros(6)], dim=-1)
    torch.testing.assert_close(rotation_angle(q, torch.tensor([-2.0, 0, 0, 0])), angles, atol=1e-3, rtol=0)
    assert rotation_angle(q, q)[3] == 0
    assert rotation_angle(torch.zeros(4), q[0]).isnan()
