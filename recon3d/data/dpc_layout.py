"""The DPC layout on disk: names, files, values. Written by `building`, read by `shapenet_points`, `checking`.

ShapeNet as Insafutdinov and Dosovitskiy rendered it for "Unsupervised Learning of Shape and Pose with Differentiable
Point Clouds" (DPC, NeurIPS 2018), as the scripts of their code unpack it::

    dataset.json                            ours, optional: see `description.Description`
    splits/<class>_<split>.txt              ids, one a line; or all three splits in splits/<class>.file
    renders/<class>/<id>/render_<i>.png     RGBA, straight alpha
    renders/<class>/<id>/camera_<i>.mat     pos (3) and extrinsic (4x4), see `geometry.cameras.dpc_cameras`
    renders/<class>/<id>/depth_<i>.png      uint16, 0 to 65535 for z of 0 to 10; not read by us
    renders/<class>/<id>/voxels.npz         voxels bool (32,32,32), [y,x,z] of the object frame (ours, optional)
    gt/downsampled/<class>/<id>.mat         points (M,3), frame of the .obj file, M differs; or gt/<class>/<id>.mat

<class> is a synset id (the official files, and ours for the 13 classes) or a category name; i may have leading zeros.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from PIL import Image, UnidentifiedImageError
from scipy.io.matlab import MatReadError

from recon3d.data.nmr_layout import VOXEL_RESOLUTION, SplitTable, canonical_category
from recon3d.data.npz import DataFileError, reading
from recon3d.data.split_lists import WHERE_FROM, class_folder, read_splits
from recon3d.files import write_whole
from recon3d.geometry.cameras import dpc_cameras, dpc_extrinsics, object_to_shapenet, shapenet_to_object

VIEWS = 5
FAR = 10.0  # the depth that is 65535, and that of the background
_FILE = re.compile(r"(?P<kind>render|camera)_0*(?P<view>\d+)\.(?:png|mat)")
VOXELS_FILE = "voxels.npz"
_CLOUDS = ("gt/downsampled", "gt")


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of one object are; `cloud` is None where it has none."""

    category: str
    id: str
    folder: Path
    cloud: Path | None


@dataclass(frozen=True)
class Catalogue(SplitTable):
    """What a folder in the DPC layout holds: the objects of each category and split, in the order of the lists."""

    root: Path
    splits: dict[tuple[str, str], tuple[ModelFiles, ...]]


def is_dpc_layout(root: Path) -> bool:
    """Whether a folder is meant to be in this layout."""
    return (root / "renders").is_dir()


def scan(root: Path) -> Catalogue:
    """List the objects of a folder by category and split, without opening their files.

    Raises:
        DataFileError: no such folder, no renders in it, bad split lists (`split_lists.read_splits`), or ids on a list
            without a folder.
    """
    if not is_dpc_layout(root):
        raise DataFileError(
            f"{root}: expected a data set in the DPC layout, there is no {root / 'renders'}. {WHERE_FROM}"
        )
    clouds = next((root / name for name in _CLOUDS if (root / name).is_dir()), root / _CLOUDS[0])
    splits: dict[tuple[str, str], tuple[ModelFiles, ...]] = {}
    for folder in sorted(path for path in (root / "renders").iterdir() if path.is_dir()):
        category = canonical_category(folder.name)
        lists = read_splits(root, (folder.name, class_folder(category), category))
        if any(key[0] == category for key in splits):
            raise DataFileError(f"{root / 'renders'}: two folders are the category {category}. Remove one.")
        present = {entry.name for entry in os.scandir(folder)}
        with_cloud = (
            {entry.name for entry in os.scandir(clouds / folder.name)} if (clouds / folder.name).is_dir() else ()
        )
        for split, ids in lists.items():
            if absent := [name for name in ids if name not in present]:
                raise DataFileError(
                    f"{folder}: {len(absent)} of the {len(ids)} models on the {split} list are not there: "
                    f"{', '.join(absent[:3])}{', ...' * (len(absent) > 3)}. Unpack the whole archive, or take them off "
                    f"the list in {root / 'splits'}."
                )
            splits[category, split] = tuple(
                ModelFiles(
                    category,
                    name,
                    folder / name,
                    clouds / folder.name / f"{name}.mat" if f"{name}.mat" in with_cloud else None,
                )
                for name in ids
            )
    if not splits:
        raise DataFileError(f"{root / 'renders'}: no <class>/<id> folders here. {WHERE_FROM}")
    return Catalogue(root, splits)


def view_files(folder: Path, n_views: int) -> list[tuple[Path, Path]]:
    """Image and camera of views 0 to `n_views` - 1 of an object.

    Raises:
        DataFileError: one is missing.
    """
    found: dict[tuple[str, int], Path] = {}
    for entry in sorted(folder.iterdir()):
        if match := _FILE.fullmatch(entry.name):
            found[match["kind"], int(match["view"])] = entry
    for view in range(n_views):
        for kind, suffix in (("render", "png"), ("camera", "mat")):
            if (kind, view) not in found:
                raise DataFileError(
                    f"{folder}: {kind}_{view}.{suffix} is missing, expected {n_views} views of each model. Unpack the "
                    "archive again, or take the model off its split list."
                )
    return [(found["render", view], found["camera", view]) for view in range(n_views)]


def count_views(folder: Path) -> int:
    """Images of an object."""
    return sum(
        match is not None and match["kind"] == "render" for match in (_FILE.fullmatch(p.name) for p in folder.iterdir())
    )


def read_image(path: Path) -> np.ndarray:
    """RGBA of one view, uint8 (4,S,S), straight alpha.

    Raises:
        DataFileError: not a readable square PNG with alpha.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataFileError(f"{path}: not readable as an image ({error}). Unpack or render it again.") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.shape[0] != pixels.shape[1]:
        raise DataFileError(f"{path}: expected RGBA of 8 bits, (S,S,4), got {pixels.dtype} {pixels.shape}.")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_position(path: Path) -> np.ndarray:
    """Position (3) float32 of a camera in Blender's world, see `geometry.cameras.dpc_cameras`."""
    position = _read_array(path, "pos").reshape(-1)
    if position.shape != (3,) or not np.isfinite(position).all() or not position.any():
        raise DataFileError(f"{path}: expected pos to be 3 finite numbers, not all 0, got {position.tolist()}.")
    return position.astype(np.float32)


def read_cloud(path: Path) -> np.ndarray:
    """Ground truth (M,3) float32 in the object frame."""
    points = _read_array(path, "points")
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise DataFileError(f"{path}: expected finite points (M,3), got {points.dtype} {points.shape}.")
    return shapenet_to_object(torch.from_numpy(points.astype(np.float32))).numpy()


def read_voxels(folder: Path) -> np.ndarray | None:
    """Solid voxels (32,32,32) bool of an object, or None where its folder has none."""
    path = folder / VOXELS_FILE
    if not path.is_file():
        return None
    with reading(path, "an array 'voxels'", " Render it again."), np.load(path) as arrays:
        voxels: np.ndarray = arrays["voxels"]
    if voxels.dtype != np.bool_ or voxels.shape != (VOXEL_RESOLUTION,) * 3:
        raise DataFileError(f"{path}: expected bool (32,32,32), got {voxels.dtype} {voxels.shape}.")
    return voxels


def _read_array(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise DataFileError(f"{path}: no such file. Unpack or render it again.")
    try:
        content: dict[str, Any] = scipy.io.loadmat(path, variable_names=[key])
    # loadmat reports a damaged file as whatever it stumbled on.
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise DataFileError(f"{path}: not readable as a .mat file ({error}). Unpack or render it again.") from error
    if key not in content or content[key].dtype.kind not in "fiu":
        keys = [name for name, *_ in scipy.io.whosmat(path)]
        raise DataFileError(f"{path}: expected an array of numbers {key!r}, the file holds {keys}.")
    array: np.ndarray = content[key]
    return array


def write_model(
    root: Path,
    category: str,
    name: str,
    images: np.ndarray,
    positions: np.ndarray,
    depths: np.ndarray,
    points: np.ndarray,
    voxels: np.ndarray,
) -> None:
    """Write one object; its cloud and its folder appear when each is complete. The same object gives the same bytes.

    Args:
        root: folder of the data set.
        category: canonical name.
        name: id of the object.
        images: uint8 (V,4,S,S), RGBA, straight alpha.
        positions: (V,3) of the cameras in Blender's world.
        depths: (V,S,S) along the viewing axis; the background is anything from `FAR` up.
        points: (M,3) in the object frame.
        voxels: bool (32,32,32), index [y,x,z] of the object frame.
    """
    cloud = root / _CLOUDS[0] / class_folder(category) / f"{name}.mat"
    cloud.parent.mkdir(parents=True, exist_ok=True)
    _write_mat(cloud, {"points": object_to_shapenet(torch.from_numpy(points)).double().numpy()})
    folder = root / "renders" / class_folder(category) / name
    temporary = folder.with_name(f".{name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    extrinsics = dpc_extrinsics(dpc_cameras(torch.from_numpy(positions).double())).numpy()
    for view, (rgba, depth) in enumerate(zip(images, depths, strict=True)):
        Image.fromarray(rgba.transpose(1, 2, 0)).save(temporary / f"render_{view}.png")
        scaled = (depth.clip(0, FAR) * (65535 / FAR)).round().astype(np.uint16)
        Image.fromarray(scaled).save(temporary / f"depth_{view}.png")
        camera = {"extrinsic": extrinsics[view], "pos": positions[view].astype(np.float64)}
        _write_mat(temporary / f"camera_{view}.mat", camera)
    np.savez_compressed(temporary / VOXELS_FILE, voxels=voxels)
    temporary.replace(folder)


def _write_mat(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    scipy.io.savemat(content, dict(arrays), oned_as="row")  # type: ignore[arg-type]
    content.getbuffer()[:116] = b"MATLAB 5.0 MAT-file".ljust(116)  # instead of a text with the date
    write_whole(path, content.getvalue())


def fingerprint(catalogue: Catalogue) -> str:
    """Hash of a whole data set (16 hex digits): its ids, and the names and sizes of their files. No file is opened."""
    digest = hashlib.sha256()
    for (category, split), models in sorted(catalogue.splits.items()):
        for model in models:
            sizes = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(model.folder))
            cloud = None if model.cloud is None else model.cloud.stat().st_size
            digest.update(repr((category, split, model.id, sizes, cloud)).encode())
    return digest.hexdigest()[:16]
