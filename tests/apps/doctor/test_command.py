from __future__ import annotations

import json

import pytest

from recon3d.apps.doctor import command
from recon3d.apps.doctor.finding import Finding
from recon3d.cli import main

FINE = Finding("versions", "numpy", "ok", "2.3.5")
OPTIONAL = Finding("extras", "wandb", "problem", "too old", "pip install wandb")
HINDERING = Finding("versions", "torch", "problem", "missing", "pip install torch", essential=True)


@pytest.mark.parametrize(
    ("findings", "status", "last"),
    [
        ([FINE], 0, "All works."),
        ([FINE, OPTIONAL], 0, "A run on the CPU works. 1 problems with other things."),
        ([HINDERING, OPTIONAL, FINE], 1, "A run on the CPU does not work: torch."),
    ],
)
def test_only_what_hinders_a_cpu_run_is_a_failure(
    findings: list[Finding], status: int, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "examine", lambda configs: iter(findings))
    assert main(["doctor"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    for finding in findings:
        assert not finding.remedy or any(line.strip() == f"-> {finding.remedy}" for line in lines)


def test_json_holds_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "examine", lambda configs: iter([FINE, HINDERING]))
    assert main(["doctor", "--json"]) == 1
    assert [Finding(**one) for one in json.loads(capsys.readouterr().out)] == [FINE, HINDERING]


def test_a_terminal_gets_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(command, "examine", lambda configs: iter([FINE, OPTIONAL]))
    assert command.main() == 0
    out = capsys.readouterr().out
    assert "\x1b[" in out and "-> pip install wandb" in out


def test_without_torch_the_rest_is_still_reported(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = Finding("versions", "torch", "problem", "does not load", "pip install torch", essential=True)
    monkeypatch.setattr(command.packages, "check_libraries", lambda: iter([broken]))
    found = list(command.examine(tmp_path / "configs"))
    assert broken in found
    assert not any(one.topic in ("kernels", "data sets") for one in found)
    assert any(one.topic == "disk" for one in found) and any(one.subject == "W&B" for one in found)
