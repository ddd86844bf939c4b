"""The Soft Rasterizer (Liu et al. 2019) as a renderer: a mesh and cameras in, soft silhouettes and colours out.

Cameras may be orthographic. Silhouettes do not read the depth; colours need it between `near` and `far`, so that such a
camera has to stand off (weak-perspective cameras stand at 5). Inside a face the colours' depth is interpolated
harmonically for every camera, as in the authors' kernel: for an orthographic one it is right at the corners and a
little too near between them, which matters only to faces that cross.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.kernels import FacePixels, soft_face_pixels, soft_rgb, soft_silhouette
from recon3d.structures import Camera


def _face_verts(verts: Tensor, faces: Tensor, camera: Camera) -> tuple[Tensor, tuple[int, ...]]:
    """Projected corners (N, F, 3, 3) of verts (..., V, 3) in cameras (...), and the common leading shape (...)."""
    projected = project(camera, verts)
    return projected.reshape(-1, *projected.shape[-2:])[:, faces], tuple(projected.shape[:-2])


def render_soft_silhouette(
    verts: Tensor, faces: Tensor, camera: Camera, image_size: int, sigma: float, backend: str | None = None
) -> Tensor:
    """Soft silhouettes of meshes that share `faces`.

    Args:
        verts: (..., V, 3); leading dimensions broadcast against the camera's.
        faces: (F, 3).
        camera: leading shape (...).
        image_size: S.
        sigma: see `recon3d.kernels.soft_silhouette`.
        backend: see `recon3d.kernels.soft_silhouette`.

    Returns:
        (..., S, S) in [0, 1].
    """
    corners, shape = _face_verts(verts, faces, camera)
    image = soft_silhouette(corners[..., :2].contiguous(), image_size, sigma, backend=backend)
    return image.reshape(*shape, image_size, image_size)


def render_soft_rgb(
    verts: Tensor,
    faces: Tensor,
    camera: Camera,
    image_size: int,
    sigma: float,
    gamma: float,
    backend: str | None = None,
    *,
    vert_colors: Tensor | None = None,
    atlas: Tensor | None = None,
    near: float = 1.0,
    far: float = 100.0,
) -> Tensor:
    """Depth-softmax colours of meshes with colours of their vertices or with a texture atlas, on black, without light.

    Args:
        verts: (..., V, 3); leading dimensions broadcast against the camera's.
        faces: (F, 3).
        camera: leading shape (...).
        image_size: S.
        sigma: see `recon3d.kernels.soft_rgb`.
        gamma: see `recon3d.kernels.soft_rgb`.
        backend: see `recon3d.kernels.soft_rgb`.
        vert_colors: (..., V, 3) RGB; leading dimensions broadcast to the common ones of `verts` and `camera`.
        atlas: (..., F, R, R, 3) RGB instead of `vert_colors`, in the order of `recon3d.geometry.atlas`.
        near: nearest depth that is drawn.
        far: farthest depth that is drawn.

    Returns:
        (..., 3, S, S).

    Raises:
        ValueError: both colours or neither, or an input that `recon3d.kernels.soft_rgb` refuses.
    """
    corners, shape = _face_verts(verts, faces, camera)
    if atlas is not None and vert_colors is None:
        colors = atlas.expand(*shape, *atlas.shape[-4:]).reshape(-1, *atlas.shape[-4:])
    elif vert_colors is not None and atlas is None:
        colors = vert_colors.expand(*shape, *vert_colors.shape[-2:]).reshape(-1, *vert_colors.shape[-2:])[:, faces]
    else:
        raise ValueError(
            f"render_soft_rgb: expected vert_colors or an atlas, got {'both' if atlas is not None else 'none'}."
        )
    image = soft_rgb(corners, colors.contiguous(), image_size, sigma, gamma, near=near, far=far, backend=backend)
    return image.reshape(*shape, 3, image_size, image_size)


def render_soft_face_pixels(
    verts: Tensor,
    faces: Tensor,
    camera: Camera,
    image_size: int,
    sigma: float,
    gamma: float,
    backend: str | None = None,
    *,
    near: float = 1.0,
    far: float = 100.0,
) -> FacePixels:
    """Where the soft renderer shows each face, without a gradient.

    Args:
        verts: (..., V, 3); leading dimensions broadcast against the camera's.
        faces: (F, 3).
        camera: leading shape (...).
        image_size: S.
        sigma: see `recon3d.kernels.soft_face_pixels`.
        gamma: see `recon3d.kernels.soft_face_pixels`.
        backend: see `recon3d.kernels.soft_face_pixels`.
        near: nearest depth that is seen.
        far: farthest depth that is seen.

    Returns:
        FacePixels: centers (..., F, 2) in NDC, weight (..., F).
    """
    with torch.no_grad():
        corners, shape = _face_verts(verts, faces, camera)
    seen = soft_face_pixels(corners, image_size, sigma, gamma, near=near, far=far, backend=backend)
    return FacePixels(seen.centers.reshape(*shape, -1, 2), seen.weight.reshape(*shape, -1))
