"""The Effective Loss of Zubic and Lio 2021: how well projected points cover a silhouette, without rendering.

The term per point (eq. 1 to 3) reads a smoothed silhouette at each projection; the term per pair (eq. 4 and 5) spreads
the projections, through `recon3d.kernels.pairwise_repulsion`. Used by the methods that train on silhouettes without
rendering.

Lengths are in **image widths**, so that constants mean the same at every resolution: the frame is a square of side 1.
The loss is the one of Han et al. 2020 (DRWR, arXiv 2007.06127), whose released code ("drwr" below) has the only
constants that were published; the authors' own code does not contain it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from recon3d.kernels.pairwise_repulsion import pairwise_repulsion

SilhouetteForm = Literal["gap", "minmax", "pixel"]
NEAREST = 220.0 / 255.0  # of drwr: what the background falls from; so there is a step at the boundary
SLOPE = math.sqrt(2.0)  # of drwr: it falls by d / (64 sqrt 2) with d in pixels of a 128-pixel mask
MARGIN = 0.5  # image widths around the frame in which S^G is known


class EffectiveLoss(NamedTuple):
    """The two terms of eq. 6, averaged over the points and not weighted.

    Attributes:
        unary: M1 (eq. 3), or L1 (eq. 1).
        pairwise: L2 (eq. 5).
    """

    unary: Tensor
    pairwise: Tensor


def smooth_silhouettes(masks: Tensor, form: SilhouetteForm = "gap") -> Tensor:
    """Silhouettes with a slope around them, S^G (eq. 2), on the frame and `MARGIN` image widths around it.

    1 on the foreground. With d the distance to the nearest foreground pixel (of pixel centres, exact), the background
    is

    - `gap`: ``220/255 - sqrt(2) d``, as in drwr. The step at the boundary keeps points in.
    - `minmax`: ``1 - d``, then min-max normalised over the background of the frame, as printed: the nearest
      background pixels become 1, the farthest of the frame 0, so that the slope depends on the mask. Outside the frame
      the slope goes on. Where all background is at one distance, or there is none, the slope is 1.
    - `pixel`: 0, which is eq. 1.

    A mask without foreground gives 1 everywhere: nothing is known of where points should be.

    Args:
        masks: (..., V, V) bool.
        form: see above.

    Returns:
        (..., V + 2m, V + 2m) float32 on the device of `masks`, m = V * `MARGIN`, rounded up.
    """
    if masks.dtype != torch.bool or masks.ndim < 2 or masks.shape[-1] != masks.shape[-2]:
        raise ValueError(f"smooth_silhouettes: expected bool (..., V, V), got {masks.dtype} {tuple(masks.shape)}.")
    size = masks.shape[-1]
    margin = math.ceil(size * MARGIN)
    padded = F.pad(masks, (margin,) * 4)
    if form == "pixel":
        return (padded | ~masks.any(-1, keepdim=True).any(-2, keepdim=True)).float()
    if form not in ("gap", "minmax"):
        raise ValueError(f"smooth_silhouettes: expected the form gap, minmax or pixel, got {form!r}.")
    flat = padded.flatten(0, -3) if masks.ndim > 2 else padded[None]
    frame = np.s_[margin : margin + size, margin : margin + size]
    smooth = np.ones(flat.shape, np.float32)
    for inside, out in zip(flat.cpu().numpy(), smooth, strict=True):
        if not inside.any():
            continue
        distance = distance_transform_edt(~inside) / size
        if form == "gap":
            background = NEAREST - SLOPE * distance
        else:
            seen = distance[frame][~inside[frame]]
            near, far = (seen.min(), seen.max()) if seen.size else (1 / size, 1 / size)
            background = 1 - (distance - near) / (far - near if far > near else 1.0)
        out[:] = np.where(inside, 1.0, background)
    return torch.from_numpy(smooth).to(masks.device).reshape(padded.shape)


def effective_loss(
    xy: Tensor,
    masks: Tensor,
    *,
    silhouette: SilhouetteForm = "gap",
    theta: float = 0.05,
    kernel: Literal["exp", "gauss"] = "exp",
    rings: int = 5,
    bias: float = 0.0,
    weighted: bool = True,
    detach: bool = True,
    reduction: Literal["mean", "sum"] = "mean",
    self_pair: bool = False,
    mass: Tensor | None = None,
    per_view: bool = False,
    backend: str | None = None,
) -> EffectiveLoss:
    """Terms of the Effective Loss (eq. 6) of projected clouds.

    ``unary = mean |1 - S^G(p_j)|`` and ``pairwise = mean_j w_j e^{mu_j} sum_k w_k K(d_jk)`` (the sum over k a mean, by
    default), where w is the binary mask sampled at p (eq. 5: background points take no part), and mu the constant
    `bias` plus the mean of the mask over `rings` squares around p: it is largest deep inside.

    Deviations of the defaults, because the loss as printed drives points out of the silhouette (our runs of all three
    settings are in the ablation): the sum over k is a mean; S^G keeps a step at the boundary; no gradient flows through
    w and mu; the pair of a point with itself is left out. Beyond the margin of S^G, M1 grows by `SLOPE` times the
    distance, so that no projection is without a gradient. Pixels are sampled at their centres, where drwr puts the
    outermost ones on the frame's border.

    Args:
        xy: (..., N, 2) projections in NDC (`recon3d.structures`).
        masks: (..., V, V) bool silhouettes, whose leading shape broadcasts to that of `xy`. One without foreground
            counts 0.
        silhouette: see `smooth_silhouettes`.
        theta: decay of the kernel in image widths; eq. 5 gives no number.
        kernel: `exp` (eq. 5) or `gauss` (its text, and drwr), see `pairwise_repulsion`.
        rings: squares of the multi-scale mean in mu, see `_rings`; 0 leaves it out.
        bias: constant part of mu.
        weighted: False takes w = 1 (the column "no w" of the paper's table 6).
        detach: no gradient through w and mu.
        reduction: over k; `sum` is as printed.
        self_pair: count the pair k = j too, as printed and in drwr.
        mass: (..., N) of the points, mean 1; None gives each 1.
        per_view: give the terms of each cloud, (...), instead of their mean, a scalar.
        backend: of `pairwise_repulsion`.

    Raises:
        ValueError: shapes that do not fit, or a setting that is not defined.
    """
    lead, n = xy.shape[:-2], xy.shape[-2]
    ones = (1,) * (len(lead) + 2 - masks.ndim)
    fits = masks.ndim <= len(lead) + 2 and all(
        m in (1, x) for m, x in zip((*ones, *masks.shape[:-2]), lead, strict=True)
    )
    if xy.shape[-1] != 2 or not fits or masks.dtype != torch.bool:
        raise ValueError(
            "effective_loss: expected xy (..., N, 2) and bool masks (..., V, V) of the same leading shape, or one that "
            f"broadcasts to it, got {tuple(xy.shape)} and {masks.dtype} {tuple(masks.shape)}."
        )
    if reduction not in ("mean", "sum") or rings < 0:
        raise ValueError(f"effective_loss: expected reduction mean or sum and rings >= 0, got {reduction!r}, {rings}.")
    if mass is not None and mass.shape != xy.shape[:-1]:
        raise ValueError(f"effective_loss: expected mass {tuple(xy.shape[:-1])}, as xy, got {tuple(mass.shape)}.")
    places = (0.5 - 0.5 * xy).reshape(-1, n, 2)  # image widths, from the top left corner to the right and down
    flat = masks.expand(*lead, -1, -1).reshape(-1, *masks.shape[-2:])
    smooth = smooth_silhouettes(masks, silhouette)  # before views are repeated: the costly part
    smooth = smooth.expand(*lead, -1, -1).reshape(-1, *smooth.shape[-2:]).to(xy.dtype)
    mass = torch.ones_like(places[..., 0]) if mass is None else mass.reshape(-1, n)
    unary = (mass * _unary(places, flat, smooth, pull=silhouette != "pixel")).mean(dim=1)
    with torch.set_grad_enabled(not detach and torch.is_grad_enabled()):
        w = _sample(flat.to(xy.dtype), places) if weighted else torch.ones_like(mass)
        mu = bias + (_rings(flat.to(xy.dtype), places, rings) if rings else torch.zeros_like(w))
    weight = w * mass
    pairwise = pairwise_repulsion(places, weight, mu, theta, kernel, backend)
    if self_pair:
        pairwise = pairwise + (weight.square() * mu.exp()).mean(dim=1) / n
    pairwise = pairwise * flat.flatten(1).any(dim=1) * (n if reduction == "sum" else 1)
    if per_view:
        return EffectiveLoss(unary.reshape(lead), pairwise.reshape(lead))
    return EffectiveLoss(unary.mean(), pairwise.mean())


def _unary(places: Tensor, masks: Tensor, smooth: Tensor, pull: bool) -> Tensor:
    """|1 - S^G| at each place, (B, N); `pull`: it grows beyond the margin of `smooth`."""
    size = masks.shape[-1]
    margin = (smooth.shape[-1] - size) // 2
    low, high = (0.5 - margin) / size, 1 + (margin - 0.5) / size
    known = places.clamp(low, high)
    value = (1 - _sample(smooth, (known * size + margin) / smooth.shape[-1])).abs()
    if not pull:
        return value
    beyond = (places - known).abs().sum(dim=-1) * masks.flatten(1).any(dim=1, keepdim=True)
    return value + SLOPE * beyond


def _sample(images: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples (B, N) of images (B, S, S) at places in widths of the image; 0 outside."""
    grid = (2 * places - 1)[:, None]
    return F.grid_sample(images[:, None], grid, align_corners=False, padding_mode="zeros")[:, 0, 0]


def _rings(masks: Tensor, places: Tensor, count: int) -> Tensor:
    """Mean over n < count of bilinear interpolation between four mask pixels ever further from each place.

    The corners of square n are the columns floor(x) - n and floor(x) + 1 + n and the rows likewise, clamped to the
    image; the fractional weights are those of n = 0. As in drwr; the paper says "squares in the grid".
    """
    size = masks.shape[-1]
    pixel = places * size - 0.5
    corner = pixel.detach().floor()
    right, down = (pixel - corner).unbind(dim=-1)
    corner = corner.clamp(-size, 2 * size).long()  # further away, the corners are the same
    flat = masks.flatten(1)
    total = torch.zeros_like(right)
    for n in range(count):
        first, last = (corner - n).clamp(0, size - 1), (corner + 1 + n).clamp(0, size - 1)
        for rows, by_row in ((first[..., 1], 1 - down), (last[..., 1], down)):
            for columns, by_column in ((first[..., 0], 1 - right), (last[..., 0], right)):
                total = total + by_row * by_column * flat.gather(1, rows * size + columns)
    return total / count
