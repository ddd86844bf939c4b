"""The data doctor for one's own pictures: are masks sound, splits apart, and do the cameras agree with what is seen?

Behind `checking`, for the layout of `folder_layout`. Cameras are tried on whole pictures, wherever the object lies in
their world: by the true mesh where there is one, else by the visual hull of the masks. Where the usual mistakes fit
better than what is stated, they are named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.table import Table
from scipy import ndimage

from recon3d.data.alignment import CAPTION, TILE
from recon3d.data.camera_checks import CameraFindings, check_cameras
from recon3d.data.folder_layout import (
    LISTED,
    FolderObject,
    FolderView,
    ImageFolder,
    file_digests,
    scan,
    some,
)
from recon3d.data.folder_preparation import read_true_mesh, read_view
from recon3d.data.npz import DataFileError
from recon3d.data.picture_files import OPAQUE, cut_square

FOLDER_LEGEND = (
    "yellow: mask; green: the true mesh, or what all masks allow, as the camera sees it: it has to fill the mask"
)
MASK_OUTLINE = (255, 255, 0)
PICTURES = 8  # of each category on the contact sheet
LEAST_PIXELS = 32  # of the mask's longer side: less than what small networks see


@dataclass
class FolderSplit:
    """What one category and split holds.

    Attributes:
        category: of the objects.
        split: train, val or test.
        objects: their number.
        images: their number.
        sizes: widths and heights of the smallest and the largest picture, by their area.
        foreground: mean fraction of the pictures that the masks cover.
        overlap: mean IoU of the masks with the silhouettes of their visual hull; None without cameras.
        covered: fraction of the masks that the projected true meshes cover; None without meshes or cameras.
    """

    category: str
    split: str
    objects: int
    images: int
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    foreground: float | None = None
    overlap: float | None = None
    covered: float | None = None


@dataclass
class FolderFindings:
    """What a folder holds, and what is wrong with it; `rows` are those of the contact sheet."""

    splits: list[FolderSplit] = field(default_factory=list)
    rows: list[list[Image.Image]] = field(default_factory=list)
    hash: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """One image: its size, how much of it the mask covers, and whether that touches the border; or why it is unread."""

    size: tuple[int, int] = (0, 0)
    foreground: float = 0.0
    extent: int = 0
    touches: bool = False
    problem: str | None = None


def check_image_folder(root: Path) -> FolderFindings:
    """Examine a folder of pictures: every picture and mask is read once, those with cameras on trial once more.

    Raises:
        DataFileError: the folder is not in the layout; see `folder_layout.scan`.
    """
    folder = scan(root)
    found = FolderFindings()
    digests = file_digests(folder)
    found.hash = folder.data_hash(digests)
    _check_duplicates(folder, digests, found)
    views = [view for item in folder.objects for view in item.views]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = dict(zip((view.name for view in views), pool.map(_look, views), strict=True))
    _check_masks(seen, found)
    _check_meshes(folder, found)
    for (category, split), objects in sorted(folder.splits.items(), key=lambda item: item[0]):
        sound = [item for item in objects if all(seen[view.name].problem is None for view in item.views)]
        report = FolderSplit(category, split, len(objects), sum(len(item.views) for item in objects))
        known = [seen[view.name] for item in sound for view in item.views]
        if known:
            sizes = sorted((one.size for one in known), key=lambda size: size[0] * size[1])
            report.sizes = sizes[0], sizes[-1]
            report.foreground = float(np.mean([one.foreground for one in known]))
        found.splits.append(report)
    cameras: CameraFindings | None = None
    if folder.cameras is not None:
        sound_views = {name for name, one in seen.items() if one.problem is None}
        cameras = check_cameras(folder, sound_views)
        found.problems += cameras.problems
        found.warnings += cameras.warnings
        for report in found.splits:
            report.overlap = cameras.overlap.get((report.category, report.split))
            report.covered = cameras.covered.get((report.category, report.split))
    for category in folder.categories:
        row = (
            cameras.rows.get(category, [])
            if cameras is not None
            else _pictures([item for item in folder.objects if item.category == category], seen)
        )
        if row:
            found.rows.append(row)
    return found


def _look(view: FolderView) -> _Seen:
    try:
        picture, mask = read_view(view)
    except DataFileError as error:
        return _Seen(problem=str(error))
    inside = np.asarray(mask) >= OPAQUE
    if inside.all():
        return _Seen(problem=f"{view.mask or view.image}: the mask covers the whole picture.")
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    border = inside[0].any() or inside[-1].any() or inside[:, 0].any() or inside[:, -1].any()
    extent = int(max(columns[-1] - columns[0], rows[-1] - rows[0])) + 1
    return _Seen(picture.size, float(inside.mean()), extent, bool(border))


def _check_masks(seen: dict[str, _Seen], found: FolderFindings) -> None:
    problems = [one.problem for one in seen.values() if one.problem is not None]
    found.problems += problems[:LISTED]
    if len(problems) > LISTED:
        found.problems.append(f"{len(problems) - LISTED} more pictures with problems.")
    sound = {name: one for name, one in seen.items() if one.problem is None}
    if cut := [name for name, one in sound.items() if one.touches]:
        found.warnings.append(
            f"{len(cut)} of {len(seen)} masks touch the border, so a part of the object may be missing: {some(cut)}."
        )
    if small := [name for name, one in sound.items() if one.extent < LEAST_PIXELS]:
        found.warnings.append(f"{len(small)} objects are smaller than {LEAST_PIXELS} pixels: {some(small)}.")


def _check_duplicates(folder: ImageFolder, digests: dict[Path, str], found: FolderFindings) -> None:
    where: dict[str, list[tuple[str, str]]] = {}
    for (_, split), objects in folder.splits.items():
        for item in objects:
            for view in item.views:
                where.setdefault(digests[view.image], []).append((split, view.name))
    for places in where.values():
        if len(places) == 1:
            continue
        names = some([name for _, name in places])
        if len({split for split, _ in places}) > 1:
            found.problems.append(
                f"The same picture is in {' and '.join(sorted({split for split, _ in places}))}: {names}. What is "
                "tested on must not be trained on."
            )
        else:
            found.warnings.append(f"The same picture comes {len(places)} times: {names}.")


def _check_meshes(folder: ImageFolder, found: FolderFindings) -> None:
    for item in folder.objects:
        if item.mesh is not None:
            try:
                read_true_mesh(item.mesh)
            except DataFileError as error:
                found.problems.append(str(error))


def _pictures(objects: Sequence[FolderObject], seen: dict[str, _Seen]) -> list[Image.Image]:
    """A row of the contact sheet: photographs with the outline of their masks."""
    views = [view for item in objects for view in item.views if seen[view.name].problem is None]
    chosen = [views[i] for i in sorted({index * len(views) // PICTURES for index in range(PICTURES)})] if views else []
    return [_tile(view) for view in chosen]


def _tile(view: FolderView) -> Image.Image:
    rgba, mask = read_view(view)
    side = max(rgba.size)
    square = ((rgba.width - side) / 2, (rgba.height - side) / 2, side, TILE)
    pixels = np.array(cut_square(rgba, *square).convert("RGB"))
    rgba.putalpha(mask)
    inside = np.array(cut_square(rgba, *square).getchannel("A")) >= OPAQUE
    pixels[inside & ~ndimage.binary_erosion(inside)] = MASK_OUTLINE
    picture = Image.new("RGB", (TILE, TILE + CAPTION))
    picture.paste(Image.fromarray(pixels))
    ImageDraw.Draw(picture).text((1, TILE + 1), view.name[-20:], fill=(255, 255, 255), font_size=10)
    return picture


def folder_table(splits: Sequence[FolderSplit], name: str) -> Table:
    """The reports as a table for the terminal."""
    table = Table(
        title=f"{name}: {sum(one.objects for one in splits)} objects, {sum(one.images for one in splits)} images"
    )
    columns = ("category", "split", "objects", "images", "size", "mask %", "overlap %", "fit %")
    for column in columns:
        table.add_column(column, justify="left" if column in ("category", "split") else "right")
    for one in splits:
        sizes = dict.fromkeys(f"{width}x{height}" for width, height in one.sizes or ())
        shares = (one.foreground, one.overlap, one.covered)
        table.add_row(
            *(one.category, one.split, str(one.objects), str(one.images), " to ".join(sizes) or "-"),
            *("-" if value is None else f"{100 * value:.1f}" for value in shares),
        )
    table.caption = (
        "overlap: of the masks with what the masks of all views leave of an object; fit: masks covered by the true mesh"
    )
    return table
