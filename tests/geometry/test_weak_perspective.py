"""CMR's camera, by its own equations, written out with SciPy's rotations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import (
    cmr_camera,
    cmr_to_object,
    mirrored_pose,
    object_camera,
    object_to_cmr,
    weak_perspective_camera,
    weak_perspective_pose,
)


@pytest.fixture
def poses():
    generator = np.random.default_rng(0)
    quaternion = generator.normal(size=(20, 4))
    quaternion[:, 0] = np.abs(quaternion[:, 0])
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return torch.tensor(
        np.concatenate([generator.uniform(0.3, 2, (20, 1)), generator.normal(size=(20, 2)), quaternion], 1)
    )


@pytest.fixture
def points():
    return torch.tensor(np.random.default_rng(1).normal(size=(20, 15, 3)))


def image_coordinates(pose, points):
    """u to the right, v down, and depth, by the equations of the docstring."""
    rows = []
    for (s, tx, ty, w, x, y, z), cloud in zip(pose.numpy(), points.numpy(), strict=True):
        turned = s * Rotation.from_quat([x, y, z, w]).apply(cloud)
        rows.append(np.stack([turned[:, 0] + tx, turned[:, 1] + ty, turned[:, 2] / s], axis=1))
    return torch.tensor(np.stack(rows))


def test_projects_as_cmr_does(poses, points):
    expected = image_coordinates(poses, points)
    seen = project(weak_perspective_camera(poses), points)
    assert torch.allclose(seen[..., :2], -expected[..., :2], atol=1e-12)
    assert torch.allclose(seen[..., 2], expected[..., 2] + 5, atol=1e-12)


def test_object_frame_sees_the_same(poses, points):
    camera = weak_perspective_camera(poses)
    ours = project(object_camera(camera), cmr_to_object(points))
    assert torch.allclose(ours[..., :2], project(camera, points)[..., :2], atol=1e-12)
    assert torch.allclose(2 * ours[..., 2], project(camera, points)[..., 2], atol=1e-12)
    assert torch.allclose(torch.linalg.det(object_camera(camera).R), torch.ones(20, dtype=torch.float64))


def test_round_trips(poses, points):
    assert torch.allclose(object_to_cmr(cmr_to_object(points)), points)
    back = weak_perspective_pose(cmr_camera(object_camera(weak_perspective_camera(poses))))
    assert torch.allclose(back, poses, atol=1e-12)


def test_axes_of_a_bird():
    beak, up, left = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert cmr_to_object(beak).tolist() == [0.5, 0, 0]  # fronts face +X
    assert cmr_to_object(up).tolist() == [0, 0.5, 0]
    # Left of something that faces +X with +Y up is -Z.
    assert cmr_to_object(left).tolist() == [0, 0, -0.5]


def test_mirrored_camera_sees_the_mirrored_object_in_the_mirrored_image(poses, points):
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    here = image_coordinates(poses, points)
    there = image_coordinates(mirrored_pose(poses), points * flip)
    assert torch.allclose(there[..., :2], here[..., :2] * flip[:2], atol=1e-12)


def test_a_translation_across_the_image_is_kept(poses, points):
    camera = weak_perspective_camera(poses)
    moved = replace(camera, T=camera.T + camera.T.new_tensor([0.3, -0.2, 0.0]))
    again = weak_perspective_camera(weak_perspective_pose(moved))
    assert torch.allclose(project(again, points)[..., :2], project(moved, points)[..., :2], atol=1e-12)


def test_refusals(poses):
    with pytest.raises(ValueError, match=r"poses \(\.\.\., 7\), got \(20, 6\)"):
        weak_perspective_camera(poses[:, :6])
    camera = weak_perspective_camera(poses)
    with pytest.raises(ValueError, match="perspective ones"):
        weak_perspective_pose(replace(camera, orthographic=False))
    with pytest.raises(ValueError, match="one scale"):
        weak_perspective_pose(replace(camera, focal=camera.focal * torch.tensor([1.0, 2.0])))
