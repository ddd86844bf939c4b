"""Meshes in the object frame to files that other programs open: GLB, OBJ, PLY.

**Axes of the files.** All three formats get the axes of glTF: right-handed, +Y up, the front of the object towards
**+Z**. The object's front is +X in the object frame (ShapeNet's -Z, see `recon3d.structures`), so a vertex (x, y, z)
is written as (-z, y, x), a quarter turn about +Y. Blender's importers then show the front in its front view. ShapeNet's
own files face -Z: turn a written mesh half around +Y before `recon3d data render` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import trimesh
from torch import Tensor
from trimesh.exchange.gltf import export_glb

MeshFormat = Literal["glb", "obj", "ply"]
FORMATS: tuple[str, ...] = get_args(MeshFormat)
GREY = 0.7  # colour of a mesh that has none


def object_to_gltf(points: Tensor) -> Tensor:
    """Points (..., 3) of the object frame, front +X, to the frame of glTF, front +Z: (-z, y, x)."""
    return torch.stack([-points[..., 2], points[..., 1], points[..., 0]], dim=-1)


def write_mesh(path: Path, verts: Tensor, faces: Tensor, vert_colors: Tensor | None = None) -> None:
    """Write one mesh; the suffix of the path chooses the format.

    Vertices and faces keep their number and order. Colours are written with 8 bits: in OBJ and PLY as the sRGB values
    that they are, in GLB as the linear values that glTF asks for (a viewer turns them back; trimesh reads them into
    ``visual.vertex_attributes["color"]``). The file appears whole or not at all.

    Args:
        path: ``*.glb``, ``*.obj`` or ``*.ply``, in a folder that is there.
        verts: (V, 3) in the object frame.
        faces: (F, 3), counter-clockwise seen from outside.
        vert_colors: (V, 3) sRGB in [0, 1], or None.

    Raises:
        ValueError: another suffix, no faces, a vertex that is not finite, or colours that do not fit the vertices.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"write_mesh: {path} should end in one of {', '.join('.' + name for name in FORMATS)}.")
    if len(faces) == 0 or not bool(verts.isfinite().all()):
        raise ValueError(f"write_mesh: {path}: expected faces and finite vertices, got {len(faces)} faces.")
    if vert_colors is not None and vert_colors.shape != verts.shape:
        raise ValueError(f"write_mesh: {path}: expected colours {tuple(verts.shape)}, got {tuple(vert_colors.shape)}.")
    # process=False: trimesh would merge vertices at one place.
    mesh = trimesh.Trimesh(object_to_gltf(verts).cpu().numpy(), faces.cpu().numpy(), process=False)
    if vert_colors is not None:
        rgb = vert_colors.detach().cpu().double().clamp(0, 1).numpy()
        rgb = _srgb_to_linear(rgb) if kind == "glb" else rgb
        rgba = np.concatenate([rgb, np.ones_like(rgb[:, :1])], axis=1)
        mesh.visual.vertex_colors = (255 * rgba).round().astype(np.uint8)
    if kind == "glb":
        content = export_glb(
            trimesh.Scene(mesh),
            include_normals=True,
            tree_postprocessor=lambda tree: _add_material(tree, 1.0 if vert_colors is not None else GREY),
        )
    else:
        exported = mesh.export(file_type=kind)
        content = exported.encode() if isinstance(exported, str) else exported
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _add_material(tree: dict[str, Any], grey: float) -> None:
    """A matte material for the mesh: glTF's default is metal, which viewers without surroundings show black."""
    linear = float(_srgb_to_linear(np.asarray(grey)))
    matte = {"baseColorFactor": [linear, linear, linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": matte, "doubleSided": True}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0


def _srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Undo the transfer function of sRGB (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
