"""Arrays inside .npz files, read in place and written as a stream: files far larger than memory.

Sits under `nmr_layout`, which knows what the arrays mean. A member stored without compression is mapped where it lies
in the archive; a compressed one is unpacked once to a .npy beside it, or in the user's cache folder when that place is
read-only, and mapped there.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from recon3d.files import replace_file

logger = logging.getLogger(__name__)

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # ZIP application note 4.3.7
_BLOCK = 16 * 2**20  # bytes moved at a time
_REPORT_EVERY = 2 * 2**30  # bytes between two lines of progress while unpacking


class DataFileError(ValueError):
    """A file of a data set is missing, damaged, or not what its name promises. `data.checking` lists these."""


@contextmanager
def reading(path: Path, expected: str, advice: str = "") -> Iterator[None]:
    """Turn whatever NumPy stumbles on in a damaged file into a `DataFileError` that names it.

    Args:
        path: the file.
        expected: what should be in it.
        advice: what to do.

    Raises:
        DataFileError: the reading inside failed, other than for memory.
    """
    try:
        yield
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # zlib.error, NotImplementedError, TokenError, ...: there is no common base
        raise DataFileError(f"{path}: expected {expected} ({error}).{advice}") from error


@dataclass(frozen=True)
class ArrayFile:
    """Where an array lies on disk. Pickles as a few bytes, unlike `numpy.memmap`, which would pickle the data."""

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool = False

    def open(self) -> np.ndarray:
        """The array, memory-mapped and read-only (an ordinary empty array if it has no elements)."""
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, self.dtype)
        order = "F" if self.fortran else "C"
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape, order=order)  # type: ignore[call-overload]


def member_checksums(path: Path) -> dict[str, tuple[int, int]]:
    """CRC-32 and size in bytes of every member, from the archive's directory: a content fingerprint without reading."""
    with _open_zip(path) as archive:
        return {info.filename: (info.CRC, info.file_size) for info in archive.infolist()}


def first_damaged_member(path: Path) -> str | None:
    """Name of the first member whose bytes do not match their CRC-32, or None. Reads the whole file."""
    with _open_zip(path) as archive:
        try:
            return archive.testzip()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise DataFileError(f"{path}: damaged archive ({error}). Fetch or make this file again.") from error


def locate_array(path: Path, member: str | None = None, unpack: bool = True) -> ArrayFile:
    """Place, type and shape of one array of an .npz file; unpacks it first if it is compressed.

    Args:
        path: the .npz file.
        member: array name without ``.npy``; None takes the only one (``arr_0`` in the official files).
        unpack: False only reads the header of a compressed member; such an answer cannot be opened.

    Raises:
        DataFileError: no such file, not a zip archive, no such member, a header that does not fit the member's size, a
            truncated file, or an array of Python objects (never unpickled).
    """
    with _open_zip(path) as archive:
        info = _find_member(archive, path, member)
        where = f"{path}, member {info.filename}"
        try:
            with archive.open(info) as stream:
                shape, fortran, dtype = _read_npy_header(stream)
                header = stream.tell()
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise DataFileError(f"{where}: expected a readable .npy array: {error}. Fetch or make it again.") from error
        if dtype.hasobject or dtype.names:
            raise DataFileError(f"{where}: expected numbers, got dtype {dtype}; object arrays are never unpickled.")
        expected = header + math.prod(shape) * dtype.itemsize
        if expected != info.file_size:
            raise DataFileError(
                f"{where}: shape {shape} of {dtype} needs {expected:,} bytes, the archive holds {info.file_size:,}. "
                "The file is damaged: fetch or make it again."
            )
    if info.compress_type == zipfile.ZIP_STORED:
        return ArrayFile(path, _data_offset(path, info) + header, dtype, shape, fortran)
    return ArrayFile(_unpack(path, info) if unpack else path, header, dtype, shape, fortran)


def write_npz(path: Path, count: int, members: Mapping[str, Iterable[np.ndarray]]) -> None:
    """Write arrays of shape (count, ...) item by item to an uncompressed .npz, through a temporary file.

    Members are written one after the other, so each iterable is read once, in full, before the next one. The bytes
    depend on the items alone (no dates).

    Args:
        path: target; its folder is made.
        count: items of every member, at least 1.
        members: array name to its items, all of one shape and dtype (an array iterates over its first axis).

    Raises:
        ValueError: no items, fewer or more than `count`, or items of different shape or dtype.
    """
    if count < 1:
        raise ValueError(f"write_npz: expected at least one item for {path.name}; write no file for an empty split.")
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, items in members.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                    _write_items(stream, f"{path.name}, array {name}", count, items)

    replace_file(path, write)


def _write_items(stream: IO[bytes], where: str, count: int, items: Iterable[np.ndarray]) -> None:
    first: np.ndarray | None = None
    written = 0
    for raw in items:
        item = np.ascontiguousarray(raw)
        if first is None:
            first = item
            header = {"descr": np.lib.format.dtype_to_descr(item.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (count, *item.shape)})
        if item.shape != first.shape or item.dtype != first.dtype:
            raise ValueError(
                f"{where}: item {written} is {item.dtype} {item.shape}, the first was {first.dtype} {first.shape}."
            )
        stream.write(item.tobytes())
        written += 1
    if written != count:
        raise ValueError(f"{where}: expected {count} items, got {written}.")


def _open_zip(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise DataFileError(f"{path}: no such file.")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataFileError(
            f"{path}: expected an .npz (zip) archive: {error}. A broken-off download looks like this; fetch it again."
        ) from error


def _find_member(archive: zipfile.ZipFile, path: Path, member: str | None) -> zipfile.ZipInfo:
    infos = {info.filename: info for info in archive.infolist()}
    if member is not None and f"{member}.npy" in infos:
        return infos[f"{member}.npy"]
    if member is None and len(infos) == 1 and next(iter(infos)).endswith(".npy"):
        return next(iter(infos.values()))
    expected = f"an array named {member!r}" if member else "exactly one array"
    raise DataFileError(f"{path}: expected {expected}, the archive holds {sorted(infos) or 'nothing'}.")


def _read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"npy format version {version} is not one of (1, 0), (2, 0)")


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """First byte of a stored member: behind the local header, whose extra field differs from the directory's."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        raw = file.read(_LOCAL_HEADER.size)
    if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
        raise DataFileError(f"{path}: no local header for {info.filename}; the file is damaged.")
    name_length, extra_length = _LOCAL_HEADER.unpack(raw)[-2:]
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if offset + info.file_size > path.stat().st_size:
        raise DataFileError(f"{path}: {info.filename} runs past the end of the file; the file is damaged.")
    return offset


def _cache_folder(beside: Path) -> Path:
    if os.access(beside, os.W_OK):
        return beside
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "recon3d" / "unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unpack(path: Path, info: zipfile.ZipInfo) -> Path:
    """The member as a .npy file, unpacked in blocks if it is not there yet."""
    folder = _cache_folder(path.parent)
    # The checksum in the name ties the copy to its content: a newer archive of the same name gets a copy of its own.
    target = folder / f"{path.stem}.{info.CRC:08x}.{info.filename}"
    if target.is_file() and target.stat().st_size == info.file_size:
        return target
    free = shutil.disk_usage(folder).free
    if free < info.file_size:
        raise DataFileError(
            f"{path}: unpacking needs {info.file_size / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} GiB are free. "
            "Make room, or set XDG_CACHE_HOME to a larger disk and make the data folder read-only."
        )
    logger.info("Unpacking %s (%.2f GiB, once) to %s", path.name, info.file_size / 2**30, target)

    def write(temporary: Path) -> None:
        done = 0
        with _open_zip(path) as archive, archive.open(info) as source, temporary.open("wb") as sink:
            while block := source.read(_BLOCK):  # the last read verifies the CRC-32
                sink.write(block)
                if done // _REPORT_EVERY != (done + len(block)) // _REPORT_EVERY:
                    logger.info("%s: %.0f %%", path.name, 100 * (done + len(block)) / info.file_size)
                done += len(block)

    try:
        replace_file(target, write)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataFileError(f"{path}: damaged while unpacking {info.filename} ({error}); fetch it again.") from error
    return target
