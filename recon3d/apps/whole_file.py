"""Files that appear whole or not at all: what the applications write with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename, so that a kill or a full disk leaves the old file or the new one."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that need each other: a full disk, or a folder in the place of one, leaves all the old ones.

    Nothing is renamed before everything is written. A kill between two renames can still part them, so the file that
    names the others comes last.

    Args:
        contents: of each path, in the order of the renames.

    Raises:
        IsADirectoryError: a path is a folder.
        OSError: a file cannot be written.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in contents}
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; a file would be written there.")
            temporary[path].write_bytes(content)
        for path in contents:
            temporary[path].replace(path)
    finally:
        for part in temporary.values():
            part.unlink(missing_ok=True)
