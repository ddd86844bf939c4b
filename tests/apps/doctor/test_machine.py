from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recon3d.apps.doctor import machine

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"


def torch_with(gpus: list[Any], cuda: str | None = "12.8", architectures: tuple[str, ...] = ("sm_80", "sm_90")) -> Any:
    return SimpleNamespace(
        __version__="2.11.0+cpu",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_arch_list=lambda: list(architectures),
            get_device_properties=lambda index: gpus[index],
        ),
    )


def gpu(major: int, minor: int) -> Any:
    return SimpleNamespace(name="Some GPU", major=major, minor=minor, total_memory=80 * 2**30)


def test_gpus_are_listed_with_memory_and_capability(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(DRIVER)
    (found,) = machine.check_gpus(torch_with([gpu(8, 6)]), tmp_path / "version")
    assert found.level == "ok"
    assert "80 GiB" in found.text and "8.6" in found.text and "12.8" in found.text and "535.104.05" in found.text


@pytest.mark.parametrize(
    ("capability", "architectures", "level"),
    [
        ((7, 0), ("sm_80", "sm_90"), "problem"),  # too old for what was compiled
        ((8, 9), ("sm_80",), "ok"),  # binary code runs on later minor versions
        ((12, 0), ("sm_90",), "problem"),  # but not on later major ones
        ((12, 0), ("sm_90", "compute_90"), "ok"),  # which take PTX
        ((9, 0), ("sm_90a",), "ok"),
        ((9, 1), ("sm_90a",), "problem"),  # architecture-specific code runs on that architecture alone
    ],
)
def test_a_gpu_without_code_is_a_problem(
    capability: tuple[int, int], architectures: tuple[str, ...], level: str, tmp_path: Path
) -> None:
    (found,) = machine.check_gpus(torch_with([gpu(*capability)], architectures=architectures), tmp_path / "none")
    assert found.level == level and not found.essential
    assert ("--trainer.accelerator cpu" in found.remedy) == (level == "problem")


def test_a_driver_that_torch_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "version").write_text(DRIVER)
    (old,) = machine.check_gpus(torch_with([]), tmp_path / "version")
    assert old.level == "problem" and "535.104.05" in old.text and "12.8" in old.text and "nvidia-smi" in old.remedy
    (built,) = machine.check_gpus(torch_with([], cuda=None), tmp_path / "version")
    assert built.level == "problem" and "--force-reinstall 'torch==2.11.0'" in built.remedy
    (none,) = machine.check_gpus(torch_with([]), tmp_path / "none")
    assert none.level == "ok"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (hidden,) = machine.check_gpus(torch_with([]), tmp_path / "version")
    assert hidden.remedy == "unset CUDA_VISIBLE_DEVICES"


def test_a_container_has_less_memory_than_the_machine(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = machine.memory_bytes(limit)
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("1073741824\n")
    assert machine.memory_bytes(limit) == 2**30
    limit.write_text("max\n")
    assert machine.memory_bytes(limit) == whole


def test_the_recorded_runs_say_how_much_memory_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    leaderboard = Path(__file__).parents[3] / "leaderboard"
    _, memory = machine.check_processor(leaderboard)
    assert "the largest recorded CPU run took" in memory.text
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2**20)
    _, memory = machine.check_processor(leaderboard)
    assert memory.level == "note" and "batch_size" in memory.remedy


def test_little_shared_memory_and_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {tmp_path: (2**40, 0, 2**30), tmp_path / "shm": (64 * 2**20, 0, 0)}
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=sizes[path][0], free=sizes[path][2]))
    disk, shared = machine.check_disk({"runs": tmp_path / "not" / "yet"}, tmp_path / "shm")
    assert disk.level == "note" and disk.text == f"1.0 GiB free in {tmp_path}"
    assert shared.level == "problem" and "64 MiB" in shared.text and "--shm-size" in shared.remedy


def test_a_checkout_is_clean_dirty_or_none(tmp_path: Path) -> None:
    assert machine.check_checkout(tmp_path).level == "note"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "pyproject.toml").write_text("")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    clean = machine.check_checkout(tmp_path)
    assert clean.level == "ok" and "clean" in clean.text
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    dirty = machine.check_checkout(tmp_path)
    assert (dirty.level, dirty.remedy) == ("note", "git status") and "1 changed file" in dirty.text


def test_a_wandb_login_is_found_as_the_logger_finds_it_and_its_key_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "0123456789" * 4
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    absent = machine.check_wandb({})
    assert (absent.level, absent.remedy) == ("note", "wandb login") and "offline" in absent.text
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {secret}\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = machine.check_wandb({})  # a login alone is enough for a run that is online
    assert (found.level, found.remedy) == ("ok", "") and "is online" in found.text and secret not in repr(found)
    decided = machine.check_wandb({"WANDB_MODE": "offline"})
    assert decided.level == "ok" and "WANDB_MODE=offline decides" in decided.text


def test_a_wandb_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "recon3d.bench.wandb_run", None)
    broken = machine.check_wandb({})
    assert broken.level == "problem" and "does not load" in broken.text and "wandb" in broken.remedy
