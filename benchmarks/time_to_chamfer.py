"""How long methods train until they reach a given Chamfer distance: the question of Zubic and Lio 2021, table 3.

Every method is trained as `recon3d bench` does, on the same data with the same preset, but validated after every epoch;
the clock stops during validations. The JSON file holds for each method the Chamfer distance of the validation split
after so many steps and seconds; ``make leaderboard`` makes a page of it.

Run ``python -m benchmarks.time_to_chamfer`` from the repository root, with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import write_result
from recon3d.bench.cell import Cell
from recon3d.bench.record import Record
from recon3d.bench.runner import run

NAME = "time_to_chamfer"
METHODS = ("dpc", "effective_loss")


def course(record: Record, log: Path) -> dict[str, Any]:
    """A method's way down, from the CSV log of its run: one entry of each list per validation.

    Raises:
        RuntimeError: the run failed.
    """
    if record.error is not None:
        raise RuntimeError(f"{record.method} failed: {record.error}")
    seen = pd.read_csv(log).dropna(subset=["val/chamfer"])
    return {
        "method": record.method,
        "data": record.data.name,
        "preset": record.preset,
        "seed": record.seed,
        "steps": (seen["step"] + 1).astype(int).tolist(),
        "seconds": seen["val/train_s"].tolist(),
        "chamfer": seen["val/chamfer"].tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the methods one after the other and write ``benchmarks/results/curves/time_to_chamfer--<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/time_to_chamfer"))
    parser.add_argument("overrides", nargs="*", help="further options of the runs, after --")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for method in options.methods:
        cell = Cell(
            method=method,
            data=options.data,
            preset=options.preset,
            seed=options.seed,
            overrides=("--trainer.check_val_every_n_epoch", "1", *options.overrides),
            results=options.runs / "results",
            runs=options.runs,
        )
        record = run(cell)
        logs = sorted(cell.folder(record.provenance.config_hash).glob("csv/version_*/metrics.csv"))
        if not logs:
            raise RuntimeError(f"{method}: no log of the run: {record.error}")
        rows.append(course(record, logs[-1]))
    logging.getLogger(__name__).info("Wrote %s", write_result(f"curves/{NAME}", rows))


if __name__ == "__main__":
    main()
