"""A mesh as the bytes of a GLB file: the frame, the colours and the material that glTF asks for.

What the files of `recon3d.apps.mesh_files` and the 3D views of a logger (`recon3d.evaluation.media`) share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import trimesh
from pytorch3d.renderer.mesh.rasterizer import Fragments
from pytorch3d.renderer.mesh.textures import TexturesBase
from torch import Tensor
from trimesh.exchange.gltf import export_glb

GREY = 0.7  # colour of a mesh that has none


def object_to_gltf(points: Tensor) -> Tensor:
    """Points (..., 3) of the object frame, front +X, to the frame of glTF, front +Z: (-z, y, x)."""
    return torch.stack([-points[..., 2], points[..., 1], points[..., 0]], dim=-1)


def glb(verts: Tensor, faces: Tensor, vert_colors: Tensor | None = None) -> bytes:
    """One mesh as a GLB file; vertices and faces keep their number and order.

    Args:
        verts: (V, 3) in the object frame.
        faces: (F, 3), counter-clockwise seen from outside.
        vert_colors: (V, 3) sRGB in [0, 1], written as the linear values that glTF asks for; None is grey.
    """
    # process=False: trimesh would merge vertices at one place.
    mesh = trimesh.Trimesh(object_to_gltf(verts).cpu().numpy(), faces.cpu().numpy(), process=False)
    if vert_colors is not None:
        mesh.visual.vertex_colors = rgba(srgb_to_linear(vert_colors.detach().cpu().double().clamp(0, 1).numpy()))
    content: bytes = export_glb(
        trimesh.Scene(mesh),
        include_normals=True,
        tree_postprocessor=lambda tree: _add_material(tree, 1.0 if vert_colors is not None else GREY),
    )
    return content


def rgba(rgb: np.ndarray) -> np.ndarray:
    """Colours (V, 3) in [0, 1] as opaque bytes (V, 4)."""
    return (255 * np.concatenate([rgb, np.ones_like(rgb[:, :1])], axis=1)).round().astype(np.uint8)


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Undo the transfer function of sRGB (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def vertex_colors(textures: TexturesBase, faces: Tensor, n_verts: int) -> Tensor:
    """Colours (V, 3) of the vertices of one mesh: the mean of the map over the corners of their faces.

    A vertex of no face is black.

    Args:
        textures: of one mesh.
        faces: (F, 3) of the same mesh.
        n_verts: V.
    """
    index = torch.arange(len(faces), device=faces.device)[None, :, None, None].expand(1, -1, 3, 1)
    corners = torch.eye(3, device=faces.device).expand(1, len(faces), 3, 3).unsqueeze(3)
    nothing = torch.zeros(index.shape, device=faces.device)
    seen = textures.sample_textures(Fragments(index, nothing, corners, nothing)).reshape(-1, 3)
    flat = faces.reshape(-1)
    total = seen.new_zeros(n_verts, 3).index_add_(0, flat, seen)
    return total / flat.bincount(minlength=n_verts).clamp(min=1)[:, None]


def _add_material(tree: dict[str, Any], grey: float) -> None:
    """A matte material for the mesh: glTF's default is metal, which viewers without surroundings show black."""
    linear = float(srgb_to_linear(np.asarray(grey)))
    matte = {"baseColorFactor": [linear, linear, linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": matte, "doubleSided": True}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
