"""Chooses the backend of a kernel: argument, then RECON3D_BACKEND, then the device of the input.

An unavailable choice raises and says what is available; nothing falls back silently.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

ENVIRONMENT_VARIABLE = "RECON3D_BACKEND"


def environment_backend() -> str | None:
    """The backend that RECON3D_BACKEND asks for, or None."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or None


def choose_backend(
    operation: str, device: torch.device, backends: Mapping[str, tuple[str, ...]], requested: str | None = None
) -> str:
    """Name the backend that runs `operation` on `device`.

    Args:
        operation: name of the kernel, for messages.
        device: where the input lies.
        backends: backend name -> device types it runs on, in order of preference.
        requested: the caller's `backend=`; None asks RECON3D_BACKEND, then takes the first that runs on the device.

    Raises:
        ValueError: the requested backend does not exist, or does not run on this device.
    """
    name, origin = requested, "backend="
    if name is None:
        name, origin = environment_backend(), f"{ENVIRONMENT_VARIABLE}="
    available = [backend for backend, devices in backends.items() if device.type in devices]
    if name is None:
        if not available:
            raise ValueError(f"{operation} has no backend for device type {device.type!r}; it has {dict(backends)}.")
        return available[0]
    if name not in available:
        reason = f"does not run on {device.type}" if name in backends else "does not exist"
        raise ValueError(
            f"{operation}: {origin}{name} {reason}; available on {device.type}: {', '.join(available) or 'none'}."
        )
    return name
