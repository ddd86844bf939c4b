from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from recon3d import cli
from recon3d.bench import runner
from recon3d.bench.record import SCHEMA, Cost, Data, Provenance, Record, save

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command line sets up the project's logger; other tests listen to it."""
    logger = logging.getLogger("recon3d")
    kept = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers = []  # so that messages go to the standard error of this test
    yield
    logger.handlers, logger.level, logger.propagate = kept


@pytest.fixture
def benched(monkeypatch) -> list[tuple[runner.Cell, bool]]:
    """Cells that `recon3d bench` asks for, and whether by force; they fail at once, for the reason in ERROR."""
    calls: list[tuple[runner.Cell, bool]] = []

    def noted(cell: runner.Cell, force: bool = False) -> list[Record]:
        calls.append((cell, force))
        record = Record(
            schema=SCHEMA, method=cell.method, data=Data(cell.data, "unknown", (), "test", "unknown"), seed=cell.seed,
            preset=cell.preset, input="RGB", supervision=(), measures={}, measure_order=(),
            cost=Cost(None, None, None, None, None),
            provenance=Provenance("c", True, "2026-01-01T00:00:00+00:00", {}, "cpu", "numba", "0" * 64),
            paper=None, error=os.environ.get("ERROR", "no reason"),
        )  # fmt: skip
        save(record, cell.record_path)
        return [record]

    monkeypatch.setattr(runner, "bench", noted)
    return calls


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["bench"],
        ["suite"],
        ["leaderboard"],
        ["data"],
        ["data", "render"],
        ["data", "check"],
        ["data", "open-shapes"],
        ["predict"],
        ["edit"],
        ["edit", "style"],
        ["edit", "dream"],
        ["kernels"],
    ],
    ids=lambda command: " ".join(command) or "recon3d",
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: ") and len(shown.splitlines()) > 3
    if not command:
        for name in ("bench", "suite", "leaderboard", "data", "predict", "edit", "kernels", "fit | validate | test"):
            assert name in shown


@pytest.mark.slow  # imports torch and reads every signature
def test_help_of_lightnings_commands():
    done = subprocess.run([sys.executable, "-m", "recon3d", "fit", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "--trainer.max_epochs" in done.stdout and "--model" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernels", "--verbose"], "unknown arguments: --verbose"),
        (["leaderboard", "--chek"], "--chek"),
        (["suite"], "required: name"),
        (["suite", "x", "--row", "a"], "unknown arguments: --row a"),
        (["suite", "x", "--seeds", "first"], "invalid int value: 'first'"),
        (["data", "check", "synthetic", "--force"], "unknown arguments: --force"),
        (["predict", "a.png", "--checkpoint", "c", "--out", "o", "--fromat", "obj"], "--fromat"),
        (["predict", "a.png", "--checkpoint", "c", "--out", "o", "--format", "stl"], "invalid choice: 'stl'"),
        (["data", "render", "meshes", "--out", "o", "--layout", "r2n2"], "invalid choice: 'r2n2'"),
        (["edit", "style", "a.obj", "--out", "o"], "required: --image"),
        (["edit", "dream", "a.obj"], "required: --out"),
        (["edit", "dream", "a.obj", "--out", "o", "--image", "b.png"], "unknown arguments: --image b.png"),
        (["edit", "style", "a.obj", "--image", "i", "--out", "o", "--step", "3"], "unknown arguments: --step 3"),
        (["bench"], "required: --method"),
        (["banch"], "invalid choice: 'banch'"),
        ([], "required: command"),
    ],
)
def test_what_is_not_understood_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_loggers_are_taken_by_name_and_each_once(benched, tiny_configs):
    arguments = ["bench", "--method", "softras", "--data", "tiny", "--preset", "smoke", "--configs", str(tiny_configs)]
    cli.main([*arguments, "--logger", "tensorboard", "wandb", "--wandb"])
    cli.main([*arguments, "--wandb", "--logger", "tensorboard"])
    assert [cell.loggers for cell, _ in benched] == [("tensorboard", "wandb"), ("wandb", "tensorboard")]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_answered_with_its_extra(benched, tiny_configs, name, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else found(asked))
    assert cli.main(["bench", "--method", "softras", "--configs", str(tiny_configs), "--logger", name]) == 1
    assert f"pip install -e '.[{name}]'" in capsys.readouterr().err and benched == []


def test_bench_passes_everything_on(benched, tiny_configs, tmp_path):
    arguments = ["bench", "--method", "softras", "--data", "tiny", "--preset", "smoke", "--seed", "3", "--devices", "2"]
    places = {"configs": tiny_configs, "leaderboard": tmp_path / "board", "runs": tmp_path / "runs"}
    for name, value in places.items():
        arguments += [f"--{name}", str(value)]
    cli.main(arguments)
    cli.main([*arguments, "--force", "--wandb", "--model.init_args.lr", "1e-3", "--trainer.max_epochs=4"])
    (plain, forced), (changed, by_force) = benched
    assert (plain.method, plain.data, plain.preset, plain.seed, plain.loggers) == ("softras", "tiny", "smoke", 3, ())
    assert (plain.configs, plain.runs, plain.results) == (tiny_configs, tmp_path / "runs", tmp_path / "board/results")
    assert (forced, by_force, changed.loggers) == (False, True, ("wandb",))
    # Other numbers than the configs: not for the leaderboard, and each set of them by itself.
    assert changed.results.parent.parent == tmp_path / "runs" and changed.results.parent.name.startswith("with-")
    given = " ".join(changed.overrides).replace("=", " ")
    for wanted in ("--trainer.devices 2", "--model.init_args.lr 1e-3", "--trainer.max_epochs 4"):
        assert wanted in given


def test_bench_of_an_unknown_method_names_the_known_ones(benched, tiny_configs, capsys):
    assert cli.main(["bench", "--method", "softrass", "--configs", str(tiny_configs)]) == 1
    message = capsys.readouterr().err
    assert "softras, template" in message and "Traceback" not in message
    assert benched == []
    with pytest.raises(FileNotFoundError):
        cli.main(["--debug", "bench", "--method", "softrass", "--configs", str(tiny_configs)])


def test_a_failed_run_gives_status_1_and_its_reason_in_full(benched, tiny_configs, tmp_path, capsys, monkeypatch):
    # Square brackets are markup to rich: they must neither vanish nor break.
    reason = "DataFileError: categories=[car, chair] in [/data/x] not found"
    monkeypatch.setenv("ERROR", reason)
    arguments = ["bench", "--method", "softras", "--configs", str(tiny_configs), "--leaderboard", str(tmp_path)]
    assert cli.main(arguments) == 1
    assert f"softras failed: {reason}" in " ".join(capsys.readouterr().out.split())


def test_a_suite_is_run_and_shown_and_its_failures_give_status_1(tiny_configs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    content = {
        "title": "Two templates", "data": "tiny", "preset": "tiny", "seeds": [0], "measures": ["voxel_iou"],
        "rows": [
            {"name": "lost", "label": "L", "method": "mean_shape", "overrides": {"data.init_args.root": "no[w]here"}},
            {"name": "found", "label": "Found", "method": "template"},
        ],
    }  # fmt: skip
    path = tmp_path / "benchmarks" / "suites" / "two.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content))
    board, runs = tmp_path / "leaderboard", tmp_path / "runs"
    places = ["--configs", str(tiny_configs), "--leaderboard", str(board), "--runs", str(runs)]
    assert cli.main(["suite", "two", *places, "--seeds", "0"]) == 1
    shown = capsys.readouterr().out
    assert "Two templates" in shown and "voxel_iou ↑ [1] v1" in shown and "step [ms]" in shown
    assert re.search(r"L\W+-\W+-", shown) and re.search(r"Found\W+1\W+0\.\d{3}", shown)
    assert "row lost, seed 0 failed: " in shown and "no[w]here" in shown
    assert cli.main(["suite", "two", *places, "--rows", "found"]) == 0  # the lost one was not asked for
    assert sorted(path.name for path in board.rglob("*.json")) == ["mean_shape--seed0.json", "template--seed0.json"]
    assert not (board / "results").exists() and (runs / "suites" / "two" / "found").is_dir()
    assert cli.main(["suite", "two", *places, "--devices", "2"]) == 1
    assert "two.yaml is an experiment and has no --devices." in capsys.readouterr().err
    assert cli.main(["suite", "tow", *places]) == 1
    assert "known suites: two" in capsys.readouterr().err


def test_kernels_lists_every_operation_and_backend(capsys, monkeypatch):
    monkeypatch.setenv("RECON3D_BACKEND", "reference")
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["kernels"]) == 0
    shown = capsys.readouterr().out
    for name in ("soft_silhouette", "soft_rgb", "zbuffer", "voxelize", "numba", "reference", "pytorch3d"):
        assert name in shown
    assert "RECON3D_BACKEND asks for: reference" in shown


def test_leaderboard_is_written_and_a_stale_page_is_found(tmp_path, capsys):
    board = tmp_path / "leaderboard"
    shutil.copytree(ROOT / "leaderboard" / "reported", board / "reported")
    shutil.copyfile(ROOT / "README.md", tmp_path / "README.md")
    assert cli.main(["leaderboard", "--leaderboard", str(board)]) == 0
    assert cli.main(["leaderboard", "--leaderboard", str(board), "--check"]) == 0
    page = board / "reported.md"
    fresh = page.read_text()
    page.write_text(fresh.replace("0.6234", "0.6235"))
    assert fresh != page.read_text()
    assert cli.main(["leaderboard", "--leaderboard", str(board), "--check"]) == 1
    message = capsys.readouterr().err
    assert "reported.md" in message and "make leaderboard" in message
    assert "0.6235" in page.read_text()  # a check writes nothing


def test_missing_inputs_give_status_1_and_one_line(tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere")
    for arguments in (
        ["leaderboard", "--leaderboard", nowhere],
        ["data", "check", nowhere],
        ["predict", nowhere + ".png", "--checkpoint", nowhere, "--out", str(tmp_path / "out")],
        ["data", "render", nowhere, "--out", str(tmp_path / "out")],
    ):
        assert cli.main(arguments) == 1, arguments
        message = "".join(capsys.readouterr())
        assert "nowhere" in message and "Traceback" not in message


def test_importing_recon3d_and_asking_for_help_does_not_import_torch():
    code = (
        "import sys, recon3d, recon3d.cli\n"
        "try:\n    recon3d.cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'pytorch3d', 'numba'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m_recon3d_is_the_command():
    done = subprocess.run([sys.executable, "-m", "recon3d", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice: 'nonsense'" in done.stderr


def test_fit_leaves_its_arguments_where_processes_started_by_it_find_them(monkeypatch):
    # Lightning starts the processes of `ddp` with sys.argv.
    seen: list[tuple[list[str], dict[str, object]]] = []
    monkeypatch.setattr("recon3d.bench.cell.ReconCLI", lambda **given: seen.append((list(sys.argv), given)))
    monkeypatch.setattr(sys, "argv", ["recon3d", "something", "else"])
    assert cli.main(["fit", "--trainer.devices", "2"]) == 0
    assert seen == [(["recon3d", "fit", "--trainer.devices", "2"], {})]
    assert sys.argv == ["recon3d", "something", "else"]
