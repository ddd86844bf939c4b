from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recon3d.bench import runner, suite, suite_runner
from recon3d.bench.cell import Cell
from recon3d.bench.record import Record, load

# One object a category; the template is not trained, so a run takes a moment.
ONE = {"data.init_args.limit_objects": 1}
CARS = {"data.init_args.categories": ["car"]}
CONTENT: dict[str, Any] = {
    "title": "Tiny",
    "data": "tiny",
    "preset": "tiny",
    "seeds": [0, 1],
    "measures": ["voxel_iou"],
    "overrides": ONE,
    "rows": [
        {"name": "cars", "label": "Cars", "method": "template", "overrides": CARS},
        {"name": "all", "label": "All", "method": "template"},
    ],
}
BROKEN = {"name": "broken", "label": "?", "method": "mean_shape", "overrides": {"data.init_args.root": "nowhere"}}
ALL = [("cars", 0), ("all", 0), ("cars", 1), ("all", 1)]  # seeds come outermost


@pytest.fixture
def run_tiny(tiny_configs: Path, tmp_path: Path) -> Callable[..., dict[tuple[str, int], Record]]:
    """Run the suite of CONTENT with changes; everything is below tmp_path."""

    def run(filters: dict[str, Any] | None = None, **changes: Any) -> dict[tuple[str, int], Record]:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(CONTENT | changes))
        places = (tmp_path / "board", tmp_path / "runs", tiny_configs)
        return suite_runner.run_suite(suite.read(path), *places, **filters or {})

    return run


@pytest.fixture
def started(monkeypatch) -> list[tuple[str, int]]:
    """Runs that were asked for, as row and seed."""
    calls: list[tuple[str, int]] = []
    original = runner.run

    def noted(cell: Cell, force: bool = False) -> Record:
        calls.append((cell.results.name, cell.seed))
        return original(cell, force=force)

    monkeypatch.setattr(runner, "run", noted)
    return calls


@pytest.fixture
def tested(monkeypatch) -> list[Path]:
    """Run folders of what was not finished."""
    calls: list[Path] = []
    original = runner._fit_and_test

    def noted(cell: Cell, cli: Any, clock: Any, folder: Path, digest: str) -> Record:
        calls.append(folder)
        return original(cell, cli, clock, folder, digest)

    monkeypatch.setattr(runner, "_fit_and_test", noted)
    return calls


def test_every_row_is_run_with_every_seed_and_what_is_finished_is_skipped(run_tiny, started, tested, tmp_path):
    records = run_tiny()
    assert list(records) == started == ALL
    assert [record.error for record in records.values()] == [None] * 4
    # The row's options came after the suite's, and both after the configs.
    assert [record.measures["voxel_iou"].n for record in records.values()] == [1, 2, 1, 2]
    for (name, seed), record in records.items():
        path = tmp_path / "board" / name / "tiny" / "tiny" / f"template--seed{seed}.json"
        assert load(path) == record and (record.method, record.seed) == ("template", seed)
    files = {path.relative_to(tmp_path / "board").parts[0] for path in (tmp_path / "board").rglob("*.json")}
    assert files == {"cars", "all"}
    assert len(tested) == 4 and all(folder.is_relative_to(tmp_path / "runs") for folder in tested)
    assert run_tiny() == records and len(tested) == 4
    (again,) = run_tiny({"rows": ["all"], "seeds": [1], "force": True}).values()
    assert len(tested) == 5 and again.measures == records["all", 1].measures


def test_a_part_is_run_and_an_unknown_part_is_answered_with_the_known_ones(run_tiny, run, monkeypatch):
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(runner, "run", lambda cell, force: started.append((cell.results.name, cell.seed)) or run())
    assert list(run_tiny({"rows": ["all"]})) == [("all", 0), ("all", 1)] == started
    assert list(run_tiny({"seeds": [1], "rows": ["cars"]})) == [("cars", 1)]
    started.clear()
    with pytest.raises(ValueError, match="rows: expected some of cars, all, got al"):
        run_tiny({"rows": ["all", "al"]})
    with pytest.raises(ValueError, match="seeds: expected some of 0, 1, got 7"):
        run_tiny({"seeds": [7]})
    assert started == []


def test_a_failed_run_is_kept_as_a_record_and_the_others_go_on(run_tiny, started, tested, tmp_path):
    rows = [BROKEN, CONTENT["rows"][1]]
    records = run_tiny({"seeds": [0]}, rows=rows)
    assert records["all", 0].error is None
    error = records["broken", 0].error
    assert error is not None and "nowhere" in error
    assert load(tmp_path / "board/broken/tiny/tiny/mean_shape--seed0.json") == records["broken", 0]
    assert run_tiny({"seeds": [0]}, rows=rows)["broken", 0].error == error  # tried again, since it is not finished
    assert started == 2 * [("broken", 0), ("all", 0)] and [folder.parts[-4] for folder in tested] == ["all"]


@pytest.mark.slow
def test_a_stopped_suite_goes_on_where_it_was(run_tiny, tested, monkeypatch):
    original = runner._fit_and_test

    def stopping(*arguments: Any) -> Record:
        if len(tested) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as stopped:
        stopped.setattr(runner, "_fit_and_test", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_tiny()
    assert len(tested) == 2
    assert [record.error for record in run_tiny().values()] == [None] * 4
    assert len(tested) == 4


def last_row(**changes: Any) -> list[dict[str, Any]]:
    return [CONTENT["rows"][0], CONTENT["rows"][1] | changes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": last_row(overrides={"trainer.max_epoch_s": 3})}, "row all: LightningCLI refuses .*max_epoch_s=3"),
        ({"rows": last_row(overrides={"data.init_args.limit_objects": "many"})}, "row all: .*limit_objects=many"),
        ({"rows": last_row(overrides=CARS)}, "rows all and cars have the same configuration"),
        ({"rows": last_row(overrides=CARS | {"trainer.log_every_n_steps": 7})}, "the same configuration"),
        ({"measures": ["voxel_iou", "champfer"]}, "measures: expected some of voxel_iou, .*got champfer"),
    ],
)
def test_a_mistake_in_the_last_row_is_found_before_the_first_is_run(run_tiny, started, changes, message):
    with pytest.raises(ValueError, match=message):
        run_tiny(**changes)
    assert started == []


def test_an_unknown_method_is_answered_with_the_known_ones(run_tiny, started):
    with pytest.raises(FileNotFoundError, match=r"known names: .*mean_shape"):
        run_tiny(rows=last_row(method="templete"))
    assert started == []


def test_a_damaged_record_is_found_before_the_first_run(run_tiny, started, tmp_path):
    path = tmp_path / "board/all/tiny/tiny/template--seed1.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ValueError, match="not a readable Record"):
        run_tiny()
    assert started == [] and path.read_text() == "{"


@pytest.mark.slow
def test_records_of_other_numbers_than_the_suite_has_now_are_named(run_tiny, caplog):
    run_tiny(seeds=[0])
    caplog.set_level(logging.WARNING, "recon3d")
    run_tiny({"rows": ["cars"]}, seeds=[0])
    assert caplog.messages == []
    run_tiny({"rows": ["cars"]}, seeds=[0], overrides={"data.init_args.limit_objects": 2})
    (message,) = caplog.messages
    assert "all/tiny/tiny/template--seed0.json is of another configuration" in message and "run row all" in message


@pytest.mark.slow
def test_a_trained_row_goes_through_with_its_options(run_tiny):
    rows = [
        {"name": "short", "label": "short", "method": "softras", "overrides": {"trainer.max_epochs": 1}},
        {"name": "plain", "label": "plain", "method": "softras", "overrides": {"model.init_args.lr": 1e-3}},
    ]
    records = run_tiny({"seeds": [0]}, rows=rows)
    assert [record.error for record in records.values()] == [None, None]
    assert [record.cost.steps for record in records.values()] == [3, 6]
