"""Which kernels there are, and which backends each has: what `recon3d kernels` prints."""

from __future__ import annotations

from recon3d.kernels import (
    neural_rasterize,
    pairwise_repulsion,
    soft_face_pixels,
    soft_rgb,
    soft_silhouette,
    voxelize,
    zbuffer,
)
from recon3d.kernels.neural_rasterize import BACKENDS as NEURAL_RASTERIZE
from recon3d.kernels.pairwise_repulsion import BACKENDS as PAIRWISE_REPULSION
from recon3d.kernels.soft_face_pixels import BACKENDS as SOFT_FACE_PIXELS
from recon3d.kernels.soft_rgb import BACKENDS as SOFT_RGB
from recon3d.kernels.soft_silhouette import BACKENDS as SOFT_SILHOUETTE
from recon3d.kernels.voxelize import BACKENDS as VOXELIZE
from recon3d.kernels.zbuffer import BACKENDS as ZBUFFER


def backends() -> dict[str, dict[str, list[str]]]:
    """Kernel -> device type -> backends in order of preference."""
    tables = {
        neural_rasterize: NEURAL_RASTERIZE,
        pairwise_repulsion: PAIRWISE_REPULSION,
        soft_face_pixels: SOFT_FACE_PIXELS,
        soft_rgb: SOFT_RGB,
        soft_silhouette: SOFT_SILHOUETTE,
        voxelize: VOXELIZE,
        zbuffer: ZBUFFER,
    }
    return {
        operation.__name__: {
            device: [name for name, devices in table.items() if device in devices] for device in ("cpu", "cuda")
        }
        for operation, table in tables.items()
    }
