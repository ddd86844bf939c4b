"""The silhouette of the Soft Rasterizer: differentiable coverage, exact over all faces."""

from __future__ import annotations

from torch import Tensor

from recon3d.kernels.checks import check_faces
from recon3d.kernels.dispatch import choose_backend

BACKENDS = {"numba": ("cpu",), "pytorch3d": ("cuda", "cpu"), "reference": ("cuda", "cpu")}


def soft_silhouette(face_xy: Tensor, image_size: int, sigma: float, backend: str | None = None) -> Tensor:
    """Render soft silhouettes of projected triangles (Liu et al. 2019, arXiv 1901.05567, eq. 1 and 2).

    For face j and pixel centre i, ``D_ij = sigmoid(delta d^2 / sigma)`` with d the Euclidean distance to the
    triangle's boundary in NDC and delta = +1 inside, -1 outside (eq. 1); the silhouette is
    ``S_i = 1 - prod_j (1 - D_ij)`` (eq. 2) over ALL faces: no top-K, no culling by winding or depth. Faces whose
    probability at a pixel is below 1e-10 are left out there, as in the authors' training code. Faces of no area (twice
    the area at most 1e-8; also used as padding) draw nothing; parts off screen are simply not seen.

    The gradient is the exact derivative with respect to the corners. On the CPU it is deterministic, and memory is
    O(B S^2 + B F).

    Args:
        face_xy: (B, F, 3, 2) corners in NDC, +X left, +Y up; F may be 0.
        image_size: S, of the square image.
        sigma: sharpness, in squared NDC units; the paper uses 3e-5, its code 1e-4 at first.
        backend: `numba` (CPU), `pytorch3d` (its rasteriser; the default on CUDA) or `reference` (dense torch); None
            asks RECON3D_BACKEND, then the device.

    Returns:
        (B, S, S) in [0, 1], row 0 at the top.

    Raises:
        ValueError: wrong shape or dtype, sigma not positive, NaN or inf, or an unavailable backend.
    """
    check_faces("soft_silhouette", "face_xy", face_xy, 2, image_size)
    if not sigma > 0:
        raise ValueError(f"soft_silhouette: sigma must be positive (squared NDC units, such as 3e-5), got {sigma}.")
    name = choose_backend("soft_silhouette", face_xy.device, BACKENDS, backend)
    if name == "numba":
        from recon3d.kernels.soft_silhouette.numba_cpu import soft_silhouette_numba as run
    elif name == "pytorch3d":
        from recon3d.kernels.soft_silhouette.pytorch3d_backend import soft_silhouette_pytorch3d as run
    else:
        from recon3d.kernels.soft_silhouette.reference import soft_silhouette_reference as run
    return run(face_xy, image_size, float(sigma))
