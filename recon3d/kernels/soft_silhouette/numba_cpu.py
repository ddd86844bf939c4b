"""The soft silhouette compiled for the CPU, forward and backward, culled by each face's padded bounding box.

Forward: tasks are bands of rows; each pixel belongs to one task. Backward: tasks are runs of faces; each face's
gradient belongs to one task. So no two tasks write to one place, and the result is bit-equal for any number of threads.

With T_i = prod_j (1 - D_ij) and x_ij = +-d^2/sigma, ``dS_i/dx_ij = T_i D_ij``: no division, no singularity.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from recon3d.kernels.soft_silhouette.reference import CUTOFF, MIN_AREA


@njit(cache=True, inline="always")
def _segment(px, py, ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Squared distance to segment a-b, and the closest point's parameter t and offset from the pixel."""
    ux, uy = bx - ax, by - ay
    # A triangle of non-zero area has no edge of zero length.
    t = min(max(((px - ax) * ux + (py - ay) * uy) / (ux * ux + uy * uy), 0.0), 1.0)
    gx, gy = ax + t * ux - px, ay + t * uy - py
    return gx * gx + gy * gy, t, gx, gy


@njit(cache=True, inline="always")
def closest_edge(px, py, x0, y0, x1, y1, x2, y2, area):  # type: ignore[no-untyped-def]
    """Signed squared distance to the boundary of a triangle (positive inside), edge 0..2, t, and offset gx, gy."""
    d, t, gx, gy = _segment(px, py, x0, y0, x1, y1)
    edge = 0
    d1, t1, gx1, gy1 = _segment(px, py, x1, y1, x2, y2)
    if d1 < d:
        d, t, gx, gy, edge = d1, t1, gx1, gy1, 1
    d2, t2, gx2, gy2 = _segment(px, py, x2, y2, x0, y0)
    if d2 < d:
        d, t, gx, gy, edge = d2, t2, gx2, gy2, 2
    w0 = ((px - x1) * (y2 - y1) - (py - y1) * (x2 - x1)) * area
    w1 = ((px - x2) * (y0 - y2) - (py - y2) * (x0 - x2)) * area
    w2 = ((px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)) * area
    if not (w0 > 0.0 and w1 > 0.0 and w2 > 0.0):
        d = -d
    return d, edge, t, gx, gy


@njit(cache=True, inline="always")
def pixel_range(low, high, pad, size, first, last):  # type: ignore[no-untyped-def]
    """Pixels of [first, last) whose centre 1 - (2i+1)/S lies in [low - pad, high + pad]: from, to (exclusive).

    Clamped before the cast, as coordinates far off screen do not fit an integer.
    """
    begin = (1.0 - high - pad) * 0.5 * size - 0.5
    end = (1.0 - low + pad) * 0.5 * size - 0.5
    begin = min(max(begin, float(first)), float(last))
    end = max(min(end, float(last) - 1.0), float(first) - 1.0)
    return math.ceil(begin), math.floor(end) + 1


@njit(cache=True)
def _forward_rows(faces, size, sigma, row_from, row_to, through):  # type: ignore[no-untyped-def]
    """Multiply 1 - D of the faces (F,3,2) into rows [row_from, row_to) of `through` (S,S)."""
    through[row_from:row_to] = 1.0
    pad = math.sqrt(CUTOFF * sigma)
    for f in range(faces.shape[0]):
        x0, y0 = np.float64(faces[f, 0, 0]), np.float64(faces[f, 0, 1])
        x1, y1 = np.float64(faces[f, 1, 0]), np.float64(faces[f, 1, 1])
        x2, y2 = np.float64(faces[f, 2, 0]), np.float64(faces[f, 2, 1])
        area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)
        if abs(area) <= MIN_AREA:
            continue
        top, bottom = pixel_range(min(y0, y1, y2), max(y0, y1, y2), pad, size, row_from, row_to)
        left, right = pixel_range(min(x0, x1, x2), max(x0, x1, x2), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                if through[i, j] == 0.0:
                    continue
                px = 1.0 - (2 * j + 1) / size
                d, _, _, _, _ = closest_edge(px, py, x0, y0, x1, y1, x2, y2, area)
                logit = d / sigma
                if logit > -CUTOFF:
                    through[i, j] /= 1.0 + math.exp(min(logit, 700.0))


@njit(cache=True)
def _backward_faces(faces, size, sigma, face_from, face_to, weight, grad):  # type: ignore[no-untyped-def]
    """Gradient of faces [face_from, face_to); `weight` (S,S) is dL/dS times T."""
    pad = math.sqrt(CUTOFF * sigma)
    for f in range(face_from, face_to):
        grad[f] = 0.0
        x0, y0 = np.float64(faces[f, 0, 0]), np.float64(faces[f, 0, 1])
        x1, y1 = np.float64(faces[f, 1, 0]), np.float64(faces[f, 1, 1])
        x2, y2 = np.float64(faces[f, 2, 0]), np.float64(faces[f, 2, 1])
        area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)
        if abs(area) <= MIN_AREA:
            continue
        top, bottom = pixel_range(min(y0, y1, y2), max(y0, y1, y2), pad, size, 0, size)
        left, right = pixel_range(min(x0, x1, x2), max(x0, x1, x2), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                if weight[i, j] == 0.0:
                    continue
                px = 1.0 - (2 * j + 1) / size
                d, edge, t, gx, gy = closest_edge(px, py, x0, y0, x1, y1, x2, y2, area)
                logit = d / sigma
                if logit <= -CUTOFF:
                    continue
                # dL/d(d^2) with the sign of inside/outside; d(d^2)/d(closest point) = 2 g, shared by the edge's ends.
                scale = 2.0 * weight[i, j] / (1.0 + math.exp(-logit)) / sigma
                if d < 0.0:
                    scale = -scale
                second = (edge + 1) % 3
                grad[f, edge, 0] += scale * (1.0 - t) * gx
                grad[f, edge, 1] += scale * (1.0 - t) * gy
                grad[f, second, 0] += scale * t * gx
                grad[f, second, 1] += scale * t * gy


@njit(cache=True, parallel=True)
def _forward_parallel(faces, size, sigma, bands, through):  # type: ignore[no-untyped-def]
    for task in prange(faces.shape[0] * bands):
        b, band = task // bands, task % bands
        _forward_rows(faces[b], size, sigma, band * size // bands, (band + 1) * size // bands, through[b])


@njit(cache=True, parallel=True)
def _backward_parallel(faces, size, sigma, runs, weight, grad):  # type: ignore[no-untyped-def]
    count = faces.shape[1]
    for task in prange(faces.shape[0] * runs):
        b, run = task // runs, task % runs
        _backward_faces(faces[b], size, sigma, run * count // runs, (run + 1) * count // runs, weight[b], grad[b])


class _SoftSilhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_xy: Tensor, image_size: int, sigma: float) -> Tensor:
        faces = face_xy.detach().contiguous()
        through = np.empty((len(faces), image_size, image_size), np.float64)
        threads = numba.get_num_threads()
        bands = 1 if len(faces) >= threads else min(threads, image_size)
        if len(faces):
            _forward_parallel(faces.numpy(), image_size, sigma, bands, through)
        ctx.save_for_backward(faces, torch.from_numpy(through))
        ctx.sigma = sigma
        return (1.0 - torch.from_numpy(through)).to(face_xy.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        faces, through = ctx.saved_tensors
        weight = (grad_output.to(torch.float64) * through).contiguous().numpy()
        grad = np.empty(faces.shape, np.float64)
        threads = numba.get_num_threads()
        runs = 1 if len(faces) >= threads else threads
        if len(faces):
            _backward_parallel(faces.numpy(), weight.shape[-1], ctx.sigma, runs, weight, grad)
        return torch.from_numpy(grad).to(faces.dtype), None, None


def soft_silhouette_numba(face_xy: Tensor, image_size: int, sigma: float) -> Tensor:
    """See `recon3d.kernels.soft_silhouette.soft_silhouette`."""
    return _SoftSilhouette.apply(face_xy, image_size, sigma)
