"""Which of our runs stands beside which row of a paper's table, and why the two differ.

People write it down in two files beside the papers' numbers: ``tables.csv`` has a line a table, ``ours.csv`` a line for
each method of a table (or for some of its settings) that is one of ours. With them `runs_beside` finds the runs, on the
same data or on similar ones; suites that repeat a table (`reported` in their yaml) bring their rows. `bench.paper_page`
prints all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recon3d.bench.ranking import Row, Standing
from recon3d.bench.record import Data
from recon3d.bench.reported import SAME_DATA, SIMILAR_DATA, Reported, read

TABLE_COLUMNS = ["paper", "table", "title", "about"]
OURS_COLUMNS = ["paper", "table", "method", "setting", "ours", "measure", "why"]
TRAINING_TIME = "train_s"  # the `measure` that is no measure but a cost

Key = tuple[str, str]  # paper and table
ReportedRow = tuple[str, str]  # method and setting as in the paper's table


@dataclass(frozen=True)
class Ours:
    """How some rows of a paper's table are measured here.

    Attributes:
        method: as in the table.
        setting: what tells these rows from the method's others, such as ``points=8000``; empty for all of them.
        ours: our method or variant; empty where none does the same on the paper's data.
        measure: ours that is the same quantity or the nearest to it; `TRAINING_TIME`; empty for the paper's own name.
        why: the numbers differ, or there are none.
        rows: of the table.
    """

    method: str
    setting: str
    ours: str
    measure: str
    why: str
    rows: tuple[ReportedRow, ...]


@dataclass(frozen=True)
class Beside:
    """The content of both files: title and text of a table, and what of it is ours, in the order of the files."""

    titles: dict[Key, tuple[str, str]]
    ours: dict[Key, tuple[Ours, ...]]


@dataclass(frozen=True)
class Run:
    """A row of ours beside a row of a paper's table.

    Attributes:
        standing: what it stands in.
        data: of the standing.
        row: our method.
        page: Markdown link to where it stands, from the folder of the papers' pages.
        measure: as in `Ours`.
    """

    standing: Standing
    data: Data
    row: Row
    page: str
    measure: str

    @property
    def where(self) -> str:
        """The page, and the steps of training."""
        steps = self.row.cost("steps")
        return self.page + (f", {steps:,.0f} steps" if steps else "")

    def is_same(self, datasets: Iterable[str]) -> bool:
        """Whether its data are one of the papers' data sets."""
        return any(likeness(self.data.name, theirs) == "" for theirs in datasets)


Runs = dict[Key, dict[ReportedRow, list[Run]]]


@dataclass(frozen=True)
class SuiteTable:
    """The Standing of a suite that repeats a table of a paper.

    Attributes:
        key: of the table.
        standing: of the suite; the methods are the names of its rows.
        rows: of the paper, by name of the suite's row.
        page: as in `Run`.
    """

    key: Key
    standing: Standing
    rows: dict[str, ReportedRow]
    page: str


def load(folder: Path, papers: Reported) -> Beside:
    """Read both files.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: a file has other columns; a table lacks its line in ``tables.csv``, or a line its table; a line of
            ``ours.csv`` fits no row, has no `why`, or shares a row with another line.
    """
    tables, lines = read(folder / "tables.csv", TABLE_COLUMNS), read(folder / "ours.csv", OURS_COLUMNS)
    rows: dict[Key, list[ReportedRow]] = {}
    for paper, table, method, setting in papers.cells[["paper", "table", "method", "setting"]].itertuples(index=False):
        rows.setdefault((paper, table), []).append((method, setting))
    titles = {(paper, table): (title, about) for paper, table, title, about in tables.itertuples(index=False)}
    if len(titles) < len(tables) or set(titles) != set(rows):
        raise ValueError(
            f"{folder / 'tables.csv'}: expected one line for each of {sorted(rows)}, got "
            f"{sorted(tables[['paper', 'table']].itertuples(index=False, name=None))}."
        )
    ours: dict[Key, list[Ours]] = {key: [] for key in titles}
    for paper, table, method, setting, name, measure, why in lines.itertuples(index=False):
        fitting = [row for row in dict.fromkeys(rows.get((paper, table), [])) if _fits(row, method, setting)]
        taken = [row for one in ours.get((paper, table), []) for row in one.rows]
        where = f"{folder / 'ours.csv'}, {paper} table {table}, {method}, {setting!r}"
        if not fitting or set(fitting) & set(taken):
            raise ValueError(f"{where}: expected rows of the table that no other line has, got {fitting}.")
        if not why:
            raise ValueError(f"{where}: expected a reason in `why`, got nothing.")
        ours[paper, table].append(Ours(method, setting, name, measure, why, tuple(fitting)))
    return Beside(titles, {key: tuple(found) for key, found in ours.items()})


def runs_beside(
    papers: Reported, beside: Beside, standings: Iterable[Standing], suites: Iterable[SuiteTable] = ()
) -> Runs:
    """Our runs by table and row of the papers; those on the same data first, then those of preset paper."""
    wanted: list[tuple[Key, ReportedRow, Standing, str, str, str]] = []
    for standing in standings:
        page = f"[{standing.name}, {standing.preset}](../{standing.name}-{standing.preset}.md)"
        for key, lines in beside.ours.items():
            wanted += [(key, row, standing, line.ours, page, line.measure) for line in lines for row in line.rows]
    for suite in suites:
        measures = {row: line.measure for line in beside.ours[suite.key] for row in line.rows}
        for name, row in suite.rows.items():
            wanted.append((suite.key, row, suite.standing, name, suite.page, measures.get(row, "")))
    found: Runs = {key: {} for key in beside.titles}
    for key, reported_row, standing, method, page, measure in wanted:
        data, datasets = standing.data, set(cells_of(papers, key)["dataset"])
        if data is None or data.split != "test" or all(likeness(data.name, theirs) is None for theirs in datasets):
            continue
        runs = [Run(standing, data, row, page, measure) for row in standing.rows if row.method == method]
        if runs:
            together = [*found[key].get(reported_row, []), *runs]
            together.sort(key=lambda run: (not run.is_same(datasets), run.standing.preset != "paper"))
            found[key][reported_row] = together
    return found


def coverage(key: str, papers: Reported, beside: Beside, runs: Runs) -> tuple[int, int, int]:
    """Rows of a paper's tables that are methods of ours; of them those run on the same data, and on similar only.

    A line without a method of ours counts only where a suite brings runs to its table.
    """
    total = same = similar = 0
    for one, lines in beside.ours.items():
        if one[0] == key:
            datasets = set(cells_of(papers, one)["dataset"])
            for row in (row for line in lines if line.ours or runs[one] for row in line.rows):
                on_same = any(run.is_same(datasets) for run in runs[one].get(row, []))
                total, same, similar = total + 1, same + on_same, similar + (row in runs[one] and not on_same)
    return total, same, similar


def likeness(ours: str, theirs: str) -> str | None:
    """What is alike and what not between a data set of ours and one of the papers.

    Empty where the images are the same; None where nothing is alike.
    """
    return "" if SAME_DATA.get(ours) == theirs else SIMILAR_DATA.get((ours, theirs))


def same_data(theirs: str) -> str | None:
    """Our data set with the images of one of the papers; None if there is none."""
    return next((ours for ours, same in SAME_DATA.items() if same == theirs), None)


def cells_of(papers: Reported, key: Key) -> pd.DataFrame:
    """The cells of one table."""
    return papers.cells[(papers.cells["paper"] == key[0]) & (papers.cells["table"] == key[1])]


def _fits(row: ReportedRow, method: str, setting: str) -> bool:
    parts = set(filter(None, setting.split("; ")))
    return row[0] == method and parts <= set(row[1].split("; "))
