"""The Soft Rasterizer (Liu et al. 2019) as a renderer: a mesh and cameras in, soft silhouettes and colours out."""

from __future__ import annotations

from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.kernels import soft_rgb, soft_silhouette
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
    vert_colors: Tensor,
    camera: Camera,
    image_size: int,
    sigma: float,
    gamma: float,
    backend: str | None = None,
) -> Tensor:
    """Depth-softmax colours of meshes with per-vertex colours, on black.

    Args:
        verts: (..., V, 3); leading dimensions broadcast against the camera's.
        faces: (F, 3).
        vert_colors: (..., V, 3) RGB, the leading shape of `verts`.
        camera: leading shape (...).
        image_size: S.
        sigma: see `recon3d.kernels.soft_rgb`.
        gamma: see `recon3d.kernels.soft_rgb`.
        backend: see `recon3d.kernels.soft_rgb`.

    Returns:
        (..., 3, S, S).
    """
    corners, shape = _face_verts(verts, faces, camera)
    colors = vert_colors.expand(*shape, *vert_colors.shape[-2:]).reshape(-1, *vert_colors.shape[-2:])[:, faces]
    image = soft_rgb(corners, colors.contiguous(), image_size, sigma, gamma, backend=backend)
    return image.reshape(*shape, 3, image_size, image_size)
