"""Losses between predicted and true point clouds."""

from __future__ import annotations

from pytorch3d.ops import knn_points
from torch import Tensor


def chamfer_loss(pred: Tensor, target: Tensor, eps: float = 1e-12) -> Tensor:
    """Chamfer distance with a gradient: the mean unsquared distance to the nearest point, both ways, added.

    Source: Zubic and Lio 2021, eq. 7; the measure of the same definition is `recon3d.metrics.chamfer`.

    Args:
        pred: (B, N, 3).
        target: (B, P, 3), of the same dtype.
        eps: added under the root, so that coincident points have a gradient, of 0.

    Returns:
        (B,).
    """
    there = knn_points(pred, target, K=1).dists[..., 0]  # squared
    back = knn_points(target, pred, K=1).dists[..., 0]
    return (there + eps).sqrt().mean(dim=1) + (back + eps).sqrt().mean(dim=1)
