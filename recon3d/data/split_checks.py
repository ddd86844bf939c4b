"""One category and split under the data doctor's eyes: values, voxels, points, and the agreement with the cameras.

Used by `checking` for every split of a data set; `alignment` does the projecting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recon3d.data import alignment
from recon3d.data.alignment import FRAME_MISTAKES, VOXEL_MISTAKES, Fit, Mistake
from recon3d.data.nmr_layout import SplitArrays

OBJECTS_PROJECTED = 6  # of each category and split, evenly spaced
VIEWS_PROJECTED = 6  # of each of them
PICTURES = (3, 4)  # objects of each category and views of each on the contact sheet
# Right data measured at least 0.996 (60 open shapes, 10 categories); the rest is for generators that are not known.
MIN_FIT = 0.95
TOLERANCE = {"points": 1, "voxels": 2}  # pixels at 64x64; a voxel is 1.4 pixels wide
EDGE = 0.5 + 1e-3  # half the side of the cube that holds every object, and rounding
LISTED = 10  # names of samples in one line


@dataclass
class SplitReport:
    """What one category and split holds.

    Attributes:
        category: canonical name.
        split: train, val or test.
        objects: their number.
        n_views: views of each.
        image_size: pixels.
        n_points: of each object; 0 without points.
        foreground: mean fraction of the image that the masks cover.
        background: mean brightness outside the masks, 0 to 255.
        occupied: smallest, mean and largest number of occupied cells.
        fits: how well ``points`` and ``voxels`` cover the masks.
        problems: make the check fail.
        warnings: do not.
    """

    category: str
    split: str
    objects: int
    n_views: int
    image_size: int
    n_points: int
    foreground: float = 0.0
    background: float = 0.0
    occupied: tuple[int, float, int] = (0, 0.0, 0)
    fits: dict[str, Fit] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_split(arrays: SplitArrays) -> SplitReport:
    """Examine every value of one category and split, and project the ground truth of some of its objects."""
    count, n_views, _, size, _ = arrays.images.shape
    n_points = 0 if arrays.points is None else arrays.points.shape[1]
    report = SplitReport(arrays.category, arrays.split, count, n_views, size, n_points)
    where = f"{arrays.category} {arrays.split}"
    if count == 0:
        report.warnings.append(f"{where}: no objects.")
        return report
    _check_images(where, arrays, report)
    _check_voxels(where, arrays, report)
    if arrays.points is not None and arrays.normals is not None:
        _check_points(where, arrays.ids, arrays.points.open(), arrays.normals.open(), report)
    if n_views in (24, 120):
        _check_alignment(where, arrays, report)
    else:
        report.problems.append(f"{where}: expected 24 or 120 views, got {n_views}; their cameras are not known.")
    return report


def _check_images(where: str, arrays: SplitArrays, report: SplitReport) -> None:
    empty: list[str] = []
    foreground, background = [], []
    brightest = most_opaque = 0
    for name, rgba in zip(arrays.ids, arrays.images.open(), strict=True):
        inside = rgba[:, 3] > 0
        empty += [f"{arrays.category}/{name}/v{view:02d}" for view in np.flatnonzero(~inside.any(axis=(1, 2)))]
        foreground.append(inside.mean())
        outside = rgba[:, :3].max(axis=1)[~inside]
        background.append(outside.mean() if outside.size else 0.0)
        brightest, most_opaque = max(brightest, int(rgba[:, :3].max())), max(most_opaque, int(rgba[:, 3].max()))
    report.foreground, report.background = float(np.mean(foreground)), float(np.mean(background))
    if empty:
        report.warnings.append(f"{where}: {len(empty)} empty masks: {_some(empty)}.")
    if most_opaque < 255 or brightest <= 1:
        report.problems.append(
            f"{where}: expected colours and alpha of 0 to 255, the largest are {brightest} and {most_opaque}."
        )
    if full := [name for name, fraction in zip(arrays.ids, foreground, strict=True) if fraction == 1]:
        report.problems.append(f"{where}: no background in {_some(full)}; is channel 3 the alpha?")
    if report.background > 1:
        report.warnings.append(
            f"{where}: the background's mean brightness is {report.background:.0f} of 255, the convention is black. "
            "Methods that read RGB without the mask see it."
        )


def _check_voxels(where: str, arrays: SplitArrays, report: SplitReport) -> None:
    occupied = [int(grid.sum()) for grid in arrays.voxels.open()]
    report.occupied = (min(occupied), float(np.mean(occupied)), max(occupied))
    cells = int(np.prod(arrays.voxels.shape[1:]))
    if hollow := [name for name, number in zip(arrays.ids, occupied, strict=True) if number in (0, cells)]:
        report.problems.append(f"{where}: voxel grids that are empty or full: {_some(hollow)}.")


def _check_points(
    where: str, ids: tuple[str, ...], points: np.ndarray, normals: np.ndarray, report: SplitReport
) -> None:
    outside, bent = [], []
    for name, place, normal in zip(ids, points, normals, strict=True):
        if not bool((np.abs(place) <= EDGE).all()):  # not: NaN counts as outside
            outside.append(name)
        if not bool((np.abs(np.linalg.norm(normal.astype(np.float32), axis=1) - 1) < 1e-2).all()):
            bent.append(name)
    if outside:
        report.problems.append(f"{where}: points outside [-0.5, 0.5]^3 or not finite: {_some(outside)}.")
    if bent:
        report.problems.append(f"{where}: normals that are not of length 1: {_some(bent)}.")


def _check_alignment(where: str, arrays: SplitArrays, report: SplitReport) -> None:
    """Project the ground truth of some objects; wrong cameras and frames become problems."""
    size, n_views = arrays.images.shape[-1], arrays.images.shape[1]
    # From view 1: at views 0, 6, 12, 18 the camera lies in a plane of symmetry of many objects.
    views = (np.arange(VIEWS_PROJECTED) * n_views // VIEWS_PROJECTED + 1) % n_views
    fits: dict[str, list[Fit]] = {}
    gains: dict[str, dict[str, list[float]]] = {}
    for row in _spaced(len(arrays), OBJECTS_PROJECTED):
        masks = arrays.images.open()[row, views, 3]
        for kind, points in _shapes(arrays, row):
            if not len(points):
                continue
            tolerance = _tolerance(kind, size)
            stated = alignment.fit(masks, points, views, n_views, tolerance, Mistake())
            fits.setdefault(kind, []).append(stated)
            for name, mistake in (FRAME_MISTAKES | (VOXEL_MISTAKES if kind == "voxels" else {})).items():
                undone = alignment.fit(masks, points, views, n_views, tolerance, mistake)
                gains.setdefault(kind, {}).setdefault(name, []).append(undone.score - stated.score)
    report.fits = {kind: alignment.mean_fit(values) for kind, values in fits.items()}
    for kind, fit in report.fits.items():
        cause = alignment.diagnose(gains[kind])
        if cause is None and min(fit.inside, fit.covered) >= MIN_FIT:
            continue
        guess = f"It fits better if {cause}." if cause else "None of the usual mistakes explains it; check the scale."
        report.problems.append(
            f"{where}: {fit.inside:.0%} of the projected {kind} land on the mask and cover {fit.covered:.0%} of it, "
            f"expected {MIN_FIT:.0%} or more, and no other convention to fit better. {guess} See the contact sheet."
        )


def _shapes(arrays: SplitArrays, row: int) -> Iterator[tuple[str, Tensor]]:
    if arrays.points is not None:
        yield "points", torch.from_numpy(arrays.points.open()[row].astype(np.float32))
    yield "voxels", alignment.voxel_centers(arrays.voxels.open()[row])


def pictures(arrays: SplitArrays) -> list[Image.Image]:
    """One row of the contact sheet: views of some objects, with the outline of the projected ground truth."""
    n_views = arrays.images.shape[1]
    row_of = []
    for row in _spaced(len(arrays), PICTURES[0]):
        kind, points = next(_shapes(arrays, row))
        if not len(points):  # an empty voxel grid; `check_split` has named it
            continue
        for view in (np.arange(PICTURES[1]) * n_views // PICTURES[1] + 1) % n_views:
            rgba = arrays.images.open()[row, view]
            tolerance = _tolerance(kind, rgba.shape[-1])
            fit = alignment.fit(rgba[None, 3], points, np.array([view]), n_views, tolerance, Mistake())
            caption = f"{fit.inside:4.0%} {arrays.category}/{arrays.ids[row]}"[:20] + f" v{view:02d}"
            row_of.append(alignment.tile(rgba, points, int(view), n_views, caption))
    return row_of


def _tolerance(kind: str, size: int) -> int:
    return max(1, round(TOLERANCE[kind] * size / 64))


def _spaced(count: int, wanted: int) -> list[int]:
    return sorted({index * count // wanted for index in range(wanted)}) if count else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
