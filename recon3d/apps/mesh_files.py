"""Meshes to files that other programs open: GLB, OBJ, PLY with `write_mesh`, GLB and OBJ with a texture.

**Axes of the files.** `write_mesh` takes the object frame, and all three formats get the axes of glTF: right-handed,
+Y up, the front of the object towards **+Z**. The object's front is +X in the object frame (ShapeNet's -Z, see
`recon3d.structures`), so a vertex (x, y, z) is written as (-z, y, x), a quarter turn about +Y. Blender's importers then
show the front in its front view. ShapeNet's own files face -Z: turn a written mesh half around +Y before `recon3d data
render` reads it. `write_textured_mesh` turns nothing; give it ``object_to_gltf(verts)`` for a mesh in the object frame.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import trimesh
from PIL import Image
from pytorch3d.renderer import TexturesUV
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from recon3d.files import write_together, write_whole
from recon3d.geometry.gltf import glb, object_to_gltf, rgba

MeshFormat = Literal["glb", "obj", "ply"]
FORMATS: tuple[str, ...] = get_args(MeshFormat)
TEXTURED_FORMATS = ("glb", "obj")
CLAMP_TO_EDGE, LINEAR = 33071, 9729  # glTF 2.0, section 5.26


class TextureMap(NamedTuple):
    """A texture as `write_textured_mesh` takes it.

    Attributes:
        uv: (U, 2) in [0, 1], u to the right and v upwards from the lower left corner of the image.
        face_uv: (F, 3) into `uv`.
        image: RGB.
    """

    uv: Tensor
    face_uv: Tensor
    image: Image.Image


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
    if kind == "glb":
        content = glb(verts, faces, vert_colors)
    else:
        mesh = trimesh.Trimesh(object_to_gltf(verts).cpu().numpy(), faces.cpu().numpy(), process=False)
        if vert_colors is not None:
            mesh.visual.vertex_colors = rgba(vert_colors.detach().cpu().double().clamp(0, 1).numpy())
        exported = mesh.export(file_type=kind)
        content = exported.encode() if isinstance(exported, str) else exported
    write_whole(path, content)


def textured_mesh_files(path: Path) -> tuple[Path, ...]:
    """The files that `write_textured_mesh` makes of a path.

    Returns:
        The path; for OBJ also ``<stem>.mtl`` and ``<stem>-texture.png`` beside it, with ``_`` for the spaces of the
        stem.

    Raises:
        ValueError: the suffix is none of `TEXTURED_FORMATS`.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in TEXTURED_FORMATS:
        names = ", ".join("." + name for name in TEXTURED_FORMATS)
        raise ValueError(f"write_textured_mesh: {path} should end in one of {names}.")
    if kind == "glb":
        return (path,)
    stem = "_".join(path.stem.split())  # readers disagree on names with spaces inside OBJ and MTL
    return (path, path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}-texture.png"))


def write_textured_mesh(
    path: Path, verts: Tensor, faces: Tensor, uv: Tensor, face_uv: Tensor, texture: Image.Image, unlit: bool = False
) -> tuple[Path, ...]:
    """Write one mesh with a texture; the suffix of the path chooses the format.

    GLB holds everything in one file: vertices are split where their faces disagree on the texture coordinate and
    nowhere else, normals are smooth across the split, the material is two-sided and matte, or takes no light. OBJ keeps
    vertices and texture coordinates apart, each in its number and order, and comes with a material and a texture beside
    it. In both the faces keep their order, and the texture is an sRGB PNG with the pixels given. All files appear whole
    or none does.

    Args:
        path: ``*.glb`` or ``*.obj``, in a folder that is there.
        verts: (V, 3), written as they are.
        faces: (F, 3) into `verts`, counter-clockwise seen from outside.
        uv: (U, 2) in [0, 1], u to the right and v **upwards** from the lower left corner of the image.
        face_uv: (F, 3) into `uv`: the texture coordinate of each corner.
        texture: RGB, sRGB values.
        unlit: the texture already holds its light. GLB says so by KHR_materials_unlit (a viewer that does not know it
            shows the matte material), OBJ by ``illum 0``.

    Returns:
        `textured_mesh_files` of the path.

    Raises:
        ValueError: another suffix, no faces, values that are not finite, indices out of range, or not an RGB image.
    """
    files = textured_mesh_files(path)
    if len(faces) == 0 or not bool(verts.isfinite().all()) or not bool(uv.isfinite().all()):
        raise ValueError(
            f"write_textured_mesh: {path}: expected faces, finite vertices and finite texture coordinates, got "
            f"{len(faces)} faces."
        )
    for name, index, table in (("faces", faces, verts), ("face_uv", face_uv, uv)):
        if index.shape != faces.shape or int(index.min()) < 0 or int(index.max()) >= len(table):
            raise ValueError(
                f"write_textured_mesh: {path}: expected {name} {tuple(faces.shape)} with indices below {len(table)}, "
                f"got {tuple(index.shape)} with {int(index.min())} to {int(index.max())}."
            )
    if texture.mode != "RGB":
        raise ValueError(f"write_textured_mesh: {path}: expected an RGB texture, got mode {texture.mode}.")
    v, f, vt, ft = (value.detach().cpu().numpy() for value in (verts, faces, uv, face_uv))
    if len(files) == 1:
        write_whole(path, _textured_glb(v, f, vt, ft, texture, unlit))
        return files
    _, material, picture = files
    encoded = io.BytesIO()
    texture.save(encoded, format="png")
    # Ka, Kd, Ks: ambient and diffuse white, so that the texture is shown as it is, and no highlight.
    illum = 0 if unlit else 1
    mtl = f"newmtl texture\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum {illum}\nmap_Kd {picture.name}\n"
    obj = _textured_obj(v, f, vt, ft, material.name)
    write_together({picture: encoded.getvalue(), material: mtl.encode(), path: obj.encode()})
    return files


def texture_map(textures: TexturesUV) -> TextureMap:
    """The UV map of one mesh, with 8 bits, for files.

    PyTorch3D's v points upwards as here. Its u and v of 0 and 1 are, by default (`align_corners`), the **centres** of
    the outermost texels; in files they are the edges of the image, so the coordinates shrink by half a texel.

    Raises:
        ValueError: not one map of three channels, or coordinates outside [0, 1], which programs repeat or clamp as they
            like.
    """
    maps = textures.maps_padded()
    if maps.ndim != 4 or len(maps) != 1 or maps.shape[-1] != 3:
        raise ValueError(f"texture_map: expected one map (1, H, W, 3), got {tuple(maps.shape)}.")
    uv = textures.verts_uvs_list()[0].detach().cpu()
    if not bool(((uv >= 0) & (uv <= 1)).all()):
        raise ValueError(
            f"texture_map: expected texture coordinates in [0, 1], got {float(uv.min()):g} to {float(uv.max()):g}."
        )
    if textures.align_corners:
        size = uv.new_tensor([maps.shape[2], maps.shape[1]])
        uv = (uv * (size - 1) + 0.5) / size
    pixels = (maps[0].detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    return TextureMap(uv, textures.faces_uvs_list()[0].cpu(), Image.fromarray(pixels))


def _textured_glb(
    verts: np.ndarray, faces: np.ndarray, uv: np.ndarray, face_uv: np.ndarray, texture: Image.Image, unlit: bool
) -> bytes:
    uv, same = np.unique(uv, axis=0, return_inverse=True)  # coordinates of one value are no seam
    corners = np.stack([faces.reshape(-1), same.reshape(-1)[face_uv].reshape(-1)], axis=1)
    split, index = np.unique(corners, axis=0, return_inverse=True)
    normals = trimesh.Trimesh(verts, faces, process=False).vertex_normals
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    mesh = trimesh.Trimesh(
        verts[split[:, 0]],
        index.reshape(-1, 3),
        vertex_normals=normals[split[:, 0]],
        visual=TextureVisuals(uv=uv[split[:, 1]], material=material),
        process=False,
    )
    finish = partial(_finish_texture, unlit=unlit)
    content: bytes = export_glb(trimesh.Scene(mesh), include_normals=True, tree_postprocessor=finish)
    return content


def _finish_texture(tree: dict[str, Any], unlit: bool) -> None:
    """No wrap-around at the edges of the image, which is glTF's default, and no light if the texture holds it."""
    tree["samplers"] = [{"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE, "magFilter": LINEAR}]
    for texture in tree["textures"]:
        texture["sampler"] = 0
    if unlit:
        tree["extensionsUsed"] = ["KHR_materials_unlit"]
        for material in tree["materials"]:
            material["extensions"] = {"KHR_materials_unlit": {}}


def _textured_obj(verts: np.ndarray, faces: np.ndarray, uv: np.ndarray, face_uv: np.ndarray, material: str) -> str:
    # repr of a Python float is the shortest text that reads back to the same number.
    lines = [f"mtllib {material}", "usemtl texture"]
    lines += [f"v {x} {y} {z}" for x, y, z in verts.tolist()]
    lines += [f"vt {u} {v}" for u, v in uv.tolist()]
    pairs = (np.stack([faces, face_uv], axis=-1) + 1).tolist()
    lines += ["f " + " ".join(f"{vertex}/{coordinate}" for vertex, coordinate in face) for face in pairs]
    return "\n".join(lines) + "\n"
