"""The pair sums in plain torch, in blocks of rows whose pairs are made again for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAIRS = 2**24  # at once: 64 MiB for each intermediate in float32


def pairwise_repulsion_reference(xy: Tensor, weight: Tensor, bias: Tensor, theta: float, kernel: str) -> Tensor:
    """See `recon3d.kernels.pairwise_repulsion.pairwise_repulsion`."""
    batch, n = weight.shape
    scaled = weight * bias.exp()
    rows = max(1, PAIRS // max(batch * n, 1))
    total = (0.0 * (xy.sum(dim=2) + scaled)).sum(dim=1)  # zeros that depend on the input, also where N = 0
    for first in range(0, n, rows):
        block = checkpoint(_rows, first, xy, weight, scaled, theta, kernel, rows, use_reentrant=False)
        assert isinstance(block, Tensor)
        total = total + block
    return total / max(n, 1) ** 2


def _rows(first: int, xy: Tensor, weight: Tensor, scaled: Tensor, theta: float, kernel: str, rows: int) -> Tensor:
    """Sums (B,) over the pairs whose j is in [first, first + rows)."""
    mine = slice(first, first + rows)
    squared = (xy[:, mine, None] - xy[:, None]).square().sum(dim=-1)  # (B, rows, N)
    if kernel == "gauss":
        value = torch.exp(-squared / theta**2)
    else:
        # A distance of 0 would have an infinite derivative, times 0.
        apart = squared > 0
        value = torch.exp(-torch.where(apart, squared, 1.0).sqrt() / theta).where(apart, 1.0)
    index = torch.arange(xy.shape[1], device=xy.device)
    itself = index[mine, None] == index
    value = value.masked_fill(itself, 0.0)
    return (scaled[:, mine] * (value @ weight[..., None])[..., 0]).sum(dim=1)
