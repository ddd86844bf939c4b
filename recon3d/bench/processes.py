"""The processes of one run on several devices of this machine: started, watched, and ended together.

Used by `bench.runner`, where Lightning's own launcher does not do: it runs the command line again in every process,
baselines and all, and kills the first process too when another fails, so that nobody is left to write the Record.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException

from recon3d.bench.ddp import NAMES, MethodDDPStrategy

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds that the other processes have to end by themselves when one has failed
TOLD = 2_000  # characters of an error that reach the parent: it reads when all have ended, and a pipe holds 64 KiB
STOPPED = 128 + signal.SIGTERM
LEAVE = 25.0  # seconds that all have after SIGTERM or Ctrl-C: Slurm and Docker kill after 30 and 10 by default


class ProcessError(RuntimeError):
    """One of the processes failed; the message says which, and why."""


def launcher() -> str | None:
    """The launcher that started this process as one of several, or None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return "srun"
    return "another program (LOCAL_RANK is set)" if "LOCAL_RANK" in os.environ else None


def device_count(trainer: Trainer) -> int:
    """Processes that a run takes, one for each device.

    Raises:
        ValueError: others than this process are to start them, or start them already.
    """
    if (program := launcher()) or trainer.num_nodes > 1:
        raise ValueError(
            "bench starts its own processes, on one machine: call it once, with --devices N. Use recon3d fit for "
            f"several machines and under a launcher, here {program or 'none'} (docs/devices.md)."
        )
    if trainer.num_devices > 1 and not isinstance(trainer.strategy, MethodDDPStrategy):
        raise ValueError(
            f"bench runs on several devices by one of the strategies {', '.join(NAMES)}, "
            f"not by {type(trainer.strategy).__name__}."
        )
    return trainer.num_devices


def describe(error: BaseException) -> str:
    """Kind, message and place of an error, for a Record."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}\nin {where.name}, {Path(where.filename).name}:{where.lineno}"


def run_in_processes(function: Callable[..., object], n: int, *args: Any) -> None:
    """Call ``function(*args)`` in n new processes, which Lightning takes for those of one distributed run.

    When one fails, the others are ended, at the latest after 2 * `GRACE` seconds. SIGTERM is passed on to them, and
    they have `LEAVE` seconds to save what they have; when this process is killed, they end as at Ctrl-C.

    Raises:
        ProcessError: a process failed or was killed; the first one to do so is named.
        SIGTERMException: this process was sent SIGTERM, or one that trains, and the others have ended.
    """
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    level = logging.getLogger("recon3d").getEffectiveLevel()
    processes = multiprocessing.start_processes(
        _process, (n, _free_port(), level, failures, function, args), nprocs=n, join=False, start_method="spawn"
    )
    assert processes is not None
    try:
        with _forwarded_sigterm(processes.processes):
            while not processes.join(grace_period=GRACE):
                pass
    except ProcessExitedException as error:
        rank, reason = error.error_index, error.msg
        if not failures.empty():
            rank, reason = failures.get()
        elif error.exit_code == STOPPED:
            raise SIGTERMException from error
        raise ProcessError(f"process {rank} of {n}: {reason}") from error
    except KeyboardInterrupt:
        _leave(processes.processes)
        sys.exit(1)
    finally:
        for process in processes.processes:
            if process.is_alive():
                process.kill()


@contextmanager
def _forwarded_sigterm(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """SIGTERM to this process is one to all."""

    def forward(*_: Any) -> None:
        for process in processes:
            process.terminate()
        _leave(processes)
        raise SIGTERMException

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(processes: Sequence[BaseProcess]) -> None:
    """Wait for processes that were told to end, `LEAVE` seconds for all."""
    deadline = time.monotonic() + LEAVE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _process(
    rank: int, n: int, port: int, level: int, failures: Any, function: Callable[..., object], args: tuple[Any, ...]
) -> None:
    """What one of the processes does."""
    places = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()})
    # Lightning would ask Slurm for the ranks, of which this job has one; an interactive job's it leaves alone.
    os.environ["SLURM_JOB_NAME"] = "interactive"
    if not logging.getLogger("recon3d").handlers:
        logging.getLogger("recon3d").addHandler(logging.StreamHandler())
    logging.getLogger("recon3d").setLevel(level if rank == 0 else max(level, logging.WARNING))
    try:
        function(*args)
    except SIGTERMException:  # a SystemExit without a status, with which a process ends as if it had done its part
        sys.exit(STOPPED)
    except Exception as error:
        failures.put((rank, describe(error)[:TOLD]))  # before the log: the others fail soon, for want of this one
        logger.exception("Process %d of %d failed.", rank, n)
        sys.exit(1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
