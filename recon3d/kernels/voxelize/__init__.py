"""Occupancy grids of meshes: predictions on their way to voxel IoU, and ground truth of data sets that carry none.

The public function checks its input, turns it into the grid coordinates of the NMR frame, in which the rule of marking
was published, and turns the answer back into the object frame. Backends see grid coordinates only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.kernels.dispatch import choose_backend

BACKENDS = {"numba": ("cpu",), "reference": ("cpu", "cuda")}


def voxelize(
    verts: Tensor, faces: Tensor, resolution: int = 32, *, solid: bool = True, backend: str | None = None
) -> Tensor:
    """Mark the cells that meshes occupy, by the rule with which voxel IoU is measured since NMR [1].

    The rule, in grid coordinates g = (R-1) v + R/2 of the NMR frame (x, y, -z), where cell c spans [c, c+1):

    1. Along each axis, a line is shot through every lattice point (p, q), p, q = 0..R-1, of the other two axes. Where
       it meets a face, border included, at g = h, it marks cell floor(h) of the four columns around the line.
    2. The cell of every vertex of a face is marked. 1 and 2 give the surface, one to two cells thick by design.
    3. Cells that no path of unmarked face neighbours (6-connectivity) joins to an unmarked cell on the border of the
       grid are inside. Surface and inside together are the solid.

    Winding does not matter and the mesh need not be closed: an interior that can be reached from outside through a
    hole wider than a cell stays empty. A radius-0.25 icosphere of 642 vertices has 1112 surface and 2536 solid cells at
    R = 32; the dilation by the surface is part of the published measure. The result is not differentiable.

    Args:
        verts: (V, 3) or (B, V, 3), object frame; [-0.5, 0.5]^3 fills the grid. What lies outside is cut off, and the
            cut is open: a solid that crosses the border of the grid is hollow.
        faces: (F, 3) or (B, F, 3) integer indices into V, shared by the batch if unbatched; rows of -1 are padding.
        resolution: R, cells along each axis, at least 2.
        solid: fill the inside; False gives the surface alone.
        backend: ``numba`` (CPU, parallel over the meshes of a batch; a single mesh runs on the calling thread, which
            is safe in forked workers) or ``reference`` (torch, any device). None: see `recon3d.kernels.dispatch`.

    Returns:
        Bool (R, R, R), or (B, R, R, R) if either input has a batch, indexed [y, x, z] of the object frame like the NMR
        ground-truth files; no faces, no cells.

    Raises:
        ValueError: wrong shapes or types, a coordinate that is not finite, a face index out of range, an unavailable
            backend.

    References:
        [1] Kato et al. 2018, Neural 3D Mesh Renderer, section 5.1, and the authors' evaluation code. Deviation:
        coordinates are float64 and a line on the edge of two faces meets at least one of them whatever the rounding.
    """
    batched = verts.ndim == 3 or faces.ndim == 3
    verts, faces = _checked(verts.detach(), faces, resolution)
    scale = verts.new_tensor([1, 1, -1], dtype=torch.float64) * (resolution - 1)
    grid_verts = verts.double() * scale + resolution / 2
    if choose_backend("voxelize", verts.device, BACKENDS, backend) == "numba":
        from recon3d.kernels.voxelize.numba_cpu import occupancy
    else:
        from recon3d.kernels.voxelize.reference import occupancy
    nmr_xyz = occupancy(grid_verts, faces, resolution, solid)
    grid = nmr_xyz.transpose(1, 2).flip(3)  # [x, y, z_nmr] -> [y, x, z]
    return grid if batched else grid[0]


def _checked(verts: Tensor, faces: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The mesh as batches (B, V, 3) and (B, F, 3) int64 on one device, or ValueError."""
    if verts.ndim not in (2, 3) or verts.shape[-1] != 3 or not verts.is_floating_point():
        raise ValueError(
            f"voxelize: expected verts (V,3) or (B,V,3) of floats, got {tuple(verts.shape)} of {verts.dtype}."
        )
    if faces.ndim not in (2, 3) or faces.shape[-1] != 3 or faces.is_floating_point() or faces.dtype == torch.bool:
        raise ValueError(
            f"voxelize: expected faces (F,3) or (B,F,3) of integers, got {tuple(faces.shape)} of {faces.dtype}."
        )
    if verts.device != faces.device:
        raise ValueError(f"voxelize: verts are on {verts.device}, faces on {faces.device}; move one of them.")
    if resolution < 2:
        raise ValueError(f"voxelize: resolution must be at least 2, got {resolution}.")
    verts = verts if verts.ndim == 3 else verts[None]
    faces = (faces if faces.ndim == 3 else faces[None]).long()
    if len(verts) != len(faces) and 1 not in (len(verts), len(faces)):
        raise ValueError(f"voxelize: {len(verts)} sets of verts and {len(faces)} of faces do not form a batch.")
    batch = len(faces) if len(verts) == 1 else len(verts)
    if not verts.isfinite().all():
        raise ValueError("voxelize: verts hold NaN or infinity; drop or repair this mesh before voxelising it.")
    if faces.numel() and (faces.amin() < 0 or faces.amax() >= verts.shape[1]):
        padding = faces == -1
        wrong = (faces < -1) | (faces >= verts.shape[1]) | (padding != padding[..., :1])
        if wrong.any():
            raise ValueError(
                f"voxelize: face {faces[wrong.any(dim=2)][0].tolist()} does not index the {verts.shape[1]} verts; "
                "only whole rows of -1 are padding."
            )
    return verts.expand(batch, -1, -1), faces.expand(batch, -1, -1)
