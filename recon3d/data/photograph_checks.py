"""The data doctor for photographs: do pictures, boxes, masks, key points, cameras and true shapes agree?

Behind `checking`, for folders in the layouts of CUB and Pascal3D+, official or synthetic. `photograph_split_checks`
examines a split, `photograph_sheet` draws what it is about on the crops that training will see.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.table import Table

from recon3d.data import cub_release, pascal3d_release
from recon3d.data.alignment import TILE
from recon3d.data.cub import CUBDataModule
from recon3d.data.description import DESCRIPTION_FILE
from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d import Pascal3DDataModule
from recon3d.data.photograph_annotations import Photograph
from recon3d.data.photograph_sheet import picture_row
from recon3d.data.photograph_split_checks import PhotographReport, check_truth, examine, spaced
from recon3d.data.photographs import Parts, PhotographDataModule, PhotographDataset

logger = logging.getLogger(__name__)

COUNTS = {
    ("bird", "cmr"): {"train": 5964, "val": 2873, "test": 2874},
    ("bird", "release"): {"train": 5394, "val": 600, "test": 5794},
    ("car", "cmr"): {"train": 4972, "val": 218},
}
PICTURES = 10  # of each split on the contact sheet


@dataclass
class FolderReport:
    """What a folder of photographs holds.

    Attributes:
        splits: of every class and kind of annotations.
        rows: of the contact sheet.
        hashes: of the data modules whose splits are all sound, as their Records have them.
        problems: of the folder as a whole.
    """

    splits: list[PhotographReport] = field(default_factory=list)
    rows: list[list[Image.Image]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def has_photographs(root: Path) -> bool:
    """Whether a folder is meant to be in one of the layouts of photographs."""
    return any((root / name).is_dir() for name in (cub_release.FOLDER, pascal3d_release.FOLDER))


def photograph_modules(root: Path, cache: Path | None = None) -> list[PhotographDataModule]:
    """A data module for every class and kind of annotations that a folder has, the splits not yet read.

    Args:
        root: the folder.
        cache: of what is made of CAD models, see `Pascal3DDataModule`.
    """
    modules: list[PhotographDataModule] = []
    if (root / cub_release.FOLDER).is_dir():
        parts: Parts = "scops" if (root / "scops").is_dir() else "none"
        if any((root / "data").glob("*_cub_cleaned.mat")):
            modules.append(CUBDataModule(root, annotations="cmr", parts=parts))
        if (root / cub_release.FOLDER / "images.txt").is_file():
            modules.append(CUBDataModule(root, annotations="release", parts=parts))
    for category in pascal3d_release.CLASSES:
        if any((root / "data" / f"{category}_{split}.mat").is_file() for split in ("train", "val")):
            modules.append(Pascal3DDataModule(root, category=category, annotations="cmr", cache=cache))
        if pascal3d_release.is_release(root / pascal3d_release.FOLDER, category):
            modules.append(Pascal3DDataModule(root, category=category, annotations="release", cache=cache))
    return modules


def check_folder(root: Path) -> FolderReport:
    """Examine all photographs of a folder; counts are compared with the official ones unless it has a dataset.json.

    Masks and shapes of CAD models stay in the folder if it can be written.
    """
    report = FolderReport()
    with tempfile.TemporaryDirectory() as temporary:
        cache = None if os.access(root, os.W_OK) else Path(temporary)
        for module in photograph_modules(root, cache):
            splits = list(_check_splits(module, official=not (root / DESCRIPTION_FILE).is_file()))
            report.splits += [split for split, _ in splits]
            report.rows += [row for _, row in splits if row]
            if not any(split.problems for split, _ in splits):
                report.hashes.append(module.data_hash())
    if not report.splits:
        report.problems.append(f"{root}: no annotations of CUB or Pascal3D+ here. docs/data says what lies where.")
    return report


def _check_splits(module: PhotographDataModule, official: bool) -> Iterator[tuple[PhotographReport, list[Image.Image]]]:
    """A report on each split, and its row of the contact sheet."""
    (category,), annotations = module.categories, getattr(module, "annotations", "")
    examined: list[Sequence[Photograph]] = []
    for split in ("train", "val", "test"):
        report = PhotographReport(category, annotations, split)
        logger.info("Checking %s", report.where)
        row: list[Image.Image] = []
        try:
            photographs, keypoints = module.photographs(split), module.keypoint_set
            if any(photographs is other for other in examined):  # Pascal3D+ tests on val
                continue
            examined.append(photographs)
            dataset = PhotographDataset(photographs, keypoints, TILE)
            sound = examine(dataset, report)
            check_truth(dataset, sound, report)
            row = picture_row(dataset, spaced(sound, PICTURES))
        except DataFileError as error:
            report.problems.append(str(error))
        expected = COUNTS.get((category, annotations), {}).get(split)
        if official and expected not in (None, report.objects):
            report.warnings.append(f"{report.where}: {report.objects} objects, the official files have {expected}.")
        yield report, row


def photograph_table(reports: Sequence[PhotographReport], name: str) -> Table:
    """The reports as a table for the terminal."""
    table = Table(title=f"{name}: {sum(report.objects for report in reports)} photographs")
    columns = ("class", "split", "objects", "pictures", "seen", "on mask", "box", "error", "fit")
    for column in columns:
        table.add_column(column, justify="left" if column in ("class", "split") else "right")
    for r in reports:
        table.add_row(
            *(f"{r.category} {r.annotations}", r.split, str(r.objects), str(r.pictures)),
            "-" if r.visible is None else f"{r.visible:.1f}",
            *("-" if value is None else f"{100 * value:.1f}" for value in (r.on_mask, r.box, r.error)),
            "-" if r.fit is None else f"{100 * r.fit.inside:.1f}/{100 * r.fit.covered:.1f}",
        )
    table.caption = (
        "seen: visible key points of an object. In per cent: on mask: of those; box: overlap with that of the mask; "
        "error: from key points to the projected mean shape, of the box's longer side; fit: projected true points on "
        "the mask / mask covered by them"
    )
    return table
