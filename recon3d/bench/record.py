"""One row of evidence: the Record of one run (one method, data set, preset and seed), its schema and its files.

`bench.runner` writes Records, `bench.ranking` and `bench.table` read them. A Record is JSON with sorted keys under
``results/<data>/<preset>/<method>--seed<k>.json``; the path and the content must agree. The dataclasses below are the
schema: an unknown, missing or wrongly typed key is refused by name, on loading and on saving. Standard library only, so
that a table can be built where torch is not installed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from recon3d.bench.typed_json import parse
from recon3d.files import write_whole

SCHEMA = 1
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
# A variant of a method has its own name after a hyphen.
_METHOD = re.compile(rf"{_NAME.pattern}(-{_NAME.pattern})?")


@dataclass(frozen=True)
class Data:
    """What was trained and tested on.

    Attributes:
        name: stem of ``configs/data/<name>.yaml``.
        hash: of the test data; two Records are comparable only when it is equal.
        categories: the categories scored.
        split: the split scored.
        scale: the length that is 1 in every object, ``longest_side``, ``diagonal`` or ``keypoints``.
    """

    name: str
    hash: str
    categories: tuple[str, ...]
    split: str
    scale: str


@dataclass(frozen=True)
class MeasureResult:
    """One measure of one run.

    Attributes:
        value: mean over the samples; None where the data lack the target or the method the quantity ("n/a", never 0).
        n: samples averaged.
        unit: of `value`; "1" for a plain number.
        version: of the measure's definition.
        higher_is_better: direction of the ranking.
        per_category: mean within each category.
        interval: bootstrap interval of `value`, low and high.
        note: why there is no value, or what to know about it.
    """

    value: float | None
    n: int
    unit: str
    version: int
    higher_is_better: bool
    per_category: dict[str, float | None]
    interval: tuple[float, float] | None
    note: str | None


@dataclass(frozen=True)
class Cost:
    """What the run cost on its device; None where it was not measured.

    Attributes:
        params: learned parameters.
        train_s: seconds of training.
        ms_per_image: milliseconds of one reconstruction.
        peak_mem_mib: highest memory in use, MiB (of the accelerator where there is one, else of the process).
        steps: optimiser steps.
    """

    params: int | None
    train_s: float | None
    ms_per_image: float | None
    peak_mem_mib: float | None
    steps: int | None


@dataclass(frozen=True)
class Provenance:
    """Where the run came from.

    Attributes:
        commit: git commit of the code.
        dirty: whether the checkout had changes that the commit lacks.
        date: ISO 8601 with time zone.
        versions: library name to version.
        device: name of the processor or accelerator.
        backend: kernel backend.
        config_hash: `config_hash` of the resolved configuration.
    """

    commit: str
    dirty: bool
    date: str
    versions: dict[str, str]
    device: str
    backend: str
    config_hash: str


@dataclass(frozen=True)
class Paper:
    """The paper of a method."""

    title: str
    year: int
    url: str | None


@dataclass(frozen=True)
class Record:
    """Everything one run says. A failed run has `error` and no measures.

    Attributes:
        schema: version of this layout.
        method: stem of ``configs/methods/<name>.yaml``, or of a variant of it.
        data: what was trained and tested on.
        seed: of the whole run.
        preset: stem of ``configs/presets/<name>.yaml``.
        input: what the method sees.
        supervision: ViewBatch fields used in training.
        measures: by name.
        measure_order: the names in the order of the protocol (JSON keys are sorted).
        cost: time, memory, size.
        provenance: code, configuration and machine.
        paper: of the method; None for a baseline without one.
        error: of a failed run, one line first.
    """

    schema: int
    method: str
    data: Data
    seed: int
    preset: str
    input: Literal["RGB", "RGB + mask"]
    supervision: tuple[str, ...]
    measures: dict[str, MeasureResult]
    measure_order: tuple[str, ...]
    cost: Cost
    provenance: Provenance
    paper: Paper | None
    error: str | None

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {self.schema}; run the benchmark again.")
        if not _METHOD.fullmatch(self.method):
            raise ValueError(
                "method: expected lower-case letters, digits and underscores, and a hyphen before the name of a "
                f"variant, got {self.method!r}."
            )
        for key, name in (("data.name", self.data.name), ("preset", self.preset)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{key}: expected lower-case letters, digits and underscores, got {name!r}.")
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}.")
        if sorted(self.measure_order) != sorted(self.measures):
            raise ValueError(f"measure_order: expected the names {sorted(self.measures)}, got {self.measure_order}.")
        if (self.error is None) != bool(self.measures):
            raise ValueError("error: a finished run has measures and no error, a failed run an error and no measures.")
        try:
            aware = self.when.tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise ValueError(f"provenance.date: expected ISO 8601 with time zone, got {self.provenance.date!r}.")

    @property
    def when(self) -> datetime:
        """Date of the run."""
        return datetime.fromisoformat(self.provenance.date)


def result_path(root: Path, data: str, preset: str, method: str, seed: int) -> Path:
    """Path of a Record's file; `root` is the ``results`` folder."""
    return root / data / preset / f"{method}--seed{seed}.json"


def load(path: Path) -> Record:
    """Read one Record.

    Raises:
        ValueError: not JSON, not this schema, or the path names another run than the content; the message names the
            file and the key.
    """
    try:
        record = parse(Record, path.read_text(encoding="utf-8"))
        _check_path(record, path)
    except ValueError as error:
        raise ValueError(f"{path} is not a readable Record; mend it, or delete it and run again: {error}") from error
    return record


def load_all(folder: Path) -> list[Record]:
    """Every Record below `folder`, in path order.

    Raises:
        ValueError: as `load`; one unreadable file stops the whole.
    """
    return [load(path) for path in sorted(folder.rglob("*.json"))]


def save(record: Record, path: Path) -> None:
    """Write one Record, whole or not at all.

    Raises:
        ValueError: the Record breaks the schema (a NaN, a wrong type), or `path` names another run.
    """
    try:
        text = json.dumps(asdict(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        parse(Record, text)
        _check_path(record, path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Record for {path} was not written: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def is_finished(path: Path, config_hash: str, versions: Mapping[str, int]) -> bool:
    """Whether `path` holds a Record of this configuration without an error, so that the run can be skipped.

    Args:
        path: of the Record.
        config_hash: of the resolved configuration.
        versions: of the measures asked for, by name; a Record that lacks one or has another version is not finished.

    Raises:
        ValueError: as `load`: a damaged file is reported, not run over.
    """
    if not path.exists():
        return False
    record = load(path)
    if record.error is not None or record.provenance.config_hash != config_hash:
        return False
    return versions.items() <= {name: result.version for name, result in record.measures.items()}.items()


def config_hash(config: Mapping[str, Any], drop: Collection[str]) -> str:
    """SHA-256 of a resolved configuration without what cannot change the result.

    Args:
        config: nested mappings, lists and plain values.
        drop: dotted paths to leave out, such as ``trainer.logger``; also the seed, since all seeds share one hash.

    Raises:
        ValueError: a value has no JSON form (say, a Path): drop its key or turn it into text.
    """

    def kept(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            prefix = f"{path}." if path else ""
            return {key: kept(item, prefix + key) for key, item in value.items() if prefix + key not in drop}
        if isinstance(value, list | tuple):
            return [kept(item, f"{path}.{index}") for index, item in enumerate(value)]
        if value is None or isinstance(value, str | int | float):
            return value
        raise ValueError(
            f"config_hash: {path} is a {type(value).__name__}, expected a plain value; drop it or convert it."
        )

    canonical = json.dumps(kept(config, ""), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check_path(record: Record, path: Path) -> None:
    expected = result_path(Path(), record.data.name, record.preset, record.method, record.seed)
    if path.absolute().parts[-3:] != expected.parts:
        raise ValueError(f"content says {expected.as_posix()}, the path says {'/'.join(path.absolute().parts[-3:])}.")
