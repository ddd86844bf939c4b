"""The soft silhouette through PyTorch3D's rasteriser: the CUDA path, and the yardstick of the compiled CPU path.

PyTorch3D keeps the K nearest faces of a pixel. Images in which a pixel fills all K slots would be truncated; they are
computed by the dense reference instead, so that the result is the product over all faces in every case.
"""

from __future__ import annotations

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.kernels.soft_silhouette.reference import CUTOFF, soft_silhouette_reference

FACES_PER_PIXEL = 100  # PyTorch3D's CUDA limit is 150


def soft_silhouette_pytorch3d(face_xy: Tensor, image_size: int, sigma: float) -> Tensor:
    """See `recon3d.kernels.soft_silhouette.soft_silhouette`."""
    b, f = face_xy.shape[:2]
    if b == 0 or f == 0:
        return face_xy.new_zeros(b, image_size, image_size) + 0 * face_xy.sum()
    verts = torch.nn.functional.pad(face_xy.float(), (0, 1), value=1.0).reshape(b, 3 * f, 3)  # z = 1: depth is not used
    faces = torch.arange(3 * f, device=face_xy.device).reshape(1, f, 3).expand(b, f, 3)
    index, _, _, distance = rasterize_meshes(
        Meshes(verts=verts, faces=faces),
        image_size=image_size,
        blur_radius=CUTOFF * sigma,
        faces_per_pixel=min(f, FACES_PER_PIXEL),
        bin_size=0,
        perspective_correct=False,
    )
    # PyTorch3D's distance is squared, negative inside.
    probability = torch.sigmoid(-distance / sigma) * (index >= 0)
    image = (1 - torch.prod(1 - probability, dim=-1)).to(face_xy.dtype)
    full = (index[..., -1] >= 0).flatten(1).any(dim=1) if f > FACES_PER_PIXEL else index.new_zeros(b, dtype=torch.bool)
    if bool(full.any()):
        exact = soft_silhouette_reference(face_xy[full], image_size, sigma)
        image = image.index_put((full.nonzero().flatten(),), exact)
    return image
