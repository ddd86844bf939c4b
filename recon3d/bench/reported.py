"""Numbers that papers report, from ``leaderboard/reported/*.csv``: rows beside ours, and a page of their own.

``papers.csv`` has one line a paper, ``<key>_table<k>.csv`` one line a cell; the README there explains the columns.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recon3d.bench import markdown
from recon3d.bench.ranking import Column
from recon3d.bench.record import Data

PAPER_COLUMNS = ["key", "title", "authors", "venue", "year", "url", "note"]
CELL_COLUMNS = [
    *("paper", "table", "method", "setting", "dataset", "category", "measure"),  # which cell
    *("unit", "value", "printed", "note"),  # what it says
]
# Our data set: the papers' one with the same images, as far as the papers say which.
SAME_DATA = {"shapenet": "shapenet_nmr", "shapenet_points": "shapenet_dpc", "cub": "cub", "pascal3d": "pascal3d"}
_NMR = "the same layout, cameras, grid and names of categories, but other and far fewer objects"
_DPC = "the same layout, cameras and scale, but other and far fewer objects"
_FAR = (
    "other and far fewer objects, in other views (one distance and elevation), and an object's longest side is 1 where "
    "the paper's diagonal is 1, so every length is larger"
)
_BIRDS = "drawn birds in the same files with the same annotations; background, number and size of the pictures differ"
_CARS = "drawn cars in the same files with the same annotations; background, number and size of the pictures differ"
# Our data set and the papers' one that it resembles: what is alike, and what is not. A gap says nothing there.
SIMILAR_DATA = {
    ("synthetic", "shapenet_nmr"): _NMR,
    ("open_shapes", "shapenet_nmr"): _NMR,
    ("synthetic_points", "shapenet_dpc"): _DPC,
    ("open_shapes_points", "shapenet_dpc"): _DPC,
    ("synthetic", "shapenet_dpc"): _FAR,
    ("open_shapes", "shapenet_dpc"): _FAR,
    ("synthetic_birds", "cub"): _BIRDS,
    ("synthetic_cars", "pascal3d"): _CARS,
}
ONE_CATEGORY = {"cub", "pascal3d"}  # the papers' data sets of which `all` is the one category of ours
_SCALE = {"1": 1.0, "percent": 100.0, "x100": 100.0}


@dataclass(frozen=True)
class Reported:
    """Papers by key and cells in file order, all as text."""

    papers: dict[str, dict[str, str]]
    cells: pd.DataFrame

    def names(self, key: str) -> str:
        """Authors and year."""
        paper = self.papers[key]
        names = [author.split()[-1] for author in paper["authors"].split("; ")]
        return f"{f'{names[0]} et al.' if len(names) > 2 else ' and '.join(names)} {paper['year']}"

    def citation(self, key: str) -> str:
        """Authors and year, linked where the address is known."""
        url = self.papers[key]["url"]
        return f"[{self.names(key)}]({url})" if url else self.names(key)

    def full_citation(self, key: str) -> str:
        """Title, linked where the address is known, authors, venue, year and note."""
        paper = self.papers[key]
        title = f"[{paper['title']}]({paper['url']})" if paper["url"] else paper["title"]
        about = ", ".join(text for text in (paper["authors"].replace(";", ","), paper["venue"], paper["year"]) if text)
        return f"{title}. {about}" + (f" ({paper['note']})." if paper["note"] else ".")


@dataclass(frozen=True)
class ReportedRow:
    """One method in one setting of one table, in our unit.

    Attributes:
        method: our name where the method is one of ours.
        source: citation and table.
        setting: as in the file.
        values: by our category, and ``mean`` where the paper's mean is over exactly our categories; where there is one
            category, a paper's ``all`` is both.
        printed: `values` with the digits of the paper.
    """

    method: str
    source: str
    setting: str
    values: dict[str, float]
    printed: dict[str, str]


def load(folder: Path) -> Reported:
    """Read all tables.

    Raises:
        ValueError: a file has other columns, or a cell names an unknown paper or has no number.
    """
    papers = read(folder / "papers.csv", PAPER_COLUMNS).set_index("key", drop=False)
    tables = [read(path, CELL_COLUMNS) for path in sorted(folder.glob("*_table*.csv"))]
    cells = pd.concat([pd.DataFrame(columns=CELL_COLUMNS), *tables], ignore_index=True)
    if unknown := sorted(set(cells["paper"]) - set(papers.index)):
        raise ValueError(f"{folder}: papers {unknown} are not in papers.csv.")
    numbers = pd.to_numeric(cells["value"], errors="coerce")
    if numbers.isna().any():
        raise ValueError(f"{folder}: expected a number as value:\n{cells[numbers.isna()]}")
    keyed = {str(key): {name: str(row[name]) for name in PAPER_COLUMNS} for key, row in papers.iterrows()}
    return Reported(keyed, cells)


def rows(reported: Reported, data: Data, column: Column) -> list[ReportedRow]:
    """Reported rows of the same quantity as `column` on the same data; none if no paper has them.

    Raises:
        ValueError: the paper's unit cannot be turned into the unit of `column`.
    """
    dataset = SAME_DATA.get(data.name)
    if dataset is None or data.split != "test":
        return []
    cells = reported.cells
    cells = cells[(cells["dataset"] == dataset) & (cells["measure"] == column.name)]
    found = []
    for names, group in cells.groupby(["paper", "table", "method", "setting"], sort=False):
        paper, table, method, setting = map(str, names)
        values: dict[str, float] = {}
        printed: dict[str, str] = {}
        categories = set(group["category"]) - {"mean", "all"}
        for _, cell in group.iterrows():
            category = str(cell["category"])
            if category == "all" and dataset in ONE_CATEGORY and len(data.categories) == 1:
                ours: tuple[str, ...] = (*data.categories, "mean")
            elif category in data.categories or (category == "mean" and categories == set(data.categories)):
                ours = (category,)
            else:
                continue
            factor = unit_factor(str(cell["unit"]), column)
            value = factor * float(cell["value"])
            values |= dict.fromkeys(ours, value)
            printed |= dict.fromkeys(ours, str(cell["printed"]) if factor == 1 else f"{value:g}")
        source = f"{reported.citation(paper)}, table {table}"
        if values:
            found.append(ReportedRow(method, source, setting, values, printed))
    return found


def page(reported: Reported) -> str:
    """Markdown of every table, cell by cell as printed, with its notes."""
    parts = [
        markdown.GENERATED,
        "# Numbers reported by the papers\n",
        "*Reported*: printed in the papers, not run here; other code, splits and protocols. Beside what was measured "
        "here they stand on a [page per paper](README.md#papers). Errors found in the papers: "
        "[reported/README.md](reported/README.md).\n",
    ]
    for names, cells in reported.cells.groupby(["paper", "table"], sort=True):
        key, number = map(str, names)
        parts += [f"## {reported.citation(key)}, table {number} (reported)\n", f"{reported.full_citation(key)}\n"]
        parts.append(_table(cells))
    return "\n".join(parts)


def _table(cells: pd.DataFrame) -> str:
    """One table of a paper: a row per method and setting, a column per data set, category and measure, footnotes.

    What all columns share is said once above the table.
    """
    names = pd.DataFrame({**cells[["dataset", "category"]], "measure": cells["measure"] + " [" + cells["unit"] + "]"})
    shared = [str(names[part].iloc[0]) for part in names if names[part].nunique() == 1 and part != "category"]
    varying = [part for part in names if names[part].nunique() > 1] or ["category"]
    heads = names[varying].agg(", ".join, axis=1)
    columns = list(dict.fromkeys(heads))
    text, footnotes = with_notes(cells)
    lines = []
    for (method, setting), group in cells.groupby(["method", "setting"], sort=False):
        by_head = dict(zip(heads[group.index], text[group.index], strict=True))
        lines.append([f"{method} *reported*", setting, *(by_head.get(head, "") for head in columns)])
    about = f"{', '.join(shared)}:\n\n" if shared else ""
    return about + markdown.table(["method", "setting", *columns], lines) + (f"\n{footnotes}" if footnotes else "")


def with_notes(cells: pd.DataFrame) -> tuple[pd.Series, str]:
    """Cells as printed, with the numbers of their notes, and the notes as a Markdown list."""
    notes = {note: index for index, note in enumerate(dict.fromkeys(cells["note"][cells["note"] != ""]), start=1)}
    text = cells["printed"] + cells["note"].map(lambda note: f" ({notes[note]})" if note else "")
    return text, "".join(f"- ({index}) {note}\n" for note, index in notes.items())


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV as text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns, or a line of another length; the message names the file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if lines[:1] != [columns]:
        raise ValueError(f"{path}: expected the columns {columns}, got {lines[:1]}.")
    if wrong := [line for line in lines if len(line) != len(columns)]:
        raise ValueError(
            f"{path}: expected {len(columns)} cells, a text with commas in quotation marks, got {wrong[0]}."
        )
    return pd.DataFrame(lines[1:], columns=columns, dtype=str)


def unit_factor(unit: str, column: Column) -> float:
    """What turns a value in `unit` into the unit of `column`.

    Raises:
        ValueError: there is no such factor.
    """
    if unit == column.unit:
        return 1.0
    if unit not in _SCALE or column.unit not in _SCALE:
        raise ValueError(f"{column.label}: a reported value in {unit!r} has no factor; known units: {sorted(_SCALE)}.")
    return _SCALE[column.unit] / _SCALE[unit]
