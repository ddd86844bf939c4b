"""Trained methods back from checkpoints, without running code from the file."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import torch

from recon3d.methods.base import CLASS_KEY, ReconstructionMethod


def load_method(checkpoint: Path) -> ReconstructionMethod:
    """The method of a checkpoint written by `recon3d bench` or `recon3d fit`, on the CPU, in eval mode.

    The file is read with ``weights_only=True``, and only classes below `recon3d.methods` are built.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, one of another program, or weights that do not fit the class.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"No checkpoint at {checkpoint}; `make bench METHOD=softras` writes one below runs/.")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{checkpoint} is not a checkpoint that can be loaded safely: {error}") from error
    name = content.get(CLASS_KEY) if isinstance(content, dict) else None
    if not isinstance(name, str) or not name.startswith("recon3d.methods."):
        raise ValueError(f"{checkpoint} holds no recon3d method (its {CLASS_KEY} is {name!r}).")
    module, _, class_name = name.rpartition(".")
    try:
        method_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{checkpoint} was written by {name}, which this version does not have.") from error
    arguments = {key: value for key, value in content["hyper_parameters"].items() if not key.startswith("_")}
    try:
        method = method_class(**arguments)
        method.load_state_dict(content["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{checkpoint} does not fit {name} of this version: {error}") from error
    assert isinstance(method, ReconstructionMethod)
    method.on_load_checkpoint(content)
    return method.eval()
