"""How far predicted cameras are turned from the true ones."""

from __future__ import annotations

from torch import Tensor

from recon3d.geometry.poses import camera_quaternion, rotation_angle
from recon3d.metrics.base import SampleMetric
from recon3d.structures import Camera

RIGHT = 30.0  # degrees; the bound of the accuracy in the papers


def camera_angle(pred: Camera, target: Camera) -> Tensor:
    """Angle in degrees between the rotations from world to view of cameras (...): ``2 acos |Re(conj(q_true) q)|``.

    Source: the evaluation code of Insafutdinov and Dosovitskiy 2018 (DPC). Distance and focal length play no part.

    Returns:
        (...) in [0, 180]; NaN where a rotation is not finite.
    """
    return rotation_angle(camera_quaternion(pred), camera_quaternion(target))


def pose_accuracy(errors: Tensor, degrees: float = RIGHT) -> Tensor:
    """Share of angles (..., N) in degrees that are at most `degrees`, (...); an angle that is NaN is wrong."""
    return (errors <= degrees).double().mean(dim=-1)


class PoseError(SampleMetric):
    """`camera_angle`; 180 for a failed prediction.

    As of every metric the mean over the samples is reported, which a few cameras turned by 180 degrees pull up; the
    papers report the median, so the two are not to be compared. The values of the samples are in the run's samples.csv.
    """

    higher_is_better = False
    worst = 180.0

    def measure(self, pred: Camera, target: Camera) -> Tensor:
        """Return the angles of cameras of leading shape (B,)."""
        return camera_angle(pred, target)


class PoseAccuracy(SampleMetric):
    """100 for a predicted rotation within 30 degrees of the true one, else 0: the mean is the papers' accuracy in %."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Camera, target: Camera) -> Tensor:
        """Return 100 or 0 for cameras of leading shape (B,)."""
        return 100.0 * pose_accuracy(camera_angle(pred, target).unsqueeze(-1))
