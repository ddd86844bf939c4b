"""JSON read as nested dataclasses, every key and type checked: how `bench.record` reads its files. No torch."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse(schema: type[T], text: str) -> T:
    """Return the JSON text as an instance of a dataclass.

    Its fields may be dataclasses, str, bool, int, float, Literal, dict, tuple and ``X | None``. Numbers are finite.

    Raises:
        ValueError: no JSON, or an unknown, missing or wrongly typed key; the message starts with its dotted path.
    """
    instance: T = _read(schema, json.loads(text, parse_constant=_refuse_constant), "")
    return instance


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; a missing value is null.")


def _read(hint: Any, value: Any, where: str) -> Any:
    """`value` (parsed JSON) as an instance of the type `hint`; errors start with the dotted path `where`."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        hints = get_type_hints(hint)
        names = {field.name for field in fields(hint)}
        at = f"{where}: " if where else ""
        if unknown := sorted(value.keys() - names):
            raise ValueError(f"{at}unknown key {', '.join(unknown)}; known: {', '.join(sorted(names))}.")
        if missing := sorted(names - value.keys()):
            raise ValueError(f"{at}missing key {', '.join(missing)}.")
        prefix = f"{where}." if where else ""
        return hint(**{name: _read(hints[name], value[name], prefix + name) for name in names})
    if origin is UnionType and NoneType in args:
        return None if value is None else _read(args[0], value, where)
    if origin is Literal and value in args:
        return value
    if origin is dict and isinstance(value, dict):
        return {key: _read(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple and isinstance(value, list) and (args[1] is Ellipsis or len(value) == len(args)):
        return tuple(_read(args[0], item, f"{where}.{index}") for index, item in enumerate(value))
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (str, bool, int) and type(value) is hint:
        return value
    raise ValueError(f"{where or 'top level'}: expected {getattr(hint, '__name__', hint)}, got {value!r}.")
