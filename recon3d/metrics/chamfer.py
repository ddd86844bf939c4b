"""The Chamfer distance of the Effective Loss paper (eq. 7)."""

from __future__ import annotations

import math

from torch import Tensor

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.nearest import nearest_distances


def chamfer_distance(pred: Tensor, target: Tensor) -> Tensor:
    """Mean distance to the nearest point, prediction to target PLUS target to prediction; unsquared, not averaged.

    Source: Zubić and Liò 2021, "An Effective Loss Function for Generating 3D Models from Single 2D Image without
    Rendering", eq. 7, without the factor 100 of its tables. Neither `norm` of `pytorch3d.loss.chamfer_distance`
    computes this: norm=2 squares the distances, norm=1 takes the city-block distance.

    Two independent samplings of one surface do not score 0: with n points on area A each way costs about
    ``0.5 sqrt(A / n)``.

    Args:
        pred: (B, N, 3) in the object frame.
        target: (B, P, 3) in the object frame.

    Returns:
        (B,) in object units; NaN for an object whose prediction is not finite.
    """
    distances = nearest_distances(pred, target)
    return distances.to_target.mean(dim=1) + distances.to_pred.mean(dim=1)


class ChamferDistance(SampleMetric):
    """`chamfer_distance` x 100, as the tables of the paper give it.

    A failed prediction scores the diagonal of the unit cube both ways, 2 sqrt(3) x 100 = 346.4.
    """

    higher_is_better = False
    worst = 200.0 * math.sqrt(3.0)

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return ``100 chamfer_distance``, (B,)."""
        return 100.0 * chamfer_distance(pred, target)
