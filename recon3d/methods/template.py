"""TemplateSphere: the undeformed template as an answer to every image; the floor that mesh methods start from."""

from __future__ import annotations

from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.geometry.templates import icosphere
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Reconstruction


class TemplateSphere(ReconstructionMethod):
    """The sphere of radius 1/4 that NMR and SoftRas deform; nothing is trained.

    Args:
        radius: of the sphere, in object units.
    """

    verts: Tensor
    faces: Tensor

    def __init__(self, radius: float = 0.25) -> None:
        super().__init__()
        verts, faces = icosphere(3, radius)
        self.register_buffer("verts", verts)
        self.register_buffer("faces", faces)

    def forward(self, image: Tensor) -> Reconstruction:
        """The sphere, once for each of B images."""
        b = len(image)
        return Reconstruction(mesh=Meshes(self.verts.expand(b, -1, -1), self.faces.expand(b, -1, -1)))
