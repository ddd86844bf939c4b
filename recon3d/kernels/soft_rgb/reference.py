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


def _colors(
    verts: Tensor, colors: Tensor, pixels: Tensor, sigma: float, gamma: float, background: Tensor,
    near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """Colours (P,3) of pixels (P,2) under faces (F,3,3) with corner colours (F,3,3)."""
    logit = signed_squared_distance(verts[..., :2], pixels) / sigma
    weights, area = edge_functions(verts[..., :2].detach(), pixels)
    weights = weights.clamp(0, 1)
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    z = verts[..., 2]
    valid = (z > MIN_Z).all(dim=-1) & (area.abs() > MIN_AREA)
    # The depth of a face that is not valid may be infinite; its gradient ends in the ones.
    depth = 1 / (weights / torch.where(valid.unsqueeze(-1), z, torch.ones_like(z))).sum(dim=-1)
    drawn = (logit > -CUTOFF) & valid & (depth >= near) & (depth <= far)
    score = (far - depth) / (far - near)
    peak = torch.where(drawn, score, -torch.inf).detach().amax(dim=-1, keepdim=True).clamp(min=eps)
    probability = torch.sigmoid(torch.where(drawn, logit, torch.zeros_like(logit)))
    share = torch.where(drawn, probability * torch.exp((torch.where(drawn, score, peak) - peak) / gamma), 0.0)
    behind = torch.exp((eps - peak) / gamma)
    face_color = torch.einsum("pfk,fkc->pfc", weights, colors)
    total = (share.unsqueeze(-1) * face_color).sum(dim=1) + behind * background
    return total / (share.sum(dim=1, keepdim=True) + behind)


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
        checkpoint(_colors, verts, colors, pixels, sigma, gamma, back, near, far, eps, use_reentrant=False)
        for verts, colors in zip(face_verts, face_colors, strict=True)
    ]
    return torch.stack(images).transpose(1, 2).reshape(-1, 3, image_size, image_size)
