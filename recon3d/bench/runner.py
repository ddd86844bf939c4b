"""One benchmark run: configs -> fit -> test -> Record. Survives a kill, skips what is finished, keeps failures.

A run lives in ``runs/<data>/<preset>/<method>--seed<k>-<config hash>/``: its resolved config, CSV logs, checkpoint,
per-sample scores and picture. Killed at any time, the same command goes on from the last checkpoint. A Record that
lacks a measure of the present protocol is made anew from the trained weights, without training.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from recon3d.bench.cell import Cell, ReconCLI, data_overrides, own_arguments, resolved_hash
from recon3d.bench.cost import ms_per_image, peak_mib, with_cost_of
from recon3d.bench.processes import ProcessError, describe, device_count, run_in_processes
from recon3d.bench.provenance import provenance
from recon3d.bench.record import SCHEMA, Cost, Data, Record, is_finished, load, save
from recon3d.bench.run_folder import CHECKPOINT, BusyError, alone, check_resumable, check_writable, keep_data_hash
from recon3d.bench.run_log import files_of, run_logs
from recon3d.bench.survival import Stopping, TrainClock
from recon3d.evaluation.convert import NO_NETWORK
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.picture import SCORES, comparison_picture
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.files import replace_file, write_whole
from recon3d.methods.base import ReconstructionMethod

logger = logging.getLogger(__name__)

BASELINES = ("template", "mean_shape")  # scored beside every method: a number means little without its floor
UNKNOWN_HASH = "0" * 64  # of a run that failed before its configuration was read
# Warnings of Lightning that say nothing to somebody who runs a cell.
EXPECTED_WARNINGS = (
    r".*LeafSpec.*",  # of its own code, to its authors
    r".*exists and is not empty.*",  # a run that goes on has a folder
    r".*smaller than the logging interval.*",  # the mean shape's one epoch, which has no losses to log
    r".*this fit will run with no optimizer.*",  # MeanShape
    r".*in eval mode at the start of training.*",  # Retrieval's network, which is fixed
    r".*does not have many workers.*",  # memory maps need none
)


def run(cell: Cell, force: bool = False) -> Record:
    """Run one cell, or return its Record when it is finished with this configuration.

    A failure of any kind is caught, and becomes a Record with `error`, which never replaces that of a finished run.
    Ctrl-C and a kill leave the run to be resumed.

    Args:
        cell: what to run.
        force: run again, from the start, also what is finished.
    """
    record = _run(cell, force)
    assert record is not None  # only a baseline is left out
    return record


def _run(cell: Cell, force: bool = False, baseline: bool = False) -> Record | None:
    """As `run`; None for a baseline that trains on what the data do not give."""
    check_writable(cell.record_path.parent)
    with ExitStack() as held:
        try:
            return _run_held(cell, force, baseline, held)
        except SystemExit as stop:
            if isinstance(stop, SIGTERMException):
                status, sign = 128 + signal.SIGTERM, "SIGTERM"
            elif isinstance(stop.__context__, KeyboardInterrupt):
                status, sign = 128 + signal.SIGINT, "Ctrl-C"
            else:
                raise
            logger.warning("%s on %s: stopped by %s. The same command goes on.", cell.method, cell.data, sign)
            raise SystemExit(status) from stop


def _run_held(cell: Cell, force: bool, baseline: bool, held: ExitStack) -> Record | None:
    _quiet()
    cli: ReconCLI | None = None
    digest = UNKNOWN_HASH
    try:
        cli = _built(cell)
        digest = resolved_hash(cli)
        folder = cell.folder(digest)
        if not force and _is_done(cell, cli, digest):
            logger.info("%s is finished; FORCE=1 runs it again.", cell.record_path)
            return load(cell.record_path)
        if baseline and (lacking := _lacking(cli)):
            logger.info("%s is left out: it trains on %s, which %s lacks.", cell.method, ", ".join(lacking), cell.data)
            return None
        devices = device_count(cli.trainer)
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(alone(folder, wait=baseline))
        if not force and _is_done(cell, cli, digest):  # by the process that had the folder
            return load(cell.record_path)
        resolved = cli.parser.dump(cli.config, skip_none=False)
        write_whole(folder / "recon3d.yaml", resolved.encode())
        if force:  # else a kill of this run would go on from the weights of the last one
            (folder / CHECKPOINT).unlink(missing_ok=True)
        cli.datamodule.prepare_data()
        if devices > 1:
            before = stamp(cell.record_path)
            run_in_processes(_take_part, devices, cell, digest)
            if stamp(cell.record_path) == before:
                raise ProcessError(f"the {devices} processes have ended without a Record, see above")
            return load(cell.record_path)
        measured = _measured(cell, cli, digest)
        assert measured is not None  # the only process
        record = measured
    except BusyError:
        raise
    except Exception as error:
        logger.exception("%s on %s failed.", cell.method, cell.data)
        record = _failed(cell, cli, str(error) if isinstance(error, ProcessError) else describe(error), digest)
        saved = _save_failed(record, cell.record_path)
        _end_logs(cli, record, files_of(record, cell.record_path, cell.folder(digest)) if saved else {})
        return record
    save(record, cell.record_path)
    _end_logs(cli, record, files_of(record, cell.record_path, cell.folder(digest)))
    return record


def finished(cell: Cell) -> Record | None:
    """The Record of a cell that `run` would not run again; None where it would."""
    if not cell.record_path.exists() or load(cell.record_path).error is not None:
        return None
    _quiet()
    cli = _built(cell)
    return load(cell.record_path) if _is_done(cell, cli, resolved_hash(cli)) else None


def save_failure(cell: Cell, error: str) -> None:
    """Write the Record of a run that ended without one; that of an earlier run that finished is kept."""
    _save_failed(_failed(cell, None, error, UNKNOWN_HASH), cell.record_path)


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes when a file is written anew; None without the file."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


def _save_failed(record: Record, path: Path) -> bool:
    """Save the Record of a failure, except in the place of one that finished; whether it was saved."""
    if path.exists() and load(path).error is None:
        logger.error("%s of an earlier run is kept.", path)
        return False
    save(record, path)
    return True


def _built(cell: Cell) -> ReconCLI:
    with own_arguments():
        return ReconCLI(args=cell.arguments(), run=False, save_config_callback=None)


def _is_done(cell: Cell, cli: ReconCLI, digest: str) -> bool:
    """Whether there is a Record of this configuration, data and protocol, and the trained weights that it speaks of.

    A clone has the Records of the repository and no weights: there a run trains, and gives the user what to predict
    with.
    """
    versions = {measure.name: measure.version for measure in PROTOCOL}
    if not is_finished(cell.record_path, digest, versions) or not (cell.folder(digest) / CHECKPOINT).exists():
        return False
    cli.datamodule.prepare_data()
    record = load(cell.record_path)
    return record.data.hash == cli.datamodule.data_hash() and _has_network(record, _evaluator(cli.trainer).network)


def _has_network(record: Record, network: str | None) -> bool:
    """Whether a Record was made with the feature network that is given now; without one any will do."""
    fid = record.measures["fid"]
    return network is None or (fid.note != NO_NETWORK and (fid.value is None or network in (fid.note or "")))


def _lacking(cli: ReconCLI) -> list[str]:
    """Fields that the method trains on and the first training sample does not have."""
    if not cli.model.needs:
        return []
    cli.datamodule.prepare_data()
    cli.datamodule.setup("fit")
    loader = cli.datamodule.train_dataloader()
    sample = loader.dataset[next(iter(loader.sampler))]
    return [name for name in sorted(cli.model.needs) if getattr(sample, name) is None]


def _evaluator(trainer: Trainer) -> Evaluator:
    return next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))


def _quiet() -> None:
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):  # their INFO is devices, seeds and advertisements
        logging.getLogger(name).setLevel(logging.WARNING)


def _take_part(cell: Cell, digest: str) -> None:
    """What each process of a run on several devices does; process 0 writes."""
    _quiet()
    cli = _built(cell)
    record = _measured(cell, cli, digest)
    if record is not None:
        save(record, cell.record_path)
        _end_logs(cli, record, files_of(record, cell.record_path, cell.folder(digest)))


def _measured(cell: Cell, cli: ReconCLI, digest: str) -> Record | None:
    """The Record; None in other processes than process 0."""
    clock, folder = TrainClock(), cell.folder(digest)
    _send_logs_to(cli.trainer, folder)
    for log in run_logs(cli.trainer):
        log.begin(cell, folder, fresh=not (folder / CHECKPOINT).exists())
    record = _fit_and_test(cell, cli, clock, folder, digest)
    if record is not None and clock.started is None and is_finished(cell.record_path, digest, {}):
        record = with_cost_of(load(cell.record_path), record)
    return record


def _fit_and_test(cell: Cell, cli: ReconCLI, clock: TrainClock, folder: Path, digest: str) -> Record | None:
    trainer, method, data = cli.trainer, cli.model, cli.datamodule
    checkpoint = folder / CHECKPOINT
    # First of all: what has no hash fails before it is trained on.
    data_hash = data.data_hash() if trainer.is_global_zero else ""
    if method.needs:
        # One file, rewritten after every epoch.
        keeper = ModelCheckpoint(
            folder,
            filename=checkpoint.stem,
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=True,  # else only after a validation, which may be rare
        )
        # Lightning's own keeper, which it adds where there is none, would write every checkpoint a second time.
        trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, ModelCheckpoint)]
        trainer.callbacks += [clock, Stopping(checkpoint), keeper]
        resume = str(checkpoint) if checkpoint.exists() else None
        if trainer.is_global_zero:
            keep_data_hash(folder, data_hash, cell.method)
        if resume:
            check_resumable(checkpoint, method)
            logger.info("Going on from %s.", checkpoint)
        trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
        seconds: float | None = clock.seconds
    else:
        seconds = None
        trainer.strategy.connect(method)
    trainer.save_checkpoint(checkpoint)
    trainer.test(method, datamodule=data, verbose=False, weights_only=True)
    if not trainer.is_global_zero:
        return None
    evaluator = _evaluator(trainer)
    device = trainer.strategy.root_device
    batch = next(iter(data.test_dataloader())).to(device)
    method = method.to(device).eval()
    record = Record(
        schema=SCHEMA,
        method=cell.method,
        data=Data(cell.data, data_hash, tuple(data.categories), data.test_split, data.scale),
        seed=cell.seed,
        preset=cell.preset,
        **_about(method),
        measures=evaluator.results,
        measure_order=tuple(evaluator.results),
        cost=Cost(
            params=sum(p.numel() for p in method.parameters()),
            train_s=seconds,
            ms_per_image=ms_per_image(method, batch),
            peak_mem_mib=peak_mib(device),
            steps=trainer.global_step if method.needs else None,
        ),
        provenance=provenance(digest, device, cell.configs),
        error=None,
    )
    samples = evaluator.samples
    replace_file(folder / "samples.csv", lambda path: samples.to_csv(path, index=False))
    if trainer.world_size > 1:  # this process's loader has its share only
        mine = {name for batch in data.test_dataloader() for name in batch.sample_id}
        samples = samples[samples["sample_id"].isin(mine)]
    scored = [name for name in SCORES if name in samples and samples[name].notna().any()]
    if not scored:  # such as the template's, on photographs without cameras: nothing says which are the worst
        logger.info("%s has none of %s on %s, so there is no picture.", cell.method, ", ".join(SCORES), cell.data)
        return record
    picture = comparison_picture(method, data.test_dataloader(), samples)
    replace_file(folder / "picture.png", lambda path: picture.save(path, format="png"))
    return record


def _end_logs(cli: ReconCLI | None, record: Record, files: dict[str, Path]) -> None:
    for log in run_logs(cli.trainer) if cli is not None else ():
        log.end(record, files)


def _failed(cell: Cell, cli: ReconCLI | None, error: str, digest: str) -> Record:
    """A Record that says why; of a run that failed before its parts were built, it knows the names only."""
    method = getattr(cli, "model", None)
    about = _about(method) if method is not None else {"input": "RGB", "supervision": (), "paper": None}
    return Record(
        schema=SCHEMA,
        method=cell.method,
        data=Data(cell.data, "unknown", (), "unknown", "unknown"),
        seed=cell.seed,
        preset=cell.preset,
        **about,
        measures={},
        measure_order=(),
        cost=Cost(None, None, None, None, None),
        provenance=provenance(digest, torch.device("cpu"), cell.configs),
        error=error,
    )


def _about(method: ReconstructionMethod) -> dict[str, Any]:
    return {
        "input": "RGB + mask" if method.in_channels == 4 else "RGB",
        "supervision": tuple(sorted(method.needs)),
        "paper": method.paper,
    }


def _send_logs_to(trainer: Trainer, folder: Path) -> None:
    """Point every logger at the run's folder; loggers keep it in different attributes, made before it is used."""
    for log in trainer.loggers:
        for name in ("_save_dir", "_root_dir"):
            if hasattr(log, name):
                setattr(log, name, str(folder))
        if hasattr(log, "_wandb_init"):
            log._wandb_init["dir"] = str(folder)


def bench(cell: Cell, force: bool = False, baselines: Sequence[str] = BASELINES) -> list[Record]:
    """Run a cell, its baselines first where they are not finished; Records in that order.

    The baselines take the cell's data, preset and seed, but none of its overrides except those of the data. One that
    trains on what the data do not give is left out, and the log says so.
    """
    data_only = tuple(data_overrides(cell.overrides))
    floors = [
        _run(replace(cell, method=name, overrides=data_only, loggers=()), baseline=True)
        for name in baselines
        if name != cell.method
    ]
    return [*(record for record in floors if record is not None), run(cell, force=force)]
