"""The machine: processor, memory, GPUs, disk, shared memory; and the checkout and the W&B login on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recon3d.apps.doctor.finding import Finding, first_line
from recon3d.apps.doctor.packages import python_command

GIB = 2**30
# Two prefetched batches of each of the 4 workers of the paper preset: 64 objects in 2 views of 64 pixels with voxels
# and 10,000 points with normals are 24 MiB a batch.
SHARED_BYTES = 256 * 2**20
DISK_BYTES = 5 * GIB  # a run folder of each method with its checkpoint, and the data sets that are made on first use
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def check_processor(leaderboard: Path = Path("leaderboard")) -> Iterator[Finding]:
    """Cores and memory; memory against what the recorded runs on CPUs needed."""
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    yield Finding("devices", "CPU", "ok", f"{usable} of {there} cores")
    memory = memory_bytes()
    needed, who = _largest_run(leaderboard)
    text = f"{memory / GIB:.1f} GiB"
    if needed:
        text += f"; the largest recorded CPU run took {needed / GIB:.1f} GiB ({who})"
    if needed > memory:
        yield Finding("devices", "memory", "note", text, "ARGS='--data.init_args.batch_size 4' with make bench")
    else:
        yield Finding("devices", "memory", "ok", text)


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Memory that this process may have: the machine's, or its container's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = limit.read_text().strip()
    except OSError:
        return total
    return min(total, int(allowed)) if allowed.isdigit() else total


def _largest_run(leaderboard: Path) -> tuple[float, str]:
    """Peak memory in bytes of the recorded run on a CPU that had the highest, and which it was; 0 without Records."""
    from recon3d.bench.record import load_all

    results = leaderboard / "results"
    try:
        records = load_all(results) if results.is_dir() else []
    except ValueError:
        return 0, ""  # an unreadable Record is the leaderboard's business
    runs = [
        (record.cost.peak_mem_mib * 2**20, f"{record.method} on {record.data.name}, {record.preset}")
        for record in records
        if not record.error and record.cost and record.cost.peak_mem_mib and "threads" in record.provenance.device
    ]
    return max(runs, default=(0, ""))


def check_gpus(torch: Any, driver_file: Path = NVIDIA_DRIVER) -> Iterator[Finding]:
    """GPUs with memory and compute capability, and whether driver and torch go together.

    Args:
        torch: the module.
        driver_file: where the NVIDIA driver says its version.
    """
    built, driver = torch.version.cuda, _driver(driver_file)
    if not torch.cuda.is_available():
        if driver is None:
            yield Finding("devices", "GPU", "ok", "no NVIDIA driver: runs use the CPU")
        elif built is None:
            remedy = f"{python_command()} -m pip install --force-reinstall 'torch=={torch.__version__.split('+')[0]}'"
            yield Finding("devices", "GPU", "problem", f"driver {driver}, but torch was built without CUDA", remedy)
        elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            yield Finding("devices", "GPU", "note", "hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
        else:
            text = f"driver {driver} does not serve torch's CUDA {built}: too old, or the device is not passed in"
            yield Finding("devices", "GPU", "problem", text, "nvidia-smi  # then install a newer driver")
        return
    architectures = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        text = f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, compute capability {capability}"
        # Code for sm_80 runs on 8.0 and later 8.x; code for compute_90 (PTX) on everything later.
        runs = any(_serves(one, properties.major, properties.minor) for one in architectures)
        if runs:
            yield Finding("devices", f"GPU {index}", "ok", f"{text}; CUDA {built}, driver {driver or 'unknown'}")
        else:
            text += f", which this torch has no code for ({', '.join(architectures)})"
            yield Finding(
                "devices", f"GPU {index}", "problem", text, "ARGS='--trainer.accelerator cpu' with make bench"
            )


def _serves(architecture: str, major: int, minor: int) -> bool:
    """Whether code for an architecture such as ``sm_86``, ``sm_90a`` or ``compute_120`` runs on a capability."""
    kind, _, number = architecture.partition("_")
    if kind == "compute":
        return int(number.rstrip("af")) <= 10 * major + minor
    specific, digits = number[-1:].isalpha(), number.rstrip("af")
    code = divmod(int(digits), 10)
    return code == (major, minor) if specific else code[0] == major and code[1] <= minor


def _driver(file: Path) -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    try:
        words = file.read_text().split("\n")[0].split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def check_disk(folders: Mapping[str, Path], shared: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Free space where runs and data sets go, and the shared memory that loading workers pass batches through."""
    for name, folder in folders.items():
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        text = f"{free / GIB:.1f} GiB free in {there}"
        if not os.access(there, os.W_OK):
            yield Finding(
                "disk", name, "problem", f"{there} cannot be written to", f"chmod u+w {there}", name == "runs"
            )
        elif free < DISK_BYTES:
            yield Finding("disk", name, "note", text, f"du -sh {folder}/* | sort -h  # then delete what is not needed")
        else:
            yield Finding("disk", name, "ok", text)
    if not shared.is_dir():
        return
    total = shutil.disk_usage(shared).total
    text = f"{total / 2**20:,.0f} MiB"
    if total < SHARED_BYTES:
        remedy = "docker run --shm-size=1g ..., or ARGS='--data.init_args.num_workers 0' with make bench"
        yield Finding("disk", str(shared), "problem", f"{text}, too little for loading workers", remedy)
    else:
        yield Finding("disk", str(shared), "ok", text)


def check_checkout(folder: Path = Path()) -> Finding:
    """Whether Records made here can be traced to a commit."""
    from recon3d.bench.provenance import CODE

    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", *CODE], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        text = f"no checkout here ({first_line(error)}); Records will say commit unknown, dirty"
        return Finding("checkout", "git", "note", text, "run from a git clone of the repository")
    changed = len(status.stdout.splitlines())
    if changed:
        text = f"commit {commit.stdout.strip()} and {changed} changed files of the code; Records will say dirty"
        return Finding("checkout", "git", "note", text, "git status")
    return Finding("checkout", "git", "ok", f"commit {commit.stdout.strip()}, code clean")


def check_wandb(environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether W&B knows who logs in, asked as the logger asks it. No key is shown."""
    try:
        from recon3d.bench.wandb_run import has_key
    except (ImportError, OSError) as error:
        remedy = f"{python_command()} -m pip install --force-reinstall --no-deps wandb"
        return Finding("logging", "W&B", "problem", f"does not load: {first_line(error)}", remedy)
    mode = environment.get("WANDB_MODE")
    if has_key():
        text = (
            f"a key is there; WANDB_MODE={mode} decides" if mode else "a key is there: `make bench WANDB=1` is online"
        )
        return Finding("logging", "W&B", "ok", text)
    text = (
        f"no key; WANDB_MODE={mode} decides" if mode else "no key: `make bench WANDB=1` writes offline runs below runs/"
    )
    return Finding("logging", "W&B", "note", text, "wandb login")
