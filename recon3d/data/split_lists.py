"""Lists of the objects of each split, by name: the folder ``splits`` of the DPC layout.

Used by `dpc_layout`. Per class there are plain lists ``<class>_<split>.txt``, ids one a line, or one ``<class>.file``
with all of them, the list of Tulsiani et al., "Multi-view Supervision for Single-view Reconstruction via Differentiable
Ray Consistency" (DRC, CVPR 2017), or both, as the official folder has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recon3d.data.nmr_layout import SPLITS, SYNSETS
from recon3d.data.npz import DataFileError
from recon3d.files import write_whole

FOLDER = "splits"
OFFICIAL_COUNTS = {
    "airplane": {"train": 2831, "val": 404, "test": 810},
    "car": {"train": 5247, "val": 750, "test": 1500},
    "chair": {"train": 4744, "val": 677, "test": 1356},
}
WHERE_FROM = (
    "The official files are the archives <synset>-renders.tar.gz and <synset>-gt.tar.gz that the scripts in data/ of "
    "github.com/eldar/differentiable-point-clouds fetch, unpacked to renders/ and gt/downsampled/, with its folder "
    "data/splits beside them; see docs/data/dpc_layout.md. `recon3d data render SRC --out DIR --layout dpc` makes the "
    "same layout from your own meshes."
)


def class_folder(category: str) -> str:
    """Name of the folder of a category: its synset id, or for classes outside the 13 the name.

    >>> class_folder("car"), class_folder("mug")
    ('02958343', 'mug')
    """
    return {name: synset for synset, name in SYNSETS.items()}.get(category, category)


def read_splits(root: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Ids of each split of a class, from plain lists, or from DRC's ``.file``.

    Args:
        root: folder of the data set.
        names: under which the class may be listed.

    Raises:
        DataFileError: no list, a damaged one, ids that repeat, or plain lists that differ from the ``.file``.
    """
    folder = root / FOLDER
    plain = {
        split: tuple(Path(line).name for line in path.read_text(encoding="utf-8").split())
        for split in SPLITS
        for path in [folder / f"{name}_{split}.txt" for name in names][::-1]
        if path.is_file()
    }
    joint = next((path for name in names if (path := folder / f"{name}.file").is_file()), None)
    lists = plain if joint is None else _read_joint(joint)
    if not lists:
        raise DataFileError(f"{folder}: no {names[0]}_train.txt, nor {names[0]}.file. {WHERE_FROM}")
    for split in lists.keys() & plain.keys():
        if lists[split] != plain[split]:
            raise DataFileError(f"{joint} and {names[0]}_{split}.txt beside it list different models. Remove one.")
    listed = [name for ids in lists.values() for name in ids]
    if len(set(listed)) != len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise DataFileError(f"{folder}: {names[0]} lists {twice} twice. Remove it from one of its lists.")
    return lists


def _read_joint(path: Path) -> dict[str, tuple[str, ...]]:
    """DRC's list: 3 lines, then per split 6 lines (3rd the name, 6th the count) and 5 lines a model (5th the id)."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    splits, at = {}, 3
    while at + 6 <= len(lines):
        name, count = lines[at + 2], lines[at + 5]
        start, at = at + 6, at + 6 + 5 * (int(count) if count.isdigit() else 0)
        if name not in SPLITS or not count.isdigit() or at > len(lines):
            raise DataFileError(
                f"{path}, line {start - 3}: expected a split of {SPLITS}, its count, and 5 lines for each model, "
                f"got {name!r}, {count!r} and {len(lines) - start} lines. Fetch the list again."
            )
        splits[name] = tuple(Path(line).name for line in lines[start + 4 : at : 5])
    if not splits:
        raise DataFileError(
            f"{path}: expected 3 lines and then the splits, the file has {len(lines)} lines. Fetch it again."
        )
    return splits


def write_split_list(root: Path, category: str, split: str, ids: Sequence[str]) -> None:
    """Write the plain list of a split."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(root / FOLDER / f"{class_folder(category)}_{split}.txt", "".join(f"{name}\n" for name in ids).encode())
