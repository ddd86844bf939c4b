"""Which runs may be compared: Records to ranked rows, out-of-date runs and failed runs. `bench.table` prints them.

The rules:

- One standing per data set and preset.
- The data of a standing are those of its newest finished run. Runs on other data (hash, categories, split, scale) or
  with an older version of any measure than the newest one seen are stale: shown, not ranked.
- Of each method the configuration (hash) of its newest such run counts; seeds of another configuration are stale.
- The remaining seeds of a method make one row: mean and sample standard deviation. A measure missing in one seed is
  missing in the row, never averaged over the rest.
- The interval of a row is from the mean of its seeds' lower ends to the mean of their upper ends: all seeds are scored
  on the same objects, so averaging them does not make the choice of objects count less. It says what other test objects
  might have given; the deviation says what other seeds might have. The *spread* of a row, which decides ties, is the
  interval, widened to mean ± deviation where that goes further.
- Rows are compared within one supervision group; by a measure of image features, within one feature network as well.
- Failed runs are listed with their error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from statistics import mean, stdev

from recon3d.bench.record import Data, MeasureResult, Paper, Record

CATEGORY_MEAN = "mean"  # pseudo-category: every category counts the same, as in the papers' "mean"
PRIMARY = "voxel_iou"  # orders the rows and is broken down by category; 3D, so that a 2D-only win does not lead
# Their values hang on the weights of a network, which the note of the result names, up to the first semicolon.
OF_A_NETWORK = frozenset({"fid", "fid_plain"})


@dataclass(frozen=True)
class Column:
    """A measure as a column."""

    name: str
    unit: str
    version: int
    higher_is_better: bool

    @property
    def label(self) -> str:
        """Name, direction, unit and version."""
        return f"{self.name} {'↑' if self.higher_is_better else '↓'} [{self.unit}] v{self.version}"


@dataclass(frozen=True)
class Row:
    """One method: Records of one configuration, one per seed, ascending."""

    records: tuple[Record, ...]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.records[0].method

    @property
    def paper(self) -> Paper | None:
        """Paper of the method."""
        return self.records[0].paper

    @property
    def input(self) -> str:
        """What the method sees."""
        return self.records[0].input

    @property
    def supervision(self) -> str:
        """ViewBatch fields used in training; equal text is one group."""
        return ", ".join(sorted(self.records[0].supervision)) or "none"

    def results(self, measure: str) -> list[MeasureResult]:
        """One result per seed that has the measure."""
        return [record.measures[measure] for record in self.records if measure in record.measures]

    def value(self, measure: str, category: str | None = None) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation over the seeds (None for one seed).

        None if a seed has no value, or if the seeds' values hang on different networks.

        Args:
            measure: name.
            category: one category, `CATEGORY_MEAN`, or None for the mean over all samples.
        """
        values = [_of_category(record, measure, category) for record in self.records]
        present = [value for value in values if value is not None]
        if len(present) < len(values) or len(self.networks(measure)) > 1:
            return None
        return mean(present), stdev(present) if len(present) > 1 else None

    def networks(self, measure: str) -> list[str]:
        """The networks that the seeds' values of a measure of `OF_A_NETWORK` hang on, sorted; of others none."""
        notes = [result.note for result in self.results(measure) if result.value is not None]
        return sorted({(note or "").partition(";")[0] for note in notes}) if measure in OF_A_NETWORK else []

    def interval(self, measure: str) -> tuple[float, float] | None:
        """Low and high end of the bootstrap interval, each averaged over the seeds; None if a seed has none."""
        ends = [result.interval for result in self.results(measure)]
        present = [end for end in ends if end is not None]
        if self.value(measure) is None or len(present) < len(ends):
            return None
        return mean(low for low, _ in present), mean(high for _, high in present)

    def spread(self, measure: str) -> tuple[float, float] | None:
        """The interval, widened to mean ± standard deviation of the seeds; None without an interval."""
        value, interval = self.value(measure), self.interval(measure)
        if value is None or interval is None:
            return None
        return min(interval[0], value[0] - (value[1] or 0.0)), max(interval[1], value[0] + (value[1] or 0.0))

    def cost(self, name: str) -> float | None:
        """A field of Cost; None if a seed lacks it.

        Of several seeds the fastest time (other work on the machine only ever adds to it) and the highest of the rest.
        """
        values = [getattr(record.cost, name) for record in self.records]
        if None in values:
            return None
        return float((min if name in {"train_s", "ms_per_image"} else max)(values))


@dataclass(frozen=True)
class Standing:
    """All runs on one data set with one preset."""

    name: str
    preset: str
    data: Data | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    stale: tuple[tuple[Record, str], ...]
    failed: tuple[Record, ...]

    @property
    def primary(self) -> Column | None:
        """The measure that orders the rows: `PRIMARY`, else the first one; one that has a value, if there is any."""
        first = sorted(self.columns, key=lambda column: (not self.has_value(column), column.name != PRIMARY))
        return next(iter(first), None)

    def has_value(self, column: Column) -> bool:
        """Whether any row has a value of a measure."""
        return any(row.value(column.name) is not None for row in self.rows)

    def rivals(self, row: Row, measure: str) -> list[Row]:
        """The rows that `row` is compared with by a measure, itself among them; the rule is in the module docstring."""
        return [
            other
            for other in self.rows
            if other.supervision == row.supervision and other.networks(measure) == row.networks(measure)
        ]


def standings(records: Iterable[Record]) -> list[Standing]:
    """Standings by data set and preset, sorted; the rules are in the module docstring.

    Raises:
        ValueError: two runs give one measure, in one version, another unit or direction.
    """

    def key(record: Record) -> tuple[str, str]:
        return record.data.name, record.preset

    def order(record: Record) -> tuple[tuple[str, str], str, int]:
        return key(record), record.method, record.seed

    grouped = groupby(sorted(records, key=order), key)
    return [_standing(name, preset, list(group)) for (name, preset), group in grouped]


def _standing(name: str, preset: str, records: Sequence[Record]) -> Standing:
    failed = tuple(record for record in records if record.error is not None)
    finished = [record for record in records if record.error is None]
    if not finished:
        return Standing(name, preset, None, (), (), (), failed)
    data = _newest(finished).data
    versions: dict[str, int] = {}
    for record in finished:
        for measure, result in record.measures.items():
            versions[measure] = max(result.version, versions.get(measure, 0))
    reasons = {id(record): _outdated(record, data, versions) for record in finished}
    stale = [(record, reason) for record in finished if (reason := reasons[id(record)])]
    fresh = [record for record in finished if not reasons[id(record)]]
    rows = []
    for _, group in groupby(fresh, lambda record: record.method):
        runs = list(group)
        newest = _newest(runs).provenance.config_hash
        same = tuple(run for run in runs if run.provenance.config_hash == newest)
        stale += [(run, f"configuration differs from {newest[:8]}") for run in runs if run not in same]
        rows.append(Row(same))
    columns = _columns(rows)
    standing = Standing(name, preset, data, columns, tuple(rows), tuple(stale), failed)
    rows.sort(key=lambda row: _rank(row, standing.primary))
    return Standing(name, preset, data, columns, tuple(rows), tuple(stale), failed)


def _newest(records: Sequence[Record]) -> Record:
    return max(records, key=lambda record: (record.when, record.method, record.seed))


def _outdated(record: Record, data: Data, versions: dict[str, int]) -> str:
    """Why a run cannot be ranked; empty if it can."""
    reasons = [
        f"data.{field.name} differs: {getattr(record.data, field.name)}"
        for field in fields(Data)
        if getattr(record.data, field.name) != getattr(data, field.name)
    ]
    reasons += [
        f"{measure} is v{result.version}, the newest v{versions[measure]}"
        for measure, result in sorted(record.measures.items())
        if result.version < versions[measure]
    ]
    return "; ".join(reasons)


def _columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Columns in the order of the newest run; measures that it lacks follow."""
    records = [record for row in rows for record in row.records]
    if not records:
        return ()
    columns: dict[str, Column] = {}
    for record in [_newest(records), *records]:
        for name in record.measure_order:
            result = record.measures[name]
            column = Column(name, result.unit, result.version, result.higher_is_better)
            if columns.setdefault(name, column) != column:
                raise ValueError(
                    f"{record.data.name}, {record.method}, seed {record.seed}: {column.label} against "
                    f"{columns[name].label}: a measure that changes its unit or direction needs a new version."
                )
    return tuple(columns.values())


def _rank(row: Row, primary: Column | None) -> tuple[str, bool, float, str]:
    """Sort key: supervision group, then the primary measure, best first and missing last, then the name."""
    value = row.value(primary.name) if primary else None
    if primary is None or value is None:
        return row.supervision, True, 0.0, row.method
    return row.supervision, False, -value[0] if primary.higher_is_better else value[0], row.method


def _of_category(record: Record, measure: str, category: str | None) -> float | None:
    result = record.measures.get(measure)
    if result is None or category is None:
        return None if result is None else result.value
    if category != CATEGORY_MEAN:
        return result.per_category.get(category)
    values = [result.per_category.get(name) for name in record.data.categories]
    present = [value for value in values if value is not None]
    return mean(present) if present and len(present) == len(values) else None
