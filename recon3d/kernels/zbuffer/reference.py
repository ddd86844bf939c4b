"""The z-buffer through PyTorch3D's rasteriser: the definition of correct, on every device."""

from __future__ import annotations

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

MIN_Z = 1e-6
# PyTorch3D leaves out centres exactly on an edge; a blur far below float32 resolution of NDC takes them in.
EDGE_BLUR = 1e-16


def zbuffer_reference(face_verts: Tensor, image_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """See `recon3d.kernels.zbuffer.zbuffer`."""
    b, f = face_verts.shape[:2]
    if f == 0 or b == 0:
        empty = face_verts.new_zeros(b, image_size, image_size)
        return (
            torch.full_like(empty, -1, dtype=torch.long),
            empty.unsqueeze(-1).expand(-1, -1, -1, 3).clone(),
            torch.full_like(empty, torch.inf),
        )
    behind = (face_verts[..., 2] <= MIN_Z).any(dim=-1)
    # A face that is not to be drawn collapses to a point in front of the camera, which has no area.
    soup = torch.where(behind[..., None, None], face_verts.new_ones(()), face_verts)
    faces = torch.arange(3 * f, device=face_verts.device).reshape(1, f, 3).expand(b, f, 3)
    meshes = Meshes(verts=soup.reshape(b, 3 * f, 3).float(), faces=faces)
    index, _, weights, _ = rasterize_meshes(
        meshes,
        image_size=image_size,
        blur_radius=EDGE_BLUR,
        faces_per_pixel=1,
        bin_size=0,
        perspective_correct=True,
        clip_barycentric_coords=True,
        cull_backfaces=False,
    )
    index, weights = index[..., 0], weights[..., 0, :].to(face_verts.dtype)
    hit = index >= 0
    # PyTorch3D numbers faces through the whole batch.
    first = f * torch.arange(b, device=index.device).reshape(b, 1, 1)
    index = torch.where(hit, index - first, -1)
    corner_z = face_verts[..., 2].gather(1, index.clamp(min=0).reshape(b, -1, 1).expand(-1, -1, 3))
    depth = (weights * corner_z.reshape(*index.shape, 3)).sum(dim=-1)
    weights = torch.where(hit.unsqueeze(-1), weights, torch.zeros_like(weights))
    return index, weights, torch.where(hit, depth, torch.full_like(depth, torch.inf))
