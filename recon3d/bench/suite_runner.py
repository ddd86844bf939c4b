"""Runs a suite: every row with every seed, as a cell of the benchmark with Records and run folders of its own.

Seeds come outermost, so that a suite that is stopped half-way has a whole table of fewer seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from recon3d.bench import runner
from recon3d.bench.cell import Cell, ReconCLI, own_arguments, resolved_hash
from recon3d.bench.record import Record, load
from recon3d.bench.suite import Suite, SuiteRow, known, option_text
from recon3d.evaluation.protocol import PROTOCOL

logger = logging.getLogger(__name__)


class _Parsed(ReconCLI):
    """The configuration of a cell, read and checked; nothing of it is built."""

    def instantiate_classes(self) -> None:
        pass


def cell(suite: Suite, row: SuiteRow, seed: int, folder: Path, runs: Path, configs: Path) -> Cell:
    """One run of a suite.

    Args:
        suite: the suite.
        row: one of its rows.
        seed: one of its seeds.
        folder: of the suite's Records.
        runs: folder of the suite's run folders.
        configs: folder of the configuration files.
    """
    overrides = tuple(f"--{name}={option_text(value)}" for name, value in suite.options(row).items())
    results, runs = folder / row.name, runs / row.name
    return Cell(row.method, suite.data, suite.preset, seed, overrides, configs=configs, results=results, runs=runs)


def run_suite(
    suite: Suite,
    folder: Path,
    runs: Path,
    configs: Path,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    force: bool = False,
) -> dict[tuple[str, int], Record]:
    """Run what is not finished; the Records of the runs asked for, by row and seed.

    A failed run is a Record with its error, and the others go on. All rows are checked before the first one starts.

    Args:
        suite: the suite.
        folder: of its Records.
        runs: folder of its run folders.
        configs: folder of the configuration files.
        rows: names of the rows to run; default: all.
        seeds: seeds to run; default: all.
        force: run again, from the start, also what is finished.

    Raises:
        FileNotFoundError: a row names an unknown method, or the suite unknown data or an unknown preset.
        ValueError: an unknown row, seed or measure; options that LightningCLI refuses; two rows that are the same run;
            a damaged Record.
    """
    names = [row.name for row in suite.rows]
    known("measures", suite.measures, [measure.name for measure in PROTOCOL])
    known("rows", rows or (), names)
    known("seeds", seeds or (), suite.seeds)
    cells = {
        (row.name, seed): cell(suite, row, seed, folder, runs, configs)
        for seed, row in product(suite.seeds, suite.rows)
    }
    hashes = {name: _checked_hash(cells[name, suite.seeds[0]], name) for name in names}
    twins = [(a, b) for a, b in product(names, names) if a < b and hashes[a] == hashes[b]]
    if twins:
        raise ValueError(
            f"rows {' and '.join(twins[0])} have the same configuration: keep one, and name both in its label."
        )
    for this in cells.values():
        if this.record_path.exists():
            load(this.record_path)  # a damaged one is known before hours are spent
    chosen = [key for key in cells if key[0] in (rows or names) and key[1] in (seeds or suite.seeds)]
    records = {}
    for number, (name, seed) in enumerate(chosen, start=1):
        logger.info("%s: row %s, seed %d (%d of %d)", suite.title, name, seed, number, len(chosen))
        records[name, seed] = runner.run(cells[name, seed], force=force)
    others = [(name, this.record_path) for (name, seed), this in cells.items() if (name, seed) not in records]
    for name, path in others:
        if path.exists() and load(path).provenance.config_hash != hashes[name]:
            logger.warning("%s is of another configuration than the suite's: run row %s again.", path, name)
    return records


def _checked_hash(this: Cell, name: str) -> str:
    try:
        with own_arguments():
            return resolved_hash(_Parsed(args=this.arguments(), run=False, save_config_callback=None))
    except SystemExit as error:  # the parser has said on standard error what it refuses
        raise ValueError(f"row {name}: LightningCLI refuses {' '.join(this.overrides)}, see above.") from error
