"""The page of a paper: its own tables, what was measured here beside them, and why the two differ.

A run stands below the row of the paper that it repeats, in the paper's unit; `bench.beside` finds the runs. A gap is
given only where the data are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from recon3d.bench import markdown
from recon3d.bench.beside import TRAINING_TIME, Beside, Key, Ours, ReportedRow, Run, Runs, cells_of, likeness, same_data
from recon3d.bench.ranking import CATEGORY_MEAN
from recon3d.bench.reported import ONE_CATEGORY, Reported, unit_factor, with_notes
from recon3d.bench.standing_table import between, duration, number


@dataclass(frozen=True)
class _Head:
    """A column of a paper's table.

    Attributes:
        dataset: of the paper.
        category: one of ours, ``mean`` or ``all``.
        measure: as the paper's.
        unit: of the paper.
        decimals: as printed.
        categories: of the data set in this table.
    """

    dataset: str
    category: str
    measure: str
    unit: str
    decimals: int
    categories: frozenset[str]


def paper_page(key: str, papers: Reported, beside: Beside, runs: Runs) -> str:
    """Markdown page of one paper."""
    parts = [
        markdown.GENERATED,
        f"# {papers.names(key)}, beside what was measured here\n",
        f"{papers.full_citation(key)}\n",
        "*Reported* rows are as printed in the paper. Below each stand our runs of the same method, in the paper's "
        "unit, with bootstrap intervals ([how to read](../README.md#how-to-read)). *Ours - reported* is given where "
        "the data are the same. On similar data, named at the end, a gap would say nothing: there is none. A command "
        "that would fill a row needs the paper's data ([where from](../../docs/data/README.md)) and, for its schedule, "
        "a GPU.\n",
    ]
    for one, (title, about) in beside.titles.items():
        if one[0] == key:
            parts += [f"## Table {one[1]}: {title}\n", *([f"{about}\n"] if about else [])]
            parts += [_table(cells_of(papers, one), runs[one]), _why(one, papers, beside.ours[one], runs[one])]
    for title, items in (
        ("The data", _data(key, papers, runs)),
        ("The same cells in other papers", _in_other_papers(key, papers)),
    ):
        parts += [f"## {title}\n", items] if items else []
    return "\n".join(parts)


def _table(cells: pd.DataFrame, runs: dict[ReportedRow, list[Run]]) -> str:
    """The reported rows, ours below each, the notes; what all rows or all columns share is said once, above.

    The mean and our value over all samples come before the categories, where they are seen without scrolling.
    """
    text, footnotes = with_notes(cells)
    heads = sorted(_heads(cells), key=lambda head: head.category != CATEGORY_MEAN)
    first = 3 + sum(head.category == CATEGORY_MEAN for head in heads)
    titles, said = _titles(heads)
    rows = list(dict.fromkeys(cells[["method", "setting"]].itertuples(index=False, name=None)))
    settings = [set(filter(None, setting.split("; "))) for _, setting in rows]
    common = set.intersection(*settings) if len(rows) > 1 else set[str]()
    if common:
        said.append("all rows " + "; ".join(part for part in rows[0][1].split("; ") if part in common))
    several = any(len(run.data.categories) > 1 for found in runs.values() for run in found)
    overall = several and any(head.category != "all" for head in heads)
    lines = []
    for method, setting in rows:
        group = cells[(cells["method"] == method) & (cells["setting"] == setting)]
        at = {(cell.dataset, cell.category, cell.measure): cell.Index for cell in group.itertuples()}
        found = [at.get((head.dataset, head.category, head.measure)) for head in heads]
        where = "; ".join(part for part in setting.split("; ") if part not in common)
        block = [[f"{method} *reported*", where, "", *("" if one is None else text[one] for one in found), ""]]
        for run in runs.get((method, setting), []):
            own = [_own(run, head) for head in heads]
            told = [run.row.method, run.where, str(len(run.row.records))]
            block.append([*told, *(shown for shown, _ in own), _all_samples(run, heads)])
            gaps = [
                "" if one is None or value is None else f"{value - float(cells.loc[one, 'value']):+.{head.decimals}f}"
                for one, (_, value), head in zip(found, own, heads, strict=True)
            ]
            block += [["*ours - reported*", "", "", *gaps, ""]] if any(gaps) else []
        lines += block
    header, *body = [
        [*line[:first], *([line[-1]] if overall else []), *line[first:-1]]
        for line in (["method", "setting or page", "seeds", *titles, "all samples"], *lines)
    ]
    table = markdown.table(header, body)
    return (f"{', '.join(said)}:\n\n" if said else "") + table + (f"\n{footnotes}" if footnotes else "")


def _heads(cells: pd.DataFrame) -> list[_Head]:
    heads = []
    for names, group in cells.groupby(["dataset", "category", "measure", "unit"], sort=False):
        dataset, category, measure, unit = map(str, names)
        decimals = max(len(printed.partition(".")[2]) for printed in group["printed"])
        categories = set(cells["category"][cells["dataset"] == dataset]) - {CATEGORY_MEAN, "all"}
        heads.append(_Head(dataset, category, measure, unit, decimals, frozenset(categories)))
    return heads


def _titles(heads: Sequence[_Head]) -> tuple[list[str], list[str]]:
    """Titles of the columns, and what they all share."""
    parts = [(head.dataset, f"{head.measure} [{head.unit}]", head.category) for head in heads]
    varies = [len({part[position] for part in parts}) > 1 for position in range(3)]
    if not any(varies):
        return [parts[0][1]], [parts[0][0]]
    titles = [", ".join(part[position] for position in range(3) if varies[position]) for part in parts]
    return titles, [parts[0][position] for position in (0, 1) if not varies[position]]


def _own(run: Run, head: _Head) -> tuple[str, float | None]:
    """Our cell; its value, too, where it may be compared. Both in the paper's unit."""
    like = likeness(run.data.name, head.dataset)
    if like is None:
        return "", None
    if run.measure == TRAINING_TIME:  # on another machine: no gap
        devices = ", ".join(dict.fromkeys(record.provenance.device for record in run.row.records))
        return f"{duration(run.row.cost('train_s'))} on {devices}", None
    category: str | None = head.category
    ours = run.data.categories
    if category == "all" and head.dataset in ONE_CATEGORY and len(ours) == 1:
        category = None
    elif category == CATEGORY_MEAN:
        if set(ours) != head.categories:
            return "", None
    elif category not in ours:
        return "", None
    elif len(ours) == 1:  # then it is all samples, which have an interval
        category = None
    text, value = _value(run, head, category)
    return text, None if like else value


def _all_samples(run: Run, heads: Sequence[_Head]) -> str:
    """Our cell over all samples, in the unit of the first column of similar data; it is the one with an interval."""
    head = next((head for head in heads if likeness(run.data.name, head.dataset) is not None), None)
    return "" if head is None or run.measure == TRAINING_TIME else _value(run, head, None)[0]


def _value(run: Run, head: _Head, category: str | None) -> tuple[str, float | None]:
    name = run.measure or head.measure
    column = next((column for column in run.standing.columns if column.name == name), None)
    value = run.row.value(name, category)
    if column is None or value is None:
        return "n/a", None
    factor = 1 / unit_factor(head.unit, column)
    mean, sd = factor * value[0], None if value[1] is None else factor * value[1]
    low_high = "" if category else between(run.row, name, head.decimals, factor)
    return number((mean, sd), head.decimals) + (f"<br><sub>{low_high}</sub>" if low_high else ""), mean


def _why(key: Key, papers: Reported, lines: Sequence[Ours], runs: dict[ReportedRow, list[Run]]) -> str:
    """A list: for each of our methods why it differs, or why there is nothing, and what would fill it; the data."""
    datasets = list(dict.fromkeys(cells_of(papers, key)["dataset"]))
    items = []
    for line in lines:
        found = [run for row in line.rows for run in runs.get(row, [])]
        who = f"**{line.method}**" + (f" ({line.setting})" if line.setting else "")
        items.append(f"- {who}: {line.why}{_what_fills_it(line, found, datasets)}")
    ours = {line.method for line in lines}
    if others := [name for name in dict.fromkeys(cells_of(papers, key)["method"]) if name not in ours]:
        items.append(f"- Not among the methods here: {', '.join(others)}.")
    return "Why they differ, and what is missing:\n\n" + "".join(f"{item}\n" for item in items)


def _what_fills_it(line: Ours, found: Sequence[Run], datasets: Iterable[str]) -> str:
    """Which cell of the benchmark has the paper's data and schedule, unless it is there."""
    if not line.ours:
        return ""
    on_same = [run for run in found if run.is_same(datasets)]
    if any(run.standing.preset == "paper" for run in on_same):
        return ""
    names = [name for name in map(same_data, datasets) if name is not None]
    commands = " or ".join(f"`make bench METHOD={line.ours} DATA={name} PRESET=paper`" for name in names)
    what = "schedule, only with a shorter one" if on_same else "data"
    return f" Not measured with the paper's {what}: {commands}." if names else ""


def _data(key: str, papers: Reported, runs: Runs) -> str:
    """What is alike and what not between our data and the paper's, a line per difference."""
    said: dict[tuple[str, str], list[str]] = {}  # our data sets by the paper's and what is alike
    for one in (one for one in runs if one[0] == key):
        shown = dict.fromkeys(run.data.name for found in runs[one].values() for run in found)
        for theirs in dict.fromkeys(cells_of(papers, one)["dataset"]):
            for ours in shown:
                if (text := likeness(ours, theirs)) and ours not in said.setdefault((theirs, text), []):
                    said[theirs, text].append(ours)
    return "".join(
        f"- {', '.join(f'`{name}`' for name in sorted(names))} beside `{theirs}`: {text}.\n"
        for (theirs, text), names in said.items()
        if names
    )


def _in_other_papers(key: str, papers: Reported) -> str:
    """Where another paper prints a number for the same method, data, category and measure: how many, which differ."""
    same = ["method", "dataset", "category", "measure", "unit"]
    own, others = papers.cells[papers.cells["paper"] == key], papers.cells[papers.cells["paper"] != key]
    both = own.merge(others, on=same, suffixes=("", "_there"))
    items = []
    for names, cells in both.groupby(["paper_there", "table_there"]):
        paper, table = map(str, names)
        differ = cells[cells["value"].astype(float) != cells["value_there"].astype(float)]
        text = "; ".join(
            f"{cell.method}, {cell.category}: {cell.printed} here, {cell.printed_there} there"
            for cell in differ.itertuples()
        )
        items.append(
            f"- [{papers.names(paper)}]({paper}.md), table {table}: {len(cells) - len(differ)} of {len(cells)} cells "
            f"are equal{f'. Not equal: {text}' if text else ''}.\n"
        )
    return "".join(items)
