"""What `pairwise_repulsion` is judged by: scalar loops with gradients written out, and the matrix of pairs in autograd.

The loops follow the sums A, B, C, D of one row that a pass over all pairs yields; the matrix is the definition, left to
torch to differentiate. Both leave the pair of a point with itself out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recon3d.kernels import pairwise_repulsion


def loops(
    xy: np.ndarray, weight: np.ndarray, bias: np.ndarray, theta: float, kernel: str
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Value of one cloud, and its gradients with respect to xy (N, 2), weight (N,) and bias (N,)."""
    n = len(xy)
    value, d_xy, d_weight, d_bias = 0.0, np.zeros((n, 2)), np.zeros(n), np.zeros(n)
    for m in range(n):
        own = weight[m] * math.exp(bias[m])
        a = b = 0.0
        c, d = np.zeros(2), np.zeros(2)
        for k in range(n):
            if k == m:
                continue
            offset = xy[m] - xy[k]
            distance = math.hypot(*offset)
            closeness = math.exp(-distance / theta) if kernel == "exp" else math.exp(-((distance / theta) ** 2))
            if kernel == "exp":
                pull = closeness / (theta * distance) if distance > 0 else 0.0
            else:
                pull = 2 / theta**2 * closeness
            other = weight[k] * math.exp(bias[k])
            a += weight[k] * closeness
            b += other * closeness
            c += weight[k] * pull * offset
            d += other * pull * offset
        value += own * a / n**2
        d_xy[m] = -(own * c + weight[m] * d) / n**2
        d_weight[m] = (math.exp(bias[m]) * a + b) / n**2
        d_bias[m] = own * a / n**2
    return value, d_xy, d_weight, d_bias


def matrix(xy: Tensor, weight: Tensor, bias: Tensor, theta: float, kernel: str = "exp") -> Tensor:
    """Values (B,) by a matrix of all pairs; coincident points repel each other with K = 1 and no direction."""
    n = xy.shape[1]
    squared = (xy[:, :, None] - xy[:, None]).square().sum(dim=-1)
    together = squared == 0
    distance = squared.masked_fill(together, 1.0).sqrt().masked_fill(together, 0.0)
    exponent = distance / theta if kernel == "exp" else (distance / theta).square()
    pairs = (weight * bias.exp())[:, :, None] * weight[:, None] * torch.exp(-exponent)
    return pairs.masked_fill(torch.eye(n, dtype=torch.bool), 0.0).sum(dim=(1, 2)) / max(n, 1) ** 2


def cloud(b, n, seed=0, dtype=torch.float64, spread=0.3):
    """Points, weights of both signs of which some are 0, and biases as the boundary bias has them and beyond."""
    generator = torch.Generator().manual_seed(seed)
    xy = spread * torch.randn(b, n, 2, generator=generator, dtype=torch.float64)
    weight = 1.5 * torch.rand(b, n, generator=generator, dtype=torch.float64) - 0.5
    weight[:, 3::7] = 0
    bias = 1.5 * torch.rand(b, n, generator=generator, dtype=torch.float64) - 0.5
    return xy.to(dtype), weight.to(dtype), bias.to(dtype)


def with_gradients(inputs, theta, kernel, run=pairwise_repulsion, upstream=None, **options):
    """Values (B,), and gradients of their weighted sum: each cloud has a weight of its own."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = run(*leaves, theta, kernel, **options)
    if upstream is None:
        upstream = torch.arange(1, len(value) + 1, dtype=value.dtype) / 2
    return value.detach(), *torch.autograd.grad((value * upstream).sum(), leaves)


def close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=tolerance * scale)
