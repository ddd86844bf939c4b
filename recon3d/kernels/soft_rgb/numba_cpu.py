"""Depth-softmax colours compiled for the CPU; tasks and determinism as in `kernels.soft_silhouette.numba_cpu`.

Corner colours and atlases run through the same loops: a face has K colours, three of its corners (`resolution` 0) or
the R^2 texels of its rows and columns.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from recon3d.kernels.soft_silhouette.numba_cpu import closest_edge, pixel_range, set_edges
from recon3d.kernels.soft_silhouette.reference import CUTOFF, MIN_AREA
from recon3d.kernels.zbuffer.numba_cpu import MIN_Z


@njit(cache=True, inline="always")
def _clipped_weights(px, py, x0, y0, x1, y1, x2, y2, area):
    w0 = min(max(((px - x1) * (y2 - y1) - (py - y1) * (x2 - x1)) / area, 0.0), 1.0)
    w1 = min(max(((px - x2) * (y0 - y2) - (py - y2) * (x0 - x2)) / area, 0.0), 1.0)
    w2 = min(max(((px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)) / area, 0.0), 1.0)
    total = 1.0 / max(w0 + w1 + w2, 1e-12)
    return w0 * total, w1 * total, w2 * total


@njit(cache=True, inline="always")
def _texel(w0, w1, resolution):
    """Index of the texel at a point of a face; `reference.texel_index` says why the diagonal is a case of its own."""
    column = min(int(w0 * resolution), resolution - 1)
    row = min(int(w1 * resolution), resolution - 1)
    if row + column >= resolution:
        row = resolution - 1 - column
    elif row + column < resolution - 1 and (w0 + w1) * resolution - row - column > 1.0:
        row, column = resolution - 1 - row, resolution - 1 - column
    return row * resolution + column


@njit(cache=True)
def _forward_rows(verts, colors, resolution, size, sigma, gamma, near, far, row_from, row_to, peak, total, image):
    """Blend one image's faces into rows [row_from, row_to); peak, total, image start as the background's."""
    pad = math.sqrt(CUTOFF * sigma)
    edges = np.empty((3, 8))
    color = np.empty(3)
    for f in range(verts.shape[0]):
        x0, y0, z0 = np.float64(verts[f, 0, 0]), np.float64(verts[f, 0, 1]), np.float64(verts[f, 0, 2])
        x1, y1, z1 = np.float64(verts[f, 1, 0]), np.float64(verts[f, 1, 1]), np.float64(verts[f, 1, 2])
        x2, y2, z2 = np.float64(verts[f, 2, 0]), np.float64(verts[f, 2, 1]), np.float64(verts[f, 2, 2])
        area = set_edges(verts[f], edges)
        if abs(area) <= MIN_AREA or z0 <= MIN_Z or z1 <= MIN_Z or z2 <= MIN_Z:
            continue
        top, bottom = pixel_range(min(y0, y1, y2), max(y0, y1, y2), pad, size, row_from, row_to)
        left, right = pixel_range(min(x0, x1, x2), max(x0, x1, x2), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                px = 1.0 - (2 * j + 1) / size
                d, _, _, _, _ = closest_edge(px, py, edges, pad)
                logit = d / sigma
                if logit <= -CUTOFF:
                    continue
                w0, w1, w2 = _clipped_weights(px, py, x0, y0, x1, y1, x2, y2, area)
                depth = 1.0 / (w0 / z0 + w1 / z1 + w2 / z2)
                if depth < near or depth > far:
                    continue
                score = (far - depth) / (far - near)
                if score > peak[i, j]:  # online softmax: what is there is rescaled to the new largest score
                    shrink = math.exp((peak[i, j] - score) / gamma)
                    total[i, j] *= shrink
                    for c in range(3):
                        image[c, i, j] *= shrink
                    peak[i, j] = score
                share = math.exp((score - peak[i, j]) / gamma) / (1.0 + math.exp(-logit))
                total[i, j] += share
                if resolution:
                    texel = _texel(w0, w1, resolution)
                    for c in range(3):
                        color[c] = colors[f, texel, c]
                else:
                    for c in range(3):
                        color[c] = w0 * colors[f, 0, c] + w1 * colors[f, 1, c] + w2 * colors[f, 2, c]
                for c in range(3):
                    image[c, i, j] += share * color[c]
    for i in range(row_from, row_to):
        for j in range(size):
            for c in range(3):
                image[c, i, j] /= total[i, j]


@njit(cache=True)
def _backward_faces(
    verts, colors, resolution, size, sigma, gamma, near, far, face_from, face_to,
    peak, total, image, grad, grad_verts, grad_colors,
):  # fmt: skip
    """Gradients of faces [face_from, face_to) from `grad` = dL/d image (3,S,S)."""
    pad = math.sqrt(CUTOFF * sigma)
    edges = np.empty((3, 8))
    w = np.empty(3)
    color = np.empty(3)
    for f in range(face_from, face_to):
        grad_verts[f] = 0.0
        grad_colors[f] = 0.0
        x0, y0, z0 = np.float64(verts[f, 0, 0]), np.float64(verts[f, 0, 1]), np.float64(verts[f, 0, 2])
        x1, y1, z1 = np.float64(verts[f, 1, 0]), np.float64(verts[f, 1, 1]), np.float64(verts[f, 1, 2])
        x2, y2, z2 = np.float64(verts[f, 2, 0]), np.float64(verts[f, 2, 1]), np.float64(verts[f, 2, 2])
        area = set_edges(verts[f], edges)
        if abs(area) <= MIN_AREA or z0 <= MIN_Z or z1 <= MIN_Z or z2 <= MIN_Z:
            continue
        top, bottom = pixel_range(min(y0, y1, y2), max(y0, y1, y2), pad, size, 0, size)
        left, right = pixel_range(min(x0, x1, x2), max(x0, x1, x2), pad, size, 0, size)
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                px = 1.0 - (2 * j + 1) / size
                d, edge, t, gx, gy = closest_edge(px, py, edges, pad)
                logit = d / sigma
                if logit <= -CUTOFF:
                    continue
                w[0], w[1], w[2] = _clipped_weights(px, py, x0, y0, x1, y1, x2, y2, area)
                depth = 1.0 / (w[0] / z0 + w[1] / z1 + w[2] / z2)
                if depth < near or depth > far:
                    continue
                score = (far - depth) / (far - near)
                probability = 1.0 / (1.0 + math.exp(-logit))
                share = probability * math.exp((score - peak[i, j]) / gamma) / total[i, j]
                if resolution:
                    texel = _texel(w[0], w[1], resolution)
                    for c in range(3):
                        color[c] = colors[f, texel, c]
                        grad_colors[f, texel, c] += share * grad[c, i, j]
                else:
                    for c in range(3):
                        color[c] = w[0] * colors[f, 0, c] + w[1] * colors[f, 1, c] + w[2] * colors[f, 2, c]
                        for k in range(3):
                            grad_colors[f, k, c] += share * w[k] * grad[c, i, j]
                pull = 0.0  # sum_c dL/dI_c (C_c - I_c)
                for c in range(3):
                    pull += grad[c, i, j] * (color[c] - image[c, i, j])
                # Through D: dI/d logit = share (1 - D); then as in the silhouette.
                scale = 2.0 * pull * share * (1.0 - probability) / sigma
                if d < 0.0:
                    scale = -scale
                second = (edge + 1) % 3
                grad_verts[f, edge, 0] += scale * (1.0 - t) * gx
                grad_verts[f, edge, 1] += scale * (1.0 - t) * gy
                grad_verts[f, second, 0] += scale * t * gx
                grad_verts[f, second, 1] += scale * t * gy
                # Through depth: d score/d depth = -1/(far - near), d depth/d z_k = depth^2 w_k / z_k^2.
                slope = -pull * share / gamma / (far - near) * depth * depth
                grad_verts[f, 0, 2] += slope * w[0] / (z0 * z0)
                grad_verts[f, 1, 2] += slope * w[1] / (z1 * z1)
                grad_verts[f, 2, 2] += slope * w[2] / (z2 * z2)


@njit(cache=True, parallel=True)
def _forward_parallel(verts, colors, resolution, size, sigma, gamma, near, far, bands, peak, total, image):
    for task in prange(verts.shape[0] * bands):
        b, band = task // bands, task % bands
        first, last = band * size // bands, (band + 1) * size // bands
        _forward_rows(
            verts[b], colors[b], resolution, size, sigma, gamma, near, far, first, last, peak[b], total[b], image[b]
        )  # fmt: skip


@njit(cache=True, parallel=True)
def _backward_parallel(
    verts, colors, resolution, size, sigma, gamma, near, far, runs, peak, total, image, grad, grad_verts, grad_colors
):
    count = verts.shape[1]
    for task in prange(verts.shape[0] * runs):
        b, run = task // runs, task % runs
        first, last = run * count // runs, (run + 1) * count // runs
        _backward_faces(
            verts[b], colors[b], resolution, size, sigma, gamma, near, far, first, last,
            peak[b], total[b], image[b], grad[b], grad_verts[b], grad_colors[b],
        )  # fmt: skip


class _SoftRGB(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, face_verts: Tensor, face_colors: Tensor, image_size: int, sigma: float, gamma: float,
        background: tuple[float, float, float], near: float, far: float, eps: float,
    ) -> Tensor:  # fmt: skip
        verts, colors = face_verts.detach().contiguous(), face_colors.detach().contiguous()
        b = len(verts)
        ctx.shape = colors.shape
        resolution = colors.shape[2] if colors.ndim == 5 else 0
        if resolution:
            colors = colors.flatten(2, 3)
        peak = np.full((b, image_size, image_size), eps, np.float64)
        total = np.ones((b, image_size, image_size), np.float64)
        image = np.empty((b, 3, image_size, image_size), np.float64)
        image[:] = np.asarray(background, np.float64).reshape(1, 3, 1, 1)
        threads = numba.get_num_threads()
        bands = 1 if b >= threads else min(threads, image_size)
        scalars = (resolution, image_size, sigma, gamma, near, far)
        if b:
            _forward_parallel(verts.numpy(), colors.numpy(), *scalars, bands, peak, total, image)
        ctx.save_for_backward(verts, colors, *map(torch.from_numpy, (peak, total, image)))
        ctx.scalars = scalars
        return torch.from_numpy(image).to(face_verts.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        verts, colors, peak, total, image = (value.numpy() for value in ctx.saved_tensors)
        grad = grad_output.to(torch.float64).contiguous().numpy()
        grad_verts, grad_colors = np.empty(verts.shape, np.float64), np.empty(colors.shape, np.float64)
        threads = numba.get_num_threads()
        runs = 1 if len(verts) >= threads else threads
        if len(verts):
            _backward_parallel(
                verts, colors, *ctx.scalars, runs, peak, total, image, grad, grad_verts, grad_colors
            )  # fmt: skip
        dtype = grad_output.dtype
        to_colors = torch.from_numpy(grad_colors).to(dtype).reshape(ctx.shape)
        return torch.from_numpy(grad_verts).to(dtype), to_colors, *[None] * 7


def soft_rgb_numba(
    face_verts: Tensor, face_colors: Tensor, image_size: int, sigma: float, gamma: float,
    background: tuple[float, float, float], near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `recon3d.kernels.soft_rgb.soft_rgb`."""
    return _SoftRGB.apply(face_verts, face_colors, image_size, sigma, gamma, background, near, far, eps)
