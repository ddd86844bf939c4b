from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recon3d.files import replace_file, write_together, write_whole

LIMIT = 100_000  # bytes that a file may grow to in `child`


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code whose files cannot grow beyond LIMIT: the system refuses the rest, as a full disk does."""
    prepare = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {resource.RLIM_INFINITY}))\n"
    command = [sys.executable, "-c", prepare + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "write", [write_whole, lambda path, content: replace_file(path, lambda place: place.write_bytes(content))]
)
def test_a_file_is_new_or_replaced(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    path = tmp_path / "a.bin"
    for content in (b"one", b"another"):
        write(path, content)
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_what_is_being_written_is_beside_its_place_and_never_has_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write(place: Path) -> None:
        assert place.parent == tmp_path and place.suffix == ".part" and not path.exists()
        place.write_bytes(b"1")

    replace_file(path, write)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def half(place: Path) -> None:
        place.write_bytes(b"n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_files_that_need_each_other_are_all_new_or_all_old(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    write_together({path: b"old" for path in paths[:2]})
    paths[2].mkdir()
    with pytest.raises(IsADirectoryError, match="c is a folder"):
        write_together({path: b"new" for path in paths})
    assert [path.read_bytes() for path in paths[:2]] == [b"old", b"old"] and sorted(tmp_path.iterdir()) == paths
    paths[2].rmdir()
    write_together({path: b"new" for path in paths})
    assert [path.read_bytes() for path in paths] == [b"new"] * 3


@pytest.mark.parametrize("writer", ["bytes", "torch"])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    code = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, writer = Path(sys.argv[1]), sys.argv[2]
from recon3d.files import replace_file, write_whole
if writer == "bytes":
    write_whole(path, bytes(200_000))
else:
    import torch
    def save(place):
        with place.open("wb") as file:
            torch.save(torch.zeros(50_000), file)
    replace_file(path, save)
"""
    done = child(code, path, writer)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "File too large" in last and str(path) in last, done.stderr
    assert "Free space and run the same command again" in last
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_space_on_the_device(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def write(place: Path) -> None:
        place.touch()
        with Path("/dev/full").open("wb") as file:
            torch.save(torch.zeros(50_000), file)

    with pytest.raises(OSError, match=r"No space left on device: .* Free space") as caught:
        replace_file(path, write)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file_that_was_being_written_within_another(tmp_path: Path) -> None:
    def both(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "mesh.obj")

    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: 'mesh.obj'$"):
        replace_file(tmp_path / "preview.png", both)


def test_a_folder_that_is_not_there_is_named_not_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "nowhere" / "a.bin", b"")
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.bin")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "a.bin", b"")


def test_another_error_passes_as_it_is(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        raise ValueError("no such colour")

    with pytest.raises(ValueError, match="no such colour"):
        replace_file(tmp_path / "a.bin", write)


def test_a_reader_never_sees_a_part_of_a_file_whose_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    code = """
import sys
from pathlib import Path
from recon3d.files import write_whole
while True:
    for letter in (b"a", b"b"):
        write_whole(Path(sys.argv[1]), letter * 5_000_000)
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() or time.monotonic() % 0.05 > 0.002:
            assert time.monotonic() < deadline and process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 5_000_000 and len(set(content)) == 1


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("flush") or flush(descriptor))
    monkeypatch.setattr(Path, "replace", lambda self, target: done.append("rename") or rename(self, target))
    write_together({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert done == ["flush", "flush", "rename", "rename", "flush"]
