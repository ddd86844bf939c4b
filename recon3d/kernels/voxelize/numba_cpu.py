"""Compiled CPU backend of `recon3d.kernels.voxelize`: the reference's arithmetic, face by face."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

# Bit 0: no surface here. Bit 1: reached from outside.
SURFACE, EMPTY, OUTSIDE = 0b00, 0b01, 0b11


def occupancy(grid_verts: Tensor, faces: Tensor, resolution: int, solid: bool) -> Tensor:
    """Occupied cells (B, R, R, R), indexed [x, y, z] of the frame of `grid_verts` (B, V, 3), faces (B, F, 3)."""
    occupied = torch.empty((len(faces), *(resolution,) * 3), dtype=torch.bool)
    # A parallel region in a forked worker can hang, so single meshes, the case of data generation, never enter one.
    occupy = _occupy_one if len(faces) == 1 else _occupy_batch
    occupy(occupied.numpy(), grid_verts.numpy(), faces.numpy(), solid)
    return occupied


@njit(cache=True, parallel=True)
def _occupy_batch(occupied, verts, faces, solid):
    for mesh in prange(len(occupied)):
        _occupy(occupied[mesh], verts[mesh], faces[mesh], solid)


@njit(cache=True)
def _occupy_one(occupied, verts, faces, solid):
    _occupy(occupied[0], verts[0], faces[0], solid)


@njit(cache=True)
def _occupy(occupied, verts, faces, solid):
    side = len(occupied) + 2
    # One cell of padding on every side is the outside from which the flood starts.
    cells = np.full((side, side, side), OUTSIDE, dtype=np.uint8)
    cells[1:-1, 1:-1, 1:-1] = EMPTY
    _mark_surface(cells.reshape(-1), side, verts, faces)
    if solid:
        _flood(cells)
    last = EMPTY if solid else SURFACE
    for x in range(1, side - 1):
        for y in range(1, side - 1):
            for z in range(1, side - 1):
                occupied[x - 1, y - 1, z - 1] = cells[x, y, z] <= last


@njit(cache=True)
def _mark_surface(cells, side, verts, faces):
    resolution, plane = side - 2, side * side
    for face in range(len(faces)):
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        if i < 0:
            continue
        # Scalars, not rows: each view of an array costs more than the arithmetic of a small face.
        ax, ay, az = verts[i, 0], verts[i, 1], verts[i, 2]
        bx, by, bz = verts[j, 0], verts[j, 1], verts[j, 2]
        cx, cy, cz = verts[k, 0], verts[k, 1], verts[k, 2]
        for x, y, z in ((ax, ay, az), (bx, by, bz), (cx, cy, cz)):
            x, y, z = np.floor(x), np.floor(y), np.floor(z)
            if 0 <= x < resolution and 0 <= y < resolution and 0 <= z < resolution:
                cells[(int(x) + 1) * plane + (int(y) + 1) * side + int(z) + 1] = SURFACE
        x0, x1 = _lattice_range(ax, bx, cx, resolution)
        y0, y1 = _lattice_range(ay, by, cy, resolution)
        z0, z1 = _lattice_range(az, bz, cz, resolution)
        _mark_crossings(cells, ay, az, ax, by, bz, bx, cy, cz, cx, y0, y1, z0, z1, side, 1, plane, resolution)
        _mark_crossings(cells, ax, az, ay, bx, bz, by, cx, cz, cy, x0, x1, z0, z1, plane, 1, side, resolution)
        _mark_crossings(cells, ax, ay, az, bx, by, bz, cx, cy, cz, x0, x1, y0, y1, plane, side, 1, resolution)


@njit(cache=True)
def _lattice_range(a, b, c, resolution):
    """First lattice point not below the smallest of a, b, c, and the first above the largest, within the grid."""
    # Clamped while still floats, so that coordinates far outside the grid cannot overflow an integer.
    first = min(max(np.ceil(min(a, b, c)), 0.0), float(resolution))
    stop = min(max(np.floor(max(a, b, c)) + 1.0, 0.0), float(resolution))
    return int(first), int(stop)


@njit(cache=True, forceinline=True)  # a call with 18 arguments costs as much as a small face
def _mark_crossings(
    cells, ap, aq, ah, bp, bq, bh, cp, cq, ch, p0, p1, q0, q1, stride_p, stride_q, stride_h, resolution
):
    """Mark the cells around the points where lines along axis h, at integers (p, q), meet the face abc."""
    for p in range(p0, p1):
        for q in range(q0, q1):
            area_a = (bp - p) * (cq - q) - (cp - p) * (bq - q)
            area_b = (cp - p) * (aq - q) - (ap - p) * (cq - q)
            area_c = (ap - p) * (bq - q) - (bp - p) * (aq - q)
            total = area_a + area_b + area_c
            if (min(area_a, area_b, area_c) < 0 and max(area_a, area_b, area_c) > 0) or total == 0:
                continue
            depth = np.floor(ah + (area_b * (bh - ah) + area_c * (ch - ah)) / total)
            if not 0 <= depth < resolution:
                continue
            h = (int(depth) + 1) * stride_h
            # Columns p-1 and p are p and p+1 of the padded grid; column -1 does not exist.
            for i in range(max(p, 1), p + 2):
                for j in range(max(q, 1), q + 2):
                    cells[h + i * stride_p + j * stride_q] = SURFACE


@njit(cache=True)
def _flood(cells):
    """Turn every empty cell that a path of empty face neighbours joins to the padding into OUTSIDE."""
    side = len(cells)
    # Most of the outside is in straight sight along an axis: whole rows at a time, which compiles to vector code.
    for x in range(1, side - 1):
        for y in range(1, side - 1):
            _spread(cells[x, y - 1], cells[x, y])
            _spread(cells[x - 1, y], cells[x, y])
    for x in range(side - 2, 0, -1):
        for y in range(side - 2, 0, -1):
            _spread(cells[x, y + 1], cells[x, y])
            _spread(cells[x + 1, y], cells[x, y])
    _flood_pockets(cells.reshape(-1), (1, -1, side, -side, side * side, -side * side))


@njit(cache=True)
def _spread(source, row):
    for z in range(len(row)):
        row[z] |= source[z] & (row[z] << 1)  # EMPTY beside OUTSIDE becomes OUTSIDE, anything else stays


@njit(cache=True)
def _flood_pockets(cells, steps):
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
