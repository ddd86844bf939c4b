"""Surfaces of voxel grids, for predictions that are occupancies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch3d.ops.marching_cubes import marching_cubes
from pytorch3d.structures import Meshes
from torch import Tensor


def voxel_surface(voxels: Tensor) -> Meshes:
    """Closed, outward-wound surfaces of occupancy grids, by marching cubes at level 0.5.

    The surface passes midway between the centres of an occupied and an empty cell: flat sides lie on cell borders,
    edges and corners are cut. Cell i spans ``[(i - R/2) / (R-1), (i + 1 - R/2) / (R-1)]`` (`recon3d.structures`).

    Args:
        voxels: (B, R, R, R) bool, index order [y, x, z].

    Returns:
        B meshes in the object frame, float32; an empty grid gives an empty mesh.

    Raises:
        ValueError: another shape or type.
    """
    if voxels.ndim != 4 or len(set(voxels.shape[1:])) != 1 or voxels.dtype != torch.bool:
        raise ValueError(f"voxel_surface: expected bool (B,R,R,R), got {voxels.dtype} {tuple(voxels.shape)}.")
    r = voxels.shape[1]
    # One empty layer around the grid closes the surface of what touches its border. [y, x, z] -> (z, y, x): PyTorch3D
    # reads a volume as (depth, height, width) and answers in the order (x, y, z).
    volume = F.pad(voxels.float(), (1,) * 6).permute(0, 3, 1, 2)
    found = marching_cubes(volume, 0.5, return_local_coords=False)
    verts, faces = [], []
    for corner, face in zip(*found, strict=True):
        # PyTorch3D answers with lists where it found nothing. Coordinate c is the centre of cell c - 1.
        empty = len(face) == 0
        verts.append(voxels.new_zeros(0, 3, dtype=torch.float32) if empty else (corner - 0.5 - r / 2) / (r - 1))
        # PyTorch3D winds towards the larger values: reversed, normals point outward.
        faces.append(voxels.new_zeros(0, 3, dtype=torch.int64) if empty else face.flip(1))
    return Meshes(verts, faces)
