"""The colour path of the Soft Rasterizer: depth-softmax aggregation of corner colours, or of a texture atlas."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.kernels.checks import check_faces
from recon3d.kernels.dispatch import choose_backend

BACKENDS = {"numba": ("cpu",), "pytorch3d": ("cuda", "cpu"), "reference": ("cuda", "cpu")}


def soft_rgb(
    face_verts: Tensor,
    face_colors: Tensor,
    image_size: int,
    sigma: float,
    gamma: float,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    near: float = 1.0,
    far: float = 100.0,
    eps: float = 1e-3,
    backend: str | None = None,
) -> Tensor:
    """Blend the colours of all faces by probability and depth, differentiably (the authors' ``softmax`` aggregation).

    With D_ij of `soft_silhouette`, screen-space barycentric weights w clipped to [0, 1] and renormalised, depth
    ``z_ij = 1 / sum_k(w_k / z_k)``, ``z~ = (far - z) / (far - near)`` and colour ``C_ij = sum_k w_k C_jk``::

        I_i = (sum_j D_ij exp(z~_ij / gamma) C_ij + exp(eps / gamma) background) / (sum_j ... + exp(eps / gamma))

    With an atlas, C_ij is the one texel that holds the point w: nearest texel, in the order of PyTorch3D's
    `TexturesAtlas` and of the authors' surface textures (row ``floor(w_1 R)``, column ``floor(w_0 R)``, the upper
    halves of the cells stored mirrored; see `recon3d.geometry.atlas`).

    Faces whose depth at a pixel lies outside [near, far], and faces with a corner at z <= 1e-6, are left out there.
    Both windings are drawn. Defaults are the authors' (SoftRenderer: near 1, far 100, eps 1e-3).

    Gradients flow to colours, to z, and to x and y through D; as in the authors' kernel the weights w are constants of
    the backward pass. On the CPU they are deterministic.

    Args:
        face_verts: (B, F, 3, 3): NDC x, NDC y, view-space z of each corner.
        face_colors: (B, F, 3, 3): RGB of each corner; or an atlas (B, F, R, R, 3).
        image_size: S, of the square image.
        sigma: as in `soft_silhouette`.
        gamma: sharpness over depth; the authors' default is 1e-4.
        background: RGB behind everything.
        near: nearest depth that is drawn.
        far: farthest depth that is drawn.
        eps: depth score of the background.
        backend: `numba` (CPU), `pytorch3d` (its rasteriser, in single precision; the default on CUDA) or `reference`
            (dense torch); None asks RECON3D_BACKEND, then the device.

    Returns:
        (B, 3, S, S), row 0 at the top.

    Raises:
        ValueError: wrong shapes or dtypes, sigma or gamma not positive, NaN or inf, or an unavailable backend.
    """
    check_faces("soft_rgb", "face_verts", face_verts, 3, image_size)
    _check_colors(face_verts, face_colors)
    if not (sigma > 0 and gamma > 0 and far > near):
        raise ValueError(f"soft_rgb: expected sigma, gamma > 0 and far > near, got {sigma}, {gamma}, {far}, {near}.")
    name = choose_backend("soft_rgb", face_verts.device, BACKENDS, backend)
    if name == "numba":
        from recon3d.kernels.soft_rgb.numba_cpu import soft_rgb_numba as run
    elif name == "pytorch3d":
        from recon3d.kernels.soft_rgb.pytorch3d_backend import soft_rgb_pytorch3d as run
    else:
        from recon3d.kernels.soft_rgb.reference import soft_rgb_reference as run
    return run(face_verts, face_colors, image_size, float(sigma), float(gamma), background, near, far, eps)


def _check_colors(face_verts: Tensor, face_colors: Tensor) -> None:
    b, f = face_verts.shape[:2]
    shape = tuple(face_colors.shape)
    is_atlas = face_colors.ndim == 5 and shape[2] == shape[3] > 0
    if shape != (b, f, *((shape[2], shape[2]) if is_atlas else (3,)), 3) or face_colors.dtype != face_verts.dtype:
        raise ValueError(
            f"soft_rgb: expected face_colors ({b}, {f}, 3, 3) of the corners or an atlas ({b}, {f}, R, R, 3), in "
            f"{face_verts.dtype} like face_verts, got {shape} {face_colors.dtype}."
        )
    # The extremes carry NaN along, and cost a thirtieth of isfinite, which an atlas would feel.
    if face_colors.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(face_colors.detach()))).all()):
        bad = (~torch.isfinite(face_colors)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"soft_rgb: face_colors holds NaN or inf in images {bad[:8]} of the batch.")
