"""Definition of the occupancy rule of `recon3d.kernels.voxelize` in torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

FACES_AT_ONCE = 4096  # bounds memory: at most this many times R^2 pairs of a face and a line


def occupancy(grid_verts: Tensor, faces: Tensor, resolution: int, solid: bool) -> Tensor:
    """Occupied cells (B, R, R, R), indexed [x, y, z] of the frame of `grid_verts` (B, V, 3), faces (B, F, 3)."""
    mesh, face = (faces[..., 0] >= 0).nonzero(as_tuple=True)
    corners = grid_verts[mesh[:, None], faces[mesh, face]]  # (N, 3 corners, 3)
    marked = torch.zeros((len(faces), *(resolution,) * 3), dtype=torch.bool, device=faces.device)
    for some_mesh, some_corners in zip(mesh.split(FACES_AT_ONCE), corners.split(FACES_AT_ONCE), strict=True):
        _mark_vertices(marked, some_mesh, some_corners)
        for axis in range(3):
            _mark_crossings(marked, some_mesh, some_corners, axis)
    return ~_outside(marked) if solid else marked


def _mark_vertices(marked: Tensor, mesh: Tensor, corners: Tensor) -> None:
    cell = corners.floor()
    inside = ((cell >= 0) & (cell < marked.shape[1])).all(dim=2)
    x, y, z = cell[inside].long().unbind(1)
    marked[mesh[:, None].expand(-1, 3)[inside], x, y, z] = True


def _mark_crossings(marked: Tensor, mesh: Tensor, corners: Tensor, axis: int) -> None:
    """Mark the cells around the points where lattice lines along `axis` meet faces."""
    resolution = marked.shape[1]
    across = [other for other in range(3) if other != axis]
    face, line = _candidate_lines(corners[..., across], resolution)
    # Signed doubled areas of the triangles that the line's point forms with each edge, opposite corner first. Swapping
    # the ends of an edge negates its area exactly, so no line slips between two faces that share the edge.
    offset = corners[face][..., across] - line[:, None]  # (K, 3, 2)
    start, end = offset[:, [1, 2, 0]], offset[:, [2, 0, 1]]
    area = start[..., 0] * end[..., 1] - end[..., 0] * start[..., 1]  # (K, 3)
    total = area[:, 0] + area[:, 1] + area[:, 2]
    hit = ((area >= 0).all(dim=1) | (area <= 0).all(dim=1)) & (total != 0)
    face, line, area, total = face[hit], line[hit].long(), area[hit], total[hit]
    # Relative to the first corner: exact for faces across the axis, which often lie on a cell border.
    height = corners[face][..., axis]
    rise = area[:, 1] * (height[:, 1] - height[:, 0]) + area[:, 2] * (height[:, 2] - height[:, 0])
    depth = (height[:, 0] + rise / total).floor()
    within = (depth >= 0) & (depth < resolution)
    mesh, line, depth = mesh[face[within]], line[within], depth[within].long()
    along_axis = marked.movedim(axis + 1, 3)
    for step_p in (0, 1):
        for step_q in (0, 1):
            p, q = line[:, 0] - step_p, line[:, 1] - step_q
            exists = (p >= 0) & (q >= 0)
            along_axis[mesh[exists], p[exists], q[exists], depth[exists]] = True


def _candidate_lines(corners: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Lattice points in the bounding rectangle of each projected face (N, 3, 2): face (K,) and point (K, 2)."""
    first = corners.amin(dim=1).ceil().clamp(0, resolution)
    last = corners.amax(dim=1).floor().clamp(-1, resolution - 1)
    extent = (last - first + 1).clamp(min=0).long()
    count = extent[:, 0] * extent[:, 1]
    face = torch.arange(len(corners), device=corners.device).repeat_interleave(count)
    rank = torch.arange(len(face), device=corners.device) - (count.cumsum(0) - count)[face]
    width = extent[face, 1]
    return face, first[face] + torch.stack([rank // width, rank % width], dim=1)


def _outside(marked: Tensor) -> Tensor:
    """Unmarked cells joined to the border of the grid through unmarked face neighbours."""
    empty = ~marked
    outside = empty.clone()
    outside[:, 1:-1, 1:-1, 1:-1] = False
    reached = 0
    while reached < (reached := int(outside.sum())):
        for axis in (1, 2, 3):
            here, there = outside.movedim(axis, 1), empty.movedim(axis, 1)
            here[:, 1:] |= here[:, :-1] & there[:, 1:]
            here[:, :-1] |= here[:, 1:] & there[:, :-1]
    return outside
