"""A suite: what one command runs. ``benchmarks/suites/<name>.yaml`` says it, `bench.suite_runner` runs it.

There are two kinds. A `Grid` is methods times data sets times seeds, the cells of the benchmark; its Records are those
of the main leaderboard. A `Suite` is an experiment: rows (a method with its options) times seeds; its Records go below
``leaderboard/suites/<name>/<row>``, away from the main leaderboard's, and `bench.suite_page` prints them as
``leaderboard/suites/<name>.md``. This file reads the yamls and the Records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from recon3d.bench.record import Record, load, result_path

SUITES = Path("benchmarks/suites")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class SuiteRow:
    """One row of the table.

    Attributes:
        name: in folders, files and ``--rows``.
        label: in the table.
        method: stem of ``configs/methods/<method>.yaml`` or ``configs/variants/<method>-<variant>.yaml``.
        overrides: options of LightningCLI with their values, such as ``model.init_args.lr: 1.0e-3``.
        reported: what tells the paper's setting of this row from its others, such as ``loss=full; views=2``.
    """

    name: str
    label: str
    method: str
    overrides: dict[str, Any] = field(default_factory=dict)
    reported: str | None = None


@dataclass(frozen=True)
class SuiteReported:
    """The table of a paper that the suite repeats, cells of ``leaderboard/reported``.

    Attributes:
        paper: its key.
        table: its number.
        category: of the cells.
        measure: of the cells, one of the suite's.
    """

    paper: str
    table: int
    category: str
    measure: str


@dataclass(frozen=True)
class Suite:
    """A suite as its yaml says it.

    Attributes:
        title: of the page.
        data: stem of ``configs/data/<data>.yaml``.
        preset: stem of ``configs/presets/<preset>.yaml``.
        seeds: every row is run with each.
        measures: of the protocol, in the order of the columns.
        rows: in the order of the table.
        about: Markdown above the table: what is asked.
        overrides: of every row; a row's own come after.
        reported: a paper's numbers beside ours.
        reading: Markdown below the table: what came out.
    """

    title: str
    data: str
    preset: str
    seeds: list[int]
    measures: list[str]
    rows: list[SuiteRow]
    about: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    reported: SuiteReported | None = None
    reading: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        for key, values in (("seeds", self.seeds), ("measures", self.measures), ("names of rows", names)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: expected at least one, each once, got {values}.")
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise ValueError(f"names of rows: expected lower-case letters, digits and single underscores, got {wrong}.")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds: expected 0 or more, got {self.seeds}.")
        if any("seed_everything" in self.options(row) for row in self.rows):
            raise ValueError("overrides: expected no seed_everything; the suite's `seeds` say it.")
        if self.reported is not None and self.reported.measure not in self.measures:
            raise ValueError(f"reported.measure: expected one of {self.measures}, got {self.reported.measure!r}.")
        if self.reported is None and (lonely := [row.name for row in self.rows if row.reported is not None]):
            raise ValueError(f"rows {lonely} have `reported`, but the suite does not say of which paper.")

    def options(self, row: SuiteRow) -> dict[str, Any]:
        """Options of LightningCLI of a row: the suite's, then its own."""
        return self.overrides | row.overrides


@dataclass(frozen=True)
class Grid:
    """Methods times data sets times seeds as a yaml says it.

    Attributes:
        title: for people.
        preset: stem of ``configs/presets/<preset>.yaml``.
        seeds: every method is run with each on each of its data sets.
        grid: methods by data set, stems of ``configs/methods/<method>.yaml`` and ``configs/data/<data>.yaml``.
    """

    title: str
    preset: str
    seeds: list[int]
    grid: dict[str, list[str]]

    def __post_init__(self) -> None:
        lists: dict[str, list[Any]] = {"seeds": self.seeds, "grid": list(self.grid), **self.grid}
        for key, values in lists.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: expected at least one, each once, got {values}.")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds: expected 0 or more, got {self.seeds}.")


def read(path: Path) -> Suite:
    """The suite of one yaml.

    Raises:
        FileNotFoundError: there is no such file; the message names those that there are.
        ValueError: an unknown, missing or wrongly typed key, or values that do not fit; the message names
            the file and the key.
    """
    parts = {"a suite": Suite, "a row": SuiteRow, "`reported`": SuiteReported}
    suite: Suite = _parsed(Suite, parts, path)
    return suite


def read_grid(path: Path) -> Grid:
    """The grid of one yaml; errors as `read`."""
    grid: Grid = _parsed(Grid, {"a grid": Grid}, path)
    return grid


def is_grid(path: Path) -> bool:
    """Whether a yaml is of a `Grid`: it has the key ``grid``."""
    content = _content(path)
    return isinstance(content, dict) and "grid" in content


def experiments(folder: Path) -> list[Path]:
    """The yamls of a folder that are of a `Suite`, which has a page of its own."""
    return [path for path in sorted(folder.glob("*.yaml")) if not is_grid(path)]


def _content(path: Path) -> Any:
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"There is no {path}; known suites: {known}. Run from the repository's root.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error


def _parsed(kind: type, parts: dict[str, type], path: Path) -> Any:
    content = _content(path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "suite")
    try:
        return parser.instantiate(parser.parse_object({"suite": content})).suite
    except (ArgumentError, TypeError, ValueError) as error:
        keys = "; ".join(
            f"{what} has the keys {', '.join(field.name for field in fields(part))}" for what, part in parts.items()
        )
        raise ValueError(f"{path}: {error}\nExpected: {keys}.") from error


def known(what: str, asked: Iterable[Any], names: Sequence[Any]) -> None:
    """Refuse parts that a suite does not have.

    Raises:
        ValueError: some of `asked` are not among `names`; the message has both.
    """
    if unknown := [one for one in asked if one not in names]:
        raise ValueError(f"{what}: expected some of {', '.join(map(str, names))}, got {', '.join(map(str, unknown))}.")


def option_text(value: Any) -> str:
    """A value of `Suite.options` as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def record_path(folder: Path, suite: Suite, row: SuiteRow, seed: int) -> Path:
    """File of the Record of one run; `folder` is the suite's, ``leaderboard/suites/<name>``."""
    return result_path(folder / row.name, suite.data, suite.preset, row.method, seed)


def records(folder: Path, suite: Suite) -> list[Record]:
    """The Records that there are of the suite's runs, each with the name of its row in place of the method's.

    So the rules of `bench.ranking` hold between rows as they do between methods.
    """
    paths = {(row.name, seed): record_path(folder, suite, row, seed) for row, seed in product(suite.rows, suite.seeds)}
    return [replace(load(path), method=name) for (name, _), path in paths.items() if path.exists()]
