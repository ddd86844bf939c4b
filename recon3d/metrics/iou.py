"""Intersection over union of voxel grids and of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.metrics.base import SampleMetric

MASK_THRESHOLD = 0.5  # a pixel is foreground when its coverage exceeds this


def _check(operation: str, pred: Tensor, target: Tensor) -> None:
    if pred.shape != target.shape or pred.ndim < 3:
        raise ValueError(
            f"{operation}: expected two tensors of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}; "
            "the prediction must be made at the resolution of the ground truth."
        )


def voxel_iou(pred: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of two occupancy grids; 1 where both are empty.

    Args:
        pred: (..., R, R, R) bool.
        target: (..., R, R, R) bool.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: different shapes, or a grid that is not bool (thresholds are the caller's decision).
    """
    _check("voxel_iou", pred, target)
    if pred.dtype != torch.bool or target.dtype != torch.bool:
        raise ValueError(f"voxel_iou: expected bool grids, got {pred.dtype} and {target.dtype}; threshold them first.")
    intersection = (pred & target).sum(dim=(-3, -2, -1))
    union = (pred | target).sum(dim=(-3, -2, -1))
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def mask_iou(pred: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of two masks after thresholding both at 0.5; 1 where both are empty.

    Args:
        pred: (..., 1, H, W) in [0, 1].
        target: (..., 1, H, W) in [0, 1].

    Returns:
        (...) in [0, 1].
    """
    return voxel_iou(pred > MASK_THRESHOLD, target > MASK_THRESHOLD)


def soft_mask_iou(pred: Tensor, target: Tensor) -> Tensor:
    """Soft intersection over union of two masks, ``sum(p t) / sum(p + t - p t)``; 1 where both are empty.

    Source: Liu et al. 2019, the IoU loss. Equal to `mask_iou` where both masks are binary.

    Args:
        pred: (..., 1, H, W) in [0, 1].
        target: (..., 1, H, W) in [0, 1].

    Returns:
        (...) in [0, 1].
    """
    _check("soft_mask_iou", pred, target)
    intersection = (pred * target).sum(dim=(-3, -2, -1))
    union = (pred + target - pred * target).sum(dim=(-3, -2, -1))
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 1.0)


class VoxelIoU(SampleMetric):
    """`voxel_iou` of (B,R,R,R) grids; a failed prediction is an empty grid and scores 0."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the IoU of each object, (B,)."""
        return voxel_iou(pred, target)


class MaskIoU(SampleMetric):
    """`mask_iou` of (B,V,1,H,W) masks, the mean over the V views; a failed prediction is an empty mask."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean IoU over the views of each object, (B,)."""
        return mask_iou(pred, target).mean(dim=1)


class SoftMaskIoU(SampleMetric):
    """`soft_mask_iou` of (B,V,1,H,W) masks, the mean over the V views; a failed prediction is an empty mask."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean IoU over the views of each object, (B,)."""
        return soft_mask_iou(pred, target).mean(dim=1)
