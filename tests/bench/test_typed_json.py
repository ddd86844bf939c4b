from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from recon3d.bench.typed_json import parse


@dataclass(frozen=True)
class Inner:
    size: int
    range: tuple[float, float] | None


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    by_name: dict[str, Inner]
    names: tuple[str, ...]


def test_json_becomes_the_dataclasses():
    text = (
        '{"kind": "b", "by_name": {"x": {"size": 3, "range": [1, 2.5]}, "y": {"size": 4, "range": null}}, "names": []}'
    )
    assert parse(Outer, text) == Outer("b", {"x": Inner(3, (1.0, 2.5)), "y": Inner(4, None)}, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"size": 3}', "missing key range"),
        ('{"size": 3, "range": null, "more": 1}', "unknown key more; known: range, size"),
        ('{"size": true, "range": null}', "size: expected int, got True"),
        ('{"size": 3.0, "range": null}', r"size: expected int, got 3\.0"),
        ('{"size": 3, "range": [1, "2"]}', r"range\.1: expected float, got '2'"),
        ('{"size": 3, "range": [1, 2, 3]}', "range: expected"),
        ('{"size": 3, "range": [1, NaN]}', "NaN is not JSON"),
        ('{"size": 3, "range": [1, 1e999]}', r"range\.1: expected float, got inf"),
        ("[]", "top level: expected Inner"),
        ("{", "Expecting property name"),
    ],
)
def test_what_does_not_fit_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(Inner, text)
