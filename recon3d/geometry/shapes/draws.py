"""Named random draws: every parameter of a procedural object comes from here and is recorded with its name."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

Value = float | str | int | bool


class Draws:
    """Draws the parameters of one object by name, each from its own stream, and remembers those that were used.

    A draw depends on (category index, seed, name) alone: adding, dropping or overriding one parameter leaves all the
    others as they were. Values come from the raw words of PCG64, the part of NumPy whose streams never change, turned
    into floats by Python arithmetic, so they are the same bits on every machine.
    """

    def __init__(self, category_index: int, seed: int, overrides: Mapping[str, Value] | None = None) -> None:
        """Start the draws of object `seed` of a category; `overrides` fixes parameters by name."""
        if seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {seed}")
        self._key = (category_index, seed)
        self._overrides = dict(overrides or {})
        self.used: dict[str, Value] = {}

    def unit(self, name: str) -> float:
        """Return the uniform number in [0, 1) that belongs to `name`, without recording it."""
        sequence = np.random.SeedSequence([*self._key, zlib.crc32(name.encode())])
        return float(int(np.random.PCG64(sequence).random_raw()) >> 11) * 2.0**-53

    def number(self, name: str, low: float, high: float) -> float:
        """Return and record a number in [low, high), or its override."""
        value = float(self._overrides.get(name, low + (high - low) * self.unit(name)))
        self.used[name] = value
        return value

    def option(self, name: str, options: Sequence[str]) -> str:
        """Return and record one of `options` (listed twice: twice as likely), or its override."""
        value = str(self._overrides.get(name, options[int(self.unit(name) * len(options))]))
        self.used[name] = value
        return value

    def flag(self, name: str, probability: float) -> bool:
        """Return and record True with the given probability, or the override."""
        value = bool(self._overrides.get(name, self.unit(name) < probability))
        self.used[name] = value
        return value

    def count(self, name: str, low: int, high: int) -> int:
        """Return and record an integer in low..high, both included, or its override."""
        value = int(self._overrides.get(name, low + int(self.unit(name) * (high + 1 - low))))
        self.used[name] = value
        return value
