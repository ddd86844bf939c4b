"""The CAD models of Pascal3D+: read, and made into the ground truth of the photographs they were chosen for.

Between `pascal3d_release` and `pascal3d`. Every annotated object names the model that looked most like it to the
annotator, so what comes from a model is an approximation: its surface as the true shape, its silhouette as the mask::

    CAD/<class>.mat     struct array <class>: vertices (V,3), faces (F,3) counting from 1, a place (3) for each anchor
    CAD/<class>/NN.off  the same models, without anchors
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError

from recon3d.data.mat_structs import field, field_names, load_variable
from recon3d.data.meshes import read_mesh
from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d_release import WHERE_FROM
from recon3d.data.photograph_annotations import KeypointSet
from recon3d.files import write_whole
from recon3d.geometry.sampling import sample_surface
from recon3d.geometry.viewpoints import CadFrame
from recon3d.geometry.weak_perspective import object_to_cmr
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera

TRUE_POINTS = 10_000  # as in the project's own data sets
_NO_ANCHOR = ("vertices", "faces", "pnames")


@dataclass(frozen=True, eq=False)
class CadModel:
    """One CAD model in its own frame: verts (V,3) float64, faces (F,3) int64, places (3,) of the anchors by name."""

    verts: np.ndarray
    faces: np.ndarray
    anchors: dict[str, np.ndarray]

    @property
    def frame(self) -> CadFrame:
        """How it lies in the object frame."""
        return CadFrame.of(torch.from_numpy(self.verts))

    def object_verts(self) -> torch.Tensor:
        """Vertices (V,3) float32 in the object frame; the longest side is 1."""
        return self.frame.to_object(torch.from_numpy(self.verts)).float()


def read_cads(root: Path, category: str) -> tuple[CadModel, ...]:
    """The CAD models of a class, in the order of `cad_index`: CAD/<class>.mat, else the .off files without anchors.

    Raises:
        DataFileError: neither is there, or they are not what the release has.
    """
    path = root / "CAD" / f"{category}.mat"
    if path.is_file():
        models = np.atleast_1d(load_variable(path, category, WHERE_FROM))
        if not len(models):
            raise DataFileError(f"{path}: expected CAD models, the variable {category} is empty. {WHERE_FROM}")
        return tuple(_from_struct(model, f"{path}, model {number + 1}") for number, model in enumerate(models))
    files = sorted((root / "CAD" / category).glob("*.off"))
    if not files:
        raise DataFileError(f"{path}: no such file, nor {root / 'CAD' / category}/NN.off. {WHERE_FROM}")
    names = [file.name for file in files]
    if names != [f"{number + 1:02d}.off" for number in range(len(files))]:
        raise DataFileError(f"{files[0].parent}: expected 01.off to {len(files):02d}.off, found {names}. {WHERE_FROM}")
    return tuple(_from_off(file) for file in files)


def _from_off(path: Path) -> CadModel:
    try:
        mesh = read_mesh(path)
    except ValueError as error:
        raise DataFileError(f"{error} Unpack the archive again.") from error
    return CadModel(mesh.verts.double().numpy(), mesh.faces.numpy(), {})


def _from_struct(model: Any, where: str) -> CadModel:
    verts, faces = (np.asarray(field(model, name, where)) for name in ("vertices", "faces"))
    if verts.ndim != 2 or verts.shape[1] != 3 or verts.dtype.kind not in "fiu" or not np.isfinite(verts).all():
        raise DataFileError(f"{where}: expected finite vertices (V,3), got {verts.dtype} {verts.shape}.")
    faces = np.atleast_2d(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "fiu":
        raise DataFileError(f"{where}: expected triangles (F,3), got {faces.dtype} {faces.shape}.")
    if faces.min() < 1 or faces.max() > len(verts):
        raise DataFileError(
            f"{where}: faces count from 1 to {len(verts)}, got {faces.min()} to {faces.max()}. Fetch the file again."
        )
    places = {name: np.asarray(getattr(model, name)) for name in field_names(model) if name not in _NO_ANCHOR}
    anchors = {
        name: place.astype(np.float64)
        for name, place in places.items()
        if place.dtype.kind in "fiu" and place.shape == (3,)  # a model may lack an anchor: then it is empty
    }
    return CadModel(verts.astype(np.float64), faces.astype(np.int64) - 1, anchors)


def cad_keypoints(models: Sequence[CadModel]) -> KeypointSet | None:
    """The anchors as key points: names in the order of the file, mean places over the models, their convex hull.

    None for models without anchors. Left and right are told apart by name, see `mirror_permutation`.
    """
    names = tuple(dict.fromkeys(name for model in models for name in model.anchors))
    if not names:
        return None
    mean = np.stack(
        [
            np.mean(
                [
                    model.frame.to_object(torch.from_numpy(model.anchors[name])).numpy()
                    for model in models
                    if name in model.anchors
                ],
                axis=0,
            )
            for name in names
        ]
    )
    try:
        triangles = ConvexHull(mean).simplices
    except (QhullError, ValueError):  # fewer than four anchors, or all in a plane
        triangles = None
    return KeypointSet(names, mirror_permutation(names), object_to_cmr(torch.from_numpy(mean)).numpy(), triangles)


def mirror_permutation(names: Sequence[str]) -> tuple[int, ...]:
    """Which key point is seen in the place of each when the object is mirrored: ``left`` and ``right`` change names.

    >>> mirror_permutation(["left_wing", "tail", "right_wing"])
    (2, 1, 0)
    """
    swap = {"left": "right", "right": "left"}
    partners = ("_".join(swap.get(word, word) for word in name.split("_")) for name in names)
    return tuple(names.index(p if p in names else name) for p, name in zip(partners, names, strict=True))


def silhouette(verts: torch.Tensor, faces: torch.Tensor, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """What a model covers of a picture, uint8 (height, width) of 0 and 1; pixels count whose centre it covers.

    Args:
        verts: (V, 3) in the object frame.
        faces: (F, 3).
        camera: (1,), of the whole picture, in its pixels (`recon3d.geometry.viewpoints`).
        size: width and height.
    """
    side = max(size)
    # Pixel u of the picture has its centre at NDC 1 - (2u + 1) / side.
    ndc = replace(camera, focal=camera.focal * 2 / side, center=(2 * camera.center - 1) / side + 1).to(verts)
    mask = render_hard(verts[None], faces, ndc, side).mask[0, 0, : size[1], : size[0]]
    return mask.numpy().astype(np.uint8)


def write_truth(model: CadModel, path: Path, seed: int) -> None:
    """Write points, normals and voxels of a model in the object frame, through a temporary file; keys as named.

    Args:
        model: whose surface is sampled, evenly by area, faces inside the object included.
        path: the .npz.
        seed: of the points.
    """
    verts, faces = model.object_verts(), torch.from_numpy(model.faces)
    points, normals, _ = sample_surface(verts, faces, TRUE_POINTS, torch.Generator().manual_seed(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, points=points.numpy(), normals=normals.numpy(), voxels=voxelize(verts, faces).numpy())
    write_whole(path, content.getvalue())
