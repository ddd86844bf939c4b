"""What the runner tells a logger that keeps more of a run than numbers: who it is, its Record, its files.

A logger of a configuration that has these methods is told; `bench.wandb_run` is one. Another needs no change here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning import Trainer

from recon3d.bench.cell import Cell
from recon3d.bench.record import Record

ARTIFACT_FILES = ("recon3d.yaml", "samples.csv", "picture.png")  # of a run's folder, beside the Record


@runtime_checkable
class RunLog(Protocol):
    """A logger of whole runs."""

    def begin(self, cell: Cell, folder: Path, fresh: bool) -> None:
        """Before anything is logged.

        Args:
            cell: what is run.
            folder: of the run, with its resolved configuration in recon3d.yaml.
            fresh: from the start, not a run that goes on.
        """

    def end(self, record: Record, files: dict[str, Path]) -> None:
        """After the Record is written; closes the log, so that the next cell has its own.

        Args:
            record: of the run, finished or failed.
            files: by the name to keep them under.
        """


def run_logs(trainer: Trainer) -> list[RunLog]:
    """The loggers of a trainer that are told about whole runs; on process 0 only."""
    return [log for log in trainer.loggers if isinstance(log, RunLog)] if trainer.is_global_zero else []


def files_of(record: Record, path: Path, folder: Path) -> dict[str, Path]:
    """The files of a run that are of this Record: of a failed one, its configuration and the Record itself."""
    names = ARTIFACT_FILES if record.error is None else ARTIFACT_FILES[:1]
    files = {name: folder / name for name in names} | {"record.json": path}
    return {name: file for name, file in files.items() if file.exists()}
