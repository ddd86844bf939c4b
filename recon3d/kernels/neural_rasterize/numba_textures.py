"""Trilinear samples of texture cubes compiled for the CPU; see `reference.sample_textures`.

In the backward pass every image is one task that alone writes its gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor


@njit(cache=True, inline="always")
def _set_texel(weights, size, eps, cell, part):
    """Fill the lowest texel `cell` (3,) of a sample, and how far it is from there, `part` (3,)."""
    for axis in range(3):
        coordinate = min(max(np.float64(weights[axis]) * (size - 1), 0.0), size - 1 - eps)
        cell[axis] = min(int(coordinate), size - 2)
        part[axis] = coordinate - cell[axis]


@njit(cache=True, parallel=True)
def _sample_parallel(textures, index, weights, eps, image):
    size, side = index.shape[1], textures.shape[2]
    for task in prange(len(index) * size):
        b, row = task // size, task % size
        cell, part = np.empty(3, np.int64), np.empty(3)
        for column in range(size):
            f = index[b, row, column]
            if f < 0:
                image[b, :, row, column] = 0.0
                continue
            _set_texel(weights[b, row, column], side, eps, cell, part)
            red, green, blue = 0.0, 0.0, 0.0
            for corner in range(8):
                i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
                share = (part[0] if i else 1 - part[0]) * (part[1] if j else 1 - part[1])
                share *= part[2] if k else 1 - part[2]
                texel = textures[b, f, cell[0] + i, cell[1] + j, cell[2] + k]
                red += share * texel[0]
                green += share * texel[1]
                blue += share * texel[2]
            image[b, 0, row, column] = red
            image[b, 1, row, column] = green
            image[b, 2, row, column] = blue


@njit(cache=True, parallel=True)
def _sample_backward_parallel(grad, index, weights, eps, result):
    size, side = index.shape[1], result.shape[2]
    for b in prange(len(index)):
        cell, part = np.empty(3, np.int64), np.empty(3)
        result[b] = 0.0
        for row in range(size):
            for column in range(size):
                f = index[b, row, column]
                if f < 0:
                    continue
                _set_texel(weights[b, row, column], side, eps, cell, part)
                for corner in range(8):
                    i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
                    share = (part[0] if i else 1 - part[0]) * (part[1] if j else 1 - part[1])
                    share *= part[2] if k else 1 - part[2]
                    texel = result[b, f, cell[0] + i, cell[1] + j, cell[2] + k]
                    for channel in range(3):
                        texel[channel] += share * grad[b, channel, row, column]


class _SampleTextures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, textures: Tensor, index: Tensor, weights: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.shape, ctx.eps = textures.shape, eps
        image = textures.new_empty(len(index), 3, *index.shape[1:])
        if image.numel():
            _sample_parallel(
                textures.detach().contiguous().numpy(), index.numpy(), weights.contiguous().numpy(), eps, image.numpy()
            )
        return image

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        index, weights = ctx.saved_tensors
        result = grad.new_zeros(ctx.shape)
        if result.numel():
            _sample_backward_parallel(
                grad.contiguous().numpy(), index.numpy(), weights.contiguous().numpy(), ctx.eps, result.numpy()
            )
        return result, None, None, None


def sample_textures(textures: Tensor, index: Tensor, weights: Tensor, eps: float) -> Tensor:
    """See `recon3d.kernels.neural_rasterize.reference.sample_textures`."""
    return _SampleTextures.apply(textures, index, weights, float(eps))
