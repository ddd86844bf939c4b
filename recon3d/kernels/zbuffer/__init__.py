"""Hard rasterisation with a z-buffer: which face each pixel sees. Used to render data sets and evaluation masks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from recon3d.kernels.checks import check_faces
from recon3d.kernels.dispatch import choose_backend

BACKENDS = {"numba": ("cpu",), "reference": ("cuda", "cpu")}


class ZBuffer(NamedTuple):
    """What each pixel sees; all (B,H,W,...).

    Attributes:
        face_index: int64, index into the F faces of its image, -1 where no face is.
        barycentric: perspective-correct weights of the three corners, summing to 1; 0 where no face is.
        depth: view-space z of the surface, +inf where no face is.
    """

    face_index: Tensor
    barycentric: Tensor
    depth: Tensor


def zbuffer(face_verts: Tensor, image_size: int, backend: str | None = None) -> ZBuffer:
    """Rasterise triangles at the pixel centres; the nearest face wins.

    With screen-space weights w at a pixel centre and corner depths z, depth is ``1 / sum(w_k / z_k)`` and the returned
    weights are ``w_k / z_k * depth``. A centre exactly on an edge is covered (so that meshes have no cracks along
    diagonals); equal depths go to the lowest face index. Faces of no area (also used as padding), and faces with a
    corner at or behind the camera (z <= 1e-6), are not drawn: there is no clipping. Both windings are drawn.

    Args:
        face_verts: (B, F, 3, 3): NDC x (left), NDC y (up), view-space z of each corner; F may be 0.
        image_size: S; the image is S x S, square.
        backend: `numba` (CPU) or `reference` (PyTorch3D); None asks RECON3D_BACKEND, then the device.

    Returns:
        ZBuffer with H = W = S, barycentric and depth in the dtype of the input. Not differentiable.

    Raises:
        ValueError: wrong shape or dtype, NaN or inf, or an unavailable backend.
    """
    check_faces("zbuffer", "face_verts", face_verts, 3, image_size)
    name = choose_backend("zbuffer", face_verts.device, BACKENDS, backend)
    if name == "numba":
        from recon3d.kernels.zbuffer.numba_cpu import zbuffer_numba as run
    else:
        from recon3d.kernels.zbuffer.reference import zbuffer_reference as run
    return ZBuffer(*run(face_verts.detach(), image_size))
