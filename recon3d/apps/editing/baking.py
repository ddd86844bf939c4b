"""Textures of the renderer, a cube of colours for each face, to one image with texture coordinates.

The renderer samples the T x T x T cube of a face trilinearly at ``w_k (T-1)``, w the barycentric coordinates. Each face
gets a square cell of the atlas, and its corners the centres of three texels of the cell::

    . . . . . .    Corner 0, 1 and 2, and the texels between them: m + 1 along a leg. The texel in column i and row j,
    . 0 x x 1 .    counted from corner 0, holds the colour at w = (1 - (i+j)/m, i/m, j/m), exactly up to the 8 bits of
    . x x x . .    the image. The others hold the colour of the nearest point of the triangle, so that a viewer that
    . x x . . .    averages neighbouring texels never sees another face.
    . 2 . . . .
    . . . . . .
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

PADDING = 2  # texels around a triangle: one for bilinear filtering, two for the first level of mipmaps too
MAX_DETAIL = 4  # texels from one node of the cube to the next: its colour is not linear between them
COMFORTABLE = 4096  # pixels; larger atlases get less detail
LARGEST = 16384  # pixels; the largest texture that graphics cards take


class Baked(NamedTuple):
    """An atlas: image; uv (3F, 2) with v upwards from the lower left corner; face_uv (F, 3) into uv."""

    image: Image.Image
    uv: Tensor
    face_uv: Tensor


def sample_cube(textures: Tensor, weights: Tensor) -> Tensor:
    """Colours of per-face textures at barycentric coordinates, trilinear at ``w_k (T-1)`` along axis k.

    Args:
        textures: (F, T, T, T, 3), T at least 2.
        weights: (P, 3), each row in [0, 1] and of sum 1; the same P points in every face.

    Returns:
        (F, P, 3).
    """
    last = textures.shape[1] - 1
    place = weights.to(textures) * last
    low = place.floor().clamp(max=last - 1).long()
    part = place - low
    total = textures.new_zeros(len(textures), len(weights), 3)
    for corner in range(8):
        up = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        share = torch.where(up.bool(), part, 1 - part).prod(dim=1)
        i, j, k = (low + up).unbind(dim=1)
        total += share[:, None] * textures[:, i, j, k]
    return total


def bake(textures: Tensor) -> Baked:
    """Bake per-face textures to an atlas of one square cell for each face, row by row from the upper left.

    Args:
        textures: (F, T, T, T, 3) in [0, 1], T at least 2; on the CPU.

    Raises:
        ValueError: more than `LARGEST` pixels a side would be needed.
    """
    n, size = len(textures), textures.shape[1]
    columns = math.ceil(math.sqrt(n))
    details = [detail for detail in range(MAX_DETAIL, 0, -1) if columns * _cell(detail, size) <= COMFORTABLE] or [1]
    cell = _cell(details[0], size)
    if columns * cell > LARGEST:
        raise ValueError(
            f"bake: {n:,} faces with textures of {size}^3 need an image of {columns * cell} pixels a side, and "
            f"{LARGEST} is the most; use a smaller --texture-size or simplify the mesh."
        )
    legs = details[0] * (size - 1)
    weights = _cell_weights(cell, legs)
    colors = sample_cube(textures, weights).clamp(0, 1).mul(255).round().byte()  # (F,cell*cell,3)
    rows = math.ceil(n / columns)
    atlas = torch.zeros(rows * columns, cell, cell, 3, dtype=torch.uint8)
    atlas[:n] = colors.reshape(n, cell, cell, 3)
    # (rows*columns,cell,cell,3) -> (rows*cell, columns*cell, 3)
    pixels = atlas.reshape(rows, columns, cell, cell, 3).transpose(1, 2).reshape(rows * cell, columns * cell, 3)
    index = torch.arange(n)
    origin = torch.stack([index % columns, index // columns], dim=1) * cell + PADDING + 0.5  # column, row
    corners = torch.tensor([[0, 0], [legs, 0], [0, legs]]) + origin[:, None]  # (F,3,2), pixels from the upper left
    uv = corners.double() / torch.tensor([columns * cell, rows * cell])
    uv[..., 1] = 1 - uv[..., 1]
    return Baked(Image.fromarray(pixels.numpy()), uv.reshape(-1, 2), torch.arange(3 * n).reshape(n, 3))


def _cell(detail: int, size: int) -> int:
    return detail * (size - 1) + 1 + 2 * PADDING


def _cell_weights(cell: int, legs: int) -> Tensor:
    """Barycentric coordinates (cell*cell, 3) of the texels of a cell, those outside moved to the triangle."""
    steps = torch.arange(cell, dtype=torch.float64) - PADDING
    j, i = torch.meshgrid(steps, steps, indexing="ij")
    along = ((i - j + legs) / 2).clamp(0, legs)  # foot of the perpendicular on the hypotenuse
    beyond = i + j > legs
    i = torch.where(beyond, along, i.clamp(0, legs))
    j = torch.where(beyond, legs - along, j.clamp(0, legs))
    return torch.stack([legs - i - j, i, j], dim=-1).reshape(-1, 3) / legs
