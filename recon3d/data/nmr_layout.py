"""The NMR layout on disk: names, files, shapes. Written by `building`, read by `shapenet`, `checking`.

One folder holds, per class and split (train, val, test), all indexed by object in the same order::

    dataset.json                 ours, optional: see `description.Description`
    <class>_<split>_images.npz   arr_0 uint8 (N,V,4,S,S), RGBA, channels first, straight alpha
    <class>_<split>_voxels.npz   arr_0 bool (N,32,32,32), index [y,x,z] of the object frame
    <class>_<split>_points.npz   points float32 (N,P,3), normals float16 (N,P,3), object frame (ours, optional)
    <class>_<split>_ids.txt      N lines (ours, optional; the official files carry no ids)

<class> is a synset id (the official files) or a category name (ours). V = 24 or 120, `geometry.cameras.nmr_cameras(V)`.
Layout of Kato et al., "Neural 3D Mesh Renderer", CVPR 2018 (released with its reconstruction code).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recon3d.data.npz import ArrayFile, DataFileError, locate_array, write_npz
from recon3d.files import write_whole

SYNSETS = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "loudspeaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "vessel",
}
CATEGORIES = tuple(SYNSETS.values())
# Other names of the same classes in the papers' tables and in ShapeNet's taxonomy.
ALIASES = {
    "plane": "airplane",
    "aeroplane": "airplane",
    "dresser": "cabinet",
    "monitor": "display",
    "speaker": "loudspeaker",
    "couch": "sofa",
    "phone": "telephone",
    "cellphone": "telephone",
    "watercraft": "vessel",
    "boat": "vessel",
    "ship": "vessel",
}
SPLITS = ("train", "val", "test")
VOXEL_RESOLUTION = 32
WHERE_FROM = (
    "The official files are in mesh_reconstruction_dataset.zip (folder mesh_reconstruction/), linked from the "
    "download script of github.com/hiroharu-kato/mesh_reconstruction; they derive from ShapeNet, whose licence you "
    "have to accept at shapenet.org. `recon3d data render SRC --out DIR` makes the same layout from your own meshes."
)

_FILE = re.compile(r"(?P<name>.+)_(?P<split>train|val|test)_(?P<kind>images|voxels|points|masks|ids)\.(?:npz|txt)")


def canonical_category(name: str) -> str:
    """Our name of a class given by synset id, alias or name; a name outside the 13 classes is kept, in lower case.

    >>> canonical_category("02933112"), canonical_category("Dresser"), canonical_category("mug")
    ('cabinet', 'cabinet', 'mug')
    """
    lower = name.strip().lower()
    return SYNSETS.get(lower) or ALIASES.get(lower, lower)


def in_table_order(categories: set[str]) -> tuple[str, ...]:
    """Categories, the 13 of ShapeNet first, in the papers' order."""
    return (*(name for name in CATEGORIES if name in categories), *sorted(categories.difference(CATEGORIES)))


@dataclass(frozen=True)
class SplitFiles:
    """The files of one category and split; None for those that are not there."""

    category: str
    split: str
    images: Path | None = None
    voxels: Path | None = None
    points: Path | None = None
    ids: Path | None = None


@dataclass(frozen=True)
class SplitArrays:
    """The arrays of one category and split, on disk, with agreeing shapes, and the names of its objects."""

    category: str
    split: str
    ids: tuple[str, ...]
    images: ArrayFile
    voxels: ArrayFile
    points: ArrayFile | None
    normals: ArrayFile | None

    def __len__(self) -> int:
        return len(self.ids)


class SplitTable:
    """What a folder holds, by category and split, whatever its layout."""

    splits: Mapping[tuple[str, str], object]

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories present, the 13 of ShapeNet first, in the papers' order."""
        return in_table_order({category for category, _ in self.splits})

    def describe(self) -> str:
        """One line: the splits there are, category by category."""
        have = {name: [s for s in SPLITS if (name, s) in self.splits] for name in self.categories}
        return "; ".join(f"{name}: {', '.join(splits)}" for name, splits in have.items()) or "nothing"


@dataclass(frozen=True)
class Inventory(SplitTable):
    """What a folder in the NMR layout holds. `unknown`: .npz files whose name does not fit the layout."""

    root: Path
    splits: dict[tuple[str, str], SplitFiles]
    unknown: tuple[Path, ...]


def scan(root: Path) -> Inventory:
    """List the files of a folder by category and split, without opening them.

    Raises:
        DataFileError: no such folder, no file of the layout in it, or two files for the same category, split and kind
            (such as ``car_train_images.npz`` beside ``02958343_train_images.npz``).
    """
    if not root.is_dir():
        raise DataFileError(f"{root}: no such folder. Expected a data set in the NMR layout. {WHERE_FROM}")
    found: dict[tuple[str, str], SplitFiles] = {}
    unknown = []
    for path in sorted(root.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None:
            if path.suffix == ".npz" and not path.name.startswith("."):
                unknown.append(path)
            continue
        if match["kind"] == "masks":  # by-product of the official generator: the same as the images' alpha
            continue
        key = (canonical_category(match["name"]), match["split"])
        files = found.get(key, SplitFiles(*key))
        if other := getattr(files, match["kind"]):
            raise DataFileError(f"{root}: {other.name} and {path.name} are the same category and split. Remove one.")
        kind: dict[str, Any] = {match["kind"]: path}
        found[key] = replace(files, **kind)
    if not found:
        raise DataFileError(f"{root}: no <class>_<split>_images.npz here. {WHERE_FROM}")
    return Inventory(root, found, tuple(unknown))


def open_split(files: SplitFiles, unpack: bool = True) -> SplitArrays:
    """Locate the arrays of one category and split and check their shapes and types against the layout.

    Args:
        files: from `scan`.
        unpack: False leaves compressed arrays packed and only reads headers; see `npz.locate_array`.

    Raises:
        DataFileError: a missing or damaged file, a wrong shape or type, or counts that differ between the files.
    """
    key = f"{files.category}_{files.split}"
    if files.images is None or files.voxels is None:
        missing = [f"{key}_{kind}.npz" for kind in ("images", "voxels") if getattr(files, kind) is None]
        raise DataFileError(f"{' and '.join(missing)} not found (by name or synset id). {WHERE_FROM}")
    images = locate_array(files.images, unpack=unpack)
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 5 or shape[2] != 4 or shape[3] != shape[4]:
        raise DataFileError(f"{files.images}: expected uint8 (N,V,4,S,S), got {images.dtype} {shape}.")
    voxels = locate_array(files.voxels, unpack=unpack)
    expected = (shape[0], *(VOXEL_RESOLUTION,) * 3)
    if voxels.dtype != np.bool_ or voxels.shape != expected:
        raise DataFileError(
            f"{files.voxels}: expected bool {expected} ({shape[0]} objects as in {files.images.name}), "
            f"got {voxels.dtype} {voxels.shape}."
        )
    points = normals = None
    if files.points is not None:
        points, normals = (locate_array(files.points, name, unpack=unpack) for name in ("points", "normals"))
        for name, array in (("points", points), ("normals", normals)):
            if array.dtype.kind != "f" or array.shape != (shape[0], *points.shape[1:2], 3):
                raise DataFileError(
                    f"{files.points}: expected {name} of floats ({shape[0]}, P, 3), got {array.dtype} {array.shape}."
                )
    ids = tuple(f"{i:04d}" for i in range(shape[0]))
    if files.ids is not None:
        ids = tuple(files.ids.read_text(encoding="utf-8").split())
        if len(ids) != shape[0] or len(set(ids)) != len(ids):
            raise DataFileError(
                f"{files.ids}: expected {shape[0]} different ids, one a line, got {len(ids)}, "
                f"{len(set(ids))} of them different."
            )
    return SplitArrays(files.category, files.split, ids, images, voxels, points, normals)


def write_split(
    root: Path,
    category: str,
    split: str,
    ids: Sequence[str],
    images: Iterable[np.ndarray],
    voxels: Iterable[np.ndarray],
    points: Iterable[np.ndarray] | None = None,
    normals: Iterable[np.ndarray] | None = None,
) -> None:
    """Write one category and split, object by object, so that it never lies in memory as a whole.

    The files are written one after the other, images last: a split whose images are there is complete. The same objects
    give the same bytes.

    Args:
        root: folder of the data set.
        category: name, alias or synset id; the files bear the canonical name.
        split: train, val or test.
        ids: names of the N objects, without white space.
        images: N times uint8 (V,4,S,S); an array or memory map (N,V,4,S,S) will do, as for the others.
        voxels: N times bool (32,32,32).
        points: N times (P,3), stored as float32.
        normals: N times (P,3), stored as float16; given together with `points`.

    Raises:
        ValueError: an unknown split, ids that repeat or hold white space, items of a wrong type, shape or number.
    """
    if split not in SPLITS:
        raise ValueError(f"write_split: expected a split of {SPLITS}, got {split!r}.")
    if len(set(ids)) != len(ids) or any(not name or name.split() != [name] for name in ids):
        raise ValueError(f"write_split: {category} {split}: expected different ids without white space.")
    if (points is None) != (normals is None):
        raise ValueError("write_split: points and normals go together; got one of them.")
    stem, count = f"{canonical_category(category)}_{split}", len(ids)
    if points is not None and normals is not None:
        members = {"points": _typed(points, np.float32, "(P,3)"), "normals": _typed(normals, np.float16, "(P,3)")}
        write_npz(root / f"{stem}_points.npz", count, members)
    write_npz(root / f"{stem}_voxels.npz", count, {"arr_0": _exact(voxels, np.bool_, "(32,32,32)")})
    write_whole(root / f"{stem}_ids.txt", "".join(f"{name}\n" for name in ids).encode())
    write_npz(root / f"{stem}_images.npz", count, {"arr_0": _exact(images, np.uint8, "(V,4,S,S)")})


def _typed(items: Iterable[np.ndarray], dtype: type[np.generic], shape: str) -> Iterable[np.ndarray]:
    return _exact((np.asarray(item).astype(dtype) for item in items), dtype, shape)


def _exact(items: Iterable[np.ndarray], dtype: type[np.generic], shape: str) -> Iterable[np.ndarray]:
    """Pass items through, checked; `shape` is a pattern whose capital letters stand for any size, equal if repeated."""
    pattern = shape.strip("()").split(",")
    for item in items:
        sizes = dict(zip(pattern, item.shape, strict=False))
        fits = len(pattern) == item.ndim and all(
            str(size) == token if token.isdigit() else size == sizes[token]
            for token, size in zip(pattern, item.shape, strict=True)
        )
        if not fits or item.dtype != dtype:
            raise ValueError(f"write_split: expected {np.dtype(dtype)} {shape}, got {item.dtype} {item.shape}.")
        yield item
