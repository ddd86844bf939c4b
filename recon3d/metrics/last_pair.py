"""Work that several metrics share: they are updated in turn with the same two tensors, prediction and target."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

Result = TypeVar("Result")


def once_per_pair(function: Callable[[Tensor, Tensor], Result]) -> Callable[[Tensor, Tensor], Result]:
    """Keep the result of the last pair of tensors, and return it when the same two (unchanged) tensors come again."""
    latest: tuple[weakref.ref[Tensor], weakref.ref[Tensor], tuple[int, int], Result] | None = None

    @functools.wraps(function)
    def remembering(pred: Tensor, target: Tensor) -> Result:
        nonlocal latest
        versions = (_version(pred), _version(target))
        if latest is not None and latest[0]() is pred and latest[1]() is target and latest[2] == versions:
            return latest[3]
        result = function(pred, target)
        latest = (weakref.ref(pred), weakref.ref(target), versions, result)
        return result

    return remembering


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
