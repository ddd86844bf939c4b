"""A cell of the benchmark as a configuration: its chain of yaml files, what LightningCLI makes of them, and its hash.

`bench.runner` runs cells; `recon3d fit` is the same `ReconCLI` with the user's own chain.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from recon3d.bench import ddp  # noqa: F401  (the strategy `ddp` is ours from here on)
from recon3d.bench.record import config_hash, result_path
from recon3d.bench.survival import AtomicCheckpointIO, FiniteTraining, RandomState
from recon3d.data.base import ReconstructionDataModule
from recon3d.evaluation.evaluator import Evaluator
from recon3d.methods.base import ReconstructionMethod

# What cannot change a result, or is a column of its own (the seed).
NOT_HASHED = frozenset(
    {
        "config",
        "seed_everything",
        "ckpt_path",
        "evaluator",
        *(f"data.init_args.{name}" for name in ("root", "meshes", "seed", "num_workers", "workers", "name")),
        *(
            f"trainer.{name}"
            for name in (
                "accelerator", "devices", "num_nodes", "strategy", "logger", "callbacks", "default_root_dir",
                "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps",
            )
        ),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One cell of the benchmark, and where its files go.

    Attributes:
        method: stem of ``configs/methods/<method>.yaml``, or of ``configs/variants/<method>-<variant>.yaml``.
        data: stem of ``configs/data/<data>.yaml``.
        preset: stem of ``configs/presets/<preset>.yaml``.
        seed: of weights and order.
        overrides: further arguments of LightningCLI, such as ``--trainer.devices 2``.
        loggers: stems of ``configs/logger/<name>.yaml``, besides the CSV log.
        configs: folder of the configuration files.
        results: folder of the Records.
        runs: folder of the run folders.
    """

    method: str
    data: str
    preset: str
    seed: int = 0
    overrides: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    configs: Path = Path("configs")
    results: Path = Path("leaderboard/results")
    runs: Path = Path("runs")
    files: tuple[Path, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        chain = [self.configs / "base.yaml"]
        # A variant says what differs from its method, and has the method's presets.
        method, _, variant = self.method.partition("-")
        chain.append(_config_file(self.configs / "methods", method))
        chain += [_config_file(self.configs / "variants", self.method)] if variant else []
        for kind, name in (("data", self.data), ("presets", self.preset)):
            chain.append(_config_file(self.configs / kind, name))
        # A preset may hold numbers of one data set (presets/quick/cub.yaml after presets/quick.yaml), of one method, or
        # of a variant.
        special = [self.configs / "presets" / self.preset / f"{name}.yaml" for name in (self.data, method, self.method)]
        chain += [path for path in dict.fromkeys(special) if path.is_file()]
        chain += [_config_file(self.configs / "logger", name) for name in self.loggers]
        object.__setattr__(self, "files", tuple(chain))

    @property
    def record_path(self) -> Path:
        """File of the Record."""
        return result_path(self.results, self.data, self.preset, self.method, self.seed)

    def folder(self, config_hash: str) -> Path:
        """Folder of the run with this configuration."""
        return self.runs / self.data / self.preset / f"{self.method}--seed{self.seed}-{config_hash[:8]}"

    def arguments(self) -> list[str]:
        """Arguments of LightningCLI: base < method < variant < data < preset < command line."""
        files = [argument for path in self.files for argument in ("--config", str(path))]
        return [*files, "--seed_everything", str(self.seed), *self.overrides]


class ReconCLI(LightningCLI):
    """LightningCLI for methods and data sets of this project; `recon3d fit`, and what the runner builds a cell with."""

    def __init__(self, **kwargs: Any) -> None:
        callbacks = [RichProgressBar(), RandomState(), FiniteTraining()]
        defaults: dict[str, Any] = {"callbacks": callbacks} | kwargs.pop("trainer_defaults", {})
        super().__init__(
            ReconstructionMethod,
            ReconstructionDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            trainer_defaults=defaults,
            save_config_kwargs={"config_filename": "recon3d.yaml", "overwrite": True},
            **kwargs,
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer of the configuration, which keeps its checkpoints as `AtomicCheckpointIO` does."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The Evaluator, one seed for all, and as many views per object as the method trains on."""
        parser.add_lightning_class_args(Evaluator, "evaluator")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("model", "data.init_args.train_views", compute_fn=_min_views, apply_on="instantiate")


def _min_views(method: ReconstructionMethod) -> int:
    return method.min_views


def resolved_hash(cli: ReconCLI) -> str:
    """Hash of the resolved configuration, without what cannot change a result."""
    return config_hash(_plain(cli.config.as_dict()), NOT_HASHED)


@contextmanager
def own_arguments(arguments: Sequence[str] = ()) -> Iterator[None]:
    """`sys.argv` with these arguments in place of the process's.

    LightningCLI warns when it is given arguments while sys.argv has some; without any, that is meant. On several
    devices Lightning starts the other processes with those in sys.argv, so `recon3d fit` puts its own there.
    """
    kept, sys.argv = sys.argv, [*sys.argv[:1], *arguments]
    try:
        yield
    finally:
        sys.argv = kept


def data_overrides(overrides: Sequence[str]) -> Iterator[str]:
    """What the overrides say about the data, and not about the schedule of the method that is trained on it."""
    arguments = iter(overrides)
    for argument in arguments:
        # Both `--option value` and `--option=value`.
        pair = [argument] if "=" in argument else [argument, *itertools.islice(arguments, 1)]
        name = argument.partition("=")[0]
        if name.startswith("--data.") and not name.endswith((".train_steps_per_epoch", ".balanced", ".batch_size")):
            yield from pair


def _plain(value: Any) -> Any:
    """A configuration as plain JSON values: paths and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _config_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"There is no {path}; known names: {known}. Run from the repository's root.")
    return path
