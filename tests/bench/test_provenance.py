import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import torch

from recon3d.bench.provenance import LIBRARIES, device_name, provenance

CPU = torch.device("cpu")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name in ("recon3d/code.py", "configs/base.yaml", "docs/page.md", "leaderboard/results/a.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_named_by_its_commit(checkout):
    found = provenance("abc", CPU, checkout / "configs")
    assert (found.commit, found.dirty, found.config_hash) == (git(checkout, "rev-parse", "HEAD"), False, "abc")


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("recon3d/code.py", True),
        ("recon3d/new.py", True),
        ("configs/base.yaml", True),
        ("pyproject.toml", True),
        ("docs/page.md", False),
        ("leaderboard/results/a.json", False),
    ],
)
def test_only_what_decides_a_number_makes_a_checkout_dirty(checkout, name, dirty):
    (checkout / name).write_text("2")
    assert provenance("abc", CPU, checkout / "configs").dirty is dirty


def test_without_git_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance("abc", CPU, tmp_path)
    assert (found.commit, found.dirty) == ("unknown", True)


def test_versions_device_date_and_backend(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_BACKEND", "numba")
    found = provenance("abc", CPU, tmp_path)
    assert found.versions.keys() == {"python", *LIBRARIES}
    assert found.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert "not installed" not in found.versions.values()
    assert datetime.fromisoformat(found.date).tzinfo is not None
    assert found.backend == "numba" and found.device == device_name(CPU)
    assert found.device.endswith(f"{torch.get_num_threads()} threads") and len(found.device) > len(" threads") + 3
    monkeypatch.delenv("RECON3D_BACKEND")
    assert provenance("abc", CPU, tmp_path).backend == "default for cpu"
