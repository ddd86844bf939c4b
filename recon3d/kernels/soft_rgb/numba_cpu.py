"""Depth-softmax colours compiled for the CPU; tasks and determinism as in `kernels.soft_silhouette.numba_cpu`.

Corner colours and atlases run through the same loops: a face has K colours, three of its corners (`resolution` 0) or
the R^2 texels of its rows and columns. The state of a pixel lies together in memory, colours last.
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

# Faces whose weight at a pixel is below exp(-60) of the nearest's are nothing there: D is at least 1e-10, so they would
# not change a bit of the sum.
NEGLIGIBLE = -60.0


@njit(cache=True)
def _set_face(face, sigma, size, row_from, row_to, edges, planes):
    """Prepare a face (3,3): edges, weights as planes (3,3) over x, y, 1, and the pixels: top, bottom, left, right.

    Faces that are not drawn have no pixels.
    """
    area = set_edges(face, edges)
    z0, z1, z2 = np.float64(face[0, 2]), np.float64(face[1, 2]), np.float64(face[2, 2])
    if abs(area) <= MIN_AREA or z0 <= MIN_Z or z1 <= MIN_Z or z2 <= MIN_Z:
        return 0, 0, 0, 0
    x, y = edges[:, 0], edges[:, 1]
    for k in range(3):
        m, n = (k + 1) % 3, (k + 2) % 3
        planes[k, 0] = (y[n] - y[m]) / area
        planes[k, 1] = (x[m] - x[n]) / area
        planes[k, 2] = -(planes[k, 0] * x[m] + planes[k, 1] * y[m])
    pad = math.sqrt(CUTOFF * sigma)
    top, bottom = pixel_range(min(y[0], y[1], y[2]), max(y[0], y[1], y[2]), pad, size, row_from, row_to)
    left, right = pixel_range(min(x[0], x[1], x[2]), max(x[0], x[1], x[2]), pad, size, 0, size)
    return top, bottom, left, right


@njit(cache=True, inline="always")
def _clipped_weights(px, py, planes):
    w0 = min(max(planes[0, 0] * px + planes[0, 1] * py + planes[0, 2], 0.0), 1.0)
    w1 = min(max(planes[1, 0] * px + planes[1, 1] * py + planes[1, 2], 0.0), 1.0)
    w2 = min(max(planes[2, 0] * px + planes[2, 1] * py + planes[2, 2], 0.0), 1.0)
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
    edges, planes, color = np.empty((3, 8)), np.empty((3, 3)), np.empty(3)
    for f in range(verts.shape[0]):
        top, bottom, left, right = _set_face(verts[f], sigma, size, row_from, row_to, edges, planes)
        if top >= bottom or left >= right:
            continue
        r0, r1, r2 = 1.0 / verts[f, 0, 2], 1.0 / verts[f, 1, 2], 1.0 / verts[f, 2, 2]
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                px = 1.0 - (2 * j + 1) / size
                d, _, _, _, _ = closest_edge(px, py, edges, pad)
                logit = d / sigma
                if logit <= -CUTOFF:
                    continue
                w0, w1, w2 = _clipped_weights(px, py, planes)
                depth = 1.0 / (w0 * r0 + w1 * r1 + w2 * r2)
                if depth < near or depth > far:
                    continue
                score = (far - depth) / (far - near)
                below = (score - peak[i, j]) / gamma
                if below < NEGLIGIBLE:
                    continue
                if below > 0.0:  # online softmax: what is there is rescaled to the new largest score
                    shrink = math.exp(-below)
                    total[i, j] *= shrink
                    for c in range(3):
                        image[i, j, c] *= shrink
                    peak[i, j] = score
                    below = 0.0
                share = math.exp(below) / (1.0 + math.exp(-logit))
                total[i, j] += share
                if resolution:
                    texel = _texel(w0, w1, resolution)
                    for c in range(3):
                        color[c] = colors[f, texel, c]
                else:
                    for c in range(3):
                        color[c] = w0 * colors[f, 0, c] + w1 * colors[f, 1, c] + w2 * colors[f, 2, c]
                for c in range(3):
                    image[i, j, c] += share * color[c]
    for i in range(row_from, row_to):
        for j in range(size):
            for c in range(3):
                image[i, j, c] /= total[i, j]


@njit(cache=True)
def _backward_faces(
    verts, colors, resolution, size, sigma, gamma, near, far, face_from, face_to,
    peak, total, image, grad, grad_verts, grad_colors,
):  # fmt: skip
    """Gradients of faces [face_from, face_to) from `grad` = dL/d image (S,S,3)."""
    pad = math.sqrt(CUTOFF * sigma)
    edges, planes, color, w, r = np.empty((3, 8)), np.empty((3, 3)), np.empty(3), np.empty(3), np.empty(3)
    for f in range(face_from, face_to):
        grad_verts[f] = 0.0
        grad_colors[f] = 0.0
        top, bottom, left, right = _set_face(verts[f], sigma, size, 0, size, edges, planes)
        if top >= bottom or left >= right:
            continue
        for k in range(3):
            r[k] = 1.0 / verts[f, k, 2]
        for i in range(top, bottom):
            py = 1.0 - (2 * i + 1) / size
            for j in range(left, right):
                px = 1.0 - (2 * j + 1) / size
                d, edge, t, gx, gy = closest_edge(px, py, edges, pad)
                logit = d / sigma
                if logit <= -CUTOFF:
                    continue
                w[0], w[1], w[2] = _clipped_weights(px, py, planes)
                depth = 1.0 / (w[0] * r[0] + w[1] * r[1] + w[2] * r[2])
                if depth < near or depth > far:
                    continue
                below = ((far - depth) / (far - near) - peak[i, j]) / gamma
                if below < NEGLIGIBLE:
                    continue
                probability = 1.0 / (1.0 + math.exp(-logit))
                share = probability * math.exp(below) / total[i, j]
                pull = 0.0  # sum_c dL/dI_c (C_c - I_c)
                if resolution:
                    texel = _texel(w[0], w[1], resolution)
                    for c in range(3):
                        color[c] = colors[f, texel, c]
                        grad_colors[f, texel, c] += share * grad[i, j, c]
                else:
                    for c in range(3):
                        color[c] = w[0] * colors[f, 0, c] + w[1] * colors[f, 1, c] + w[2] * colors[f, 2, c]
                        for k in range(3):
                            grad_colors[f, k, c] += share * w[k] * grad[i, j, c]
                for c in range(3):
                    pull += grad[i, j, c] * (color[c] - image[i, j, c])
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
                for k in range(3):
                    grad_verts[f, k, 2] += slope * w[k] * r[k] * r[k]


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
        image = np.empty((b, image_size, image_size, 3), np.float64)
        image[:] = np.asarray(background, np.float64)
        threads = numba.get_num_threads()
        bands = 1 if b >= threads else min(threads, image_size)
        scalars = (resolution, image_size, sigma, gamma, near, far)
        if b:
            _forward_parallel(verts.numpy(), colors.numpy(), *scalars, bands, peak, total, image)
        ctx.save_for_backward(verts, colors, *map(torch.from_numpy, (peak, total, image)))
        ctx.scalars = scalars
        return torch.from_numpy(image).permute(0, 3, 1, 2).to(face_verts.dtype, memory_format=torch.contiguous_format)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        verts, colors, peak, total, image = (value.numpy() for value in ctx.saved_tensors)
        grad = grad_output.to(torch.float64).permute(0, 2, 3, 1).contiguous().numpy()
        # A texel is seen by few pixels, and an atlas is large: its gradient is summed in its own precision.
        grad_verts, grad_colors = np.empty(verts.shape, np.float64), np.empty_like(colors)
        threads = numba.get_num_threads()
        runs = 1 if len(verts) >= threads else threads
        if len(verts):
            _backward_parallel(
                verts, colors, *ctx.scalars, runs, peak, total, image, grad, grad_verts, grad_colors
            )  # fmt: skip
        to_verts = torch.from_numpy(grad_verts).to(grad_output.dtype)
        return to_verts, torch.from_numpy(grad_colors).reshape(ctx.shape), *[None] * 7


def soft_rgb_numba(
    face_verts: Tensor, face_colors: Tensor, image_size: int, sigma: float, gamma: float,
    background: tuple[float, float, float], near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `recon3d.kernels.soft_rgb.soft_rgb`."""
    return _SoftRGB.apply(face_verts, face_colors, image_size, sigma, gamma, background, near, far, eps)
