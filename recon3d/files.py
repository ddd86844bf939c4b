"""Files that appear whole or not at all: what every part of the package writes with.

On the ground floor, standard library only. A file is made beside its place, flushed to disk and renamed, so a kill, a
full disk or a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file beside `path`, then put it in the place of `path`.

    Args:
        path: in a folder that exists.
        write: is given the temporary path, whose suffix is not that of `path`.

    Raises:
        OSError: the disk is full, the folder is missing or read-only, `path` is a folder; names `path`.
    """
    _replace_all({path: write})


def write_whole(path: Path, content: bytes) -> None:
    """Put a file with `content` in the place of `path`; as `replace_file`."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that need each other: a full disk, or a folder in the place of one, leaves all the old ones.

    Nothing is renamed before everything is written. A kill between two renames can still part them, so the file that
    names the others comes last.

    Args:
        contents: of each path, in the order of the renames.

    Raises:
        OSError: as `replace_file`.
    """
    _replace_all({path: partial(_write, content) for path, content in contents.items()})


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _replace_all(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    # Ends in .part, so that what a kill leaves is never taken for a file of its kind.
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in writers}
    try:
        for path, write in writers.items():
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; a file would be written there.")
            try:
                write(temporary[path])
                _flush(temporary[path])
            except Exception as error:
                named = _naming(path, temporary[path], error)
                if named is error:
                    raise
                raise named from error
        for path in writers:
            temporary[path].replace(path)
    finally:
        for part in temporary.values():
            with suppress(OSError):  # not there, or the error that is on its way says it
                part.unlink()
    for folder in {path.parent for path in writers}:
        with suppress(OSError):  # a file system that cannot flush folders
            _flush(folder)


def _flush(path: Path) -> None:
    """Have the disk keep what was written: without it a power cut can leave the new name on an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _naming(path: Path, temporary: Path, error: Exception) -> Exception:
    """`error`, saying `path` and what to do where it is about space or about the temporary file."""
    cause: BaseException | None = error
    while cause is not None:
        # torch.save raises another error in the course of this one; an error that names another file stays as it is.
        if isinstance(cause, OSError) and cause.errno in _FULL and cause.filename in (None, str(temporary)):
            told = "the file was not written, an older one is kept. Free space and run the same command again"
            return OSError(cause.errno, f"{os.strerror(cause.errno)}: {told}", str(path))
        cause = cause.__context__
    if isinstance(error, OSError) and error.errno is not None and error.filename == str(temporary):
        return OSError(error.errno, error.strerror, str(path))
    return error
