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


@njit(cache=True)
def set_edges(face, edges):
    """Fill `edges` (3,8) with what does not depend on the pixel, and return twice the signed area of `face` (3,2+).

    Row k: start (2), direction (2), 1 / squared length, and normal (2) and offset of its signed distance, positive
    inside. Nothing is filled for a face of no area.
    """
    x0, y0 = np.float64(face[0, 0]), np.float64(face[0, 1])
    x1, y1 = np.float64(face[1, 0]), np.float64(face[1, 1])
    x2, y2 = np.float64(face[2, 0]), np.float64(face[2, 1])
    area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)
    if abs(area) <= MIN_AREA:
        return area
    side = 1.0 if area > 0.0 else -1.0
    for k in range(3):
        x, y = np.float64(face[k, 0]), np.float64(face[k, 1])
        ux, uy = np.float64(face[(k + 1) % 3, 0]) - x, np.float64(face[(k + 1) % 3, 1]) - y
        squared = ux * ux + uy * uy
        nx, ny = side * uy / math.sqrt(squared), -side * ux / math.sqrt(squared)
        edges[k, 0], edges[k, 1], edges[k, 2], edges[k, 3], edges[k, 4] = x, y, ux, uy, 1.0 / squared
        edges[k, 5], edges[k, 6], edges[k, 7] = nx, ny, -(nx * x + ny * y)
    return area


@njit(cache=True, inline="always")
def _along(edges, k, px, py):
    """Parameter in [0, 1] of the point of edge k closest to the pixel."""
    t = ((px - edges[k, 0]) * edges[k, 2] + (py - edges[k, 1]) * edges[k, 3]) * edges[k, 4]
    return min(max(t, 0.0), 1.0)


@njit(cache=True, inline="always")
def closest_edge(px, py, edges, pad):
    """Signed squared distance to the boundary of a triangle, edge 0..2, t on it, and offset gx, gy from the pixel.

    Positive inside, negative outside; -inf where the pixel is further than `pad` outside the line of an edge.
    """
    s0 = edges[0, 5] * px + edges[0, 6] * py + edges[0, 7]
    s1 = edges[1, 5] * px + edges[1, 6] * py + edges[1, 7]
    s2 = edges[2, 5] * px + edges[2, 6] * py + edges[2, 7]
    low = min(s0, s1, s2)
    if low < -pad:
        return -np.inf, 0, 0.0, 0.0, 0.0
    if low > 0.0:  # inside, the nearest line is the nearest edge
        edge = 0 if low == s0 else (1 if low == s1 else 2)
        return low * low, edge, _along(edges, edge, px, py), -low * edges[edge, 5], -low * edges[edge, 6]
    squared, edge, t, gx, gy = np.inf, 0, 0.0, 0.0, 0.0
    for k in range(3):
        tk = _along(edges, k, px, py)
        dx, dy = edges[k, 0] + tk * edges[k, 2] - px, edges[k, 1] + tk * edges[k, 3] - py
        if dx * dx + dy * dy < squared:
            squared, edge, t, gx, gy = dx * dx + dy * dy, k, tk, dx, dy
    return -squared, edge, t, gx, gy


@njit(cache=True, inline="always")
def pixel_range(low, high, pad, size, first, last):
    """Pixels of [first, last) whose centre 1 - (2i+1)/S lies in [low - pad, high + pad]: from, to (exclusive).

    Clamped before the cast, as coordinates far off screen do not fit an integer.
    """
    begin = (1.0 - high - pad) * 0.5 * size - 0.5
    end = (1.0 - low + pad) * 0.5 * size - 0.5
    begin = min(max(begin, float(first)), float(last))
    end = max(min(end, float(last) - 1.0), float(first) - 1.0)
    return math.ceil(begin), math.floor(end) + 1


@njit(cache=True)
def _forward_rows(faces, size, sigma, row_from, row_to, through):
    """Multiply 1 - D of the faces (F,3,2) into rows [row_from, row_to) of `through` (S,S)."""
    through[row_from:row_to] = 1.0
    pad = math.sqrt(CUTOFF * sigma)
    edges = np.empty((3, 8))
    for f in range(faces.shape[0]):
        if abs(set_edges(faces[f], edges)) <= MIN_AREA:
            continue
        x, y = edges[:, 0], edges[:, 1]
        top, bottom = pixel_range(min(y[0], y[1], y[2]), max(y[0], y[1], y[2]), pad, size, row_from, row_to)
        left, right = pixel_range(min(x[0], x[1], x[2]), max(x[0], x[1], x[2]), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                if through[i, j] == 0.0:
                    continue
                px = 1.0 - (2 * j + 1) / size
                d, _, _, _, _ = closest_edge(px, py, edges, pad)
                logit = d / sigma
                if logit > -CUTOFF:
                    through[i, j] /= 1.0 + math.exp(min(logit, 700.0))


@njit(cache=True)
def _backward_faces(faces, size, sigma, face_from, face_to, weight, grad):
    """Gradient of faces [face_from, face_to); `weight` (S,S) is dL/dS times T."""
    pad = math.sqrt(CUTOFF * sigma)
    edges = np.empty((3, 8))
    for f in range(face_from, face_to):
        grad[f] = 0.0
        if abs(set_edges(faces[f], edges)) <= MIN_AREA:
            continue
        x, y = edges[:, 0], edges[:, 1]
        top, bottom = pixel_range(min(y[0], y[1], y[2]), max(y[0], y[1], y[2]), pad, size, 0, size)
        left, right = pixel_range(min(x[0], x[1], x[2]), max(x[0], x[1], x[2]), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                if weight[i, j] == 0.0:
                    continue
                px = 1.0 - (2 * j + 1) / size
                d, edge, t, gx, gy = closest_edge(px, py, edges, pad)
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
def _forward_parallel(faces, size, sigma, bands, through):
    for task in prange(faces.shape[0] * bands):
        b, band = task // bands, task % bands
        _forward_rows(faces[b], size, sigma, band * size // bands, (band + 1) * size // bands, through[b])


@njit(cache=True, parallel=True)
def _backward_parallel(faces, size, sigma, runs, weight, grad):
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
