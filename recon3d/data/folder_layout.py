"""A folder of one's own pictures: which objects, views, masks, cameras and shapes are in it, and how they are split.

Read by `image_folder` and `folder_checks`. The layout::

    images/<category>/<object>/<view>.jpg    several views of an object
    images/<category>/<object>.jpg           or one; all images lie at the same depth
    images/<object>.jpg                      or one, in one category, ``object``
    masks/<the same path>.png                object white; without this folder, the images' alpha channels
    cameras.csv                              optional, see `camera_table`
    splits.csv                               optional: id, split; id is <category>/<object>, or <object>
    meshes/<category>/<object>.obj           optional ground truth in the object frame; or .glb, .ply, .off

Without splits.csv every category is divided by the order of the SHA-256 of its objects' names: a tenth, and at least
one object, is for test, as many for val, the others to train. Views of one object are never in two splits.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from recon3d.data.camera_table import CAMERA_FILE, CameraTable, read_cameras
from recon3d.data.nmr_layout import SPLITS, SplitTable, canonical_category
from recon3d.data.npz import DataFileError

IMAGES, MASKS, MESHES, SPLIT_FILE = "images", "masks", "meshes", "splits.csv"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
MESH_SUFFIXES = (".obj", ".glb", ".ply", ".off")
ONE_CATEGORY = "object"
HOLD_OUT = 10  # of the objects of a category one in so many is for test, and as many for val
LISTED = 10  # names in one message
GUIDE = "docs/data/own_photographs.md says what lies where."


@dataclass(frozen=True)
class FolderView:
    """One image of an object: its path below ``images/``, its file, and that of its mask, None for its alpha."""

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class FolderObject:
    """One object: its views in the order of their names, and the file of its true shape."""

    category: str
    id: str
    views: tuple[FolderView, ...]
    mesh: Path | None

    @property
    def name(self) -> str:
        """Unique in the folder."""
        return f"{self.category}/{self.id}"


@dataclass(frozen=True)
class ImageFolder(SplitTable):
    """What is in a folder."""

    root: Path
    splits: dict[tuple[str, str], tuple[FolderObject, ...]]
    cameras: CameraTable | None

    @property
    def objects(self) -> tuple[FolderObject, ...]:
        """All of them, split by split."""
        return tuple(item for objects in self.splits.values() for item in objects)

    def data_hash(self, digests: dict[Path, str]) -> str:
        """Hash of the content (16 hex digits): names, splits, cameras, and the bytes of all pictures and shapes.

        Args:
            digests: of the files, see `file_digests`.
        """
        total = hashlib.sha256()
        for (category, split), objects in sorted(self.splits.items()):
            for item in sorted(objects, key=lambda one: one.id):
                views = [
                    (
                        view.name,
                        digests[view.image],
                        view.mask and digests[view.mask],
                        self.cameras and (self.cameras.convention, sorted(self.cameras.rows[view.name].items())),
                    )
                    for view in item.views
                ]
                total.update(repr((category, split, item.id, views, item.mesh and digests[item.mesh])).encode())
        return total.hexdigest()[:16]


def is_image_folder(root: Path) -> bool:
    """Whether a folder is meant to be in this layout."""
    return (root / IMAGES).is_dir()


def scan(root: Path) -> ImageFolder:
    """List the objects of a folder by category and split; of the pictures, no more is read than their headers.

    Raises:
        DataFileError: what is missing, in excess, or not of the layout, with its names.
    """
    if not is_image_folder(root):
        raise DataFileError(f"{root}: expected a folder of pictures, there is no {root / IMAGES}. {GUIDE}")
    paths = _images(root / IMAGES)
    masks = _masks(root, paths)
    meshes = _meshes(root)
    grouped: dict[tuple[str, str], list[FolderView]] = {}
    for relative, path in paths.items():
        parts = Path(relative).with_suffix("").parts
        category = canonical_category(parts[0]) if len(parts) > 1 else ONE_CATEGORY
        item = parts[0] if len(parts) == 1 else parts[1]
        grouped.setdefault((category, item), []).append(FolderView(relative, path, masks[relative]))
    if meshes is not None:
        _same(f"{root / MESHES}", "a mesh", "objects", map("/".join, grouped), meshes)
    objects = [
        FolderObject(*key, tuple(views), None if meshes is None else meshes["/".join(key)])
        for key, views in grouped.items()
    ]
    cameras = read_cameras(root / CAMERA_FILE) if (root / CAMERA_FILE).is_file() else None
    if cameras is not None:
        _same(str(cameras.path), "a camera", "images", paths, cameras.rows)
    return ImageFolder(root, _split(root, objects), cameras)


def _images(folder: Path) -> dict[str, Path]:
    """Image files by their path below `folder`, sorted."""
    found = _files(folder)
    wrong = [name for name in found if Path(name).suffix.lower() not in SUFFIXES]
    if wrong:
        raise DataFileError(
            f"{folder}: {len(wrong)} files that are not read: {some(wrong)}. Expected {', '.join(SUFFIXES)}: convert "
            "them (HEIC of phones, too), or take them out."
        )
    if not found:
        raise DataFileError(f"{folder}: no images in it. {GUIDE}")
    depths = {len(Path(name).parts): name for name in found}
    if len(depths) > 1 or max(depths) > 3:
        raise DataFileError(
            f"{folder}: expected all images as <category>/<object>/<view>, <category>/<object> or <object>, got "
            f"{', '.join(depths.values())}. {GUIDE}"
        )
    stems: dict[str, str] = {}
    for name in found:
        other = stems.setdefault(str(Path(name).with_suffix("")), name)
        if other != name:
            raise DataFileError(f"{folder}: {other} and {name} would have the same mask. Rename one.")
    return found


def _masks(root: Path, images: dict[str, Path]) -> dict[str, Path | None]:
    """The mask of each image; None where it is the image's own alpha channel."""
    folder = root / MASKS
    if folder.is_dir():
        there = {name: path for name, path in _files(folder).items() if Path(name).suffix.lower() == ".png"}
        wanted = {str(Path(name).with_suffix(".png").as_posix()): name for name in images}
        _same(str(folder), "a mask", "images", wanted, there)
        return {name: there[mask] for mask, name in wanted.items()}
    without = [name for name, path in images.items() if not _has_alpha(path)]
    if without:
        raise DataFileError(
            f"{root}: {len(without)} of {len(images)} images have no mask: {some(without)}. Save masks as "
            f"{folder / Path(without[0]).with_suffix('.png')}, or the images as PNG with an alpha channel. "
            "`recon3d predict --remove-background` finds masks, as other tools do."
        )
    return dict.fromkeys(images)


def _has_alpha(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.has_transparency_data
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataFileError(f"{path}: not readable as an image ({error}).") from error


def _meshes(root: Path) -> dict[str, Path] | None:
    """Meshes by <category>/<object>; None where there is no folder of them."""
    if not (root / MESHES).is_dir():
        return None
    found: dict[str, Path] = {}
    for name, path in _files(root / MESHES).items():
        if path.suffix.lower() not in MESH_SUFFIXES:
            continue  # materials and textures
        parts = Path(name).with_suffix("").parts
        if len(parts) > 2:
            raise DataFileError(f"{path}: expected {MESHES}/<category>/<object>.obj. {GUIDE}")
        key = f"{canonical_category(parts[0]) if len(parts) == 2 else ONE_CATEGORY}/{parts[-1]}"
        if key in found:
            raise DataFileError(f"{path}: {found[key].name} is a mesh of the same object. Remove one.")
        found[key] = path
    return found


def _split(root: Path, objects: Sequence[FolderObject]) -> dict[tuple[str, str], tuple[FolderObject, ...]]:
    path = root / SPLIT_FILE
    chosen = _read_splits(path, objects) if path.is_file() else _drawn_splits(root, objects)
    splits: dict[tuple[str, str], list[FolderObject]] = {}
    for item in objects:
        splits.setdefault((item.category, chosen[item.name]), []).append(item)
    return {key: tuple(value) for key, value in splits.items()}


def _drawn_splits(root: Path, objects: Sequence[FolderObject]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for category in sorted({item.category for item in objects}):
        names = [item.name for item in objects if item.category == category]
        if len(names) < len(SPLITS):
            raise DataFileError(
                f"{root}: {category} has {len(names)} object(s), too few to be split into {', '.join(SPLITS)}. Add "
                f"objects, or say in {root / SPLIT_FILE} (columns id, split) which is for what."
            )
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        each = max(1, round(len(names) / HOLD_OUT))
        chosen |= {name: ("test", "val", "train")[min(rank // each, 2)] for rank, name in enumerate(names)}
    return chosen


def _read_splits(path: Path, objects: Sequence[FolderObject]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not {"id", "split"} <= set(reader.fieldnames or ()):
            raise DataFileError(f"{path}: expected the columns id and split, got {reader.fieldnames}.")
        for line in reader:
            name, split = (line["id"] or "").strip(), (line["split"] or "").strip()
            category, _, item = name.rpartition("/")
            key = f"{canonical_category(category) if category else ONE_CATEGORY}/{item}"
            if split not in SPLITS:
                raise DataFileError(f"{path}, line {reader.line_num}: {split!r} is none of {', '.join(SPLITS)}.")
            if key in chosen:
                raise DataFileError(f"{path}, line {reader.line_num}: {name} has two rows.")
            chosen[key] = split
    _same(str(path), "a split", "objects", (item.name for item in objects), chosen)
    return chosen


def _same(where: str, what: str, of: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Raise a DataFileError that names those that have none, or that are not known."""
    wanted, there = dict.fromkeys(wanted), dict.fromkeys(there)
    missing = [name for name in wanted if name not in there]
    unknown = [name for name in there if name not in wanted]
    if missing:
        raise DataFileError(f"{where}: {len(missing)} of {len(wanted)} {of} have not {what}: {some(missing)}.")
    if unknown:
        raise DataFileError(
            f"{where}: {what} for {len(unknown)} unknown {of}: {some(unknown)}. Names are paths below "
            f"{IMAGES}/, with / between folders."
        )


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _files(folder: Path) -> dict[str, Path]:
    """Files below a folder by their path from it, sorted, without hidden ones."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not any(part.startswith(".") for part in Path(name).parts)}


def file_digests(folder: ImageFolder) -> dict[Path, str]:
    """SHA-256 of every picture, mask and mesh of a folder."""
    files = [
        path
        for item in folder.objects
        for path in (item.mesh, *(file for view in item.views for file in (view.image, view.mask)))
        if path is not None
    ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and reading both release the interpreter
        return dict(zip(files, pool.map(_digest, files), strict=True))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
