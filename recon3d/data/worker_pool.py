"""Runs one function over many jobs in processes, such that a crash or a hang of one job costs that job alone.

Used by `recon3d.data.building` for work on foreign files, which can exhaust the memory or never end. Each worker is a
`ProcessPoolExecutor` of one process, so that a death is known to belong to the job that this process had.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

import numba
import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Job, Result]):
    """What became of one job: its `result`, or None and the `error`."""

    job: Job
    result: Result | None
    error: str | None


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int | None = None, timeout: float = 600.0
) -> Iterator[Outcome[Job, Result]]:
    """Yields the outcome of ``function(job)`` for every job, in order of completion.

    An exception, the death of the process (out of memory, segmentation fault) or a job longer than `timeout` become an
    outcome with `error`, and the other jobs go on. Workers start through a fork server, because a plain fork after
    OpenMP has run in this process hangs or dies, and run torch and numba on one thread each. They finish their current
    job on Ctrl-C, and end when this process is killed.

    Args:
        function: importable by name; so is what each job is made of.
        jobs: picklable.
        workers: number of processes; None: the cores this process may use.
        timeout: seconds allowed per job, kept by a timer of the operating system, so it also ends compiled code.

    Raises:
        ValueError: workers below 1.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise ValueError(f"Expected at least 1 worker, got {workers}.")
    waiting = deque(jobs)
    idle = [_start_worker(function.__module__) for _ in range(min(workers, len(waiting)))]
    running: dict[Future[Result], tuple[ProcessPoolExecutor, Job, float]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, job = idle.pop(), waiting.popleft()
                running[worker.submit(_run_limited, function, job, timeout)] = (worker, job, time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, job, start = running.pop(future)
                try:
                    outcome = Outcome(job, future.result(), None)
                except BrokenProcessPool:
                    worker.shutdown()
                    worker = _start_worker(function.__module__)
                    seconds = time.monotonic() - start
                    outcome = Outcome(
                        job,
                        None,
                        f"took longer than {timeout:g} s"
                        if seconds >= timeout
                        else f"its process died after {seconds:.0f} s (out of memory, or a crash in compiled code)",
                    )
                except Exception as error:  # whatever a foreign file provokes is that file's outcome
                    outcome = Outcome(job, None, f"{type(error).__name__}: {error}")
                idle.append(worker)
                yield outcome
    finally:
        for worker in [*idle, *(worker for worker, _, _ in running.values())]:
            worker.shutdown(cancel_futures=True)


def _start_worker(module: str) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])  # import torch once, not once per worker
    return ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_worker)


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # In this order: numba starts its OpenMP threads here, which sets the number that torch reads from OpenMP as well.
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    # A worker waits on a pipe that it holds open itself, so it would outlive a killed parent for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _run_limited(function: Callable[[Job], Result], job: Job, timeout: float) -> Result:
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return function(job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
