"""Reads what an offline run of W&B leaves on the disk, with W&B's own messages.

The file is a log in LevelDB's format (blocks of 32 KiB, records in fragments) after a header of seven bytes; W&B 0.31
has its reader in Go only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEADER, HEADER = 32 * 1024, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def messages(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = FILE_HEADER, b""
    while place < len(data):
        if (left := BLOCK - place % BLOCK) < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += HEADER
        parts = (b"" if kind in (FULL, FIRST) else parts) + data[place : place + length]
        place += length
        if kind in (FULL, LAST):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(parts)
            yield message


@dataclass
class OfflineRun:
    """What `wandb sync` would send."""

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    system: set[str] = field(default_factory=set)
    run: Any = None
    exit_code: int | None = None

    @classmethod
    def read(cls, folder: Path) -> OfflineRun:
        (path,) = folder.glob("run-*.wandb")
        found = cls(folder)
        for message in messages(path):
            kind = message.WhichOneof("record_type")
            if kind == "history":
                found.history.append(_values(message.history.item))
            elif kind == "run":
                found.run = message.run
                found.config |= _values(message.run.config.update)
            elif kind == "config":
                found.config |= _values(message.config.update)
            elif kind == "summary":
                found.summary |= _values(message.summary.update)
            elif kind == "stats":
                found.system |= {item.key for item in message.stats.item}
            elif kind == "artifact":
                found.artifacts.append(message.artifact)
            elif kind == "request" and message.request.HasField("log_artifact"):
                found.artifacts.append(message.request.log_artifact.artifact)
            elif kind == "exit":
                found.exit_code = message.exit.exit_code
        return found

    def values(self, key: str) -> list[Any]:
        return [row[key] for row in self.history if key in row]

    def media(self, key: str) -> list[list[Path]]:
        """Files by step, of a list of media."""
        return [[self.folder / "files" / name for name in value["filenames"]] for value in self.values(key)]


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        first, *path = [item.key] if item.key else item.nested_key
        value = json.loads(item.value_json)
        for name in reversed(path):
            value = {name: value}
        values[first] = values.get(first, {}) | value if path else value
    return values
