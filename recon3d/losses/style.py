"""Losses on images and features that draw a mesh's renders towards a style: Gram matrices and total variation.

Masks say which pixels show the object; they count as constants, no gradient goes through them.

[1] Kato, Ushiku, Harada 2018, Neural 3D Mesh Renderer, section 4.2.1; [2] the authors' code of that section.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def gram_matrix(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gram matrices ``sum_p m_p f_p f_p^T / (C sum_p m_p)`` of feature maps over the pixels p of a mask ([2]).

    Features are scaled by ``sqrt(m)``, the mask averaged down to their size, so pixels beside the object do not count
    and the size of the object in the image does not matter.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], constant; None is 1 everywhere.

    Returns:
        (B, C, C); 0 where a mask is empty.
    """
    b, c, h, w = features.shape
    mask = features.new_ones(b, 1, h, w) if mask is None else mask.detach()
    weight = F.adaptive_avg_pool2d(mask, (h, w))
    flat = (features * weight.sqrt()).flatten(2)  # (B,C,h,w) -> (B,C,h*w)
    area = weight.sum(dim=(1, 2, 3)).clamp(min=1e-6).reshape(-1, 1, 1)
    return flat @ flat.transpose(1, 2) / (c * area)


def style_loss(grams: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Sum over layers of the squared Frobenius distance of Gram matrices ([1], L_s), for each image.

    Args:
        grams: layer name to (B, C, C).
        targets: the same layers of the style image, (1, C, C) each.

    Returns:
        (B,).

    Raises:
        ValueError: the layers differ.
    """
    if grams.keys() != targets.keys():
        raise ValueError(f"style_loss: expected the layers {', '.join(targets)}, got {', '.join(grams)}.")
    terms = [(grams[layer] - targets[layer]).square().sum(dim=(1, 2)) for layer in targets]
    return torch.stack(terms).sum(dim=0)


def total_variation(images: Tensor, mask: Tensor) -> Tensor:
    """Sum of squared differences of neighbouring pixels that lie wholly on the object ([1], L_t), for each image.

    Deviation: [1] sums over the whole image. A pair with one pixel outside shows the contour against a background that
    means nothing; [2] leaves out pixels outside too.

    Args:
        images: (B, 3, H, W).
        mask: (B, 1, H, W) in [0, 1]; a pixel is inside where it is 1.

    Returns:
        (B,).
    """
    inside = (mask.detach() == 1).to(images.dtype)
    down = (images[..., 1:, :] - images[..., :-1, :]).square() * (inside[..., 1:, :] * inside[..., :-1, :])
    right = (images[..., 1:] - images[..., :-1]).square() * (inside[..., 1:] * inside[..., :-1])
    return down.sum(dim=(1, 2, 3)) + right.sum(dim=(1, 2, 3))
