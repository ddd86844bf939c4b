"""Processes that only sleep, signal or fail: what their parent says and who is left. `test_devices` trains in some."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from recon3d.bench import processes
from recon3d.bench.processes import ProcessError, run_in_processes


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.5)


def sleep(folder: Path) -> None:
    """Until SIGTERM, which ends a training by this exception."""

    def stop(*_: object) -> None:
        (folder / f"stopped-{os.environ['LOCAL_RANK']}").touch()
        raise SIGTERMException

    signal.signal(signal.SIGTERM, stop)
    (folder / f"ready-{os.environ['LOCAL_RANK']}").write_text(str(os.getpid()))
    time.sleep(300)


def signal_to_the_second(folder: Path, number: int) -> None:
    if os.environ["LOCAL_RANK"] == "1":
        sleep(folder)
    while not (folder / "ready-1").exists() or not (folder / "ready-1").read_text():
        time.sleep(0.02)
    os.kill(int((folder / "ready-1").read_text()), number)
    time.sleep(300)


def fail_at_length() -> None:
    raise ValueError("too long " * 100_000)


def test_a_child_that_is_told_to_end_stops_the_run_and_is_no_success(tmp_path):
    with pytest.raises(SIGTERMException):
        run_in_processes(signal_to_the_second, 2, tmp_path, signal.SIGTERM)
    assert (tmp_path / "stopped-1").exists()


@pytest.mark.slow
def test_a_child_that_is_killed_is_named(tmp_path):
    with pytest.raises(ProcessError, match=r"process 1 of 2: .*SIGKILL"):
        run_in_processes(signal_to_the_second, 2, tmp_path, signal.SIGKILL)


@pytest.mark.slow
def test_long_errors_of_all_processes_reach_the_parent():
    with pytest.raises(ProcessError, match=r"process [01] of 2: ValueError: too long") as caught:
        run_in_processes(fail_at_length, 2)
    assert len(str(caught.value)) < 3_000


@pytest.mark.slow
def test_sigterm_to_the_parent_ends_all(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from recon3d.bench.processes import run_in_processes\n"
        "from tests.bench.test_processes import sleep\n"
        "if __name__ == '__main__':\n"
        "    run_in_processes(sleep, 2, pathlib.Path(sys.argv[1]))\n"
        "    sys.exit(7)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], cwd=root, env=environment)
    ready = [tmp_path / f"ready-{rank}" for rank in range(2)]
    while not all(path.exists() and path.read_text() for path in ready):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.terminate()
    assert parent.wait(60) == 0  # SIGTERMException has no status; `runner.run` gives it one
    assert all((tmp_path / f"stopped-{rank}").exists() for rank in range(2))
    for path in ready:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
