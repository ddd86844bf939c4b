"""What lets a run survive a kill: files that are whole or absent, and a clock that goes on where it stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from recon3d.files import replace_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill leaves the old file or the new one.

    Lightning's own writes to the system's temporary folder, and moving from there to another file system is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, flush to disk, rename."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), lambda temporary: _save(checkpoint, temporary))


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # torch.save names no cause when a path of its own cannot be written
        torch.save(checkpoint, file)


class TrainClock(Callback):
    """Seconds of training without validation, over all sessions of a run: they travel in the checkpoint.

    Logged beside what a validation measures, as ``val/train_s``: how long it took to come so far.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self.started: float | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting, and log."""
        if pl_module.device.type == "cuda":  # the host runs ahead of the steps that it has queued
            torch.cuda.synchronize(pl_module.device)
        self.before, self.started = self.seconds, None
        pl_module.log("val/train_s", self.before, sync_dist=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on counting."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.before = state_dict["seconds"]
