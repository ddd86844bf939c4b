"""A cell of the benchmark as a run of Weights & Biases: name, configuration, summary, and the Record as an artifact.

Imported only when a configuration names `RunLogger` (configs/logger/wandb.yaml); needs the extra `wandb`.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import wandb
import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from wandb.sdk.lib.wbauth import authenticate_session

from recon3d.bench.cell import Cell
from recon3d.bench.record import Record
from recon3d.bench.run_folder import CHECKPOINT
from recon3d.files import write_whole

ID_FILE = "wandb_id"  # in the run's folder: a run that is killed and goes on is one run on W&B, too


class RunLogger(WandbLogger):
    """WandbLogger that never asks for anything and knows the cells of the benchmark.

    Online or offline is WANDB_MODE (or ``wandb offline``); where neither says so, online with a key that W&B finds by
    itself (WANDB_API_KEY, ``wandb login``), offline without one. `bench.runner` calls `begin` and `end`.

    Args:
        save_dir: where W&B puts its folder; the runner sets it to that of the run.
        project: on W&B.
        entity: user or team; None is the default of the key, or WANDB_ENTITY.
        checkpoint: also upload the trained weights, as an artifact of type ``model``.
        system_metrics_s: seconds between measurements of processor, memory and accelerator; None for none.
    """

    def __init__(
        self,
        save_dir: Path = Path("runs"),
        project: str = "recon3d",
        entity: str | None = None,
        checkpoint: bool = False,
        system_metrics_s: float | None = 15.0,
    ) -> None:
        settings: dict[str, Any] = {"x_disable_stats": system_metrics_s is None}
        if system_metrics_s is not None:
            settings["x_stats_sampling_interval"] = system_metrics_s
        super().__init__(save_dir=save_dir, project=project, log_model=False, entity=entity, settings=settings)
        self._experiment: Any
        del self._wandb_init["anonymous"]  # Lightning passes it on; W&B warns that it is no more
        self._keeps_checkpoint = checkpoint
        self._folder: Path | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run on W&B, begun when it is first asked for."""
        if self._experiment is None and "mode" not in self._wandb_init and _needs_key() and not has_key():
            self._wandb_init["mode"] = "offline"
        return super().experiment

    def begin(self, cell: Cell, folder: Path, fresh: bool) -> None:
        """Name the run after its cell, group the seeds of one cell, and give it the resolved configuration.

        The configuration has ``method``, ``dataset``, ``preset`` and ``seed`` beside what is in recon3d.yaml.
        """
        self._folder = folder
        remembered = folder / ID_FILE
        if fresh or not remembered.exists():
            write_whole(remembered, secrets.token_hex(4).encode())
        config = yaml.safe_load((folder / "recon3d.yaml").read_text())
        about = {"method": cell.method, "dataset": cell.data, "preset": cell.preset}
        self._id = remembered.read_text()
        self._name = f"{cell.method} on {cell.data}, {cell.preset}, seed {cell.seed}"
        self._wandb_init |= {
            "id": self._id,
            "name": self._name,
            "group": "/".join(about.values()),
            "job_type": "bench",
            "tags": list(dict.fromkeys([*about.values(), f"seed{cell.seed}"])),
            "config": config | about | {"seed": cell.seed},
        }

    def end(self, record: Record, files: dict[str, Path]) -> None:
        """Put the Record into the summary and into an artifact of type ``record``, and close the run.

        The summary has ``test/<measure>`` of every measure with a value and ``cost/<name>``; a failed run has ``error``
        and counts as failed on W&B. A run that failed before it logged anything is not on W&B at all.
        """
        if self._experiment is None and record.error is not None:
            return
        run = self.experiment
        for name, result in record.measures.items():
            if result.value is not None:
                run.summary[f"test/{name}"] = result.value
        for name in ("params", "train_s", "ms_per_image", "peak_mem_mib", "steps"):
            run.summary[f"cost/{name}"] = getattr(record.cost, name)
        if record.error is not None:
            run.summary["error"] = record.error
        name = f"{record.method}-{record.data.name}-{record.preset}-seed{record.seed}"
        artifact = wandb.Artifact(
            f"record-{name}", type="record", metadata={"config_hash": record.provenance.config_hash}
        )
        for own, path in files.items():
            artifact.add_file(str(path), name=own)
        run.log_artifact(artifact)
        if self._keeps_checkpoint and record.error is None and self._folder is not None:
            weights = wandb.Artifact(f"model-{name}", type="model")
            weights.add_file(str(self._folder / CHECKPOINT))
            run.log_artifact(weights)
        run.finish(exit_code=0 if record.error is None else 1)
        self._experiment = None


def _needs_key() -> bool:
    """Whether neither WANDB_MODE nor W&B's own settings have chosen a mode."""
    return "WANDB_MODE" not in os.environ and wandb.setup().settings.mode == "online"


def has_key() -> bool:
    """Whether W&B finds a key by itself; asks neither the user nor the server (`wandb.login` would ask that one)."""
    host = wandb.setup().settings.base_url
    return authenticate_session(host=host, source="recon3d", prompt=False, update_session=False) is not None
