"""Mesh files: find them in a folder, read them, bring them to the object frame.

First stage of `recon3d.data.rendering`: a folder of meshes becomes a list of `MeshFile`, each read to vertices, faces
and face colours. Knows three folder layouts (``<category>/<id>/model.*``, ShapeNetCore v1 and v2) and two split files
(open_shapes' ``metadata.csv`` and ShapeNet's ``all.csv``).
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from torch import Tensor

from recon3d.data.nmr_layout import SPLITS, canonical_category
from recon3d.geometry.cameras import shapenet_to_object

Scale = Literal["longest_side", "diagonal"]

# In the order of choice when one object comes in several formats.
MESH_NAMES = (
    *(f"model.{extension}" for extension in ("obj", "glb", "ply", "off")),
    "models/model_normalized.obj",  # ShapeNetCore v2
)
SPLIT_FILES = ("metadata.csv", "all.csv")
ID_COLUMNS = ("instance_id", "modelId", "id")  # `modelId` before `id`: ShapeNet's `id` is a row number
CATEGORY_COLUMNS = ("category", "synsetId")
_SAMPLES_IN_FACE = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array([[3], [6], [6], [6]])


@dataclass(frozen=True)
class MeshFile:
    """One object on disk. `split` is None when a split file is in force and does not list the object."""

    category: str
    id: str
    path: Path
    split: str | None


@dataclass(frozen=True)
class ColoredMesh:
    """A triangle mesh: verts (V, 3) float32, faces (F, 3) int64, face_colors (F, 3) float32 in [0, 1] or None."""

    verts: Tensor
    faces: Tensor
    face_colors: Tensor | None = None


def find_meshes(src: Path, split_file: Path | None = None) -> list[MeshFile]:
    """Lists the meshes below `src`, sorted by category and id.

    Args:
        src: folder of ``<category or synset>/<id>/model.{obj,glb,ply,off}`` (any data set, ShapeNetCore v1) or
            ``.../models/model_normalized.obj`` (ShapeNetCore v2). Synset ids become category names, see `nmr_layout`.
        split_file: CSV with a column `split`, one of instance_id / modelId / id, and optionally category / synsetId.
            None: ``src/metadata.csv`` or ``src/all.csv`` where present, else 70 / 10 / 20 per cent by the SHA-256 of
            ``category/id``, the same on every machine.

    Raises:
        FileNotFoundError: no folder, no split file, or no mesh in any of the layouts.
        ValueError: a split file without the columns, or with a split other than train, val, test.
    """
    src = Path(src)
    if not src.is_dir():
        raise FileNotFoundError(f"Expected a folder of meshes at {src}, found none.")
    found = []
    for folder in sorted(path for path in src.glob("*/*") if path.is_dir() and not path.parent.name.startswith(".")):
        present = [folder / name for name in MESH_NAMES if (folder / name).is_file()]
        if present:
            found.append((canonical_category(folder.parent.name), folder.name, present[0]))
    if not found:
        raise FileNotFoundError(
            f"No meshes in {src}. Expected <category>/<id>/model.obj (or .glb, .ply, .off), or ShapeNetCore's "
            "<synset>/<id>/model.obj or <synset>/<id>/models/model_normalized.obj."
        )
    if split_file is None:
        split_file = next((src / name for name in SPLIT_FILES if (src / name).is_file()), None)
    splits = None if split_file is None else read_splits(Path(split_file))
    meshes = []
    for category, name, path in sorted(found):
        if splits is None:
            split: str | None = hash_split(category, name)
        else:
            split = splits.get((category, name), splits.get((None, name)))
        meshes.append(MeshFile(category, "_".join(name.split()), path, split))  # ids hold no white space
    return meshes


def hash_split(category: str, object_id: str) -> str:
    """Draws train (70 %), val (10 %) or test (20 %) from the SHA-256 of ``category/object_id``."""
    digest = hashlib.sha256(f"{category}/{object_id}".encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if u < 0.7 else "val" if u < 0.8 else "test"


def read_splits(path: Path) -> dict[tuple[str | None, str], str]:
    """Reads a split file to {(category, id): split}; the category is None where the file has no such column.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, or a split is none of train, val, test.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a split file at {path}, found none.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        id_column = next((name for name in ID_COLUMNS if name in columns), None)
        if id_column is None or "split" not in columns:
            raise ValueError(
                f"{path}: expected the columns `split` and one of {', '.join(ID_COLUMNS)}; got {', '.join(columns)}."
            )
        category_column = next((name for name in CATEGORY_COLUMNS if name in columns), None)
        splits: dict[tuple[str | None, str], str] = {}
        for row in reader:
            if row["split"] not in SPLITS:
                raise ValueError(f"{path}, line {reader.line_num}: split {row['split']!r} is not one of {SPLITS}.")
            category = None
            if category_column is not None:
                # Spreadsheets drop the leading zero of a synset id.
                name = row[category_column].zfill(8) if category_column == "synsetId" else row[category_column]
                category = canonical_category(name)
            splits[category, row[id_column]] = row["split"]
    return splits


def read_mesh(path: Path) -> ColoredMesh:
    """Reads a mesh file of any format trimesh knows, as it is: nothing welded, nothing moved.

    Scenes are joined with their transforms; polygons are triangulated; vertices that no face uses are dropped, so that
    they do not stretch the bounding box. A face's colour is its own, the mean of its vertices' colours, the texture at
    four points of it, or its material's diffuse colour; parts without any are grey beside coloured ones.

    Raises:
        ValueError: unreadable, no faces, coordinates that are not finite, or face indices out of range.
    """
    try:
        # trimesh reports a bad file as whatever its parser stumbled on, so every exception is translated.
        pieces = trimesh.load_scene(path, process=False).dump(concatenate=False)
    except Exception as error:
        raise ValueError(f"{path}: not readable as a mesh ({type(error).__name__}: {error}).") from error
    pieces = [piece for piece in pieces if isinstance(piece, trimesh.Trimesh) and len(piece.faces)]
    if not pieces:
        raise ValueError(f"{path}: expected a triangle mesh, found no faces.")
    offsets = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    verts = np.concatenate([np.asarray(piece.vertices) for piece in pieces])
    faces = np.concatenate([np.asarray(piece.faces) + offset for piece, offset in zip(pieces, offsets, strict=False)])
    if faces.min() < 0 or faces.max() >= len(verts):
        raise ValueError(f"{path}: a face names vertex {faces.max()}, there are {len(verts)}.")
    used, faces = np.unique(faces, return_inverse=True)
    verts = verts[used].astype(np.float32)
    if not np.isfinite(verts).all():
        raise ValueError(f"{path}: {int((~np.isfinite(verts)).any(1).sum())} vertices are not finite.")
    colors = [_face_colors(piece) for piece in pieces]
    joined = None
    if any(color is not None for color in colors):
        joined = np.concatenate(
            [
                np.full((len(piece.faces), 3), 0.5) if color is None else color
                for piece, color in zip(pieces, colors, strict=True)
            ]
        )
    return ColoredMesh(
        torch.from_numpy(verts),
        torch.from_numpy(faces.reshape(-1, 3).astype(np.int64)),
        None if joined is None else torch.from_numpy(joined.astype(np.float32)),
    )


def to_object_frame(verts: Tensor, scale: Scale = "longest_side") -> Tensor:
    """Moves vertices (V, 3) of a ShapeNet-like .obj file to the object frame: centred, scaled, turned.

    Args:
        verts: +Y up, front -Z, any scale.
        scale: what becomes 1, the longest side of the bounding box (NMR) or its diagonal (DPC).

    Raises:
        ValueError: all vertices coincide.
    """
    low, high = verts.amin(0), verts.amax(0)
    size = (high - low).max() if scale == "longest_side" else (high - low).norm()
    if not size > 0:
        raise ValueError("The mesh has no extent: all its vertices coincide.")
    return shapenet_to_object((verts - (low + high) / 2) / size)


def _face_colors(mesh: Any) -> np.ndarray | None:
    """Face colours (F, 3) in [0, 1] of a `trimesh.Trimesh`, or None where its file has none."""
    visual = mesh.visual
    if not visual.defined:
        return None
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[:, :3] / 255.0
    if visual.kind == "vertex":
        return np.asarray(visual.vertex_colors)[:, :3][mesh.faces].mean(1) / 255.0
    rgba = None
    if visual.uv is not None and len(visual.uv) == len(mesh.vertices):
        uv = np.einsum("sk,fkc->fsc", _SAMPLES_IN_FACE, np.asarray(visual.uv)[mesh.faces])  # (F,3,2) -> (F,4,2)
        rgba = visual.material.to_color(np.nan_to_num(uv).reshape(-1, 2))
    if rgba is None or rgba.ndim != 2:  # no texture: trimesh answers None or one colour
        rgba = np.tile(np.asarray(visual.material.main_color), (len(mesh.faces), 1))
    rgb: np.ndarray = rgba[:, :3].reshape(len(mesh.faces), -1, 3).mean(1) / 255.0
    return rgb
