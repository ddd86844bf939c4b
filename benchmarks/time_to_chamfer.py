"""How long methods train until they reach a given Chamfer distance: the question of Zubic and Lio 2021, table 3.

Takes the finished runs of `recon3d bench`, on the same data with the same preset, or makes them; a run's logs have the
Chamfer distance of its validations and the seconds of training before them, validations left out. The JSON file holds
them side by side; ``make leaderboard`` makes a page of it.

Run ``python -m benchmarks.time_to_chamfer`` from the repository root; runs to be compared need the same machine,
equally free.
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


def course(record: Record, folder: Path) -> dict[str, Any]:
    """A method's way down, from the CSV logs in the folder of its run: one entry of each list per validation.

    Every session of a run has a log of its own, ``csv/version_N``. A resumed one goes back to the last checkpoint, so
    of a step that was validated twice the later session counts; one that only tested has no validation.

    Raises:
        RuntimeError: the run failed, or none of its logs has a Chamfer distance of a validation.
    """
    if record.error is not None:
        raise RuntimeError(f"{record.method} failed: {record.error}")
    logs = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    rows = [log.dropna(subset=["val/chamfer"]) for log in map(pd.read_csv, logs) if "val/chamfer" in log]
    if not any(map(len, rows)):
        raise RuntimeError(
            f"{record.method}: no val/chamfer in the {len(logs)} logs {folder}/csv/version_*/metrics.csv. Use a preset "
            "that validates, and data with ground-truth points; FORCE=1 runs again what was trained without."
        )
    seen = pd.concat(rows).drop_duplicates("step", keep="last").sort_values("step")
    return {
        "method": record.method,
        "data": record.data.name,
        "preset": record.preset,
        "seed": record.seed,
        "steps": (seen["step"] + 1).astype(int).tolist(),
        "seconds": seen["val/train_s"].tolist(),
        "chamfer": seen["val/chamfer"].tolist(),
        "device": record.provenance.device,
        "commit": record.provenance.commit,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs, or make them, and write ``benchmarks/results/curves/time_to_chamfer--<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for method in options.methods:
        cell = Cell(method, options.data, options.preset, options.seed)
        record = run(cell)
        rows.append(course(record, cell.folder(record.provenance.config_hash)))
    logging.getLogger(__name__).info("Wrote %s", write_result(f"curves/{NAME}", rows))


if __name__ == "__main__":
    main()
