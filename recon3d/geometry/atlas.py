"""Where the texels of an atlas lie on their face: R x R texels a face, in the order of PyTorch3D's `TexturesAtlas`.

Each edge of a face is cut into R, and so the face into R^2 small triangles, one a texel. A point with barycentric
weights w looks up row ``floor(w_1 R)`` and column ``floor(w_0 R)`` of the atlas where that cell's lower half holds it,
and the cell mirrored, (R - 1 - row, R - 1 - column), where the upper half does; nearest texel, no interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def atlas_points(resolution: int) -> Tensor:
    """Barycentric weights (R, R, 3) of the texel centres, inside the face: the centroids of its R^2 small triangles.

    What is sampled at these points and stored as an atlas is looked up again where it was sampled.

    Raises:
        ValueError: resolution below 1.
    """
    if resolution < 1:
        raise ValueError(f"atlas_points: expected a resolution of at least 1, got {resolution}.")
    row, column = torch.meshgrid(torch.arange(resolution), torch.arange(resolution), indexing="ij")
    lower = row + column < resolution
    first = torch.where(lower, column + 1 / 3, resolution - column - 1 / 3) / resolution
    second = torch.where(lower, row + 1 / 3, resolution - row - 1 / 3) / resolution
    return torch.stack([first, second, 1 - first - second], dim=-1)
