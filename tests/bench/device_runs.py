"""What `test_devices` runs in several processes: ``python -m tests.bench.device_runs JOB``, a torch file of a `Job`.

One start of the processes serves many runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback
from torch.utils.data import DataLoader

from recon3d.bench import runner
from recon3d.bench.cell import Cell, resolved_hash
from recon3d.bench.processes import run_in_processes

QUIET = ("logger", "enable_checkpointing")


class Job(NamedTuple):
    """Runs for `devices` processes; batches by method instead of the cell's data, if any."""

    kind: str  # records: as bench; training: fit alone
    cells: list[Cell]
    devices: int
    out: Path
    batches: dict[str, list[Any]]


class Losses(Callback):
    """The losses of all steps, of this process's share."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics["train/loss"]))


def records(job: Job) -> None:
    for cell in job.cells:
        digest = resolved_hash(runner._built(cell))
        cell.folder(digest).mkdir(parents=True, exist_ok=True)
        runner._take_part(cell, digest)


def training(job: Job) -> None:
    for cell in job.cells:
        options = [part for name in QUIET for part in (f"--trainer.{name}", "false")]
        cli = runner._built(Cell(**vars_of(cell) | {"overrides": (*cell.overrides, *options)}))
        losses = Losses()
        cli.trainer.callbacks = [one for one in cli.trainer.callbacks if "ProgressBar" not in type(one).__name__]
        cli.trainer.callbacks.append(losses)
        try:
            if cell.method in job.batches:
                cli.trainer.fit(cli.model, DataLoader(job.batches[cell.method], batch_size=None))
            else:
                cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        except Exception as error:
            raise RuntimeError(f"{cell.method} on {cell.data}: {error}") from error
        content = (cli.model.state_dict(), losses.values, cli.trainer.global_step)
        torch.save(content, job.out / f"{cell.method}-{cell.data}-{cli.trainer.global_rank}.pt")


def vars_of(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in vars(cell).items() if name != "files"}


if __name__ == "__main__":
    # Batches and cells are no weights; the test that starts this process has just written the file.
    asked: Job = torch.load(sys.argv[1], weights_only=False)
    function = {"records": records, "training": training}[asked.kind]
    if asked.devices == 1:
        function(asked)
    else:
        run_in_processes(function, asked.devices, asked)
