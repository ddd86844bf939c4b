"""The mesh that is edited: read from a file, brought to the frame of the optimisation, and back to its place.

**Axes.** The file's axes are kept, and its +Y is taken for up, as in glTF and ShapeNet: cameras circle around it. In
the *editing frame* the bounding box is centred at the origin and its longest half side is 1, as in the code of Kato et
al. 2018.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recon3d.data.meshes import read_mesh

logger = logging.getLogger(__name__)

MAX_FACES = 200_000  # every face has a texture of its own: at 4x4x4 this is half a gigabyte with Adam's moments


@dataclass(frozen=True)
class SourceMesh:
    """A mesh as its file has it.

    Attributes:
        path: the file.
        verts: (V, 3) float32, the file's frame; no two at one place, each used by a face.
        faces: (F, 3) int64, all with area.
        center: (3,) of the bounding box.
        half_side: half the longest side of the bounding box.
    """

    path: Path
    verts: Tensor
    faces: Tensor
    center: Tensor
    half_side: float

    def edit_verts(self) -> Tensor:
        """Vertices (V, 3) in the editing frame."""
        return (self.verts - self.center) / self.half_side

    def file_verts(self, edited: Tensor) -> Tensor:
        """Vertices (V, 3) of the editing frame, back in the file's. One that has not moved is exactly where it was."""
        return self.verts + (edited.cpu() - self.edit_verts()) * self.half_side


def read_source(path: Path) -> SourceMesh:
    """Read OBJ, GLB, PLY or another format that trimesh knows.

    Scenes are joined and polygons triangulated. Faces keep the order in which trimesh gives them: that of the file,
    grouped by material in an OBJ with several. Vertices at one place become one, since files split them along seams of
    textures and normals, and the surface would tear there. Faces without area are left out, with a warning. Colours are
    not read: an edit starts from grey.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a mesh, no face with area, more than `MAX_FACES` faces.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No mesh at {path}; expected an OBJ, GLB or PLY file.")
    mesh = read_mesh(path)
    if len(mesh.faces) > MAX_FACES:
        raise ValueError(
            f"{path} has {len(mesh.faces):,} faces; an edit takes up to {MAX_FACES:,}, and a few thousand are best. "
            "Simplify it first (Blender: modifier Decimate; MeshLab: Quadric Edge Collapse Decimation)."
        )
    verts, faces = _weld(mesh.verts, mesh.faces)
    corners = verts.double()[faces]  # float32 would round thin faces of far-off meshes to nothing
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    if not bool((area > 0).any()):
        raise ValueError(f"{path}: none of its {len(faces)} faces has an area.")
    if bool((area == 0).any()):
        logger.warning("%s: %d of %d faces have no area and are left out.", path, int((area == 0).sum()), len(faces))
        faces = faces[area > 0]
        used, faces = faces.unique(return_inverse=True)
        verts = verts[used]
    low, high = verts.amin(0), verts.amax(0)
    return SourceMesh(path, verts, faces, (low + high) / 2, float((high - low).max()) / 2)


def _weld(verts: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """One vertex for each place, in the order of their first appearance."""
    places, index = verts.unique(dim=0, return_inverse=True)
    first = torch.full((len(places),), len(verts)).scatter_reduce(0, index, torch.arange(len(verts)), "amin")
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return places[order], rank[index][faces]
