"""The F-score at a distance threshold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.nearest import nearest_distances

THRESHOLD = 0.01  # 1 % of the longest side, which is 1 in the object frame (Tatarchenko et al. 2019, section 5.2)


class FScores(NamedTuple):
    """Three fractions in [0, 1], each (B,)."""

    f_score: Tensor
    precision: Tensor
    recall: Tensor


def f_score(pred: Tensor, target: Tensor, threshold: float = THRESHOLD) -> FScores:
    """Harmonic mean of precision and recall of points closer than a threshold.

    Precision is the fraction of predicted points with a target point nearer than `threshold`, recall the fraction of
    target points with a predicted point nearer than it; the F-score is 0 where both are 0. Source: Knapitsch et al.
    2017; Tatarchenko et al. 2019, with 1 % of the longest side.

    Two independent samplings of one surface do not score 1: with n points on area A about
    ``1 - exp(-pi threshold^2 n / A)`` of the points have a neighbour.

    Args:
        pred: (B, N, 3) in the object frame; an object that is not finite scores 0.
        target: (B, P, 3) in the object frame.
        threshold: in object units.
    """
    distances = nearest_distances(pred, target)
    precision = (distances.to_target < threshold).double().mean(dim=1)
    recall = (distances.to_pred < threshold).double().mean(dim=1)
    total = precision + recall
    return FScores(torch.where(total > 0, 2 * precision * recall / total.clamp(min=1e-12), 0.0), precision, recall)


class FScore(SampleMetric):
    """`f_score` at 1 % of the longest side; a failed prediction scores 0."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the F-scores, (B,)."""
        return f_score(pred, target).f_score
