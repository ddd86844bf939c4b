"""Textures sampled from the input image, the adaptive gradient of Lin and Tian 2021, and the losses on them.

Data flow: a network predicts a flow (where on the image each texel lies) and a variation (by what the image is
multiplied); `sample_image` gives the texels, a renderer the picture, and the losses compare it with the input.

Image coordinates are (u, v) in [-1, 1], u to the right, v **down**; pixel i of W has its centre at (2i + 1) / W - 1.

[1] Lin and Tian 2021, Adaptive Gradient for Texture Learning. [2] Li et al. 2020 (UMR), the code, for what [1] takes
over and does not state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

SampleMode = Literal["modulated", "plain", "straight_through"]
STEEPNESS = 50.0  # of the barrier, per image side, from [2]


def sample_image(image: Tensor, flow: Tensor, variation: Tensor | None, mode: SampleMode = "modulated") -> Tensor:
    """Texels that a flow takes from an image: ``I_uv = GS(I_flow, I_r * I_var)`` (eq. 11 of [1]; eq. 8 is `plain`).

    - `modulated`: as printed.
    - `plain`: ``GS(I_flow, I_r)``, the variation takes no part.
    - `straight_through`: the value of `plain`, exactly, and every gradient of `modulated`. The variation then steers
      the coordinates and cannot repaint the image.

    Deviation from [2]: samples are taken as `torch.nn.functional.grid_sample` with ``align_corners=False``, because the
    pixel centres of the rasteriser then are those of the sampler; [2] ran on versions that aligned corners. And beyond
    the outermost pixel centres the border is repeated, where [2] fades to 0: a fade would give points near the border
    of a constant image a gradient.

    Args:
        image: (B, C, H, W).
        flow: (B, h, w, 2) in image coordinates.
        variation: (B, 1, H, W) or (B, C, H, W), the factor of each pixel; None, for `plain` alone, is 1 everywhere.
        mode: see above.

    Returns:
        (B, C, h, w), not clamped.

    Raises:
        ValueError: shapes that do not fit, an unknown mode, or no variation in a mode that needs one.
    """
    batch, channels, *size = image.shape
    if flow.ndim != 4 or image.ndim != 4 or flow.shape[0] != batch or flow.shape[-1] != 2:
        raise ValueError(
            "sample_image: expected an image (B, C, H, W) and a flow (B, h, w, 2), got "
            f"{tuple(image.shape)} and {tuple(flow.shape)}."
        )
    if mode not in ("modulated", "plain", "straight_through"):
        raise ValueError(f"sample_image: expected the mode modulated, plain or straight_through, got {mode!r}.")
    if mode == "plain":
        return _grid_sample(image, flow)
    if variation is None or variation.shape not in ((batch, 1, *size), (batch, channels, *size)):
        raise ValueError(
            f"sample_image: {mode} expects a variation (B, 1, H, W) or {tuple(image.shape)}, as the image, got "
            f"{None if variation is None else tuple(variation.shape)}; without one, use the mode plain."
        )
    modulated = _grid_sample(image * variation, flow)
    if mode == "modulated":
        return modulated
    return _grid_sample(image, flow).detach() + (modulated - modulated.detach())


def perceptual_loss(pred: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    """Perceptual distance: over the layers, the sum of 1 - the mean over pixels of the features' cosine similarity.

    ``sum_l 1 - mean_p <f_lp, g_lp> / (|f_lp| |g_lp|)``, where a pixel whose features are all 0 counts as similarity 0.
    As [2] measures it, with AlexNet (`recon3d.networks.imagenet.alexnet_features`) and without the learned weights of
    LPIPS; [1] says VGG (its section 3.1). The numbers of the networks have different scales.

    Args:
        pred: layer name to features (B, C, h, w).
        target: the same of the other images.

    Returns:
        (B,) in [0, 2L] for L layers; after ReLUs in [0, L].

    Raises:
        ValueError: other layers than those of `target`, or none.
    """
    if not target or pred.keys() != target.keys():
        raise ValueError(
            f"perceptual_loss: expected features of the layers {', '.join(target) or '(at least one)'}, got "
            f"{', '.join(pred) or 'none'}."
        )
    similarity = [F.cosine_similarity(pred[layer], target[layer], dim=1).mean(dim=(1, 2)) for layer in target]
    return (1 - torch.stack(similarity)).sum(dim=0)


def pixel_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of two images on a mask (eq. 10 and 35 of [1]).

    ``sum_p m_p |I_p - J_p|_1 / (3 sum_p m_p)``: the paper names no norm; this one does not depend on the size of the
    object.

    Args:
        pred: (B, 3, H, W) in [0, 1].
        target: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W) in [0, 1], taken as a constant.

    Returns:
        (B,); 0 where a mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    if pred.ndim != 4 or pred.shape != target.shape or mask.shape != (pred.shape[0], 1, *pred.shape[2:]):
        raise ValueError(
            "pixel_loss: expected two images (B, C, H, W) and a mask (B, 1, H, W), got "
            f"{tuple(pred.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}."
        )
    mask = mask.detach()
    area = mask.sum(dim=(1, 2, 3)).clamp_min(torch.finfo(mask.dtype).tiny)
    return (mask * (pred - target).abs()).mean(dim=1).sum(dim=(1, 2)) / area


def barrier_field(masks: Tensor) -> Tensor:
    """A wall around each silhouette: about 0 inside, 1/2 at the contour, about 1 outside ([2], not in [1]).

    ``1 / (1 + exp(-50 (d_out - d_in) / max(H, W)))``, where d_out is the distance, in pixels, from a background pixel
    to the nearest of the object, and d_in from a pixel of the object to the nearest of the background (exact). 0
    everywhere where there is no background, 1 everywhere where there is no object.

    Costs two distance transforms per image on the CPU.

    Args:
        masks: (B, 1, H, W) in [0, 1]; the object is where they are at least 0.5.

    Returns:
        (B, 1, H, W) of the dtype and on the device of `masks`, without gradient.

    Raises:
        ValueError: another shape.
    """
    if masks.ndim != 4 or masks.shape[1] != 1:
        raise ValueError(f"barrier_field: expected masks (B, 1, H, W), got {tuple(masks.shape)}.")
    inside = (masks.detach() >= 0.5).cpu().numpy()
    distance = np.empty(inside.shape)
    for mask, out in zip(inside[:, 0], distance[:, 0], strict=True):
        if mask.all() or not mask.any():
            out[:] = -np.inf if mask.all() else np.inf
        else:
            out[:] = distance_transform_edt(~mask) - distance_transform_edt(mask)
    return torch.from_numpy(distance).mul_(STEEPNESS / max(masks.shape[2:])).sigmoid_().to(masks)


def barrier_loss(flow: Tensor, field: Tensor) -> Tensor:
    """Mean of a barrier field where a flow samples: it keeps the flow on the object ([2]: "texture dt").

    Args:
        flow: (B, h, w, 2) in image coordinates. Beyond the image's border there is no gradient.
        field: (B, 1, H, W), see `barrier_field`.

    Returns:
        (B,) in [0, 1].
    """
    return _grid_sample(field, flow).mean(dim=(1, 2, 3))


def alignment_loss(face_flow: Tensor, centers: Tensor, visible: Tensor) -> Tensor:
    """Squared distance between where faces take their colours and where they are seen (eq. 12 of [1]; [2]).

    ``1 / (2F) sum_f visible_f |flow_f - c_f|^2``, with flow_f the mean of a face's flow, and ``c_f = sum_ij w_ij c_ij /
    sum_ij w_ij`` the mean pixel that the soft rasteriser shows it at. As in [2], the mean is over **all** 2F entries:
    fewer visible faces weigh less. Eq. 12 prints ``1 / n_c`` for ``1 / sum w``, which cannot be meant.

    Args:
        face_flow: (B, F, 2) in image coordinates.
        centers: (B, F, 2) in image coordinates, taken as constants; those of unseen faces may be anything, NaN too.
        visible: (B, F) bool.

    Returns:
        (B,).

    Raises:
        ValueError: shapes that do not fit.
    """
    if face_flow.shape != centers.shape or visible.shape != face_flow.shape[:2] or visible.dtype != torch.bool:
        raise ValueError(
            "alignment_loss: expected face_flow and centers (B, F, 2) and bool visible (B, F), got "
            f"{tuple(face_flow.shape)}, {tuple(centers.shape)} and {visible.dtype} {tuple(visible.shape)}."
        )
    offset = torch.where(visible[..., None], face_flow - centers.detach(), 0.0)
    return offset.square().mean(dim=(1, 2))


def variation_loss(variation: Tensor) -> Tensor:
    """Mean of ``(I_var - 1)^2``, which keeps the variation from repainting the image; not in [1].

    Args:
        variation: (B, 1 or C, H, W), the factor of each pixel.

    Returns:
        (B,).
    """
    return (variation - 1).square().flatten(1).mean(dim=1)


def _grid_sample(image: Tensor, flow: Tensor) -> Tensor:
    return F.grid_sample(image, flow, mode="bilinear", padding_mode="border", align_corners=False)
