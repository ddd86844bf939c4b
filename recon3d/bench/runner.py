"""One benchmark run: configs -> fit -> test -> Record. Survives a kill, skips what is finished, keeps failures.

A run lives in ``runs/<data>/<preset>/<method>--seed<k>-<config hash>/``: its resolved config, CSV logs, checkpoint,
per-sample scores and picture. Killed at any time, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from recon3d.bench.provenance import provenance
from recon3d.bench.record import (
    SCHEMA,
    Cost,
    Data,
    Paper,
    Record,
    config_hash,
    is_finished,
    load,
    result_path,
    save,
)
from recon3d.data.base import ReconstructionDataModule
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.picture import comparison_picture
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import ViewBatch

logger = logging.getLogger(__name__)

BASELINES = ("template", "mean_shape")  # scored beside every method: a number means little without its floor
SPLIT = "test"
CHECKPOINT = "last.ckpt"
# What cannot change a result, or is a column of its own (the seed).
NOT_HASHED = frozenset(
    {
        "config",
        "seed_everything",
        "ckpt_path",
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
        method: stem of ``configs/methods/<method>.yaml``.
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
        for kind, name in (("methods", self.method), ("data", self.data), ("presets", self.preset)):
            chain.append(_config_file(self.configs / kind, name))
        # A preset may hold numbers of one method: presets/quick/softras.yaml after presets/quick.yaml.
        special = self.configs / "presets" / self.preset / f"{self.method}.yaml"
        chain += [special] if special.is_file() else []
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
        """Arguments of LightningCLI: base < method < data < preset < command line."""
        files = [argument for path in self.files for argument in ("--config", str(path))]
        return [*files, "--seed_everything", str(self.seed), *self.overrides]


class ReconCLI(LightningCLI):
    """LightningCLI for methods and data sets of this project; `recon3d fit`, and what the runner builds a cell with."""

    def __init__(self, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {"callbacks": [Evaluator(), RichProgressBar()]} | kwargs.pop("trainer_defaults", {})
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links: one seed for all, and as many views per object as the method trains on."""
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("model", "data.init_args.train_views", compute_fn=_min_views, apply_on="instantiate")


def _min_views(method: ReconstructionMethod) -> int:
    return method.min_views


# Warnings of Lightning that say nothing to somebody who runs a cell.
EXPECTED_WARNINGS = (
    r".*LeafSpec.*",  # of its own code, to its authors
    r".*exists and is not empty.*",  # a run that goes on has a folder
    r".*smaller than the logging interval.*",  # short epochs; losses are logged at their end too
    r".*this fit will run with no optimizer.*",  # MeanShape
    r".*does not have many workers.*",  # memory maps need none
)


class TrainClock(Callback):
    """Seconds of training, over all sessions of a run: they travel in the checkpoint."""

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

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.before = state_dict["seconds"]


def run(cell: Cell, force: bool = False) -> Record:
    """Run one cell, or return its Record when it is finished with this configuration.

    A failure of any kind is caught, and becomes a Record with `error`; Ctrl-C and a kill leave the run to be resumed.

    Args:
        cell: what to run.
        force: run again, from the start, also what is finished.
    """
    _quiet()
    clock = TrainClock()
    cli: ReconCLI | None = None
    digest = "0" * 64
    try:
        with own_arguments():
            cli = ReconCLI(args=cell.arguments(), run=False, save_config_callback=None)
        digest = config_hash(_plain(cli.config.as_dict()), NOT_HASHED)
        if not force and is_finished(cell.record_path, digest):
            logger.info("%s is finished; FORCE=1 runs it again.", cell.record_path)
            return load(cell.record_path)
        folder = cell.folder(digest)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recon3d.yaml").write_text(cli.parser.dump(cli.config, skip_none=False))
        _send_logs_to(cli.trainer, folder)
        record = _fit_and_test(cell, cli, clock, folder, digest, force)
    except Exception as error:
        logger.exception("%s on %s failed.", cell.method, cell.data)
        record = _failed(cell, cli, error, digest)
        if is_finished(cell.record_path, digest):
            logger.error("%s of an earlier run is kept.", cell.record_path)
            return record
    save(record, cell.record_path)
    return record


def _quiet() -> None:
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):  # their INFO is devices, seeds and advertisements
        logging.getLogger(name).setLevel(logging.WARNING)


def _fit_and_test(cell: Cell, cli: ReconCLI, clock: TrainClock, folder: Path, digest: str, force: bool) -> Record:
    trainer, method, data = cli.trainer, cli.model, cli.datamodule
    checkpoint = folder / CHECKPOINT
    if method.needs:
        # One file, rewritten after every epoch: Lightning writes beside it and renames.
        keeper = ModelCheckpoint(
            folder,
            filename=checkpoint.stem,
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=True,  # else only after a validation, which may be rare
        )
        trainer.callbacks += [clock, keeper]
        resume = str(checkpoint) if checkpoint.exists() and not force else None
        if resume:
            logger.info("Going on from %s.", checkpoint)
        trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
        seconds: float | None = clock.seconds
    else:
        seconds = None
        trainer.strategy.connect(method)
    trainer.save_checkpoint(checkpoint)
    trainer.test(method, datamodule=data, verbose=False, weights_only=True)
    evaluator = next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
    device = trainer.strategy.root_device
    batch = next(iter(data.test_dataloader())).to(device)
    method = method.to(device).eval()
    record = Record(
        schema=SCHEMA,
        method=cell.method,
        data=Data(cell.data, data.data_hash(), tuple(data.categories), SPLIT, data.scale),
        seed=cell.seed,
        preset=cell.preset,
        **_about(method),
        measures=evaluator.results,
        measure_order=tuple(evaluator.results),
        cost=Cost(
            params=sum(p.numel() for p in method.parameters()),
            train_s=seconds,
            ms_per_image=_ms_per_image(method, batch),
            peak_mem_mib=_peak_mib(device),
            steps=trainer.global_step if method.needs else None,
        ),
        provenance=provenance(digest, device, cell.configs),
        error=None,
    )
    evaluator.samples.to_csv(folder / "samples.csv", index=False)
    comparison_picture(method, data.test_dataloader(), evaluator.samples).save(folder / "picture.png")
    return record


def _failed(cell: Cell, cli: ReconCLI | None, error: Exception, digest: str) -> Record:
    """A Record that says why; of a run that failed before its parts were built, it knows the names only."""
    method = getattr(cli, "model", None)
    about = _about(method) if method is not None else {"input": "RGB", "supervision": (), "paper": None}
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Record(
        schema=SCHEMA,
        method=cell.method,
        data=Data(cell.data, "unknown", (), SPLIT, "unknown"),
        seed=cell.seed,
        preset=cell.preset,
        **about,
        measures={},
        measure_order=(),
        cost=Cost(None, None, None, None, None),
        provenance=provenance(digest, torch.device("cpu"), cell.configs),
        error=f"{type(error).__name__}: {error}\nin {where.name}, {Path(where.filename).name}:{where.lineno}",
    )


def _about(method: ReconstructionMethod) -> dict[str, Any]:
    return {
        "input": "RGB + mask" if method.in_channels == 4 else "RGB",
        "supervision": tuple(sorted(method.needs)),
        "paper": Paper(**asdict(method.paper)) if method.paper else None,
    }


def _ms_per_image(method: ReconstructionMethod, batch: ViewBatch, repeats: int = 20) -> float:
    """Median milliseconds to reconstruct one image, after three warm-up rounds."""
    one = ViewBatch(
        images=batch.images[:1],
        masks=batch.masks[:1],
        sample_id=batch.sample_id[:1],
        category=batch.category[:1],
        cameras=batch.cameras[:1] if batch.cameras is not None else None,
    )
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 3):
            start = time.perf_counter()
            method.reconstruct(one)
            if one.images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return 1e3 * sorted(times[3:])[repeats // 2]


def _peak_mib(device: torch.device) -> float:
    """Highest memory in use: of the accelerator, else of this process (Linux counts in KiB, macOS in bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _send_logs_to(trainer: Trainer, folder: Path) -> None:
    """Point every logger at the run's folder; loggers keep it in different attributes, made before it is used."""
    for log in trainer.loggers:
        for name in ("_save_dir", "_root_dir"):
            if hasattr(log, name):
                setattr(log, name, str(folder))


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


@contextmanager
def own_arguments() -> Iterator[None]:
    """LightningCLI warns when it is given arguments while sys.argv has some; here that is meant."""
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = kept


def bench(cell: Cell, force: bool = False, baselines: Sequence[str] = BASELINES) -> list[Record]:
    """Run a cell, its baselines first where they are not finished; Records in that order.

    The baselines take the cell's data, preset and seed, but none of its overrides except those of the data.
    """
    if "wandb" in cell.loggers and not os.environ.get("WANDB_API_KEY"):
        os.environ.setdefault("WANDB_MODE", "offline")  # without a key wandb would ask for one
    data_only = tuple(_data_overrides(cell.overrides))
    records = [
        run(replace(cell, method=name, overrides=data_only, loggers=())) for name in baselines if name != cell.method
    ]
    return [*records, run(cell, force=force)]


def _data_overrides(overrides: Sequence[str]) -> Iterator[str]:
    """What the overrides say about the data, and not about the schedule of the method that is trained on it."""
    arguments = iter(overrides)
    for argument in arguments:
        # Both `--option value` and `--option=value`.
        pair = [argument] if "=" in argument else [argument, *itertools.islice(arguments, 1)]
        name = argument.partition("=")[0]
        if name.startswith("--data.") and not name.endswith((".train_steps_per_epoch", ".balanced", ".batch_size")):
            yield from pair
