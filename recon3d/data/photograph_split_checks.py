"""One class and split of photographs under the data doctor's eyes: files, boxes, masks, key points, cameras, truth.

Used by `photograph_checks` for every split, as `split_checks` is for data sets with several views.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from recon3d.data.alignment import Fit, Mistake, fit, mean_fit
from recon3d.data.npz import DataFileError
from recon3d.data.part_maps import read_part_map
from recon3d.data.photograph_annotations import KeypointSet, Photograph, read_mask, read_picture
from recon3d.data.photograph_sampling import Draw
from recon3d.data.photographs import PhotographDataset
from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_to_object

logger = logging.getLogger(__name__)

PROJECTED = 20  # true shapes of each split, evenly spaced
LISTED = 10  # names in one line
# Shares of the longer side of the box. CMR's key points of cars and birds lie 0.03 from the projected mean shape.
MAX_ERROR = 0.15
NEAR = 0.03  # a key point this near to the mask is on it
MIN_BOX = 0.5  # overlap of the box with that of the mask; below, they are of different objects
MIN_FIT = 0.9  # of true shapes; masks of the official files are drawn, not rendered
EXCHANGED = 0.7  # the error falls below this share of itself when left and right change names


@dataclass
class PhotographReport:
    """What one split of one class holds; shares are of the longer side of the box, means over the objects.

    Attributes:
        category: of the objects.
        annotations: cmr or release.
        split: train, val or test.
        objects: their number.
        pictures: files they are on.
        visible: key points of an object that are visible.
        box: overlap (IoU) of the box with that of the mask, both within the picture.
        on_mask: fraction of the visible key points on the mask, or nearer to it than `NEAR`.
        error: distance of the visible key points from the projected mean shape, the median; None without cameras.
        fit: of the projected true shapes with the masks; None without any.
        problems: make the check fail.
        warnings: do not.
    """

    category: str
    annotations: str
    split: str
    objects: int = 0
    pictures: int = 0
    visible: float | None = None
    box: float = 0.0
    on_mask: float | None = None
    error: float | None = None
    fit: Fit | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.category} {self.annotations} {self.split}"


def examine(dataset: PhotographDataset, report: PhotographReport) -> list[int]:
    """Read all pictures, masks and part maps, compare what is said of each object; gives the numbers of sound ones."""
    report.objects, report.pictures = len(dataset), len({photograph.image for photograph in dataset.photographs})
    if not len(dataset):
        report.warnings.append(f"{report.where}: no objects.")
    projected = _projected(dataset)
    values = _Values()
    sound, damaged = [], []
    for number, photograph in enumerate(dataset.photographs):
        try:
            read_picture(photograph.image, photograph.size)
            mask = read_mask(photograph.mask, photograph.size, photograph.id)[..., 0] > 0
            values.add(photograph, mask)
            if photograph.parts is not None and photograph.parts.is_file():
                read_part_map(photograph.parts, photograph.size, photograph.box)
            if projected is not None and dataset.keypoints is not None:
                values.compare(photograph, projected[number], dataset.keypoints)
            sound.append(number)
        except DataFileError as error:
            damaged.append(f"{photograph.id}: {error}")
    values.judge(report)
    report.problems += damaged[:LISTED]
    if len(damaged) > LISTED:
        logger.info("All damaged objects of %s: %s", report.where, damaged)
        report.problems.append(f"{report.where}: {len(damaged) - LISTED} more objects with problems.")
    return sound


class _Values:
    """What is collected over the objects of a split."""

    def __init__(self) -> None:
        self.boxes: list[float] = []
        self.on_mask: list[bool] = []
        self.visible: list[int] = []
        self.errors: list[float] = []
        self.exchanged: list[float] = []
        self.apart: list[str] = []
        self.outside: list[str] = []
        self.unmapped: list[str] = []

    def add(self, photograph: Photograph, mask: np.ndarray) -> None:
        overlap = _box_overlap(photograph, mask)
        self.boxes.append(overlap)
        if overlap < MIN_BOX:
            self.apart.append(photograph.id)
        if photograph.parts is not None and not photograph.parts.is_file():
            self.unmapped.append(photograph.id)
        if photograph.keypoints is None:
            return
        places = photograph.keypoints[photograph.keypoints[:, 2] > 0, :2]
        self.visible.append(len(places))
        if not ((places > -1) & (places < photograph.size)).all():
            self.outside.append(photograph.id)
        reach = max(2, round(NEAR * _side(photograph)))
        self.on_mask += [bool(_window(mask, place, reach).any()) for place in places]

    def compare(self, photograph: Photograph, projected: np.ndarray, keypoints: KeypointSet) -> None:
        assert photograph.keypoints is not None  # a shape without places would be of no use
        seen = photograph.keypoints[:, 2] > 0
        if not seen.any():
            return
        for found, order in ((self.errors, range(len(seen))), (self.exchanged, keypoints.mirror)):
            distance = np.linalg.norm(projected[list(order)][seen] - photograph.keypoints[seen, :2], axis=1).mean()
            found.append(float(distance) / _side(photograph))

    def judge(self, report: PhotographReport) -> None:
        where = report.where
        if self.boxes:
            report.box = float(np.mean(self.boxes))
            if report.box < MIN_BOX:
                report.problems.append(
                    f"{where}: boxes and masks overlap by {report.box:.0%} on average, expected {MIN_BOX:.0%} or more: "
                    "are x and y exchanged, or the files of different pictures? See the contact sheet."
                )
        if self.visible:
            report.visible = float(np.mean(self.visible))
        if self.on_mask:
            report.on_mask = float(np.mean(self.on_mask))
        if self.errors:
            report.error, other = float(np.median(self.errors)), float(np.median(self.exchanged))
            if other < EXCHANGED * report.error:
                report.problems.append(
                    f"{where}: the cameras see the mean shape {report.error:.1%} of the box off the key points, and "
                    f"{other:.1%} when left and right change names: one of the two is mirrored."
                )
            elif report.error > MAX_ERROR:
                report.problems.append(
                    f"{where}: the cameras see the mean shape {report.error:.1%} of the box off the key points, "
                    f"expected {MAX_ERROR:.0%} or less; are the files in one order? See the contact sheet."
                )
        for names, what in (
            (self.apart, "boxes unlike those of their masks"),
            (self.outside, "key points outside"),
            (self.unmapped, "no part map, which parts: scops refuses"),
        ):
            if names:
                report.warnings.append(f"{where}: {len(names)} objects with {what}: {_some(names)}.")


def _box_overlap(photograph: Photograph, mask: np.ndarray) -> float:
    """IoU of the box within the picture and the box of the mask; DataFileError where either is empty."""
    limits = np.array(mask.shape[::-1]) - 1
    low, high = np.maximum(photograph.box[:2], 0), np.minimum(photograph.box[2:], limits)
    if (high < low).any() or not mask.any():
        what = "the mask is empty" if (high >= low).all() else f"the box {photograph.box} lies outside the picture"
        raise DataFileError(f"{what}. Take the object off its list.")
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    start, end = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
    shared = float(np.clip(np.minimum(high, end) - np.maximum(low, start) + 1, 0, None).prod())
    return shared / float((high - low + 1).prod() + (end - start + 1).prod() - shared)


def _side(photograph: Photograph) -> float:
    x1, y1, x2, y2 = photograph.box
    return max(x2 - x1, y2 - y1) + 1


def _window(mask: np.ndarray, place: np.ndarray, reach: int) -> np.ndarray:
    x, y = (round(float(value)) for value in place)
    return mask[max(y - reach, 0) : max(y + reach + 1, 0), max(x - reach, 0) : max(x + reach + 1, 0)]


def _projected(dataset: PhotographDataset) -> np.ndarray | None:
    """Where the cameras see the mean shape (N, K, 2), in 0-based pixels; None without cameras or a shape."""
    shape = None if dataset.keypoints is None else dataset.keypoints.shape
    if dataset.cameras is None or shape is None:
        return None
    points = cmr_to_object(torch.from_numpy(shape)).to(dataset.cameras.T)
    pixels: np.ndarray = -project(dataset.cameras, points)[..., :2].numpy()
    return pixels - 1 if dataset.cameras.orthographic else pixels  # CMR's translations count from 1


def check_truth(dataset: PhotographDataset, sound: list[int], report: PhotographReport) -> None:
    """Project the true shapes of some objects onto their masks."""
    fits = []
    for number in spaced(sound, PROJECTED):
        batch = dataset[Draw(number)]
        if batch.points is None or batch.cameras is None:
            return
        mask = (batch.masks[0, :, 0] * 255).numpy()
        fits.append(fit(mask, batch.points[0], batch.cameras[0], max(1, round(dataset.image_size / 64)), Mistake()))
    if not fits:
        return
    report.fit = mean_fit(fits)
    # Masks end at the border of the picture, true shapes do not: what covers the mask counts.
    if report.fit.covered < MIN_FIT:
        report.problems.append(
            f"{report.where}: the projected true shapes cover {report.fit.covered:.0%} of the masks, expected "
            f"{MIN_FIT:.0%} or more: cameras, shapes and masks do not belong together. See the contact sheet."
        )


def spaced(numbers: Sequence[int], wanted: int) -> list[int]:
    """At most so many of some numbers, evenly spaced."""
    return [numbers[i] for i in sorted({index * len(numbers) // wanted for index in range(wanted)})] if numbers else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
