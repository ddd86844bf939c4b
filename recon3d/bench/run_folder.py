"""The folder of a run: who may write there, whether its checkpoint can be gone on from, its logs as one series.

Around `bench.runner`, which keeps a run's files there, and `bench.survival`, which keeps the training whole.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from recon3d.files import write_whole
from recon3d.methods.base import CLASS_KEY, ReconstructionMethod
from recon3d.methods.loading import read_checkpoint

logger = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
DATA_HASH = "data_hash"
LOCK = ".lock"


class BusyError(RuntimeError):
    """Another process is at the same run."""


@contextmanager
def alone(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a run's folder against other processes; the system lets go of it when the process ends, however it does.

    What killed processes left half-written is removed.

    Args:
        folder: of the run, which exists.
        wait: until it is free, instead of an error.

    Raises:
        BusyError: another process has it.
    """
    with (folder / LOCK).open("a+") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not wait:
                raise BusyError(
                    f"{folder} is in use by {holder}, which runs the same cell. Wait until it has finished, or end it; "
                    "then the same command goes on from its last checkpoint."
                ) from error
            logger.info("Waiting for %s, which is at the same run in %s.", holder, folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            held = False
            logger.warning("%s: no locks on this file system (%s); run no cell twice at once.", folder, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        for rest in folder.glob(".*.part") if held else ():  # else it may be another process that is writing
            rest.unlink()
        yield


def check_writable(folder: Path) -> None:
    """Find out before hours are spent whether files can be made in `folder`, which is made.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{folder} cannot be written to. Give another with --leaderboard, or the right to write.")


def check_resumable(checkpoint: Path, method: ReconstructionMethod) -> None:
    """Read a checkpoint whole before a training goes on from it; nothing in it is executed.

    Raises:
        ValueError: damaged, or of another method; says what to do.
    """
    try:
        content = read_checkpoint(checkpoint)
        with zipfile.ZipFile(checkpoint) as archive:
            damaged = archive.testzip()  # torch.load compares no checksums
        own, found = f"{type(method).__module__}.{type(method).__qualname__}", content.get(CLASS_KEY)
        if damaged is not None:
            raise ValueError(f"{checkpoint} is damaged: the checksum of {damaged} differs.")
        if found != own:
            raise ValueError(f"{checkpoint} is of {found}, expected one of {own}.")
        if "loops" not in content:
            raise ValueError(f"{checkpoint} holds weights alone, no state of a training.")
        loop = content["loops"]["fit_loop"]
        by_hand = loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
        by_trainer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
        if method.automatic_optimization and by_hand and not by_trainer:
            raise ValueError(f"{checkpoint} is of an older version, which counted its {by_hand} steps elsewhere.")
    except ValueError as error:
        raise ValueError(
            f"The training cannot go on from {checkpoint}. Delete the file, or run with --force (make: FORCE=1), to "
            f"train from the start. {error}"
        ) from error


def keep_data_hash(folder: Path, data_hash: str, method: str) -> None:
    """Keep with a run what it is trained on, from its start on; a run of before this was kept is taken as it is.

    Args:
        folder: of the run.
        data_hash: of the data that are given now.
        method: for the error.

    Raises:
        ValueError: there is a checkpoint, trained on other data; the folder's name does not depend on where data lie.
    """
    path = folder / DATA_HASH
    if (folder / CHECKPOINT).exists() and path.exists() and (found := path.read_text()) != data_hash:
        raise ValueError(
            f"{folder} was trained on other data (hash {found[:12]}) than those that are given now ({data_hash[:12]}): "
            f"going on would mix them, and may test on what was trained on. Run {method} with --force (make: "
            f"METHOD={method} FORCE=1) to train it anew, give another folder with --runs, or the former data with "
            "RECON3D_DATA."
        )
    write_whole(path, data_hash.encode())


def training_log(folder: Path) -> pd.DataFrame:
    """What a run logged, as one series: rows by step, a column per quantity (NaN: not logged in that row).

    Every session has a log of its own, ``csv/version_N``. A resumed one goes back to a checkpoint, so from its first
    step on it takes the place of those before.

    Raises:
        FileNotFoundError: `folder` has no log.
    """
    paths = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    if not paths:
        raise FileNotFoundError(f"{folder}/csv has no logs; expected the folder of a run.")
    whole = pd.DataFrame()
    for path in paths:
        text = path.read_text()
        log = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]))  # a kill can leave half a line
        measured = [name for name in log if str(name).startswith(("train/", "val/"))]
        session = log.dropna(subset=measured, how="all")
        if len(session):
            kept = whole[whole["step"] < session["step"].min()] if len(whole) else whole
            whole = pd.concat([kept, session], ignore_index=True)
    return whole
