"""The soft silhouette in dense torch: every face against every pixel, by autograd. The definition of correct."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CUTOFF = 23.025850929840455  # ln(1 / 1e-10 - 1): faces with a probability below 1e-10 are left out (SoftRas dist_eps)
MIN_AREA = 1e-8  # twice the NDC area; PyTorch3D's threshold for faces of no area


def pixel_centers(image_size: int, like: Tensor) -> Tensor:
    """NDC (x, y) of the pixel centres, (S*S, 2), row by row."""
    axis = 1 - (2 * torch.arange(image_size, device=like.device, dtype=like.dtype) + 1) / image_size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def edge_functions(face_xy: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentric weights (P,F,3) of pixels (P,2) in triangles (F,3,2), and twice the signed area (F,)."""
    a, b, c = face_xy.unbind(dim=1)

    def edge(p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        return (p[..., 0] - q[..., 0]) * (r[..., 1] - q[..., 1]) - (p[..., 1] - q[..., 1]) * (r[..., 0] - q[..., 0])

    area = edge(c, a, b)
    safe = torch.where(area.abs() > MIN_AREA, area, torch.ones_like(area))
    p = pixels.unsqueeze(1)
    return torch.stack([edge(p, b, c), edge(p, c, a), edge(p, a, b)], dim=-1) / safe.unsqueeze(-1), area


def signed_squared_distance(face_xy: Tensor, pixels: Tensor) -> Tensor:
    """Squared distance (P,F) of pixels (P,2) to the boundary of triangles (F,3,2): positive inside, negative outside.

    Faces of no area get -inf.
    """
    start, end = face_xy, face_xy.roll(-1, dims=1)  # (F,3 edges,2)
    along = end - start
    to_pixel = pixels[:, None, None] - start  # (P,F,3,2)
    t = (to_pixel * along).sum(-1) / (along * along).sum(-1).clamp(min=torch.finfo(along.dtype).tiny)
    gap = to_pixel - t.clamp(0, 1).unsqueeze(-1) * along
    squared = (gap * gap).sum(-1).amin(dim=-1)
    weights, area = edge_functions(face_xy, pixels)
    signed = torch.where((weights > 0).all(dim=-1), squared, -squared)
    return torch.where(area.abs() > MIN_AREA, signed, torch.full_like(signed, -torch.inf))


def _silhouette(face_xy: Tensor, pixels: Tensor, sigma: float) -> Tensor:
    logit = signed_squared_distance(face_xy, pixels) / sigma
    logit = torch.where(logit > -CUTOFF, logit, torch.full_like(logit, -torch.inf))
    # log prod_j (1 - D_ij) = - sum_j softplus(logit): exact also where D is 1 to the last bit.
    return -torch.expm1(-F.softplus(logit).sum(dim=-1))


def soft_silhouette_reference(face_xy: Tensor, image_size: int, sigma: float) -> Tensor:
    """See `recon3d.kernels.soft_silhouette.soft_silhouette`; images one by one, recomputed in the backward pass."""
    pixels = pixel_centers(image_size, face_xy)
    images = [checkpoint(_silhouette, faces, pixels, sigma, use_reentrant=False) for faces in face_xy]
    if not images:
        return face_xy.new_zeros(0, image_size, image_size) + 0 * face_xy.sum()
    return torch.stack(images).reshape(-1, image_size, image_size)
