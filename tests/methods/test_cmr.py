"""CMR's own losses: key points and cameras."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_camera
from recon3d.methods.cmr import CMR, camera_loss
from tests.conftest import TINY_NETWORKS


@pytest.fixture
def batch(full_batch):
    return full_batch(objects=3, views=1, size=64, photographs=True)


@pytest.fixture
def method():
    torch.manual_seed(0)
    return CMR(**TINY_NETWORKS["cmr"])


def test_key_points_that_are_vertices_cost_nothing_where_they_are_seen(batch, method):
    chosen = torch.tensor([3, 50, 100, 400, 600])
    method.keypoint_logits.data.zero_()[torch.arange(5), chosen] = 10.0
    recon = method(batch.inputs(3))
    true = project(cmr_camera(batch.cameras[:, 0]), recon.verts[:, chosen])[..., :2].detach()
    exact = replace(batch, keypoints=torch.cat([true, torch.ones(3, 5, 1)], -1)[:, None])
    assert method.losses(exact, recon)["keypoints"] < 1e-10
    moved = exact.keypoints.clone()
    moved[:, :, 0, 0] += 0.3
    assert float(method.losses(replace(exact, keypoints=moved), recon)["keypoints"]) == pytest.approx(0.009, rel=1e-3)
    moved[:, :, 0, 2] = 0
    assert method.losses(replace(exact, keypoints=moved), recon)["keypoints"] < 1e-10


def test_camera_loss():
    poses = torch.randn(4, 7)
    poses[:, 3:] = torch.nn.functional.normalize(poses[:, 3:], dim=1)
    same = poses.clone()
    same[:, 3:] *= -1  # the same rotation
    assert camera_loss(same, poses) < 1e-6
    same[:, 0] += 0.5
    assert camera_loss(same, poses) == pytest.approx(0.25, rel=1e-4)
    opposite = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0, 1, 0, 0]])
    assert camera_loss(*opposite) == pytest.approx(1.0)


def test_predicted_cameras_learn_from_key_points_only_when_asked(batch, method):
    def camera_gradient(method):
        method.zero_grad()
        method.losses(batch, method(batch.inputs(3)))["keypoints"].backward()
        return sum(value.grad.abs().sum() for value in method.cameras.parameters() if value.grad is not None)

    assert camera_gradient(method) == 0
    assert camera_gradient(CMR(**TINY_NETWORKS["cmr"] | {"true_cameras": False})) > 0


def test_another_number_of_key_points_is_named(batch, method):
    fewer = replace(batch, keypoints=batch.keypoints[:, :, :4])
    with pytest.raises(ValueError, match=r"4 key points, the method 5; set --model\.init_args\.keypoints 4"):
        method.losses(fewer, method(batch.inputs(3)))
