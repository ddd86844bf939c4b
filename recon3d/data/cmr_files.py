"""CMR's annotations of photographs on disk: boxes, key points and masks, and cameras by structure from motion.

Between `mat_structs` and the modules of CUB and Pascal3D+. Kanazawa et al. 2018 released, for each split, two files
that belong together, object by object::

    data/<split>_....mat    images    rel_path, bbox{x1,y1,x2,y2}, parts (3,K) of x, y, visible, mask (H,W)
    sfm/anno_<split>.mat    sfm_anno  rot (3,3), scale, trans (2);  S (3,K), conv_tri (T,3) in the training split's

In the files everything counts from 1; what this module gives counts from 0, but for the translations: CMR does not
shift them, so they stand as they are (see `SfMPose`). Paths may have backslashes; one that leaves its folder is
refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from recon3d.data.cropping import Box
from recon3d.data.mat_structs import field, load_variable, numbers
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_annotations import SfMPose, mask_png

_ROUNDING = 1e-3  # of a rotation that went through single precision


@dataclass(frozen=True, eq=False)
class CMRObject:
    """One object of a file of annotations, in 0-based pixels.

    Attributes:
        id: path without suffix; where the picture shows several objects, with ``@`` and the number of this one on it.
        path: of the picture, relative to the folder of pictures.
        number: of the object in its file.
        size: width and height of the picture.
        box: inclusive.
        keypoints: (K, 3): x, y, visible.
        mask: as `mask_png`.
    """

    id: str
    path: PurePosixPath
    number: int
    size: tuple[int, int]
    box: Box
    keypoints: np.ndarray
    mask: bytes


def read_objects(path: Path, n_keypoints: int, advice: str) -> tuple[CMRObject, ...]:
    """The objects of a ``data`` file. Its masks are held in memory while it is read: 190 KB an object of CUB.

    Args:
        path: the file.
        n_keypoints: K.
        advice: what to do where something is wrong.

    Raises:
        DataFileError: missing, damaged, not what the format says, or a path out of the folder of pictures.
    """
    structs = np.atleast_1d(load_variable(path, "images", advice))
    paths = [picture_path(field(item, "rel_path", path), f"{path}, object {i}") for i, item in enumerate(structs)]
    occurrences, seen = Counter(paths), Counter[PurePosixPath]()
    objects = []
    for number, (picture, struct) in enumerate(zip(paths, structs, strict=True)):
        suffix = f"@{seen[picture]}" if occurrences[picture] > 1 else ""
        seen[picture] += 1
        where = f"{path}, object {number} ({picture})"
        mask = np.asarray(field(struct, "mask", where))
        # Floats are MATLAB's default type; but a probability is no mask.
        binary = mask.dtype.kind in "bui" or (mask.dtype.kind == "f" and np.isin(mask, (0, 1)).all())
        if mask.ndim != 2 or not mask.size or not binary:
            raise DataFileError(f"{where}: expected a mask (H, W) of 0 and 1, got {_kind(mask)}. {advice}")
        objects.append(
            CMRObject(
                id=f"{picture.with_suffix('')}{suffix}",
                path=picture,
                number=number,
                size=(mask.shape[1], mask.shape[0]),
                box=_box(struct, where),
                keypoints=_keypoints(struct, n_keypoints, where),
                mask=mask_png(mask),
            )
        )
    return tuple(objects)


def picture_path(text: Any, where: str) -> PurePosixPath:
    r"""A relative path as the files have it, ``car_pascal\2008_000027.jpg`` or with slashes.

    Raises:
        DataFileError: not text, empty, absolute, or with ``..``.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataFileError(f"{where}: expected the path of a picture, got {text!r}.")
    windows = PureWindowsPath(text.strip())  # reads both kinds of slashes
    if windows.drive or windows.root or ".." in windows.parts:
        raise DataFileError(f"{where}: expected a path inside the folder of pictures, got {text!r}.")
    return PurePosixPath(*windows.parts)


def _kind(mask: np.ndarray) -> str:
    values = f" from {mask.min()} to {mask.max()}" if mask.dtype.kind == "f" and mask.size else ""
    return f"{mask.dtype} {mask.shape}{values}"


def _box(struct: Any, where: str) -> Box:
    corners = field(struct, "bbox", where)
    ends = [numbers(corners, name, f"{where}, bbox") for name in ("x1", "y1", "x2", "y2")]
    if any(end.shape != (1,) or not np.isfinite(end).all() for end in ends):
        raise DataFileError(f"{where}: expected numbers x1, y1, x2, y2 in bbox, got {[e.tolist() for e in ends]}.")
    x1, y1, x2, y2 = (float(end[0]) - 1 for end in ends)
    if x2 < x1 or y2 < y1:
        raise DataFileError(f"{where}: expected x1 <= x2 and y1 <= y2 in bbox, got {[e.tolist() for e in ends]}.")
    return x1, y1, x2, y2


def _keypoints(struct: Any, count: int, where: str) -> np.ndarray:
    parts = np.asarray(field(struct, "parts", where))
    if parts.shape not in ((3, count), (3,) * (count == 1)) or parts.dtype.kind not in "fiu":
        raise DataFileError(f"{where}: expected parts (3, {count}) of x, y, visible, got {parts.dtype} {parts.shape}.")
    keypoints = parts.reshape(3, count).T.astype(np.float64)
    visible = keypoints[:, 2] > 0
    if not np.isfinite(keypoints[visible]).all():
        raise DataFileError(f"{where}: expected finite places of the visible parts, got {keypoints[visible].tolist()}.")
    return np.where(visible[:, None], keypoints - (1, 1, 0), 0.0)


def read_poses(path: Path, advice: str) -> tuple[SfMPose, ...]:
    """The cameras of an ``sfm`` file, in the order of its objects.

    Raises:
        DataFileError: missing, damaged, or a matrix that is no rotation, or a scale that is not positive.
    """
    return tuple(
        _pose(struct, f"{path}, object {number}")
        for number, struct in enumerate(np.atleast_1d(load_variable(path, "sfm_anno", advice)))
    )


def _pose(struct: Any, where: str) -> SfMPose:
    rotation, scale, shift = (numbers(struct, name, where) for name in ("rot", "scale", "trans"))
    if rotation.shape != (9,) or scale.shape != (1,) or shift.shape != (2,):
        raise DataFileError(
            f"{where}: expected rot (3, 3), scale and trans (2), got {len(rotation)}, {len(scale)} and {len(shift)} "
            "numbers."
        )
    matrix = rotation.reshape(3, 3)
    proper = np.allclose(matrix @ matrix.T, np.eye(3), atol=_ROUNDING) and np.linalg.det(matrix) > 0
    if not proper or not (np.isfinite(scale).all() and scale[0] > 0 and np.isfinite(shift).all()):
        raise DataFileError(
            f"{where}: expected a proper rotation, a positive scale and a finite trans, got {matrix.tolist()}, "
            f"{scale[0]} and {shift.tolist()}."
        )
    return SfMPose(matrix, float(scale[0]), shift)


def read_mean_shape(path: Path, n_keypoints: int, advice: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean key points (K, 3) in CMR's frame, and triangles (T, 3) between them, counting from 0.

    The triangles are the sides of a Delaunay tetrahedralisation, inner ones too.

    Raises:
        DataFileError: missing, damaged, or of other shapes.
    """
    shape = np.asarray(load_variable(path, "S", advice))
    triangles = np.asarray(load_variable(path, "conv_tri", advice))
    if shape.shape != (3, n_keypoints) or shape.dtype.kind != "f" or not np.isfinite(shape).all():
        raise DataFileError(f"{path}: expected S (3, {n_keypoints}), got {shape.dtype} {shape.shape}. {advice}")
    triangles = np.atleast_2d(triangles)
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "uif":
        raise DataFileError(f"{path}: expected conv_tri (T, 3), got {triangles.dtype} {triangles.shape}. {advice}")
    if triangles.min() < 1 or triangles.max() > n_keypoints:
        raise DataFileError(
            f"{path}: conv_tri counts from 1 to {n_keypoints}, got {triangles.min()} to {triangles.max()}. {advice}"
        )
    return shape.T.astype(np.float64), triangles.astype(np.int64) - 1
