"""Depth-softmax colours in dense torch: every face against every pixel, by autograd. The definition of correct."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recon3d.kernels.soft_silhouette.reference import (
    CUTOFF,
    MIN_AREA,
    edge_functions,
    pixel_centers,
    signed_squared_distance,
)
from recon3d.kernels.zbuffer.reference import MIN_Z


def texel_index(weights: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Row and column of the texel of a face's atlas that holds points with barycentric weights (..., 3).

    PyTorch3D's rule, but for points on the edge between corners 0 and 1, where every pixel beyond that edge lies once
    its weights are clipped. The cells along it have no upper half; rounding must not fold such a point, which would
    mirror the edge.
    """
    column, row = ((weights[..., k] * resolution).long().clamp(max=resolution - 1) for k in (0, 1))
    row = torch.minimum(row, resolution - 1 - column)
    upper = (weights[..., 0] + weights[..., 1]) * resolution - (row + column) > 1
    fold = upper & (row + column < resolution - 1)
    return torch.where(fold, resolution - 1 - row, row), torch.where(fold, resolution - 1 - column, column)


def clip_weights(weights: Tensor) -> Tensor:
    """Barycentric weights (..., 3) clipped to [0, 1] and renormalised."""
    weights = weights.clamp(0, 1)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)


def face_colors_at(weights: Tensor, colors: Tensor, index: Tensor) -> Tensor:
    """Colours (..., 3) at weights (..., 3) of faces `index` (...): of corners (M,3,3), or of an atlas (M,R,R,3)."""
    if colors.ndim == 4:
        return colors[(index, *texel_index(weights, colors.shape[1]))]
    w0, w1, w2 = weights.unsqueeze(-1).unbind(dim=-2)
    return w0 * colors[index, 0] + w1 * colors[index, 1] + w2 * colors[index, 2]


def blend(
    logit: Tensor, weights: Tensor, z: Tensor, present: Tensor, color: Tensor, background: Tensor,
    gamma: float, near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """The softmax over depth: colours (..., 3) of pixels over N faces each.

    Args:
        logit: (..., N) of the probabilities D.
        weights: (..., N, 3) clipped.
        z: (..., N, 3) of the corners.
        present: (..., N) False leaves a face out.
        color: (..., N, 3) of the faces at the pixel.
        background: (3,).
        gamma: as in `soft_rgb`, like the rest.
        near: nearest depth.
        far: farthest depth.
        eps: score of the background.
    """
    # The depth of a face that is left out may be infinite; its gradient ends in the ones.
    depth = 1 / (weights / torch.where(present.unsqueeze(-1), z, torch.ones_like(z))).sum(dim=-1)
    drawn = (logit > -CUTOFF) & present & (depth >= near) & (depth <= far)
    score = (far - depth) / (far - near)
    peak = torch.where(drawn, score, -torch.inf).detach().amax(dim=-1, keepdim=True).clamp(min=eps)
    probability = torch.sigmoid(torch.where(drawn, logit, torch.zeros_like(logit)))
    share = torch.where(drawn, probability * torch.exp((torch.where(drawn, score, peak) - peak) / gamma), 0.0)
    behind = torch.exp((eps - peak) / gamma)
    total = (share.unsqueeze(-1) * color).sum(dim=-2) + behind * background
    return total / (share.sum(dim=-1, keepdim=True) + behind)


def pixel_colors(
    verts: Tensor, colors: Tensor, pixels: Tensor, sigma: float, background: Tensor, gamma: float, near: float,
    far: float, eps: float,
) -> Tensor:  # fmt: skip
    """Colours (P,3) of pixels (P,2) under faces (F,3,3) with colours (F,3,3) or (F,R,R,3)."""
    logit = signed_squared_distance(verts[..., :2], pixels) / sigma
    weights, area = edge_functions(verts[..., :2].detach(), pixels)
    weights = clip_weights(weights)
    z = verts[..., 2]
    present = (z > MIN_Z).all(dim=-1) & (area.abs() > MIN_AREA)
    color = face_colors_at(weights, colors, torch.arange(len(verts), device=verts.device))
    return blend(logit, weights, z, present, color, background, gamma, near, far, eps)


def soft_rgb_reference(
    face_verts: Tensor, face_colors: Tensor, image_size: int, sigma: float, gamma: float,
    background: tuple[float, float, float], near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `recon3d.kernels.soft_rgb.soft_rgb`; images one by one, recomputed in the backward pass."""
    pixels, back = pixel_centers(image_size, face_verts), face_verts.new_tensor(background)
    if face_verts.shape[0] == 0 or face_verts.shape[1] == 0:
        empty = back.reshape(1, 3, 1, 1).expand(len(face_verts), 3, image_size, image_size)
        return empty + 0 * (face_verts.sum() + face_colors.sum())
    images = [
        checkpoint(pixel_colors, verts, colors, pixels, sigma, back, gamma, near, far, eps, use_reentrant=False)
        for verts, colors in zip(face_verts, face_colors, strict=True)
    ]
    return torch.stack(images).transpose(1, 2).reshape(-1, 3, image_size, image_size)
