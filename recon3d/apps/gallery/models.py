"""One mesh of one sample as the page needs it: a GLB, a preview and how to place it in a viewer.

Between the evaluation's meshes and the files of the page. The mesh is the one that is measured, unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch3d.renderer import TexturesUV, TexturesVertex
from pytorch3d.renderer.mesh.textures import TexturesBase
from scipy.spatial import cKDTree
from torch import Tensor

from recon3d.apps.gallery.views import InputView, input_view, preview
from recon3d.apps.mesh_files import object_to_gltf, texture_map, write_mesh, write_textured_mesh
from recon3d.evaluation.convert import Conversion
from recon3d.geometry.marching import voxel_surface
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import ViewBatch

N_SPLATS = 2000  # of the ground-truth points that are shown
SPLAT = 2.0  # radius of one, in distances to the nearest point
TRUTH_COLOR = (0.55, 0.66, 0.80)  # so that it is told from predictions at a glance


class NoSurfaceError(ValueError):
    """The method ran, and its answer is no surface."""


@dataclass(frozen=True)
class Model:
    """One mesh.

    Attributes:
        title: what it is.
        glb: content of the file, axes of glTF.
        preview: RGBA, in the input view.
        view: the camera of the preview.
        verts: their number.
        faces: their number.
        texture: what colours it, in words; empty for none.
    """

    title: str
    glb: bytes
    preview: Image.Image
    view: InputView
    verts: int
    faces: int
    texture: str = ""


def predicted_model(title: str, method: ReconstructionMethod, batch: ViewBatch) -> Model:
    """The method's answer for one object, with the mesh that `recon3d.evaluation` measures.

    Args:
        title: name of the method.
        method: on the CPU, in eval mode.
        batch: of one object.

    Raises:
        NoSurfaceError: the mesh is empty, without area or not finite.
    """
    with torch.inference_mode():
        recon = method.reconstruct(batch)
        verts, faces = Conversion(recon, batch).mesh.get_mesh_verts_faces(0)
    if len(faces) == 0:
        raise NoSurfaceError("the answer has no surface: it is empty, without area, or not finite")
    textures = recon.mesh.textures if recon.mesh is not None else None
    return _model(title, verts, faces, input_view(batch, recon), textures)


def true_models(batch: ViewBatch) -> dict[str, Model]:
    """The ground truth of one object by name, "points" and "voxels", as far as the data have it.

    Points are small triangles across their normals, at most `N_SPLATS` of them; voxels are the surface of the solid
    (`voxel_surface`).
    """
    view = input_view(batch)
    models = {}
    if batch.points is not None:
        points = batch.points[0, :N_SPLATS].float()
        normals = batch.normals[0, :N_SPLATS].float() if batch.normals is not None else None
        models["points"] = _model(f"ground truth, {len(points):,} points", *splats(points, normals), view, true=True)
    if batch.voxels is not None and bool(batch.voxels[0].any()):
        verts, faces = voxel_surface(batch.voxels[:1]).get_mesh_verts_faces(0)
        side = batch.voxels.shape[1]
        models["voxels"] = _model(f"ground truth, {side}³ voxels", verts, faces, view, true=True)
    return models


def splats(points: Tensor, normals: Tensor | None) -> tuple[Tensor, Tensor]:
    """An equilateral triangle for each point, around it and across its normal.

    Their circumradius is `SPLAT` times the median distance to the nearest other point. For points strewn evenly that
    distance is about 0.47 of a cell's side, so that the triangles cover their surface once and nearly close it.

    Args:
        points: (N, 3), at least two.
        normals: (N, 3) unit; None takes the direction from the mean of the points.

    Returns:
        Vertices (3N, 3) and faces (N, 3).
    """
    if normals is None:
        normals = torch.nn.functional.normalize(points - points.mean(dim=0), dim=1)
    distance, _ = cKDTree(points.numpy()).query(points.numpy(), k=[2])
    radius = SPLAT * float(np.median(distance))
    # Of the axes the one that is least along the normal gives a tangent.
    axis = torch.eye(3)[normals.abs().argmin(dim=1)]
    tangent = torch.nn.functional.normalize(torch.linalg.cross(normals, axis), dim=1)
    other = torch.linalg.cross(normals, tangent)
    angles = torch.arange(3) * (2 * torch.pi / 3)
    spokes = angles.cos()[:, None, None] * tangent + angles.sin()[:, None, None] * other  # (3,N,3)
    verts = (points + radius * spokes).transpose(0, 1).reshape(-1, 3)
    return verts, torch.arange(len(verts)).reshape(-1, 3)


def _model(
    title: str, verts: Tensor, faces: Tensor, view: InputView, textures: TexturesBase | None = None, true: bool = False
) -> Model:
    shown, texture, colors = None, "", None
    if true:
        colors = verts.new_tensor(TRUTH_COLOR).expand(len(verts), 3)
        shown = TexturesVertex(colors[None])
    elif isinstance(textures, TexturesUV):
        height, width = textures.maps_padded().shape[1:3]
        shown, texture = textures.detach(), f"{width} x {height} texture"
    elif isinstance(textures, TexturesVertex):
        colors = textures.verts_features_list()[0].detach()
        shown, texture = TexturesVertex(colors[None]), "vertex colours"

    def write(path: Path) -> None:
        if isinstance(shown, TexturesUV):
            write_textured_mesh(path, object_to_gltf(verts), faces, *texture_map(shown), unlit=True)
        else:
            write_mesh(path, verts, faces, colors)

    return Model(
        title, _content(write), preview(verts, faces, view.camera, shown), view, len(verts), len(faces), texture
    )


def _content(write: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        write(path)
        return path.read_bytes()
