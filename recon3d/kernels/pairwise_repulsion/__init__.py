"""The structure term of the Effective Loss: how closely projected points crowd, over all pairs of a cloud."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recon3d.kernels.dispatch import choose_backend

BACKENDS = {"numba": ("cpu",), "reference": ("cuda", "cpu")}


def pairwise_repulsion(
    xy: Tensor,
    weight: Tensor,
    bias: Tensor,
    theta: float,
    kernel: Literal["exp", "gauss"] = "exp",
    backend: str | None = None,
) -> Tensor:
    """Weighted mean of a decaying kernel over all pairs of points (Zubic and Lio 2021, eq. 5, averaged over j and k).

    ``(1/N^2) sum_j w_j e^{b_j} sum_{k != j} w_k K(d_jk)`` with d_jk the distance of points j and k, and
    ``K = exp(-d / theta)`` (`exp`, eq. 5 as printed) or ``K = exp(-(d / theta)^2)`` (`gauss`, what its text says).

    The gradient is exact, also into weights and biases, and comes from the same pass over the pairs as the value:
    memory grows with N, not N^2. A pair of coincident points counts with K = 1 and no gradient into positions, where
    the `exp` form has none. Deterministic.

    Deviation: the sums over k and j are means, so that the value does not grow with N at equal density; and the pair
    k = j, which moves no point, is left out.

    Args:
        xy: (B, N, 2), float32 or float64; N may be 0.
        weight: (B, N), w; points of weight 0 cost no time where no gradient into weights is asked for.
        bias: (B, N), b.
        theta: decay, a length in the unit of `xy`.
        kernel: `exp` or `gauss`.
        backend: `numba` (CPU) or `reference` (torch, in blocks of rows); None asks RECON3D_BACKEND, then the device.

    Returns:
        (B,); 0 for N = 0.

    Raises:
        ValueError: wrong shapes or dtypes, theta not positive, NaN or inf, another kernel, or an unavailable backend.
    """
    lead = xy.shape[:2]
    if xy.ndim != 3 or xy.shape[2] != 2 or weight.shape != lead or bias.shape != lead:
        raise ValueError(
            "pairwise_repulsion: expected xy (B, N, 2), weight (B, N) and bias (B, N), got "
            f"{tuple(xy.shape)}, {tuple(weight.shape)} and {tuple(bias.shape)}."
        )
    if xy.dtype not in (torch.float32, torch.float64) or {weight.dtype, bias.dtype} != {xy.dtype}:
        raise ValueError(
            "pairwise_repulsion: expected xy, weight and bias all in float32 or all in float64, got "
            f"{xy.dtype}, {weight.dtype} and {bias.dtype}."
        )
    if not 0 < theta < float("inf"):
        raise ValueError(f"pairwise_repulsion: theta must be positive and finite (a length), got {theta}.")
    if kernel not in ("exp", "gauss"):
        raise ValueError(f"pairwise_repulsion: expected the kernel 'exp' or 'gauss', got {kernel!r}.")
    for name, value in (("xy", xy), ("weight", weight), ("bias", bias)):
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"pairwise_repulsion: {name} holds NaN or inf; has the training diverged?")
    name = choose_backend("pairwise_repulsion", xy.device, BACKENDS, backend)
    if name == "numba":
        from recon3d.kernels.pairwise_repulsion.numba_cpu import pairwise_repulsion_numba as run
    else:
        from recon3d.kernels.pairwise_repulsion.reference import pairwise_repulsion_reference as run
    return run(xy, weight, bias, float(theta), kernel)
