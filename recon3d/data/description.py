"""dataset.json: what a folder in the NMR or the DPC layout says about itself, and the hash of its content.

Written after the last split by `building`; read by the data modules (scale, hash for the Record) and
`checking`. The official files come without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recon3d.data import dpc_layout
from recon3d.data.nmr_layout import SPLITS, Inventory, open_split, scan
from recon3d.data.npz import DataFileError, member_checksums
from recon3d.files import write_whole

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class Description:
    """Content of dataset.json. `scale` is ``longest_side`` or ``diagonal``: the length that is 1 in every object."""

    name: str
    n_views: int
    image_size: int
    scale: str
    source: str
    version: str
    hash: str
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    layout: str = "nmr"


def fingerprint(inventory: Inventory) -> str:
    """Hash of the content of a whole data set in the NMR layout (16 hex digits), without compression, names and dates.

    It covers the CRC-32 and size that the archives keep of every array, and the ids: no data is read.
    """
    digest = hashlib.sha256()
    for (category, split), files in sorted(inventory.splits.items()):
        for kind in ("images", "voxels", "points"):
            path: Path | None = getattr(files, kind)
            if path is not None:
                digest.update(repr((category, split, kind, sorted(member_checksums(path).items()))).encode())
        if files.ids is not None:
            digest.update(repr((category, split, files.ids.read_text(encoding="utf-8").split())).encode())
    return digest.hexdigest()[:16]


def write_description(root: Path, name: str, scale: str, source: str, version: str) -> Description:
    """Write dataset.json for the files that are there; counts, sizes and hash are read from them.

    Args:
        root: folder of the data set, with all its splits written.
        name: of the data set.
        scale: ``longest_side`` or ``diagonal``.
        source: where the shapes come from, and their licence.
        version: of the data set; a change of its content changes this.
    """
    if scale not in ("longest_side", "diagonal"):
        raise ValueError(f"write_description: expected scale 'longest_side' or 'diagonal', got {scale!r}.")
    measured = _measure_dpc(root) if dpc_layout.is_dpc_layout(root) else _measure_nmr(root)
    description = Description(name=name, scale=scale, source=source, version=version, **measured)
    write_whole(root / DESCRIPTION_FILE, (json.dumps(asdict(description), indent=2, sort_keys=True) + "\n").encode())
    return description


def _measure_nmr(root: Path) -> dict[str, Any]:
    inventory = scan(root)
    arrays = {key: open_split(files, unpack=False) for key, files in inventory.splits.items()}
    sizes = {array.images.shape[1:] for array in arrays.values()}
    if len(sizes) != 1:
        raise DataFileError(f"{root}: expected images of one shape (V,4,S,S), got {sorted(sizes)}.")
    ((n_views, _, image_size, _),) = sizes
    return {
        "n_views": n_views,
        "image_size": image_size,
        "hash": fingerprint(inventory),
        "categories": _counts(inventory.categories, arrays),
    }


def _measure_dpc(root: Path) -> dict[str, Any]:
    catalogue = dpc_layout.scan(root)
    first = next(model for models in catalogue.splits.values() for model in models)
    n_views = dpc_layout.count_views(first.folder)
    image, _ = dpc_layout.view_files(first.folder, n_views)[0]
    return {
        "n_views": n_views,
        "image_size": dpc_layout.read_image(image).shape[-1],
        "hash": dpc_layout.fingerprint(catalogue),
        "categories": _counts(catalogue.categories, catalogue.splits),
        "layout": "dpc",
    }


def _counts(categories: tuple[str, ...], splits: Mapping[tuple[str, str], Sized]) -> dict[str, dict[str, int]]:
    return {
        name: {split: len(splits[name, split]) for split in SPLITS if (name, split) in splits} for name in categories
    }


def read_description(root: Path) -> Description | None:
    """Content of dataset.json, or None for a folder without one (the official files).

    Raises:
        DataFileError: the file is not JSON, or lacks or adds a key.
    """
    path = root / DESCRIPTION_FILE
    if not path.is_file():
        return None
    try:
        description = Description(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise DataFileError(f"{path}: expected the keys of dataset.json of this version: {error}.") from error
    if description.layout not in ("nmr", "dpc"):
        raise DataFileError(f"{path}: expected layout 'nmr' or 'dpc', got {description.layout!r}.")
    return description
