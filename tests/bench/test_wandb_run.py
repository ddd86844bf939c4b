"""A cell of the benchmark that is logged to W&B, read back from what an offline run leaves on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image

from recon3d.bench import runner
from recon3d.bench.record import Record
from recon3d.bench.runner import Cell
from recon3d.evaluation.picture import LABEL, TILE
from recon3d.evaluation.protocol import PROTOCOL

wandb = pytest.importorskip("wandb")

from recon3d.bench.wandb_run import ID_FILE, RunLogger  # noqa: E402
from tests.bench.wandb_files import OfflineRun  # noqa: E402

VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_BASE_URL")
KEY = "0123456789" * 4


@pytest.fixture(scope="module")
def own_home(tmp_path_factory) -> Iterator[Path]:
    """Nobody is logged in, and W&B writes nothing into the user's folders."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
            patch.setenv(f"WANDB_{name}", str(home / name))
        wandb.teardown()  # settings of an earlier test
        yield home
        wandb.teardown()


def tiny_cell(configs: Path, root: Path, **changes: Any) -> Cell:
    places = {"configs": configs, "results": root / "board" / "results", "runs": root / "runs"}
    return Cell(**{"method": "softras", "data": "tiny", "preset": "tiny", "loggers": ("wandb",)} | places | changes)


def offline_runs(cell: Cell) -> list[Path]:
    wandb.teardown()  # W&B's own process may still hold the end of the last file
    return sorted(cell.runs.glob(f"tiny/tiny/{cell.method}--*/wandb/offline-run-*"))


@pytest.fixture(scope="module")
def logged(tiny_configs, tmp_path_factory, own_home) -> tuple[Cell, Record, OfflineRun]:
    cell = tiny_cell(tiny_configs, tmp_path_factory.mktemp("logged"))
    record = runner.run(cell)
    assert record.error is None
    (folder,) = offline_runs(cell)
    return cell, record, OfflineRun.read(folder)


def test_numbers_arrive_by_loss_term_and_measure(logged):
    _, record, run = logged
    keys = {key for row in run.history for key in row}
    assert {"train/iou", "train/laplacian", "train/flatten", "train/loss", "lr-Adam", "val/train_s"} <= keys
    assert {f"val/{measure.name}" for measure in PROTOCOL if measure.in_validation} <= keys
    assert len(run.values("train/loss")) == 6 and len(run.values("val/voxel_iou")) == 2
    # A validation and the seconds of training that led to it are one row: a curve over time.
    assert all("val/train_s" in row for row in run.history if "val/chamfer" in row)
    measured = {name: result.value for name, result in record.measures.items() if result.value is not None}
    assert len(measured) > 10
    for name, value in measured.items():
        assert run.values(f"test/{name}")[-1] == pytest.approx(value, rel=1e-5)
        assert run.summary[f"test/{name}"] == pytest.approx(value, rel=1e-12)
    assert run.summary["cost/train_s"] == record.cost.train_s and run.summary["cost/params"] == record.cost.params
    assert run.exit_code == 0


def test_the_same_samples_are_shown_at_each_validation(logged):
    _, _, run = logged
    first, last = run.values("val/pictures")
    assert first["captions"] == last["captions"] == ["car/a/v00", "lamp/b/v00", "car/b/v00", "lamp/a/v00"]
    pictures = [[np.asarray(Image.open(path)) for path in step] for step in run.media("val/pictures")]
    assert len(pictures) == 2 and len(pictures[0]) == 4
    for before, after in zip(*pictures, strict=True):
        # input, prediction, prediction from the side, truth from the side, two masks, outlines
        assert before.shape == after.shape == (LABEL + TILE, 7 * TILE, 3)
        tiles = [(image[LABEL:, k * TILE : (k + 1) * TILE]) for k in range(7) for image in (before, after)]
        assert all(tile.std() > 5 for tile in tiles)
        assert (tiles[0] == tiles[1]).all() and (tiles[8] == tiles[9]).all()  # the data do not change
        assert (tiles[2] != tiles[3]).any()  # what is learned does


def test_meshes_are_valid_and_have_all_vertices(logged):
    _, _, run = logged
    sphere = trimesh.creation.icosphere(subdivisions=3)  # the template that SoftRas deforms
    steps = run.values("val/meshes")
    assert [len(step["objects"]) for step in steps] == [4, 4]
    shapes = []
    for entry in steps[-1]["objects"]:
        mesh = trimesh.load(run.folder / "files" / entry["path"], force="mesh", process=False)
        assert (len(mesh.vertices), len(mesh.faces)) == (len(sphere.vertices), len(sphere.faces))
        assert mesh.is_watertight
        assert np.abs(mesh.vertices).max() < 1
        shapes.append(mesh.vertices)
    assert not np.allclose(shapes[0], shapes[1])
    truth = [
        json.loads((run.folder / "files" / entry["path"]).read_text())
        for entry in run.values("val/truth")[-1]["objects"]
    ]
    assert [np.shape(points) for points in truth] == [(300, 3)] * 4
    # The lamp is a tall cone, the car a long box whose front, +X, is +Z of the file.
    car, lamp = (np.ptp(points, axis=0) for points in truth[:2])
    assert np.argmax(lamp) == 1 and np.argmax(car) == 2


def test_the_worst_of_the_test_are_a_table(logged):
    cell, _, run = logged
    (value,) = run.values("test/worst")
    table = json.loads((run.folder / "files" / value["path"]).read_text())
    assert table["columns"][:5] == ["sample_id", "category", "picture", "voxel_iou", "chamfer"]
    scores = [row[3] for row in table["data"]]
    assert len(scores) == 4 and scores == sorted(scores)
    (folder,) = cell.runs.glob("tiny/tiny/softras--*")
    samples = {line.split(",")[0] for line in (folder / "samples.csv").read_text().splitlines()[1:]}
    assert {row[0] for row in table["data"]} == samples
    (artifact,) = (one for one in run.artifacts if one.type == "run_table")
    paths = [entry.path for entry in artifact.manifest.contents]
    assert sum(path.endswith(".png") for path in paths) == 4 and "test/worst.table.json" in paths


def test_the_run_is_named_and_configured_as_its_cell(logged):
    cell, _, run = logged
    assert run.run.display_name == "softras on tiny, tiny, seed 0" and run.run.run_group == "softras/tiny/tiny"
    assert run.run.project == "recon3d" and set(run.run.tags) == {"softras", "tiny", "seed0"}
    assert {key: run.config[key] for key in ("method", "dataset", "preset", "seed")} == {
        "method": "softras", "dataset": "tiny", "preset": "tiny", "seed": 0,
    }  # fmt: skip
    (folder,) = cell.runs.glob("tiny/tiny/softras--*")
    resolved = yaml.safe_load((folder / "recon3d.yaml").read_text())
    assert {key: run.config[key] for key in resolved} == resolved
    assert run.run.run_id == (folder / ID_FILE).read_text()
    assert not (run.folder / "files" / "config.yaml").exists()  # the trap: two writers of one name
    assert {"memory_percent", "proc.memory.rssMB"} <= run.system


def test_the_record_and_its_files_are_an_artifact(logged):
    cell, record, run = logged
    (artifact,) = (one for one in run.artifacts if one.type == "record")
    assert artifact.name == "record-softras-tiny-tiny-seed0"
    contents = {entry.path: entry for entry in artifact.manifest.contents}
    assert set(contents) == {"record.json", "recon3d.yaml", "samples.csv", "picture.png"}
    assert Path(contents["record.json"].local_path).read_bytes() == cell.record_path.read_bytes()
    assert json.loads(artifact.metadata)["config_hash"] == record.provenance.config_hash


@pytest.mark.slow
def test_a_logger_changes_no_result(logged, tiny_configs, tmp_path):
    _, record, _ = logged
    plain = runner.run(tiny_cell(tiny_configs, tmp_path, loggers=()))
    assert plain.measures == record.measures
    assert plain.provenance.config_hash == record.provenance.config_hash


@pytest.mark.slow
def test_each_cell_of_a_process_is_a_run_and_a_failed_one_says_so(tiny_configs, tmp_path, own_home):
    template = tiny_cell(tiny_configs, tmp_path, method="template")
    diverging = tiny_cell(tiny_configs, tmp_path, overrides=("--model.init_args.lr", "1e30"))
    records = [runner.run(one) for one in (template, diverging)]
    assert records[0].error is None and records[1].error is not None
    assert wandb.run is None
    (first,), (second,) = ([OfflineRun.read(folder) for folder in offline_runs(one)] for one in (template, diverging))
    assert first.run.run_id != second.run.run_id
    assert (first.exit_code, second.exit_code) == (0, 1)
    assert first.media("test/meshes") and "error" not in first.summary
    assert second.summary["error"] == records[1].error
    (artifact,) = (one for one in second.artifacts if one.type == "record")
    assert {entry.path for entry in artifact.manifest.contents} == {"record.json", "recon3d.yaml"}


@pytest.mark.slow
def test_weights_are_an_artifact_where_they_are_asked_for(tiny_configs, tmp_path, own_home):
    configs = tmp_path / "configs"
    (configs / "logger").mkdir(parents=True)
    for path in tiny_configs.rglob("*.yaml"):
        copy = configs / path.relative_to(tiny_configs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace("checkpoint: false", "checkpoint: true"))
    cell = tiny_cell(configs, tmp_path, method="template")
    assert runner.run(cell).error is None
    (folder,) = offline_runs(cell)
    (artifact,) = (one for one in OfflineRun.read(folder).artifacts if one.type == "model")
    (entry,) = artifact.manifest.contents
    assert entry.path == runner.CHECKPOINT
    assert Path(entry.local_path).read_bytes() == (folder.parents[1] / runner.CHECKPOINT).read_bytes()


@pytest.fixture
def begun(own_home, monkeypatch) -> list[dict[str, Any]]:
    """What wandb.init is called with; nothing is begun."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: calls.append(options) or SimpleNamespace())
    return calls


def test_without_a_key_a_run_is_offline_and_nobody_is_asked(begun, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    _ = RunLogger().experiment
    assert begun[0]["mode"] == "offline" and begun[0]["project"] == "recon3d"


def test_a_key_of_wandb_login_or_the_environment_makes_it_online(begun, own_home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        _ = RunLogger().experiment
    wandb.teardown()
    host = wandb.setup().settings.base_url.split("//")[1]
    (own_home / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    (own_home / "netrc").chmod(0o600)
    _ = RunLogger().experiment
    (own_home / "netrc").unlink()
    wandb.teardown()
    assert ["mode" in options for options in begun] == [False, False]


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_wandb_mode_is_respected(begun, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    _ = RunLogger().experiment
    assert "mode" not in begun[0]  # wandb.init reads it


def test_a_run_that_goes_on_is_the_same_run(own_home, tiny_configs, tmp_path):
    cell = tiny_cell(tiny_configs, tmp_path)
    (tmp_path / "recon3d.yaml").write_text("trainer: {}\n")
    ids = []
    for fresh in (True, False, True):
        log = RunLogger()
        log.begin(replace(cell, seed=3), tmp_path, fresh)
        ids.append(log._wandb_init["id"])
    assert ids[0] == ids[1] != ids[2]
    assert log._wandb_init["resume"] == "allow" and log._wandb_init["config"]["seed"] == 3


def test_system_metrics_are_a_setting():
    assert RunLogger()._wandb_init["settings"] == {"x_disable_stats": False, "x_stats_sampling_interval": 15.0}
    assert RunLogger(system_metrics_s=None)._wandb_init["settings"] == {"x_disable_stats": True}
