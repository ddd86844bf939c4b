"""Runs a grid: every cell in a process of its own, so that a crash, or a process killed for its memory, loses one cell.

Between `bench.suite`, which says what is run, and `recon3d bench`, which runs one cell. Seeds come outermost, so that a
grid that is stopped half-way has whole tables of fewer seeds. What is finished is skipped without a process.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recon3d.bench import runner
from recon3d.bench.cell import Cell
from recon3d.bench.processes import LEAVE
from recon3d.bench.record import load
from recon3d.bench.suite import Grid, known

logger = logging.getLogger(__name__)

PASSED_ON = (signal.SIGTERM, signal.SIGINT)
POLL = 0.5  # seconds between two looks for a signal
STOP = LEAVE + 3.0  # seconds that a cell has to end after one; Slurm kills after 30


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        cell: which.
        state: `finished` before, `done` now, or `failed`.
        seconds: that it took now.
        error: of a failed one, one line.
    """

    cell: Cell
    state: Literal["finished", "done", "failed"]
    seconds: float
    error: str = ""


def cells(
    grid: Grid,
    leaderboard: Path,
    runs: Path,
    configs: Path,
    methods: Sequence[str] | None = None,
    data: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    loggers: Sequence[str] = (),
) -> list[Cell]:
    """The cells of a grid, or of a part of it, in the order of running.

    Args:
        grid: the grid.
        leaderboard: folder of the ``results``.
        runs: folder of the run folders.
        configs: folder of the configuration files.
        methods: some methods of the grid; default: all.
        data: some of its data sets; default: all.
        seeds: some of its seeds; default: all.
        overrides: further arguments of LightningCLI for every cell, such as ``--trainer.devices 2``.
        loggers: stems of ``configs/logger/<name>.yaml``.

    Raises:
        FileNotFoundError: an unknown method, data set, preset or logger; the message names the known ones.
        ValueError: a part that the grid does not have.
    """
    known("methods", methods or (), list(dict.fromkeys(name for names in grid.grid.values() for name in names)))
    known("data", data or (), list(grid.grid))
    known("seeds", seeds or (), grid.seeds)
    return [
        Cell(
            method,
            name,
            grid.preset,
            seed,
            tuple(overrides),
            tuple(loggers),
            configs=configs,
            results=leaderboard / "results",
            runs=runs,
        )
        for seed in grid.seeds
        for name, names in grid.grid.items()
        for method in names
        if seed in (seeds or grid.seeds) and name in (data or grid.grid) and method in (methods or names)
    ]


def run_grid(chosen: Sequence[Cell], force: bool = False) -> list[Outcome]:
    """Run what is not finished of some cells; a failed cell does not stop the others.

    Args:
        chosen: cells.
        force: run again, from the start, also what is finished.

    Raises:
        ValueError: a damaged Record; it is known before hours are spent.
        SystemExit: SIGTERM or Ctrl-C, when the cell that ran has ended.
    """
    for cell in chosen:
        if cell.record_path.exists():
            load(cell.record_path)
    outcomes = []
    for number, cell in enumerate(chosen, start=1):
        name = f"{cell.method} on {cell.data}, seed {cell.seed} ({number} of {len(chosen)})"
        if not force and _is_finished(cell):
            logger.info("%s: finished", name)
            outcomes.append(Outcome(cell, "finished", 0.0))
            continue
        logger.info("%s", name)
        outcomes.append(_run(cell, force))
    return outcomes


def _is_finished(cell: Cell) -> bool:
    try:
        return runner.finished(cell) is not None
    except (Exception, SystemExit) as error:  # the parser, a constructor, data that are gone: it fails in its process
        logger.warning("%s on %s cannot be looked at (%s); it is run.", cell.method, cell.data, error)
        return False


def _run(cell: Cell, force: bool) -> Outcome:
    """One cell in a process of its own, which writes to this terminal."""
    started = time.perf_counter()
    options = {
        "--method": cell.method,
        "--data": cell.data,
        "--preset": cell.preset,
        "--seed": cell.seed,
        "--configs": cell.configs,
        "--results": cell.results,
        "--runs": cell.runs,
    }
    command = [sys.executable, "-m", "recon3d", "bench", "--alone", *(["--force"] if force else [])]
    command += [str(part) for option in options.items() for part in option]
    command += [part for name in cell.loggers for part in ("--logger", name)]
    before = runner.stamp(cell.record_path)
    status = _exit_status([*command, *cell.overrides])
    seconds = time.perf_counter() - started
    if status == 0:
        return Outcome(cell, "done", seconds)
    if status < 0:
        # Nobody was left to write a Record.
        name = signal.Signals(-status).name
        hint = "; was there too little memory?" if -status == signal.SIGKILL else ""
        error = f"the process was killed by {name}{hint}"
        runner.save_failure(cell, error)
        return Outcome(cell, "failed", seconds, error)
    written = runner.stamp(cell.record_path) != before
    told = load(cell.record_path).error if written else None  # an earlier Record knows nothing of this run
    error = (told or "").partition("\n")[0] or f"exit status {status}, see above"
    if not cell.record_path.exists():
        runner.save_failure(cell, error)
    return Outcome(cell, "failed", seconds, error)


def _exit_status(command: Sequence[str]) -> int:
    """Exit status of a process, below 0 for a signal; SIGTERM and Ctrl-C are passed on, and end this process after it.

    Raises:
        SystemExit: this process was sent SIGTERM or SIGINT, and the other has ended.
    """
    asked: list[int] = []
    former = {number: signal.signal(number, lambda sent, _: asked.append(sent)) for number in PASSED_ON}
    try:
        process = subprocess.Popen(command)
        while process.poll() is None and not asked:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
        if asked:
            # Ctrl-C in a terminal reaches the other one by itself, too; a training ignores the second.
            process.send_signal(asked[0])
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
        status = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if asked:
        logger.warning("Stopped by %s. The same command goes on.", signal.Signals(asked[0]).name)
        raise SystemExit(128 + asked[0])
    return status
