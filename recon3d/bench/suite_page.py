"""The page of a suite: its Records as a table of one line per row, in the order of its yaml, and what explains them.

Rows are compared by the rules of `bench.ranking` and printed with the cells of `bench.standing_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from recon3d.bench import markdown, page
from recon3d.bench.beside import SuiteTable
from recon3d.bench.ranking import Standing, standings
from recon3d.bench.record import Record
from recon3d.bench.reported import Reported, with_notes
from recon3d.bench.standing_table import COSTS, Table, TableCell, cost, measure, to_markdown
from recon3d.bench.suite import Suite, option_text, read, records

Quoted = dict[str, dict[str, str]]  # a paper's cell by name of the row


def results(suite: Suite, found: Sequence[Record], quoted: Quoted | None = None) -> Table:
    """Header and lines of the suite's table: a line per row, also of one not run yet; the paper's figure beside ours.

    Args:
        suite: the suite.
        found: its Records, as `bench.suite.records` gives them.
        quoted: the paper's cell of each row that has one; None leaves the column out.
    """
    standing = _standing(suite, found)
    columns: list[tuple[str, dict[str, TableCell]]] = []  # title, and cell by row; a row without one has "-"
    columns.append(("seeds", {row.method: TableCell(str(len(row.records))) for row in standing.rows}))
    for name in suite.measures:
        column = next((column for column in standing.columns if column.name == name), None)
        by_row = {} if column is None else {row.method: measure(standing, row, column) for row in standing.rows}
        columns.append((name if column is None else column.label, by_row))
        if quoted and suite.reported is not None and name == suite.reported.measure:
            columns.append((f"{name} *reported*", _reported_column(quoted)))
    _, steps = cost(standing, ["step [ms]"])
    columns.append(("step [ms]", {name.text: step for name, step in steps}))
    body = [
        [TableCell(row.label), *(by_row.get(row.name, TableCell("-")) for _, by_row in columns)] for row in suite.rows
    ]
    return ["row", *(title for title, _ in columns)], body


def beside_paper(path: Path, folder: Path, papers: Reported) -> SuiteTable | None:
    """What a suite has to say on the page of a paper; None where it repeats no table. Arguments as `suite_page`."""
    suite = read(path)
    if suite.reported is None:
        return None
    rows = {name: (cell["method"], cell["setting"]) for name, cell in _quoted(suite, papers).items()}
    key = suite.reported.paper, str(suite.reported.table)
    return SuiteTable(key, _standing(suite, records(folder, suite)), rows, f"[{suite.title}](../suites/{path.stem}.md)")


def suite_page(path: Path, folder: Path, papers: Reported) -> str:
    """Markdown page of a suite.

    Args:
        path: its yaml.
        folder: of its Records.
        papers: the reported numbers.

    Raises:
        ValueError: an unreadable yaml or Record; a row's `reported` is not exactly one cell of the paper's table.
    """
    suite = read(path)
    found = records(folder, suite)
    standing = _standing(suite, found)
    quoted = _quoted(suite, papers)
    parts = [markdown.GENERATED, f"# {suite.title}\n"]
    parts += [suite.about] if suite.about else []
    scored = f"categories: {', '.join(standing.data.categories)}; " if standing.data else ""
    parts.append(
        f"Data `{suite.data}`, {scored}preset `{suite.preset}`, seeds {', '.join(map(str, suite.seeds))}: mean over "
        "the seeds ± sample standard deviation ([how to read](../README.md#how-to-read)). *step*: time of training, "
        "with its validations, over its steps, of the fastest seed; comparable where the runs had the machine to "
        "themselves.\n"
    )
    parts += ["## Results\n", to_markdown(*results(suite, found, quoted)), *_about_reported(suite, papers, quoted)]
    parts += ["## Reading\n", suite.reading] if suite.reading else []
    parts += ["## Rows\n", _settings(suite), "## How to run\n", _how_to_run(path.stem)]
    if standing.rows:
        # One process runs many rows, and its highest memory is not a row's.
        header, lines = cost(standing, [name for name in COSTS if not name.startswith("peak memory")])
        parts += ["## Cost\n", to_markdown(["row", *header[1:]], lines)]
        parts += ["## Runs\n", page.runs(standing)]
    return "\n".join([*parts, *page.left_out(standing)])


def _standing(suite: Suite, found: Sequence[Record]) -> Standing:
    """What may be compared, rows and columns in the order of the suite."""
    if not found:
        return Standing(suite.data, suite.preset, None, (), (), (), ())
    (standing,) = standings(found)
    names = [row.name for row in suite.rows]
    columns = sorted(
        (c for c in standing.columns if c.name in suite.measures), key=lambda c: suite.measures.index(c.name)
    )
    rows = sorted(standing.rows, key=lambda row: names.index(row.method))
    return replace(standing, columns=tuple(columns), rows=tuple(rows))


def _quoted(suite: Suite, papers: Reported) -> Quoted:
    """The paper's cell of each row that has one."""
    if (asked := suite.reported) is None:
        return {}
    where = {"paper": asked.paper, "table": str(asked.table), "category": asked.category, "measure": asked.measure}
    cells = papers.cells
    for column, wanted in where.items():
        cells = cells[cells[column] == wanted]
    found = {}
    for row in suite.rows:
        if row.reported is not None:
            parts = set(row.reported.split("; "))
            fitting = cells[[parts <= set(setting.split("; ")) for setting in cells["setting"]]]
            if len(fitting) != 1:
                raise ValueError(
                    f"row {row.name}, reported: {row.reported!r} fits {len(fitting)} settings of {where}, expected one "
                    f"of {cells['setting'].tolist()}."
                )
            found[row.name] = {str(key): str(value) for key, value in fitting.iloc[0].items()}
    return found


def _reported_column(quoted: Quoted) -> dict[str, TableCell]:
    text, _ = with_notes(pd.DataFrame(list(quoted.values())))
    return {name: TableCell(cell) for name, cell in zip(quoted, text, strict=True)}


def _about_reported(suite: Suite, papers: Reported, quoted: Quoted) -> list[str]:
    if suite.reported is None or not quoted:
        return []
    frame = pd.DataFrame(list(quoted.values()))
    source = f"{papers.citation(suite.reported.paper)}, table {suite.reported.table}"
    about = f"*Reported*: {source} [{', '.join(frame['unit'].unique())}], on `{', '.join(frame['dataset'].unique())}`"
    if suite.data not in set(frame["dataset"]):
        about += ": other data and another schedule. The order of rows may be compared, the numbers not"
    return [about + ".\n", with_notes(frame)[1]]


def _settings(suite: Suite) -> str:
    def text(options: dict[str, Any]) -> str:
        return ", ".join(f"`{name}: {option_text(value)}`" for name, value in options.items()) or "nothing"

    lines = [[row.label, row.name, row.method, text(row.overrides)] for row in suite.rows]
    every = f"Besides the configs of method, data and preset, every row sets {text(suite.overrides)}, and of its own:\n"
    return "\n".join([every, markdown.table(["row", "name", "method", "sets"], lines)])


def _how_to_run(name: str) -> str:
    return (
        f"`make suite SUITE={name}` runs what is not finished, and goes on where a kill stopped it; "
        f"`recon3d suite {name} --rows ROW ... --seeds SEED ...` runs a part, so that processes can share the work. "
        f"Records are in [{name}/]({name}); `make leaderboard` renders this page from them. After a change of the "
        "suite a row shows its earlier Records until it is run again.\n"
    )
