"""Compiled CPU backend of `recon3d.kernels.voxelize`: the reference's arithmetic, face by face."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

EMPTY, MARKED, OUTSIDE = 0, 1, 2


def occupancy(grid_verts: Tensor, faces: Tensor, resolution: int, solid: bool) -> Tensor:
    """Occupied cells (B, R, R, R), indexed [x, y, z] of the frame of `grid_verts` (B, V, 3), faces (B, F, 3)."""
    # One cell of padding on every side is the outside from which the flood starts.
    cells = np.full((len(faces), *(resolution + 2,) * 3), OUTSIDE, dtype=np.uint8)
    cells[:, 1:-1, 1:-1, 1:-1] = EMPTY
    # A parallel region in a forked worker can hang, so single meshes, the case of data generation, never enter one.
    occupy = _occupy_one if len(faces) == 1 else _occupy_batch
    occupy(cells, grid_verts.numpy(), faces.numpy(), solid)
    occupied = cells != OUTSIDE if solid else cells == MARKED
    return torch.from_numpy(occupied[:, 1:-1, 1:-1, 1:-1])


@njit(cache=True, parallel=True)
def _occupy_batch(cells, verts, faces, solid):  # type: ignore[no-untyped-def]
    for mesh in prange(len(cells)):
        _occupy(cells[mesh], verts[mesh], faces[mesh], solid)


@njit(cache=True)
def _occupy_one(cells, verts, faces, solid):  # type: ignore[no-untyped-def]
    _occupy(cells[0], verts[0], faces[0], solid)


@njit(cache=True)
def _occupy(cells, verts, faces, solid):  # type: ignore[no-untyped-def]
    resolution = cells.shape[0] - 2
    for face in range(len(faces)):
        if faces[face, 0] < 0:
            continue
        a, b, c = verts[faces[face, 0]], verts[faces[face, 1]], verts[faces[face, 2]]
        for corner in (a, b, c):
            x, y, z = math.floor(corner[0]), math.floor(corner[1]), math.floor(corner[2])
            if 0 <= x < resolution and 0 <= y < resolution and 0 <= z < resolution:
                cells[int(x) + 1, int(y) + 1, int(z) + 1] = MARKED
        for axis in range(3):
            _mark_crossings(cells, a, b, c, axis)
    if solid:
        _flood(cells.reshape(-1), resolution + 2)


@njit(cache=True)
def _mark_crossings(cells, a, b, c, axis):  # type: ignore[no-untyped-def]
    resolution = cells.shape[0] - 2
    along_p = 1 if axis == 0 else 0
    along_q = 1 if axis == 2 else 2
    ap, bp, cp = a[along_p], b[along_p], c[along_p]
    aq, bq, cq = a[along_q], b[along_q], c[along_q]
    # Clamped while still floats, so that coordinates far outside the grid cannot overflow an integer.
    first_p = int(min(max(math.ceil(min(ap, bp, cp)), 0.0), resolution))
    last_p = int(max(min(math.floor(max(ap, bp, cp)), resolution - 1.0), -1.0))
    first_q = int(min(max(math.ceil(min(aq, bq, cq)), 0.0), resolution))
    last_q = int(max(min(math.floor(max(aq, bq, cq)), resolution - 1.0), -1.0))
    for p in range(first_p, last_p + 1):
        for q in range(first_q, last_q + 1):
            area_a = (bp - p) * (cq - q) - (cp - p) * (bq - q)
            area_b = (cp - p) * (aq - q) - (ap - p) * (cq - q)
            area_c = (ap - p) * (bq - q) - (bp - p) * (aq - q)
            if not ((area_a >= 0 and area_b >= 0 and area_c >= 0) or (area_a <= 0 and area_b <= 0 and area_c <= 0)):
                continue
            total = area_a + area_b + area_c
            if total == 0:
                continue
            height = a[axis]
            depth = math.floor(height + (area_b * (b[axis] - height) + area_c * (c[axis] - height)) / total)
            if not 0 <= depth < resolution:
                continue
            d = int(depth) + 1
            # Columns p-1 and p are p and p+1 of the padded grid; column -1 does not exist.
            for i in range(max(p, 1), p + 2):
                for j in range(max(q, 1), q + 2):
                    if axis == 0:
                        cells[d, i, j] = MARKED
                    elif axis == 1:
                        cells[i, d, j] = MARKED
                    else:
                        cells[i, j, d] = MARKED


@njit(cache=True)
def _flood(cells, side):  # type: ignore[no-untyped-def]
    """Turn every empty cell that a path of empty face neighbours joins to the padding into OUTSIDE."""
    steps = (1, -1, side, -side, side * side, -side * side)
    stack = np.empty(len(cells), dtype=np.int32)
    for seed in range(len(cells)):
        if cells[seed] != EMPTY:
            continue
        for step in steps:
            if cells[seed + step] == OUTSIDE:
                break
        else:
            continue
        cells[seed] = OUTSIDE
        stack[0], count = seed, 1
        while count:
            count -= 1
            cell = stack[count]
            for step in steps:
                if cells[cell + step] == EMPTY:
                    cells[cell + step] = OUTSIDE
                    stack[count] = cell + step
                    count += 1
