"""The workspace and the report, read back by W&B's own models and loaders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recon3d.evaluation.protocol import PROTOCOL

pytest.importorskip("wandb_workspaces")

import wandb
import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.internal import ReportViewspec
from wandb_workspaces.workspaces import Workspace
from wandb_workspaces.workspaces.internal import View

from recon3d.bench import dashboard

MODELS = {"workspace": View, "report": ReportViewspec}


@pytest.fixture
def board(tmp_path, run, put) -> Path:
    """Two methods on synthetic, one on open_shapes, and a smoke run, which is not shown."""
    for record in (
        run("softras", iou=0.5),
        run("softras", seed=1, iou=0.6),
        run("voxel", iou=0.3),
        run("softras", data="open_shapes"),
        run("softras", preset="smoke"),
    ):
        put(tmp_path / "board" / "results", record)
    return tmp_path / "board"


@pytest.fixture(autouse=True)
def no_network(monkeypatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def written(kind: str, board: Path, out: Path) -> Any:
    assert dashboard.main(kind, None, "recon3d", board, out) == 0
    return MODELS[kind].model_validate_json(out.read_text())


def metrics(panels: list[Any]) -> list[str]:
    found = []
    for panel in panels:
        found += [one.name for one in getattr(panel, "metrics", None) or getattr(panel, "y", None) or []]
    return found


@pytest.mark.parametrize("kind", ["workspace", "report"])
def test_a_specification_is_whole_to_the_library(kind, board, tmp_path) -> None:
    model = written(kind, board, tmp_path / "spec.json")
    again = model.model_dump_json(by_alias=True, exclude_none=True).replace(',"inlineComments":[]', "")  # its default
    assert json.loads(again) == json.loads((tmp_path / "spec.json").read_text())


def test_a_workspace_has_a_panel_for_every_measure(board, tmp_path) -> None:
    loaded = Workspace._from_model(written("workspace", board, tmp_path / "spec.json"))
    panels = {section.name: section.panels for section in loaded.sections}
    assert metrics(panels["Results by method"]) == [f"test/{measure.name}" for measure in PROTOCOL]
    assert all(panel.groupby == wr.Config("method") for panel in panels["Results by method"])
    curves = panels["Validation over training time"]
    assert metrics(curves) == [f"val/{measure.name}" for measure in PROTOCOL if measure.in_validation]
    assert {panel.x.name for panel in curves} == {"val/train_s"}
    assert "train/loss" in metrics(panels["Losses by term"])
    assert "^train/" in [panel.metric_regex for panel in panels["Losses by term"]]
    assert loaded.auto_generate_panels is True  # a panel for each term
    media = [key for name in ("Pictures", "Shapes") for panel in panels[name] for key in panel.media_keys]
    assert media == [f"{stage}/{kind}" for kind in ("pictures",) for stage in ("val", "test")] + [
        f"{stage}/{kind}" for stage in ("val", "test") for kind in ("meshes", "clouds", "truth")
    ]
    assert [panel.table_name for panel in panels["Worst cases"]] == ["test/worst"]
    assert metrics(panels["System"]) and all(key.startswith("system/") for key in metrics(panels["System"]))


def test_a_workspace_shows_the_data_with_most_records(board, tmp_path) -> None:
    filters = Workspace._from_model(written("workspace", board, tmp_path / "spec.json")).runset_settings.filters
    assert "Config(\"dataset\") == 'synthetic'" in filters and "Config(\"preset\") == 'quick'" in filters


def test_a_report_has_tables_and_runs_of_every_data_set(board, tmp_path) -> None:
    loaded = wr.Report._from_model(written("report", board, tmp_path / "spec.json"))
    titles = [block.text for block in loaded.blocks if isinstance(block, wr.H1)]
    assert titles == ["open_shapes, preset quick", "synthetic, preset quick"]
    _, table = [block.text for block in loaded.blocks if isinstance(block, wr.MarkdownBlock)]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line]
    column = next(index for index, title in enumerate(lines[0]) if title.startswith("voxel_iou"))
    values = {line[0]: line[column] for line in lines[2:]}
    assert "0.550" in values["softras"] and "**" in values["softras"] and values["voxel"].startswith("0.300")
    grids = [block for block in loaded.blocks if isinstance(block, wr.PanelGrid)]
    shown = {
        data: [panel for grid in grids for panel in grid.panels if data in grid.runsets[0].filters]
        for data in ("synthetic", "open_shapes")
    }
    for panels in shown.values():
        names = metrics(panels)
        # The measures that a Record of these data has, and the media.
        assert {"test/voxel_iou", "test/chamfer", "val/voxel_iou", "train/loss"} <= set(names)
        assert "test/pck_flow" not in names
        assert any("val/pictures" in getattr(panel, "media_keys", ()) for panel in panels)
    places = [(panel.layout.x, panel.layout.y) for panel in grids[0].panels]
    assert places == [(0, 0), (12, 0)]  # beside each other


def test_a_board_without_records_gives_a_workspace(tmp_path) -> None:
    (tmp_path / "board" / "results").mkdir(parents=True)
    loaded = Workspace._from_model(written("workspace", tmp_path / "board", tmp_path / "spec.json"))
    assert "dataset" not in loaded.runset_settings.filters and loaded.sections


def test_who_is_not_logged_in_is_told_what_to_do(board, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("recon3d.bench.wandb_run.has_key", lambda: False)
    with pytest.raises(RuntimeError, match=r"wandb login.*--out FILE"):
        dashboard.main("report", None, "recon3d", board, None)


@pytest.mark.parametrize("kind", ["workspace", "report"])
def test_who_is_logged_in_saves_it_under_the_entity(kind, board, monkeypatch, caplog) -> None:
    monkeypatch.setattr("recon3d.bench.wandb_run.has_key", lambda: True)
    saved = []
    for one in (Workspace, wr.Report):
        monkeypatch.setattr(one, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(one, "url", f"https://wandb.example/{one.__name__}")
    with caplog.at_level("INFO", logger="recon3d"):
        assert dashboard.main(kind, "lab", "recon3d", board, None) == 0
    assert saved[0].entity == "lab" and f"https://wandb.example/{kind.title()}" in caplog.text


def test_a_refusal_of_the_server_says_what_else_there_is(board, monkeypatch) -> None:
    monkeypatch.setattr("recon3d.bench.wandb_run.has_key", lambda: True)

    def refuse(self: Any) -> None:
        raise wandb.errors.CommError("503")

    monkeypatch.setattr(Workspace, "save", refuse)
    with pytest.raises(RuntimeError, match=r"did not take the workspace: 503.*--out FILE"):
        dashboard.main("workspace", "lab", "recon3d", board, None)


def test_without_the_library_the_extra_is_named(board, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(RuntimeError, match=r"wandb_workspaces is not installed.*extra `wandb`"):
        dashboard.main("workspace", None, "recon3d", board, Path("spec.json"))


def test_an_unknown_kind_is_refused(board) -> None:
    with pytest.raises(ValueError, match="workspace or report, got 'page'"):
        dashboard.main("page", None, "recon3d", board, None)
