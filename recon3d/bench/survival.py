"""What lets a training survive: checkpoints that are whole, finite and hold the state of the random draws.

Parts of the Trainer that `bench.cell` and `bench.runner` put together; what guards the folder of a run is in
`bench.run_folder`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

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


class RandomState(Callback):
    """State of torch's random generators, which travels in the checkpoint: a resumed run draws what it would have."""

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """As it is when the checkpoint is written."""
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep until training begins: setting up draws too."""
        self._found = state_dict

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, of a run that goes on with a new epoch, before its loader draws."""
        self._restore()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore, of a run that goes on within an epoch."""
        self._restore()

    def _restore(self) -> None:
        if self._found is not None:
            torch.set_rng_state(self._found["cpu"].cpu())
            if "cuda" in self._found and torch.cuda.is_initialized():
                torch.cuda.set_rng_state(self._found["cuda"].cpu())
            self._found = None


class FiniteTraining(Callback):
    """Stops a training whose loss is NaN or infinite before it changes the weights, and keeps such weights from disk.

    On the CPU every step is looked at. On an accelerator, and in distributed runs, looking waits for all processes and
    all work that is queued: there it is done in the steps that are logged.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            FloatingPointError: it is not finite; names the step, and the terms that are not.
        """
        waits = loss.device.type != "cpu" or trainer.world_size > 1
        if waits and (trainer.global_step + 1) % trainer.log_every_n_steps:
            return
        finite = bool(loss.isfinite())
        if trainer.world_size > 1:  # all stop, or the others would wait for the one that did
            finite = trainer.strategy.reduce_boolean_decision(finite)
        if not finite:
            terms = {
                name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")
            }
            told = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
            about = f", seen every {trainer.log_every_n_steps} steps" if waits else ""
            raise FloatingPointError(
                f"NaN or infinite loss at step {trainer.global_step} (epoch {trainer.current_epoch}{about}): "
                f"{told or 'of another process'}. The weights of the last checkpoint are kept and finite. A smaller "
                "--model.init_args.lr often helps; the same command would end here again."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the weights.

        Raises:
            FloatingPointError: some are not finite; names the first.
        """
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise FloatingPointError(
                    f"NaN or infinite values in {name} after step {trainer.global_step}: no checkpoint was written, an "
                    "older one is kept. A smaller --model.init_args.lr often helps."
                )


class Stopping(Callback):
    """What a stop leaves: logs as far as the checkpoint, and at SIGTERM a checkpoint within the epoch.

    Slurm, ``docker stop`` and a shutdown send SIGTERM; Lightning then ends the training after the step it is in. After
    Ctrl-C, which may come within a step, the checkpoint of the last epoch is what there is.

    Args:
        checkpoint: of the run.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the logged rows, which Lightning keeps in memory for up to 100 more."""
        for log in trainer.loggers:
            if isinstance(log, CSVLogger):
                log.save()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, unless a validation or the end of an epoch was cut off, of which there is no half."""
        epoch = trainer.fit_loop.epoch_loop
        between = trainer.state.stage == RunningStage.TRAINING and not epoch.batch_progress.is_last_batch
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING and between:
            trainer.save_checkpoint(self.checkpoint)
