from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recon3d import cli
from recon3d.bench import grid_runner, runner
from recon3d.bench.record import load, save
from recon3d.bench.suite import Grid

# The template is not trained, so a run takes a moment.
ONE = ("--data.init_args.limit_objects", "1")


@pytest.fixture
def tiny(tiny_configs: Path, tmp_path: Path) -> Callable[..., list[runner.Cell]]:
    def make(overrides: tuple[str, ...] = ONE, parts: dict[str, Any] | None = None, **changes: Any) -> Any:
        grid = Grid(**({"title": "T", "preset": "tiny", "seeds": [0, 1], "grid": {"tiny": ["template"]}} | changes))
        places = (tmp_path / "board", tmp_path / "runs", tiny_configs)
        return grid_runner.cells(grid, *places, overrides=overrides, **parts or {})

    return make


def test_cells_are_all_combinations_seeds_outermost_or_the_part_asked_for(tiny):
    grid = {"grid": {"tiny": ["softras", "template"], "tiny_points": ["dpc"]}}

    def names(**parts):
        return [(cell.seed, cell.data, cell.method) for cell in tiny(parts=parts, **grid)]

    first = [(0, "tiny", "softras"), (0, "tiny", "template")]
    with pytest.raises(FileNotFoundError, match=r"known names: .*tiny"):
        names()  # there is no such data
    assert names(data=["tiny"], seeds=[0]) == first
    assert names(data=["tiny"], methods=["template"]) == [(0, "tiny", "template"), (1, "tiny", "template")]
    for part, wrong in (("methods", "softas"), ("data", "tinny"), ("seeds", 3)):
        with pytest.raises(ValueError, match=f"{part}: expected some of .*, got {wrong}"):
            names(**{part: [wrong]})


def test_cells_run_in_processes_of_their_own_and_what_is_finished_is_skipped(tiny):
    cells = tiny(seeds=[1])
    first = grid_runner.run_grid(cells)
    assert [one.state for one in first] == ["done"] and first[0].seconds > 0
    record = load(cells[0].record_path)
    assert record.error is None and (record.method, record.seed) == ("template", 1)
    assert record.measures["voxel_iou"].n == 2  # the override reached the process: one object of each category
    assert [one.state for one in grid_runner.run_grid(cells)] == ["finished"]
    assert load(cells[0].record_path) == record


def test_a_failure_is_told_and_the_others_go_on(tiny, monkeypatch):
    bad, good = tiny(seeds=[0])[0], tiny(seeds=[1])[0]
    bad = tiny(overrides=("--data.init_args.root", "nowhere"), seeds=[0])[0]
    monkeypatch.setattr(grid_runner, "_exit_status", in_this_process)
    outcomes = grid_runner.run_grid([bad, good])
    assert [one.state for one in outcomes] == ["failed", "done"]
    assert "nowhere" in outcomes[0].error and load(bad.record_path).error.startswith(outcomes[0].error)


def test_a_killed_process_leaves_a_record_that_says_so_but_not_in_place_of_a_finished_one(tiny, monkeypatch, run):
    (cell,) = tiny(seeds=[0])

    monkeypatch.setattr(grid_runner, "_exit_status", lambda command: -9)
    (outcome,) = grid_runner.run_grid([cell])
    assert outcome.state == "failed" and "SIGKILL" in outcome.error and "memory" in outcome.error
    assert load(cell.record_path).error == outcome.error
    finished = run(method="template", seed=0, data="tiny", preset="tiny")
    save(finished, cell.record_path)
    (outcome,) = grid_runner.run_grid([cell], force=True)
    assert outcome.state == "failed" and load(cell.record_path) == finished


def test_a_damaged_record_is_found_before_the_first_run(tiny, monkeypatch):
    cells = tiny()
    cells[1].record_path.parent.mkdir(parents=True)
    cells[1].record_path.write_text("{")
    monkeypatch.setattr(grid_runner, "_run", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match="not a readable Record"):
        grid_runner.run_grid(cells)


def test_the_command_ends_with_a_summary_and_says_by_its_status_whether_all_is_well(
    tiny_configs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(grid_runner, "_exit_status", in_this_process)
    suites = tmp_path / "benchmarks/suites"
    suites.mkdir(parents=True)
    content = {"title": "Tiny grid", "preset": "tiny", "seeds": [0], "grid": {"tiny": ["template", "softras"]}}
    (suites / "tiny.yaml").write_text(yaml.safe_dump(content))
    board = tmp_path / "leaderboard"
    shutil.copytree(Path(__file__).parents[2] / "leaderboard/reported", board / "reported")
    arguments = ["suite", "tiny", "--configs", str(tiny_configs), "--leaderboard", str(board)]
    arguments += ["--runs", str(tmp_path / "runs")]
    assert cli.main([*arguments, "--methods", "template"]) == 0
    assert "1 done, 0 finished, 0 failed" in capsys.readouterr().out
    assert "template" in (board / "tiny-tiny.md").read_text()  # the page is filled
    monkeypatch.setattr(runner, "_fit_and_test", lambda *_: 1 / 0)
    assert cli.main(arguments) == 1
    told = capsys.readouterr().out
    assert "0 done, 1 finished, 1 failed" in told and "ZeroDivisionError" in told
    assert cli.main([*arguments, "--rows", "a"]) == 1


def test_what_fails_before_it_runs_does_not_stop_the_others_and_fails_again_in_its_turn(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(grid_runner, "_exit_status", in_this_process)
    refused = tiny(overrides=("--data.init_args.no_such_option", "1"), seeds=[0])[0]
    good = tiny(seeds=[1])[0]
    root = yaml.safe_load((good.configs / "data/tiny.yaml").read_text())["data"]["init_args"]["root"]
    moved = shutil.copytree(root, tmp_path / "moved")
    vanishing = tiny(overrides=(*ONE, "--data.init_args.root", str(moved)), seeds=[2, 0])[0]
    assert [one.state for one in grid_runner.run_grid([vanishing])] == ["done"]
    before = load(vanishing.record_path)
    shutil.rmtree(moved)
    outcomes = grid_runner.run_grid([refused, vanishing, good])
    assert [one.state for one in outcomes] == ["failed", "failed", "done"]
    assert load(vanishing.record_path) == before and "exit status" in outcomes[1].error
    outcomes = grid_runner.run_grid([refused, vanishing, good])
    assert [one.state for one in outcomes] == ["failed", "failed", "finished"]


def test_the_error_of_an_earlier_run_is_not_told_for_this_one(tiny, monkeypatch, failed):
    (cell,) = tiny(seeds=[0])
    monkeypatch.setattr(grid_runner, "_exit_status", lambda command: 1)  # as a cell that another process is at
    (outcome,) = grid_runner.run_grid([cell])
    assert outcome.error == "exit status 1, see above" == load(cell.record_path).error  # there was none
    earlier = failed("OSError: the disk is full", method="template", seed=0, data="tiny", preset="tiny")
    save(earlier, cell.record_path)
    (outcome,) = grid_runner.run_grid([cell])
    assert outcome.error == "exit status 1, see above" and load(cell.record_path) == earlier


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_no_process_stays(tmp_path, number):
    cell = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: (pathlib.Path(sys.argv[1], 'told').touch(), sys.exit(3)))\n"
        "pathlib.Path(sys.argv[1], 'ready').touch()\n"
        "time.sleep(300)\n"
    )
    suite = (
        "import sys\nfrom recon3d.bench.grid_runner import _exit_status\n"
        "_exit_status([sys.executable, '-c', sys.argv[1], sys.argv[2]])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", suite, cell, str(tmp_path)])
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert (tmp_path / "told").exists()


def in_this_process(command: list[str]) -> int:
    """The exit status of `python -m recon3d ...`, without a process of its own, which takes long to start."""
    try:
        return cli.main(command[3:])
    except SystemExit as stop:
        return int(stop.code or 0)
