"""Trained methods back from checkpoints, without running code from the file."""

from __future__ import annotations

import importlib
import inspect
import zipfile
from pathlib import Path
from typing import Any

import torch

from recon3d.methods.base import CLASS_KEY, ReconstructionMethod


def load_method(checkpoint: Path) -> ReconstructionMethod:
    """The method of a checkpoint written by `recon3d bench` or `recon3d fit`, on the CPU, in eval mode.

    The file is read with ``weights_only=True``, and only methods below `recon3d.methods` are built.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, one of another program, or weights that do not fit the class.
    """
    content = read_checkpoint(checkpoint)
    method_class = _method_class(checkpoint, content)
    try:
        method = method_class(**_arguments(method_class, content["hyper_parameters"]))
        method.load_state_dict(content["state_dict"])
        method.on_load_checkpoint(content)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{checkpoint} does not fit {method_class.__name__} of this version: {error}") from error
    return method.eval()


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Content of a checkpoint file, on the CPU, read without running code from it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"No checkpoint at {checkpoint}; `make bench METHOD=softras` writes one below runs/.")
    # torch.load would take what is no zip archive for a pickle of before 2020; nothing of ours is one.
    if not zipfile.is_zipfile(checkpoint):
        raise ValueError(f"{checkpoint} is not a checkpoint: expected a file written by torch.save, whole.")
    try:
        # Mapped: the optimiser state, two thirds of the file, is never read.
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle fails in any opcode, with KeyError, IndexError and others
        told = str(error).partition(" In PyTorch 2.6")[0]  # there torch proposes to execute what the file holds
        raise ValueError(f"{checkpoint} is not a checkpoint that can be loaded safely: {told}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{checkpoint} is not a checkpoint: it holds a {type(content).__name__}.")
    return content


def _method_class(checkpoint: Path, content: dict[str, Any]) -> type[ReconstructionMethod]:
    name = content.get(CLASS_KEY)
    if not isinstance(name, str) or not name.startswith("recon3d.methods."):
        raise ValueError(f"{checkpoint} holds no recon3d method (its {CLASS_KEY} is {name!r}).")
    module, _, class_name = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{checkpoint} was written by {name}, which this version does not have.") from error
    # Checked before it is called: the file chooses the name, and must not choose what runs.
    if not (isinstance(found, type) and issubclass(found, ReconstructionMethod)):
        raise ValueError(f"{checkpoint} names {name}, which is not a method.")
    return found


def _arguments(method_class: type[ReconstructionMethod], saved: dict[str, Any]) -> dict[str, Any]:
    """The saved hyper-parameters that are arguments: not Lightning's own, nor the base's that the class fixes."""
    taken = inspect.signature(method_class).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    # Lightning saves the arguments of every `__init__` on the way up; a class may fix those of its bases.
    bases = [base for base in method_class.__mro__[1:] if issubclass(base, ReconstructionMethod)]
    above = {name for base in bases for name in inspect.signature(base).parameters}
    fixed = set() if open_ended else above - taken.keys()
    return {key: value for key, value in saved.items() if not key.startswith("_") and key not in fixed}
