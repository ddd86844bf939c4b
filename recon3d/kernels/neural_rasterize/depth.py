"""Depth of the visible faces, differentiable inside each face: torch on every device."""

from __future__ import annotations

import torch
from torch import Tensor

FAR = 100.0  # depth of the background, as in the code of Kato et al. 2018


def visible_depth(face_verts: Tensor, index: Tensor) -> Tensor:
    """``1 / sum_k (w_k / z_k)`` of the face that each pixel sees, w its weights on the screen at the pixel centre.

    Args:
        face_verts: (B, F, 3, 3), see `neural_rasterize`.
        index: (B, S, S), -1 where no face is.

    Returns:
        (B, S, S), `FAR` where no face is.
    """
    size = index.shape[-1]
    image, row, column = (index >= 0).nonzero(as_tuple=True)
    # In double precision: areas of slivers are differences of nearly equal products.
    corners = face_verts[image, index[image, row, column]].double()  # (N,3,3)
    pixel = 1 - (2 * torch.stack([column, row], dim=-1) + 1).to(corners) / size  # (N,2)
    to_corner = corners[..., :2] - pixel.unsqueeze(1)
    x, y = to_corner.unbind(dim=-1)
    # Twice the areas opposite to corners 0, 1, 2; their sum is that of the face.
    areas = torch.stack([x[:, i] * y[:, j] - x[:, j] * y[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], dim=-1)
    depth = areas.sum(dim=-1) / (areas / corners[..., 2]).sum(dim=-1)
    return face_verts.new_full(index.shape, FAR).index_put((image, row, column), depth.to(face_verts))
