"""The processes of one run on several devices of this machine: started, watched, and ended together.

Used by `bench.runner`, where Lightning's own launcher does not do: it runs the command line again in every process,
baselines and all, and kills the first process too when another fails, so that nobody is left to write the Record.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds that the other processes have to end by themselves when one has failed


class ProcessError(RuntimeError):
    """One of the processes failed; the message says which, and why."""


def launcher() -> str | None:
    """The launcher that started this process as one of several, or None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return "srun"
    return "another program (LOCAL_RANK is set)" if "LOCAL_RANK" in os.environ else None


def describe(error: BaseException) -> str:
    """Kind, message and place of an error, for a Record."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}\nin {where.name}, {Path(where.filename).name}:{where.lineno}"


def run_in_processes(function: Callable[..., object], n: int, *args: Any) -> None:
    """Call ``function(*args)`` in n new processes, which Lightning takes for those of one distributed run.

    When one fails, the others are ended, at the latest after 2 * `GRACE` seconds. When this process is killed, they end
    as at Ctrl-C.

    Raises:
        ProcessError: a process failed or was killed; the first one to do so is named.
    """
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    level = logging.getLogger("recon3d").getEffectiveLevel()
    processes = multiprocessing.start_processes(
        _process, (n, _free_port(), level, failures, function, args), nprocs=n, join=False, start_method="spawn"
    )
    assert processes is not None
    try:
        while not processes.join(grace_period=GRACE):
            pass
    except ProcessExitedException as error:
        rank, reason = error.error_index, error.msg
        if not failures.empty():
            rank, reason = failures.get()
        raise ProcessError(f"process {rank} of {n}: {reason}") from error
    finally:
        for process in processes.processes:
            process.join(0 if sys.exc_info()[0] is None else GRACE)
            if process.is_alive():
                process.kill()


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
    except Exception as error:
        failures.put((rank, describe(error)))  # before the log: the others fail soon, for want of this one
        logger.exception("Process %d of %d failed.", rank, n)
        sys.exit(1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
