"""Where a run came from: commit, library versions, device; what a Record keeps so that a number can be traced."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from recon3d.bench.record import Provenance
from recon3d.kernels.dispatch import environment_backend

LIBRARIES = ("recon3d", "torch", "lightning", "torchmetrics", "easypytorch3d", "numpy", "numba", "scipy", "trimesh")
# What decides a number; results and docs do not. Paths from the top of the checkout, wherever git is called.
CODE = (":(top)recon3d", ":(top)configs", ":(top)pyproject.toml")


def provenance(config_hash: str, device: torch.device, root: Path) -> Provenance:
    """Facts about this process; `root` is the folder of the configs, whose git checkout counts."""
    commit = _git(root, "rev-parse", "HEAD") or "unknown"
    return Provenance(
        commit=commit,
        dirty=commit == "unknown" or bool(_git(root, "status", "--porcelain", "--", *CODE)),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        device=device_name(device),
        backend=environment_backend() or f"default for {device.type}",
        config_hash=config_hash,
    )


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the processor with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} threads"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command, or None outside a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
