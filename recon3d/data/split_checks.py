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
from recon3d.data.npz import DataFileError
from recon3d.data.samples import Sample, Samples

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
        n_points: of each object, the smallest and the largest number; 0 without points.
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
    n_views: int = 0
    image_size: int = 0
    n_points: tuple[int, int] = (0, 0)
    foreground: float = 0.0
    background: float = 0.0
    occupied: tuple[int, float, int] = (0, 0.0, 0)
    fits: dict[str, Fit] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_split(category: str, split: str, samples: Samples) -> SplitReport:
    """Examine every value of one category and split, and project the ground truth of some of its objects.

    Each object is read once, and those that are projected once more.
    """
    report = SplitReport(category, split, len(samples))
    where = f"{category} {split}"
    if not len(samples):
        report.warnings.append(f"{where}: no objects.")
        return report
    values = _Values()
    sound, damaged = [], []
    for index in range(len(samples)):
        try:
            values.add(category, samples[index])
            sound.append(index)
        except DataFileError as error:
            damaged.append(str(error))
    report.problems += damaged[:LISTED]
    if len(damaged) > LISTED:
        report.problems.append(f"{where}: {len(damaged) - LISTED} more objects cannot be read.")
    if not sound:
        return report
    values.judge(where, report)
    if samples[sound[0]].cameras is None:
        report.problems.append(f"{where}: expected 24 or 120 views, got {report.n_views}; their cameras are not known.")
    else:
        _check_alignment(where, [samples[sound[i]] for i in _spaced(len(sound), OBJECTS_PROJECTED)], report)
    return report


class _Values:
    """What is collected over the objects of a split."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.empty: list[str] = []
        self.foreground: list[float] = []
        self.background: list[float] = []
        self.brightest = self.most_opaque = 0
        self.occupied: list[int] = []
        self.hollow: list[str] = []
        self.n_points: list[int] = []
        self.outside: list[str] = []
        self.bent: list[str] = []
        self.shapes: set[tuple[int, ...]] = set()

    def add(self, category: str, sample: Sample) -> None:
        self.ids.append(sample.id)
        self.shapes.add(sample.images.shape)
        inside = sample.images[:, 3] > 0
        self.empty += [f"{category}/{sample.id}/v{view:02d}" for view in np.flatnonzero(~inside.any(axis=(1, 2)))]
        self.foreground.append(float(inside.mean()))
        behind = sample.images[:, :3].max(axis=1)[~inside]
        self.background.append(float(behind.mean()) if behind.size else 0.0)
        self.brightest = max(self.brightest, int(sample.images[:, :3].max()))
        self.most_opaque = max(self.most_opaque, int(sample.images[:, 3].max()))
        if sample.voxels is not None:
            self.occupied.append(int(sample.voxels.sum()))
            if self.occupied[-1] in (0, sample.voxels.size):
                self.hollow.append(sample.id)
        if sample.points is not None:
            self.n_points.append(len(sample.points))
            if not bool((np.abs(sample.points) <= EDGE).all()):  # not: NaN counts as outside
                self.outside.append(sample.id)
        if sample.normals is not None:
            lengths = np.linalg.norm(sample.normals.astype(np.float32), axis=1)
            if not bool((np.abs(lengths - 1) < 1e-2).all()):
                self.bent.append(sample.id)

    def judge(self, where: str, report: SplitReport) -> None:
        report.n_views, _, report.image_size, _ = max(self.shapes)
        report.foreground, report.background = float(np.mean(self.foreground)), float(np.mean(self.background))
        if self.occupied:
            report.occupied = (min(self.occupied), float(np.mean(self.occupied)), max(self.occupied))
        if self.n_points:
            report.n_points = (min(self.n_points), max(self.n_points))
        if len(self.shapes) > 1:
            report.problems.append(f"{where}: expected images (V,4,S,S) of one shape, got {sorted(self.shapes)}.")
        if self.empty:
            report.warnings.append(f"{where}: {len(self.empty)} empty masks: {_some(self.empty)}.")
        if self.most_opaque < 255 or self.brightest <= 1:
            report.problems.append(
                f"{where}: expected colours and alpha of 0 to 255, the largest are {self.brightest} and "
                f"{self.most_opaque}."
            )
        if full := [name for name, fraction in zip(self.ids, self.foreground, strict=True) if fraction == 1]:
            report.problems.append(f"{where}: no background in {_some(full)}; is channel 3 the alpha?")
        if report.background > 1:
            report.warnings.append(
                f"{where}: the background's mean brightness is {report.background:.0f} of 255, the convention is "
                "black. Methods that read RGB without the mask see it."
            )
        if self.hollow:
            report.problems.append(f"{where}: voxel grids that are empty or full: {_some(self.hollow)}.")
        if self.outside:
            report.problems.append(f"{where}: points outside [-0.5, 0.5]^3 or not finite: {_some(self.outside)}.")
        if self.bent:
            report.problems.append(f"{where}: normals that are not of length 1: {_some(self.bent)}.")


def _check_alignment(where: str, samples: list[Sample], report: SplitReport) -> None:
    """Project the ground truth of some objects; wrong cameras and frames become problems."""
    views = _views(report.n_views, VIEWS_PROJECTED)
    fits: dict[str, list[Fit]] = {}
    gains: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        assert sample.cameras is not None
        masks, cameras = sample.images[views, 3], sample.cameras[torch.from_numpy(views)]
        for kind, points in _shapes(sample):
            if not len(points):
                continue
            tolerance = _tolerance(kind, report.image_size)
            stated = alignment.fit(masks, points, cameras, tolerance, Mistake())
            fits.setdefault(kind, []).append(stated)
            for name, mistake in (FRAME_MISTAKES | (VOXEL_MISTAKES if kind == "voxels" else {})).items():
                undone = alignment.fit(masks, points, cameras, tolerance, mistake)
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


def _shapes(sample: Sample) -> Iterator[tuple[str, Tensor]]:
    if sample.points is not None:
        yield "points", torch.from_numpy(sample.points.astype(np.float32))
    if sample.voxels is not None:
        yield "voxels", alignment.voxel_centers(sample.voxels)


def pictures(category: str, samples: Samples) -> list[Image.Image]:
    """One row of the contact sheet: views of some objects, with the outline of the projected ground truth."""
    row_of = []
    for row in _spaced(len(samples), PICTURES[0]):
        try:
            sample = samples[row]
        except DataFileError:  # `check_split` has named it
            continue
        kind, points = next(_shapes(sample), ("", torch.empty(0, 3)))
        if sample.cameras is None or not len(points):  # an empty voxel grid; `check_split` has named it
            continue
        for view in _views(len(sample.images), PICTURES[1]):
            rgba, camera = sample.images[view], sample.cameras[torch.tensor([view])]
            fit = alignment.fit(rgba[None, 3], points, camera, _tolerance(kind, rgba.shape[-1]), Mistake())
            caption = f"{fit.inside:4.0%} {category}/{sample.id}"[:20] + f" v{view:02d}"
            row_of.append(alignment.tile(rgba, points, camera, caption))
    return row_of


def _views(n_views: int, wanted: int) -> np.ndarray:
    """Evenly spaced views, from view 1: at 0, 6, 12, 18 NMR's camera lies in a plane of symmetry of many objects."""
    wanted = min(n_views, wanted)
    return (np.arange(wanted) * n_views // wanted + 1) % n_views


def _tolerance(kind: str, size: int) -> int:
    return max(1, round(TOLERANCE[kind] * size / 64))


def _spaced(count: int, wanted: int) -> list[int]:
    return sorted({index * count // wanted for index in range(wanted)}) if count else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
