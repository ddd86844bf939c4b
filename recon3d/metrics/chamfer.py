"""The Chamfer distance of the Effective Loss paper (eq. 7), and the one of its Table 4, which is free of scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.nearest import nearest_distances

DIAGONAL_POINTS = 8_000  # Table 4


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


def chamfer_diagonal(pred: Tensor, target: Tensor) -> Tensor:
    """`chamfer_distance` after both clouds were scaled to a bounding box of diagonal 1, on at most 8,000 points each.

    Source: Zubić and Liò 2021, Table 4, which scales each prediction and takes 8,000 points of a larger ground truth.
    The paper's ground truth has diagonal 1 already; here it is scaled too, for data whose longest side is 1. Clouds are
    scaled about the origin and not centred, as the paper names no shift: the ground truth is centred, and where a
    prediction lies remains its error. The box is that of all points given; of larger clouds a seeded random subset
    counts, of predictions too.

    Args:
        pred: (B, N, 3) in the object frame.
        target: (B, P, 3) in the object frame.

    Returns:
        (B,) in units of the diagonal; NaN for an object whose prediction is not finite or a single place.
    """
    return chamfer_distance(_at_most(_unit_diagonal(pred)), _at_most(_unit_diagonal(target)))


def _unit_diagonal(points: Tensor) -> Tensor:
    size = points.amax(dim=1) - points.amin(dim=1)
    return points / size.norm(dim=1)[:, None, None]  # a single place becomes NaN or inf: a failed prediction


def _at_most(points: Tensor, count: int = DIAGONAL_POINTS) -> Tensor:
    """A random subset, not the first points: a network may give its points in an order."""
    if points.shape[1] <= count:
        return points
    picked = torch.randperm(points.shape[1], generator=torch.Generator().manual_seed(0))[:count]
    return points[:, picked.to(points.device)]


class ChamferDistance(SampleMetric):
    """`chamfer_distance` x 100, as the tables of the paper give it.

    A failed prediction scores the diagonal of the unit cube both ways, 2 sqrt(3) x 100 = 346.4.
    """

    higher_is_better = False
    worst = 200.0 * math.sqrt(3.0)

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return ``100 chamfer_distance``, (B,)."""
        return 100.0 * chamfer_distance(pred, target)


class ChamferDiagonal(SampleMetric):
    """`chamfer_diagonal`, not times 100; a failed prediction scores the diagonal both ways, 2."""

    higher_is_better = False
    worst = 2.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distances, (B,)."""
        return chamfer_diagonal(pred, target)
