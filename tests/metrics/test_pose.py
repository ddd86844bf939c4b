import pytest
import torch

from recon3d.geometry.cameras import look_at_camera
from recon3d.metrics.pose import PoseAccuracy, PoseError, camera_angle, pose_accuracy
from recon3d.structures import Camera

TURNS = torch.tensor([0.0, 29.0, 31.0, 90.0, 180.0])


def pair() -> tuple[Camera, Camera]:
    """Cameras on the equator, turned about the vertical by `TURNS`, at another distance and focal length."""
    return look_at_camera(2.0, 0.0, 10.0 + TURNS, 15.0), look_at_camera(2.7, 0.0, torch.full((5,), 10.0), 20.0)


def keys(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n), torch.zeros(n, dtype=torch.long)


def test_angles_between_cameras():
    torch.testing.assert_close(camera_angle(*pair()), TURNS, atol=0.05, rtol=0)


def test_metrics_over_samples():
    error, accuracy = PoseError(), PoseAccuracy()
    for metric in (error, accuracy):
        metric.update(*pair(), *keys(5))
    assert error.compute().mean() == pytest.approx(66.0, abs=0.05)
    assert accuracy.compute().mean() == pytest.approx(40.0)


def test_a_failed_prediction_scores_worst():
    pred, target = pair()
    pred.R[1] = float("nan")
    error, accuracy = PoseError(), PoseAccuracy()
    for metric in (error, accuracy):
        metric.update(pred, target, *keys(5))
    assert error.compute().values[1] == 180
    assert accuracy.compute().values.tolist() == [100, 0, 0, 0, 0]


def test_an_angle_that_is_nan_is_not_accurate():
    errors = torch.tensor([[10.0, 30.0, 40.0, float("nan")], [1.0, 2.0, 3.0, 4.0]])
    assert pose_accuracy(errors).tolist() == [0.5, 1.0]
    assert pose_accuracy(errors, degrees=2.0).tolist() == [0.0, 0.5]
