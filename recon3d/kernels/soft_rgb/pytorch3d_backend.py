"""Depth-softmax colours on the fragments of PyTorch3D's rasteriser: the CUDA path.

PyTorch3D keeps K faces of a pixel. Pixels that fill all K slots may have more; they are computed by the dense reference
instead, so that the result is the sum over all faces in every case.
"""

from __future__ import annotations

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recon3d.kernels.soft_rgb.reference import blend, clip_weights, face_colors_at, pixel_colors
from recon3d.kernels.soft_silhouette.reference import CUTOFF, pixel_centers
from recon3d.kernels.zbuffer.reference import MIN_Z

FACES_PER_PIXEL = 100  # PyTorch3D's CUDA limit is 150
PIXELS_AT_ONCE = 2048  # of the dense reference: bounds its memory


def soft_rgb_pytorch3d(
    face_verts: Tensor, face_colors: Tensor, image_size: int, sigma: float, gamma: float,
    background: tuple[float, float, float], near: float, far: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `recon3d.kernels.soft_rgb.soft_rgb`."""
    b, f = face_verts.shape[:2]
    back = face_verts.new_tensor(background)
    if b == 0 or f == 0:
        empty = back.reshape(1, 3, 1, 1).expand(b, 3, image_size, image_size)
        return empty + 0 * (face_verts.sum() + face_colors.sum())
    # The rasteriser sees all faces at one depth: it finds the faces near a pixel, their distances and weights.
    flat = torch.nn.functional.pad(face_verts[..., :2].float(), (0, 1), value=1.0).reshape(b, 3 * f, 3)
    faces = torch.arange(3 * f, device=face_verts.device).reshape(1, f, 3).expand(b, f, 3)
    index, _, weights, distance = rasterize_meshes(
        Meshes(verts=flat, faces=faces),
        image_size=image_size,
        blur_radius=CUTOFF * sigma,
        faces_per_pixel=min(f, FACES_PER_PIXEL),
        bin_size=0,
        perspective_correct=False,
        clip_barycentric_coords=False,  # its clipping is another
    )
    full = (index[..., -1] >= 0) if f > FACES_PER_PIXEL else torch.zeros_like(index[..., 0], dtype=torch.bool)
    used = max(1, int((index >= 0).sum(dim=-1).max()))
    index, distance = index[..., :used], distance[..., :used].to(face_verts.dtype)
    weights = clip_weights(weights[..., :used, :].detach().to(face_verts.dtype))
    face = index.clamp(min=0)  # PyTorch3D numbers faces through the whole batch
    z = face_verts[..., 2].flatten(0, 1)[face]
    present = (index >= 0) & (z > MIN_Z).all(dim=-1)
    color = face_colors_at(weights, face_colors.flatten(0, 1), face)
    # PyTorch3D's distance is squared, negative inside.
    image = blend(-distance / sigma, weights, z, present, color, back, gamma, near, far, eps)
    pixels = pixel_centers(image_size, face_verts)
    for i in full.flatten(1).any(dim=1).nonzero().flatten().tolist():
        for chunk in full[i].flatten().nonzero().flatten().split(PIXELS_AT_ONCE):
            exact = checkpoint(
                pixel_colors, face_verts[i], face_colors[i], pixels[chunk], sigma, back, gamma, near, far, eps,
                use_reentrant=False,
            )  # fmt: skip
            where = torch.full_like(chunk, i), chunk // image_size, chunk % image_size
            image = image.index_put(where, exact)
    return image.permute(0, 3, 1, 2)
