"""The data doctor: is a data set complete, sound, and seen through the right cameras?

Behind `recon3d data check NAME_OR_DIR`, for the NMR and the DPC layout, by `photograph_checks` for those of CUB and
Pascal3D+, and by `folder_checks` for one's own pictures. Reads every byte once; what it finds is in a `Report`, and a
contact sheet lays the projected ground truth over the images, so a wrong camera is seen before training and not after.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from recon3d.data import dpc_layout
from recon3d.data.alignment import contact_sheet
from recon3d.data.base import resolve_root
from recon3d.data.description import DESCRIPTION_FILE, fingerprint, read_description
from recon3d.data.dpc_layout import Catalogue
from recon3d.data.folder_checks import FOLDER_LEGEND, FolderSplit, check_image_folder, folder_table
from recon3d.data.folder_layout import is_image_folder
from recon3d.data.nmr_layout import SPLITS, SYNSETS, Inventory, open_split, scan
from recon3d.data.npz import DataFileError, first_damaged_member
from recon3d.data.photograph_checks import check_folder, has_photographs, photograph_table
from recon3d.data.photograph_sheet import LEGEND
from recon3d.data.photograph_split_checks import PhotographReport
from recon3d.data.samples import DPCSamples, NMRSamples, Samples
from recon3d.data.split_checks import SplitReport, check_split, pictures
from recon3d.data.split_lists import OFFICIAL_COUNTS
from recon3d.files import replace_file

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """The findings: `problems` make the check fail, `warnings` do not. Each is one sentence that names the files."""

    root: Path
    name: str
    hash: str = ""
    splits: list[SplitReport] = field(default_factory=list)
    photographs: list[PhotographReport] = field(default_factory=list)
    pictures: list[FolderSplit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sheet: Image.Image | None = None

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems


def locate(root_or_name: str | Path) -> Path:
    """Folder of a data set: the folder given, the one of that name, or the one whose dataset.json has that name.

    The last finds what data modules make, such as ``synthetic-<version>`` for `synthetic`.

    Raises:
        DataFileError: several folders have the name; give one of them.
    """
    folder = Path(root_or_name) if Path(root_or_name).is_dir() else resolve_root(None, str(root_or_name))
    layouts = (dpc_layout.is_dpc_layout, has_photographs, is_image_folder)
    if any(folder.glob("*_images.npz")) or any(is_layout(folder) for is_layout in layouts):
        return folder
    home = resolve_root(None, "")
    named = [
        path.parent for path in sorted(home.glob(f"*/{DESCRIPTION_FILE}")) if _stated_name(path) == str(root_or_name)
    ]
    if len(named) > 1:
        raise DataFileError(f"{len(named)} data sets are named {root_or_name}: {', '.join(map(str, named))}. Give one.")
    return named[0] if named else folder


def _stated_name(path: Path) -> str | None:
    """The name in a dataset.json of any layout; None where it cannot be read: that is no reason to refuse others."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(content.get("name")) if isinstance(content, dict) else None


def check(root_or_name: str | Path) -> Report:
    """Examine a data set in the NMR or the DPC layout, of photographs as CUB and Pascal3D+ are, or one's own pictures.

    Args:
        root_or_name: its folder, or the name of a data set below ``$RECON3D_DATA`` or ``./datasets``.

    Returns:
        counts, ranges and fits per category and split, problems, warnings, contact sheet. A file that cannot be read
        is a problem in the report, not an exception.
    """
    report = Report(Path(root_or_name), Path(root_or_name).name)
    try:
        root = report.root = locate(root_or_name)
        if has_photographs(root):
            _check_photographs(root, report)
            return report
        if is_image_folder(root):
            _check_pictures(root, report)
            return report
        splits = _dpc_splits(root, report) if dpc_layout.is_dpc_layout(root) else _nmr_splits(root, report)
    except DataFileError as error:
        report.problems.append(str(error))
        return report
    rows: dict[str, list[Image.Image]] = {}
    for category, split, samples in splits:
        examined = check_split(category, split, samples)
        report.splits.append(examined)
        report.problems += examined.problems
        report.warnings += examined.warnings
        if category not in rows and examined.fits and (row := pictures(category, samples)):
            rows[category] = row
    if rows:
        report.sheet = contact_sheet(list(rows.values()))
    _check_agreement(report)
    return report


def _check_photographs(root: Path, report: Report) -> None:
    found = check_folder(root)
    report.photographs, report.hash = found.splits, ", ".join(found.hashes)
    report.problems += found.problems
    for split in found.splits:
        report.problems += split.problems
        report.warnings += split.warnings
    if found.rows:
        report.sheet = contact_sheet(found.rows)


def _check_pictures(root: Path, report: Report) -> None:
    found = check_image_folder(root)
    report.pictures, report.hash = found.splits, found.hash
    report.problems += found.problems
    report.warnings += found.warnings
    if found.rows:
        report.sheet = contact_sheet(found.rows)


def _nmr_splits(root: Path, report: Report) -> Iterator[tuple[str, str, Samples]]:
    """What can be read of a folder in the NMR layout; the rest goes into the report."""
    inventory = scan(root)
    report.hash = fingerprint(inventory)
    _check_presence(inventory, report)
    return _sound_splits(inventory, report)


def _sound_splits(inventory: Inventory, report: Report) -> Iterator[tuple[str, str, Samples]]:
    for (category, split), files in sorted(inventory.splits.items(), key=lambda item: _table_order(inventory, item[0])):
        if files.images is None or files.voxels is None:  # named above
            continue
        logger.info("Checking %s %s", category, split)
        try:
            arrays = open_split(files)
            for array, path in (
                (arrays.images, files.images),
                (arrays.voxels, files.voxels),
                (arrays.points, files.points),
            ):
                # An array that was unpacked has passed its checksum on the way.
                if path is not None and array is not None and array.path == path and first_damaged_member(path):
                    raise DataFileError(f"{path}: the content does not match its checksum; fetch or make it again.")
        except DataFileError as error:
            report.problems.append(str(error))
            continue
        yield category, split, NMRSamples(arrays)


def _dpc_splits(root: Path, report: Report) -> Iterator[tuple[str, str, Samples]]:
    """The splits of a folder in the DPC layout; what is missing on their lists goes into the report."""
    catalogue = dpc_layout.scan(root)
    report.hash = dpc_layout.fingerprint(catalogue)
    description = read_description(root)
    counts = {
        name: {split: len(catalogue.splits[name, split]) for split in SPLITS if (name, split) in catalogue.splits}
        for name in catalogue.categories
    }
    if description is None:
        for name in catalogue.categories:
            expected = OFFICIAL_COUNTS.get(name, counts[name])
            if counts[name] != expected:
                report.warnings.append(f"{name}: the lists have {counts[name]} models, the official ones {expected}.")
    else:
        _check_hash(description.hash, report)
        if counts != description.categories:
            report.problems.append(f"dataset.json promises {description.categories}, the lists have {counts}.")
    for (name, split), models in catalogue.splits.items():
        if without := [model.id for model in models if model.cloud is None]:
            report.warnings.append(
                f"{name} {split}: {len(without)} of {len(models)} models have no ground-truth cloud, such as "
                f"{without[0]}; then the whole split goes without points."
            )
    n_views = dpc_layout.VIEWS if description is None else description.n_views
    ordered = sorted(catalogue.splits, key=lambda key: _table_order(catalogue, key))
    return ((name, split, DPCSamples(catalogue.splits[name, split], n_views)) for name, split in ordered)


def main(target: str, out: Path | None = None) -> int:
    """Check a data set, print the findings, write the contact sheet; the exit status of `recon3d data check`.

    Args:
        target: folder or name.
        out: the contact sheet, a PNG; None is ``<name>_contact_sheet.png`` in the working directory.

    Returns:
        0 if no problem was found, else 1.
    """
    report = check(target)
    console = Console()
    if report.splits:
        console.print(_table(report))
    if report.photographs:
        console.print(photograph_table(report.photographs, report.name))
    if report.pictures:
        console.print(folder_table(report.pictures, report.name))
    if report.sheet is not None:
        out = out or Path(f"{report.name}_contact_sheet.png")
        sheet = report.sheet
        replace_file(out, lambda path: sheet.save(path, format="png"))
        outline = "green: outline of the projected ground truth; it has to follow the object"
        console.print(
            f"Contact sheet: {out} ({FOLDER_LEGEND if report.pictures else LEGEND if report.photographs else outline})"
        )
    for style, title, lines in (("yellow", "warning", report.warnings), ("red", "problem", report.problems)):
        for line in lines:
            console.print(f"[{style}]{title}[/{style}]: ", end="")
            console.print(line, markup=False, highlight=False)
    verdict = "[green]ok[/green]" if report.ok else f"[red]{len(report.problems)} problem(s)[/red]"
    console.print(f"{report.root} (hash {report.hash or 'unknown'}): {verdict}")
    return 0 if report.ok else 1


def _table_order(inventory: Inventory | Catalogue, key: tuple[str, str]) -> tuple[int, int]:
    return inventory.categories.index(key[0]), SPLITS.index(key[1])


def _check_presence(inventory: Inventory, report: Report) -> None:
    """Files that should be there, by name; what dataset.json promises."""
    for path in inventory.unknown:
        report.warnings.append(f"{path.name}: not a name of the layout; ignored.")
    official = any(
        path is not None and path.name[:8] in SYNSETS
        for f in inventory.splits.values()
        for path in (f.images, f.voxels)
    )
    names = {category: synset for synset, category in SYNSETS.items()} if official else {}
    if official:
        absent = [f"{name} ({category})" for category, name in names.items() if category not in inventory.categories]
        if absent:
            report.warnings.append(f"Of the 13 official categories there are no files for {', '.join(absent)}.")
    description = None
    try:
        description = read_description(inventory.root)
    except DataFileError as error:
        report.problems.append(str(error))
    optional = [k for k in ("points", "ids") if any(getattr(f, k) for f in inventory.splits.values())]
    promised = dict.fromkeys(inventory.splits)
    if description is None:
        promised |= dict.fromkeys((category, split) for category in inventory.categories for split in SPLITS)
    else:
        promised |= dict.fromkeys((name, split) for name, counts in description.categories.items() for split in counts)
        _check_hash(description.hash, report)
    missing = []
    for category, split in promised:
        files = inventory.splits.get((category, split))
        for kind in ("images", "voxels", *optional):
            if files is None or getattr(files, kind) is None:
                suffix = "txt" if kind == "ids" else "npz"
                missing.append(f"{names.get(category, category)}_{split}_{kind}.{suffix}")
    if missing:
        report.problems.append(f"Missing in {inventory.root}: {', '.join(missing)}.")


def _check_hash(stated: str, report: Report) -> None:
    if stated != report.hash:
        report.problems.append(
            f"dataset.json: the hash is {stated}, the files have {report.hash}: they changed after it was written. "
            "Make the data set again."
        )


def _check_agreement(report: Report) -> None:
    # Clouds of the DPC layout differ in size as they are.
    cloud = () if dpc_layout.is_dpc_layout(report.root) else ("n_points",)
    for what in ("n_views", "image_size", *cloud):
        values = {getattr(split, what) for split in report.splits if split.n_views}  # 0: nothing could be read
        if len(values) > 1:
            report.problems.append(
                f"{what} differs between the files: {sorted(values)}; such files do not load together."
            )


def _table(report: Report) -> Table:
    table = Table(title=f"{report.name}: {sum(split.objects for split in report.splits)} objects")
    columns = ("category", "split", "objects", "views", "size", "mask %", "voxels min / mean / max", "points", "fit %")
    for column in columns:
        table.add_column(column, justify="left" if column in ("category", "split") else "right")
    for split in report.splits:
        low, mean, high = split.occupied
        fits = "  ".join(f"{kind} {100 * fit.inside:.1f}/{100 * fit.covered:.1f}" for kind, fit in split.fits.items())
        table.add_row(
            split.category,
            split.split,
            str(split.objects),
            str(split.n_views),
            str(split.image_size),
            f"{100 * split.foreground:.1f}",
            f"{low} / {mean:.0f} / {high}" if high else "-",
            "-".join(map(str, sorted(set(split.n_points)))),
            fits,
        )
    table.caption = "fit: projected points on the mask / mask covered by them"
    return table
