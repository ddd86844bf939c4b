"""How alike a textured prediction and the input image look: structural similarity, whole and inside the mask.

Images come as (B,4,H,W): RGB multiplied by the mask, so that they lie on black, and the mask. A black background is
equal in both and raises the similarity of the whole image, hence the second measure.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.iou import MASK_THRESHOLD
from recon3d.metrics.last_pair import once_per_pair


class Similarity(NamedTuple):
    """Structural similarity of B pairs of images.

    Attributes:
        whole: (B,) mean over all pixels.
        inside: (B,) mean over the pixels inside the true mask; NaN where that is empty.
    """

    whole: Tensor
    inside: Tensor


@once_per_pair
def structural_similarity(pred: Tensor, target: Tensor) -> Similarity:
    """SSIM of RGB images on black: Gaussian window of 11x11, sigma 1.5, K1 0.01, K2 0.03, data range 1, edges mirrored.

    Source: Wang et al. 2004, by torchmetrics; the mean over the three channels.

    Args:
        pred: (B,4,H,W) in [0, 1]: RGB multiplied by the mask, and the mask. An image that is not finite gives NaN.
        target: (B,4,H,W) in [0, 1].

    Raises:
        ValueError: other shapes.
    """
    if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 4:
        raise ValueError(
            "structural_similarity: expected two tensors (B,4,H,W) of one shape, RGB and mask, got "
            f"{tuple(pred.shape)} and {tuple(target.shape)}."
        )
    whole, inside = [], []
    for ours, theirs in zip(pred, target, strict=True):  # one by one: a value does not depend on the batch
        _, similarity = structural_similarity_index_measure(
            ours[None, :3], theirs[None, :3], sigma=1.5, data_range=1.0, return_full_image=True
        )
        whole.append(similarity.mean())
        inside.append(similarity[0].mean(dim=0)[theirs[3] > MASK_THRESHOLD].mean())
    return Similarity(torch.stack(whole), torch.stack(inside))


class SSIM(SampleMetric):
    """`structural_similarity` of whole images on black; a failed prediction scores the lower bound, -1."""

    higher_is_better = True
    worst = -1.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the similarities of (B,4,H,W), (B,)."""
        return structural_similarity(pred, target).whole


class SSIMInside(SampleMetric):
    """`structural_similarity` inside the true mask; a failed prediction, or a true mask that is empty, scores -1."""

    higher_is_better = True
    worst = -1.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the similarities of (B,4,H,W), (B,)."""
        return structural_similarity(pred, target).inside
