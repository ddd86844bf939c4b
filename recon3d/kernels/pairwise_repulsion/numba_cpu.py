"""The pair sums compiled for the CPU: value and gradients from one pass over the pairs.

With a = w e^b and K' the derivative of the kernel divided by -d, a row m accumulates over all k != m

    A = sum w_k K,  B = sum a_k K,  C = sum w_k K' (p_m - p_k),  D = sum a_k K' (p_m - p_k);

then the value is ``sum a_m A_m / N^2`` and its gradients are, times N^2, ``-(a_m C_m + w_m D_m)`` into p_m,
``e^b_m A_m + B_m`` into w_m and ``a_m A_m`` into b_m. Tasks are blocks of rows: each row is summed by one task in one
order, so the result is bit-equal for any number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload
from torch import Tensor

ROWS = 64  # of a task
# Without these the loop over the pairs would not be vectorised. Infinities keep their meaning: squares may overflow.
FAST = {"fastmath": {"reassoc", "nsz", "arcp", "contract", "afn"}, "error_model": "numpy"}


@intrinsic
def _float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 or float64 that has these bits."""
    if bits not in (types.int32, types.int64):
        return None
    result, llvm = (types.float32, ir.FloatType()) if bits == types.int32 else (types.float64, ir.DoubleType())
    return result(bits), lambda context, builder, signature, values: builder.bitcast(values[0], llvm)


def exp_negative(x: float) -> float:
    """exp(x) for x <= 0, to rounding; 0 where the result would not be a normal number. Vectorised, as libm's is not."""
    return math.exp(x)


# 2^f = exp(f log 2) on [-1/2, 1/2]: the Taylor series, to the degree whose rest is below the rounding.
_LOG2 = math.log(2.0)
_SERIES = [_LOG2**i / math.factorial(i) for i in range(14)]
C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13 = _SERIES
PER_LOG2 = 1.0 / _LOG2


@overload(exp_negative, jit_options=FAST)
def _exp_negative(x):
    if x == types.float32:

        def single(x):
            t = max(x * np.float32(PER_LOG2), np.float32(-126.0))
            whole = np.floor(t + np.float32(0.5))
            f = t - whole
            p = np.float32(C7)
            p = p * f + np.float32(C6)
            p = p * f + np.float32(C5)
            p = p * f + np.float32(C4)
            p = p * f + np.float32(C3)
            p = p * f + np.float32(C2)
            p = p * f + np.float32(C1)
            p = p * f + np.float32(C0)
            scale = _float_of_bits(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))
            return p * scale if t > np.float32(-126.0) else np.float32(0.0)

        return single

    def double(x):
        t = max(x * PER_LOG2, -1022.0)
        whole = np.floor(t + 0.5)
        f = t - whole
        p = C13
        p = p * f + C12
        p = p * f + C11
        p = p * f + C10
        p = p * f + C9
        p = p * f + C8
        p = p * f + C7
        p = p * f + C6
        p = p * f + C5
        p = p * f + C4
        p = p * f + C3
        p = p * f + C2
        p = p * f + C1
        p = p * f + C0
        scale = _float_of_bits((np.int64(np.int32(whole)) + np.int64(1023)) << np.int64(52))
        return p * scale if t > -1022.0 else 0.0

    return double


@njit(cache=True, **FAST)
def _add_gauss(px, py, others, theta, one, sums):
    """Add the pairs of the point (px, py) with `others` (x, y, w, a; each n) to `sums` (A, B, C x, C y, D x, D y)."""
    x, y, w, a = others
    scale = -one / (theta * theta)
    zero = one - one
    sa, sb, scx, scy, sdx, sdy = zero, zero, zero, zero, zero, zero
    for k in range(len(x)):
        dx, dy = px - x[k], py - y[k]
        value = exp_negative((dx * dx + dy * dy) * scale)
        wk, ak = w[k] * value, a[k] * value
        sa += wk
        sb += ak
        scx += wk * dx
        scy += wk * dy
        sdx += ak * dx
        sdy += ak * dy
    slope = -2.0 * scale
    sums[0] += sa
    sums[1] += sb
    sums[2] += slope * scx
    sums[3] += slope * scy
    sums[4] += slope * sdx
    sums[5] += slope * sdy


@njit(cache=True, **FAST)
def _add_exp(px, py, others, theta, one, tiny, sums):
    """As `_add_gauss`."""
    x, y, w, a = others
    scale = -one / theta
    zero = one - one
    sa, sb, scx, scy, sdx, sdy = zero, zero, zero, zero, zero, zero
    for k in range(len(x)):
        dx, dy = px - x[k], py - y[k]
        d = math.sqrt(dx * dx + dy * dy)
        value = exp_negative(d * scale)
        wk, ak = w[k] * value, a[k] * value
        sa += wk
        sb += ak
        per_d = one / max(d, tiny)
        ux, uy = dx * per_d, dy * per_d  # 0 where the points coincide
        scx += wk * ux
        scy += wk * uy
        sdx += ak * ux
        sdy += ak * uy
    sums[0] += sa
    sums[1] += sb
    sums[2] -= scale * scx
    sums[3] -= scale * scy
    sums[4] -= scale * sdx
    sums[5] -= scale * sdy


@njit(cache=True, parallel=True, error_model="numpy")
def _all_sums(x, y, w, a, gauss, theta, one, tiny, rows_of_all, sums):
    """Sums of every point (B, N, 6) from coordinates, weights and a (B, N); `one` and `tiny` have their type."""
    batch, n = x.shape
    blocks = (n + ROWS - 1) // ROWS
    for task in prange(batch * blocks):
        b, block = task // blocks, task % blocks
        kept = np.empty((4, n), x.dtype)
        place = np.empty(ROWS, np.int64)
        count, first = 0, block * ROWS
        last = min(first + ROWS, n)
        for k in range(n):  # only points with a weight act on others
            if first <= k < last:
                place[k - first] = count
            if w[b, k] != 0.0:
                kept[0, count], kept[1, count], kept[2, count], kept[3, count] = x[b, k], y[b, k], w[b, k], a[b, k]
                count += 1
        for m in range(first, last):
            sums[b, m] = 0.0
            counted = w[b, m] != 0.0
            if not (counted or rows_of_all):
                continue
            end = place[m - first]
            begin = end + 1 if counted else end
            px, py = x[b, m], y[b, m]
            before = kept[0, :end], kept[1, :end], kept[2, :end], kept[3, :end]
            after = kept[0, begin:count], kept[1, begin:count], kept[2, begin:count], kept[3, begin:count]
            if gauss:
                _add_gauss(px, py, before, theta, one, sums[b, m])
                _add_gauss(px, py, after, theta, one, sums[b, m])
            else:
                _add_exp(px, py, before, theta, one, tiny, sums[b, m])
                _add_exp(px, py, after, theta, one, tiny, sums[b, m])


class _PairwiseRepulsion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, xy: Tensor, weight: Tensor, bias: Tensor, theta: float, kernel: str) -> Tensor:
        factor = bias.detach().exp()
        w = weight.detach().contiguous()
        a = w * factor
        real = xy.detach().numpy().dtype.type
        sums = np.empty((*w.shape, 6), real)
        x, y = xy.detach().permute(2, 0, 1).contiguous().numpy()
        if w.numel():
            _all_sums(
                x, y, w.numpy(), a.numpy(), kernel == "gauss", real(theta), real(1.0), np.finfo(real).tiny,
                ctx.needs_input_grad[1], sums,
            )  # fmt: skip
        found = torch.from_numpy(sums)
        pairs = max(w.shape[1], 1) ** 2
        ctx.save_for_backward(w, a, factor, found)
        ctx.pairs = pairs
        return (a.double() * found[..., 0]).sum(dim=1).div(pairs).to(xy.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        w, a, factor, sums = ctx.saved_tensors
        scale = (grad_output / ctx.pairs)[:, None]
        into_xy = -(a * scale)[..., None] * sums[..., 2:4] - (w * scale)[..., None] * sums[..., 4:]
        into_weight = scale * (factor * sums[..., 0] + sums[..., 1]) if ctx.needs_input_grad[1] else None
        return into_xy, into_weight, scale * a * sums[..., 0], None, None


def pairwise_repulsion_numba(xy: Tensor, weight: Tensor, bias: Tensor, theta: float, kernel: str) -> Tensor:
    """See `recon3d.kernels.pairwise_repulsion.pairwise_repulsion`."""
    return _PairwiseRepulsion.apply(xy, weight, bias, theta, kernel)
