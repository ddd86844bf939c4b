"""Time and memory of a call, and the JSON file that keeps them: shared by every ``benchmarks/kernels/bench_<op>.py``.

Run a benchmark from the repository root as ``python -m benchmarks.kernels.bench_<op>``. Each row of a result is a plain
dict: the size of the work, the backend, and what `measure` and `peak_memory` said. Times taken on a busy machine are
only comparable within one file, so a benchmark runs all the backends it compares in one process.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numba", "numpy", "easypytorch3d")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over `repeats` calls: median, interquartile range and minimum by the clock on the wall.

    `cpu_s` is the median of processor seconds, summed over threads: what is left to compare on a busy machine, if both
    sides run on one thread (idle OpenMP threads spin, and count).
    """

    median_s: float
    iqr_s: float
    min_s: float
    cpu_s: float
    repeats: int


def measure(
    function: Callable[[], object], warmup: int = 1, repeats: int = 5, device: torch.device | str = "cpu"
) -> Timing:
    """Time `function()`: `warmup` calls are not counted (compilation, caches), then `repeats` are timed one by one.

    On a CUDA device the queue is drained before each clock is read.
    """
    if repeats < 1:
        raise ValueError(f"measure: repeats must be at least 1, got {repeats}.")
    on_cuda = torch.device(device).type == "cuda"

    def clock() -> float:
        if on_cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(warmup):
        function()
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        start, cpu_start = clock(), time.process_time()
        function()
        seconds.append(clock() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if repeats > 1 else [math.nan] * 3
    return Timing(statistics.median(seconds), high - low, min(seconds), statistics.median(cpu_seconds), repeats)


def peak_memory(function: Callable[[], object], device: torch.device | str = "cpu") -> int | None:
    """Bytes by which one call of `function` raises the high-water mark of memory over what was in use before it.

    CUDA: PyTorch's allocator. CPU: resident memory of the process (Linux resets its mark through /proc; None
    elsewhere). The CPU figure is a lower bound, because pages that an earlier call freed and the process kept are
    counted as in use; call `function` once before, so that compilation is not counted.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if platform.system() != "Linux":
        return None
    Path("/proc/self/clear_refs").write_text("5")  # 5: set the high-water mark to the present resident size
    before = _resident_high_water()
    function()
    return _resident_high_water() - before


def _resident_high_water() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def machine_facts(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Where a figure was taken: processor, cores, threads, versions, commit, load of the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    root = Path(__file__).parent
    git = [
        subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
        for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", ".."])
    ]
    return {
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": {"torch": torch.get_num_threads(), "numba": numba.get_num_threads()},
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "commit": git[0] or None,
        "dirty": bool(git[1]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_result(name: str, rows: Sequence[Mapping[str, Any]], device: torch.device | str = "cpu") -> Path:
    """Write ``benchmarks/results/<name>--<device type>.json`` atomically; strict JSON, NaN and infinity become null."""
    path = RESULTS / f"{name}--{torch.device(device).type}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": name, "machine": machine_facts(device), "rows": rows}
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(_finite(result), indent=2, sort_keys=True, allow_nan=False) + "\n")
    partial.replace(path)
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
