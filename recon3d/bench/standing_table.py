"""Tables of a Standing: its rows and columns as cells of text, each with its interval and its place.

`bench.page` prints them as Markdown, `bench.table` for the terminal and README.md, `bench.suite_page` in the order of a
suite. What may be compared is said by `bench.ranking`; here it is decided by what a reader sees, the printed digits:

- best: the best printed mean of a row's rivals; equal prints share it. Nothing is best where all print the same.
- tie: not the best, but the spread (see `bench.ranking`) overlaps that of a best one. Overlap is no test of a
  difference: both intervals are of the same objects, so a paired test may still find one. And of one seed the spread
  holds nothing of the chance of training, so that without a tie another seed may still turn the order. Where an
  interval is missing, and by category, no tie is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from recon3d.bench import markdown
from recon3d.bench.ranking import CATEGORY_MEAN, Column, Row, Standing


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: what it says.
        mark: its place among its rivals.
        interval: "low to high"; empty where there is none, or where both ends print as the value does.
    """

    text: str
    mark: Literal["", "best", "tie"] = ""
    interval: str = ""

    @property
    def markdown(self) -> str:
        """The best in bold, a tie with ≈, the interval small and below."""
        text = f"**{self.text}**" if self.mark == "best" else self.plain
        return text + (f"<br><sub>{self.interval}</sub>" if self.interval else "")

    @property
    def plain(self) -> str:
        """Without markup and interval; a tie with ≈."""
        return f"{self.text} ≈" if self.mark == "tie" else self.text


Table = tuple[list[str], list[list[TableCell]]]  # header, and a line per row


def to_markdown(header: Sequence[str], lines: Sequence[Sequence[TableCell]]) -> str:
    """Markdown table of cells."""
    return markdown.table(header, [[cell.markdown for cell in line] for line in lines])


def results(
    standing: Standing, columns: Sequence[Column], costs: Sequence[str] = (), rows: Sequence[Row] | None = None
) -> Table:
    """The measures of `columns`, what each method is told and sees, and the columns `costs` of `cost`.

    `rows` are shown; by default all.
    """
    header = ["method", "supervision", "input", "seeds", *(column.label for column in columns), *costs]
    lines = []
    for row in standing.rows if rows is None else rows:
        told = [TableCell(text) for text in (row.method, row.supervision, row.input, str(len(row.records)))]
        lines.append([*told, *(measure(standing, row, column) for column in columns)])
        lines[-1] += [TableCell(_COSTS[name](row)) for name in costs]
    return header, lines


def by_category(standing: Standing, column: Column) -> Table:
    """One measure by category."""
    assert standing.data is not None
    categories = standing.data.categories
    lines = [
        [
            TableCell(row.method),
            *(measure(standing, row, column, category) for category in (*categories, CATEGORY_MEAN, None)),
        ]
        for row in standing.rows
    ]
    return ["method", *categories, CATEGORY_MEAN, "all samples"], lines


def measure(standing: Standing, row: Row, column: Column, category: str | None = None) -> TableCell:
    """The cell of one row and measure: "-" where a run was not asked for it, "n/a" where there is no value."""
    value = row.value(column.name, category)
    if value is None:
        return TableCell("n/a" if len(row.results(column.name)) == len(row.records) else "-")
    decimals = _decimals(standing, column)
    text = number(value, decimals)
    networks = [one for other in standing.rows for one in other.networks(column.name)]
    if len(set(networks)) > 1:  # the notes say which is which
        text += f" ({sorted(set(networks)).index(row.networks(column.name)[0]) + 1})"
    return TableCell(
        text, _mark(standing, row, column, category), "" if category else between(row, column.name, decimals)
    )


def number(value: tuple[float, float | None], decimals: int) -> str:
    """Mean ± standard deviation as text; without ± where there is one seed."""
    mean, sd = value
    return f"{mean:.{decimals}f}" + ("" if sd is None else f" ± {sd:.{decimals}f}")


def between(row: Row, name: str, decimals: int, factor: float = 1.0) -> str:
    """The interval of a measure times `factor` as text; empty as in `TableCell`."""
    interval, value = row.interval(name), row.value(name)
    if interval is None or value is None:
        return ""
    low, high, middle = (f"{factor * end:.{decimals}f}" for end in (*interval, value[0]))
    return "" if low == high == middle else f"{low} to {high}"


def duration(seconds: float | None) -> str:
    """Seconds as text in the unit that reads best; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _figure(name: str, form: str, scale: float = 1.0) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = row.cost(name)
        return "-" if value is None else format(value * scale, form)

    return text


def _slowest(row: Row) -> str:
    times = [run.cost.train_s for run in row.records if run.cost.train_s is not None]
    return duration(max(times) if len(times) == len(row.records) > 1 else None)


def _step(row: Row) -> str:
    seconds, steps = row.cost("train_s"), row.cost("steps")
    return f"{1e3 * seconds / steps:.1f}" if seconds is not None and steps else "-"


_COSTS: dict[str, Callable[[Row], str]] = {
    "parameters [M]": _figure("params", ".2f", 1e-6),
    "steps": _figure("steps", ".0f"),
    "train time": lambda row: duration(row.cost("train_s")),
    "slowest seed": _slowest,
    "step [ms]": _step,
    "ms/image": _figure("ms_per_image", ".1f"),
    "peak memory [MiB]": _figure("peak_mem_mib", ".0f"),
    "device": lambda row: ", ".join(dict.fromkeys(run.provenance.device for run in row.records)),
}
COSTS = tuple(_COSTS)
MAIN_COSTS = ("parameters [M]", "train time", "ms/image", "peak memory [MiB]")  # beside the measures


def cost(standing: Standing, columns: Sequence[str] = COSTS) -> Table:
    """What the methods cost: some of `COSTS`, after the method.

    Times are of the fastest seed (see `Row.cost`), a step is its training with its validations over its steps.
    """
    lines = [[TableCell(row.method), *(TableCell(_COSTS[column](row)) for column in columns)] for row in standing.rows]
    return ["method", *columns], lines


def _decimals(standing: Standing, column: Column) -> int:
    """Digits after the point of a column: 4 up to 0.1 (3 where all is 0), 3 up to 1, 2 up to 100, then 1."""
    values = [abs(value[0]) for row in standing.rows if (value := row.value(column.name)) is not None]
    largest = max(values, default=0.0)
    return 4 if 0 < largest <= 0.1 else 3 if largest <= 1 else 2 if largest <= 100 else 1


def _mark(standing: Standing, row: Row, column: Column, category: str | None) -> Literal["", "best", "tie"]:
    decimals = _decimals(standing, column)
    prints = [
        (rival, round(value[0], decimals))
        for rival in standing.rivals(row, column.name)
        if (value := rival.value(column.name, category)) is not None
    ]
    if len({value for _, value in prints}) < 2:
        return ""
    top = (max if column.higher_is_better else min)(value for _, value in prints)
    best = [rival for rival, value in prints if value == top]
    if row in best:
        return "best"
    tied = category is None and any(_overlap(row.spread(column.name), rival.spread(column.name)) for rival in best)
    return "tie" if tied else ""


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]
