"""Losses between rendered and observed silhouettes."""

from __future__ import annotations

from torch import Tensor


def silhouette_iou_loss(pred: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """One minus the soft intersection over union of silhouettes (Liu et al. 2019, eq. 3; Kato et al. 2018, eq. 5).

    ``1 - sum(p t) / sum(p + t - p t)`` over the pixels, nothing is thresholded.

    Args:
        pred: (..., H, W) in [0, 1].
        target: (..., H, W) in [0, 1]; broadcasts against `pred`.
        eps: added to the union, so that two empty silhouettes are defined (the SoftRas code does so, the NMR code not).

    Returns:
        (...) loss of each image, in [0, 1].
    """
    overlap = pred * target
    return 1 - overlap.sum(dim=(-2, -1)) / ((pred + target - overlap).sum(dim=(-2, -1)) + eps)
