"""The z-buffer compiled for the CPU: each face visits only the pixels of its bounding box."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

MIN_Z = 1e-6
MIN_AREA = 1e-8  # twice the NDC area; PyTorch3D's threshold for faces of no area
SLACK = 1e-9  # in pixels: rounding must not take a centre that is exactly on an edge out of the bounding box


@njit(cache=True)
def _raster_rows(verts, size, row_from, row_to, index, weights, depth):
    """Draw the faces (F,3,3) of one image into rows [row_from, row_to)."""
    nearest = np.full((row_to - row_from, size), np.inf)  # depths are compared in full precision
    for i in range(row_from, row_to):
        for j in range(size):
            index[i, j] = -1
            depth[i, j] = np.inf
            weights[i, j, :] = 0.0
    half = 0.5 * size
    for f in range(verts.shape[0]):
        z0, z1, z2 = np.float64(verts[f, 0, 2]), np.float64(verts[f, 1, 2]), np.float64(verts[f, 2, 2])
        if z0 <= MIN_Z or z1 <= MIN_Z or z2 <= MIN_Z:
            continue
        x0, x1, x2 = np.float64(verts[f, 0, 0]), np.float64(verts[f, 1, 0]), np.float64(verts[f, 2, 0])
        y0, y1, y2 = np.float64(verts[f, 0, 1]), np.float64(verts[f, 1, 1]), np.float64(verts[f, 2, 1])
        # Edge functions below are divided by this signed area, so the winding cancels.
        area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)
        if abs(area) <= MIN_AREA:
            continue
        # Centre of row i is y = 1 - (2i+1)/S, so i = (1-y) S/2 - 1/2; the same for columns, as +x is left. The clamp
        # comes before the cast: coordinates far off screen do not fit an integer.
        top = math.ceil(min(max((1.0 - max(y0, y1, y2)) * half - 0.5 - SLACK, float(row_from)), float(row_to)))
        bottom = math.floor(max(min((1.0 - min(y0, y1, y2)) * half - 0.5 + SLACK, float(row_to - 1)), -1.0))
        left = math.ceil(min(max((1.0 - max(x0, x1, x2)) * half - 0.5 - SLACK, 0.0), float(size)))
        right = math.floor(max(min((1.0 - min(x0, x1, x2)) * half - 0.5 + SLACK, float(size - 1)), -1.0))
        for i in range(top, bottom + 1):
            y = 1.0 - (2 * i + 1) / size
            for j in range(left, right + 1):
                x = 1.0 - (2 * j + 1) / size
                w0 = ((x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)) / area
                w1 = ((x - x2) * (y0 - y2) - (y - y2) * (x0 - x2)) / area
                w2 = ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / area
                if w0 < 0.0 or w1 < 0.0 or w2 < 0.0:
                    continue
                w0, w1, w2 = w0 / z0, w1 / z1, w2 / z2
                z = 1.0 / (w0 + w1 + w2)
                if z < nearest[i - row_from, j]:
                    nearest[i - row_from, j] = z
                    depth[i, j] = z
                    index[i, j] = f
                    weights[i, j, 0] = w0 * z
                    weights[i, j, 1] = w1 * z
                    weights[i, j, 2] = w2 * z


@njit(cache=True, parallel=True)
def _raster_parallel(verts, size, bands, index, weights, depth):
    for task in prange(verts.shape[0] * bands):
        b, band = task // bands, task % bands
        _raster_rows(verts[b], size, band * size // bands, (band + 1) * size // bands, index[b], weights[b], depth[b])


def zbuffer_numba(face_verts: Tensor, image_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """See `recon3d.kernels.zbuffer.zbuffer`."""
    verts = face_verts.contiguous().numpy()
    b = len(verts)
    index = np.empty((b, image_size, image_size), np.int64)
    weights = np.empty((b, image_size, image_size, 3), verts.dtype)
    depth = np.empty((b, image_size, image_size), verts.dtype)
    threads = numba.get_num_threads()
    # Few images are cut into bands of rows; each pixel belongs to one task, so the result does not depend on threads.
    bands = 1 if b >= threads else min(threads, image_size)
    if b * bands == 1:  # no parallel region where one task would run in it: worker processes rely on this
        _raster_rows(verts[0], image_size, 0, image_size, index[0], weights[0], depth[0])
    elif b:
        _raster_parallel(verts, image_size, bands, index, weights, depth)
    return torch.from_numpy(index), torch.from_numpy(weights), torch.from_numpy(depth)
