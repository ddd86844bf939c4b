from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning import Trainer
from PIL import Image

from recon3d.bench import runner
from recon3d.bench.record import Record, load, save
from recon3d.bench.runner import Cell, bench
from recon3d.data.multiview import MultiViewDataset
from recon3d.evaluation.convert import NO_NETWORK
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.methods.base import ReconstructionMethod

STEPS = 6  # 2 epochs of 3


@pytest.fixture
def sessions(monkeypatch) -> list[dict[str, Any]]:
    """Notes every call of Trainer.fit."""
    calls: list[dict[str, Any]] = []
    fit = Trainer.fit

    def noted(self, *args, **kwargs):
        calls.append(kwargs)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "fit", noted)
    return calls


def run_folder(cell: Cell) -> Path:
    (folder,) = (cell.runs / cell.data / cell.preset).glob(f"{cell.method}--seed{cell.seed}-*")
    return folder


def weights(cell: Cell) -> dict[str, torch.Tensor]:
    return torch.load(run_folder(cell) / runner.CHECKPOINT, weights_only=True)["state_dict"]


def scores(record: Record) -> dict[str, float | None]:
    return {name: result.value for name, result in record.measures.items()}


def test_a_run_leaves_everything_behind_and_is_not_repeated(cell, sessions, capfd):
    this = cell()
    record = runner.run(this)
    assert record.error is None and load(this.record_path) == record  # the schema is checked in loading
    assert record.measure_order == tuple(measure.name for measure in PROTOCOL)
    assert record.measures["voxel_iou"].n == 4 and record.measures["voxel_iou"].per_category.keys() == {"car", "lamp"}
    assert (record.data.name, record.data.split, record.data.scale) == ("tiny", "test", "longest_side")
    assert record.data.categories == ("car", "lamp")
    assert (record.input, record.supervision) == ("RGB + mask", ("cameras", "masks"))
    assert record.paper is not None and record.paper.year == 2019
    assert record.cost.steps == STEPS and record.cost.train_s > 0 and record.cost.ms_per_image > 0

    folder = run_folder(this)
    resolved = yaml.safe_load((folder / "recon3d.yaml").read_text())
    assert resolved["model"]["init_args"]["width"] == 4  # the preset won
    assert resolved["model"]["init_args"]["sigma"] == 3e-5  # the method's yaml
    assert record.cost.params == sum(
        value.numel() for name, value in weights(this).items() if "running_" not in name and "num_batches" not in name
    )
    samples = pd.read_csv(folder / "samples.csv")
    assert list(samples["sample_id"]) == ["car/a/v00", "car/b/v00", "lamp/a/v00", "lamp/b/v00"]
    assert samples["voxel_iou"].mean() == pytest.approx(record.measures["voxel_iou"].value, rel=1e-5)
    assert np.asarray(Image.open(folder / "picture.png")).std() > 10
    assert [path.name for path in folder.rglob("*.ckpt")] == [runner.CHECKPOINT]  # once is enough
    (log,) = folder.rglob("metrics.csv")
    logged = pd.read_csv(log)
    assert {"train/iou", "train/laplacian", "train/flatten", "train/loss", "val/voxel_iou"} <= set(logged.columns)
    # Time to a Chamfer distance: the seconds of training stand beside it.
    times = logged.dropna(subset=["val/chamfer"])["val/train_s"]
    assert len(times) == 2 and 0 < times.iloc[0] < times.iloc[1] < record.cost.train_s

    assert len(sessions) == 1
    before = this.record_path.read_bytes()
    assert runner.run(this) == record
    assert len(sessions) == 1 and this.record_path.read_bytes() == before

    (folder / runner.CHECKPOINT).unlink()  # as in a clone: the Record is there, the weights are not
    assert scores(runner.run(this)) == scores(record)
    assert len(sessions) == 2 and (folder / runner.CHECKPOINT).exists()


@pytest.mark.parametrize("method", ["softras", "mean_shape"])
def test_a_record_of_an_older_protocol_is_made_anew_from_the_weights(cell, monkeypatch, method):
    this = cell(method=method)
    record = runner.run(this)
    kept = weights(this)
    checkpoint = torch.load(run_folder(this) / runner.CHECKPOINT, weights_only=True)
    trained = checkpoint["callbacks"]["TrainClock"]["seconds"]

    def refuse(*_: Any) -> None:
        raise AssertionError("a finished run was trained")

    monkeypatch.setattr(ReconstructionMethod, "training_step", refuse)
    without = {name: result for name, result in record.measures.items() if name != "surface_iou"}
    outdated = record.measures | {"chamfer": replace(record.measures["chamfer"], version=0)}
    much = replace(record.cost, peak_mem_mib=1e9, ms_per_image=1e-9)
    for measures in (without, outdated):
        order = tuple(name for name in record.measure_order if name in measures)
        save(replace(record, measures=measures, measure_order=order, cost=much), this.record_path)
        again = runner.run(this)
        assert again.error is None and scores(again) == scores(record) and load(this.record_path) == again
        assert again.measure_order == record.measure_order and again.measures == record.measures
        assert again.cost.train_s == trained and again.cost.steps == record.cost.steps
        assert again.cost.peak_mem_mib == 1e9  # of the training
        assert again.cost.ms_per_image == 1e-9  # the least disturbed
        assert all(torch.equal(value, kept[name]) for name, value in weights(this).items())
    date = again.provenance.date
    assert runner.run(this).provenance.date == date  # finished


@pytest.mark.slow
def test_force_and_other_numbers_run_again_and_nothing_else(cell, sessions):
    this = cell()
    record = runner.run(this)
    assert runner.run(replace(this, overrides=("--trainer.log_every_n_steps", "2"))) == record  # cannot change a result
    assert len(sessions) == 1
    again = runner.run(this, force=True)
    assert len(sessions) == 2 and sessions[1]["ckpt_path"] is None
    assert scores(again) == scores(record)
    changed = runner.run(replace(this, overrides=("--model.init_args.lr", "1e-3")))
    assert len(sessions) == 3
    assert changed.provenance.config_hash != record.provenance.config_hash and scores(changed) != scores(record)


@pytest.mark.slow
def test_the_seed_decides(cell):
    first = runner.run(cell())
    kept = weights(cell())
    shutil.rmtree(cell().runs)
    second = runner.run(cell(), force=True)
    assert scores(first) == scores(second)
    assert all(torch.equal(value, kept[name]) for name, value in weights(cell()).items())
    other = runner.run(cell(seed=1))
    assert other.provenance.config_hash == first.provenance.config_hash and other.seed == 1
    assert not torch.equal(weights(cell(seed=1))["encoder.0.weight"], kept["encoder.0.weight"])
    assert cell(seed=1).record_path != cell().record_path and cell().record_path.exists()


@pytest.mark.slow
def test_baselines_are_run_once_with_the_data_of_the_cell(cell, sessions):
    this = cell(overrides=("--data.init_args.limit_objects", "1", "--trainer.max_epochs", "1"))
    records = bench(this)
    assert [record.method for record in records] == ["template", "mean_shape", "softras"]
    assert [record.error for record in records] == [None] * 3
    assert {record.measures["voxel_iou"].n for record in records} == {2}  # one object a category
    template, mean_shape, softras = records
    assert template.cost.steps is None and template.cost.params == 0 and template.supervision == ()
    assert mean_shape.supervision == ("category", "voxels")
    assert softras.cost.steps == 3
    assert len(sessions) == 2  # the template is not trained
    assert [record.provenance.date for record in bench(this)] == [record.provenance.date for record in records]
    assert len(sessions) == 2
    only = bench(replace(this, method="template"))
    assert [record.method for record in only] == ["mean_shape", "template"]


def test_baselines_take_the_data_of_the_cell_but_not_the_schedule_of_its_method(cell):
    options = ("--trainer.max_epochs=1", "--data.init_args.limit_objects=1")  # in either form
    this = cell(method="template", overrides=(*options, "--data.init_args.train_steps_per_epoch", "2"))
    records = bench(this, baselines=("mean_shape",))
    assert [record.error for record in records] == [None, None]
    assert [record.measures["voxel_iou"].n for record in records] == [2, 2]


def test_a_baseline_that_trains_on_what_the_data_lack_is_left_out(cell, monkeypatch, caplog):
    given = MultiViewDataset.__getitem__
    monkeypatch.setattr(MultiViewDataset, "__getitem__", lambda self, index: replace(given(self, index), voxels=None))
    this = cell(method="template")
    with caplog.at_level("INFO", logger="recon3d.bench.runner"):
        records = bench(this)
    assert [(record.method, record.error) for record in records] == [("template", None)]
    assert not replace(this, method="mean_shape").record_path.exists()
    assert "mean_shape is left out: it trains on voxels, which tiny lacks." in caplog.text
    # Asked for by name it fails, as any method does.
    assert "lacks ['voxels']" in str(runner.run(replace(this, method="mean_shape")).error)


def test_a_feature_network_that_is_new_to_a_record_is_used_without_training(cell, monkeypatch):
    this = cell()
    first = runner.run(this)
    assert first.measures["fid"].note == NO_NETWORK
    tests: list[str] = []

    class Named(Evaluator):
        def __init__(self, fid_weights: Path | None = None) -> None:
            super().__init__()
            self.network = "a network" if fid_weights is not None else None

        def on_test_epoch_end(self, trainer, pl_module):
            super().on_test_epoch_end(trainer, pl_module)
            tests.append(this.method)
            fid = replace(self.results["fid"], value=3.0, n=4, note=self.network)
            self.results |= {"fid": fid if self.network else self.results["fid"]}

    def refuse(*_: Any) -> None:
        raise AssertionError("a finished run was trained")

    monkeypatch.setattr(ReconstructionMethod, "training_step", refuse)
    monkeypatch.setattr("recon3d.bench.cell.Evaluator", Named)
    given = replace(this, overrides=("--evaluator.fid_weights", "inception.pth"))
    again = runner.run(given)
    assert again.error is None and again.measures["fid"].note == "a network"
    assert again.provenance.config_hash == first.provenance.config_hash
    assert len(tests) == 1
    runner.run(given)
    runner.run(this)  # finished, with more than it asks for
    assert len(tests) == 1


def test_a_wrong_data_root_is_recorded(cell, tmp_path):
    this = cell(overrides=("--data.init_args.root", str(tmp_path / "nowhere")))
    record = runner.run(this)
    assert load(this.record_path) == record
    assert record.error is not None and record.error.startswith("DataFileError: ") and "nowhere" in record.error
    assert record.measures == {} and record.cost.params is None
    assert (record.input, record.supervision) == ("RGB + mask", ("cameras", "masks"))


def test_data_without_a_hash_fail_before_they_are_trained_on(cell, sessions, monkeypatch):
    def refuse(_: Any) -> str:
        raise ValueError("no pictures of test")

    monkeypatch.setattr("recon3d.data.shapenet.ShapeNetDataModule.data_hash", refuse)
    record = runner.run(cell())
    assert "no pictures of test" in str(record.error) and not sessions


def test_a_record_says_which_split_was_scored(cell, monkeypatch):
    monkeypatch.setattr("recon3d.data.shapenet.ShapeNetDataModule.test_split", "val")
    assert runner.run(cell(method="template")).data.split == "val"


def test_a_diverging_run_is_recorded(cell):
    this = cell(overrides=("--model.init_args.lr", "1e30"))  # weights overflow within the first epoch
    record = runner.run(this)
    assert record.error is not None and "NaN" in record.error
    assert load(this.record_path) == record


@pytest.mark.slow
def test_a_failed_run_is_tried_again(cell, sessions):
    for count in (1, 2):
        assert runner.run(cell(overrides=("--model.init_args.lr", "1e30"))).error is not None
        assert len(sessions) == count
    assert runner.run(cell()).error is None and load(cell().record_path).error is None


def test_a_damaged_record_is_reported_and_kept(cell):
    this = cell(method="template")
    this.record_path.parent.mkdir(parents=True)
    this.record_path.write_text("{")
    with pytest.raises(ValueError, match="not a readable Record"):
        runner.run(this)
    assert this.record_path.read_text() == "{"


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"method": "softrass"}, ("mean_shape", "softras", "template")),
        ({"data": "shapenets"}, ("open_shapes", "shapenet", "synthetic", "tiny")),
        ({"preset": "fast"}, ("paper", "quick", "smoke", "tiny")),
        ({"loggers": ("mlflow",)}, ("tensorboard", "wandb")),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(cell, changes, known):
    with pytest.raises(FileNotFoundError) as caught:
        cell(**changes)
    assert all(name in str(caught.value) for name in known)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        (("--model.init_args.sigmaa", "1e-4"), "sigmaa"),
        (("--data.init_args.batchsize", "3"), "batchsize"),
        (("--trainer.max_epoch_s", "3"), "max_epoch_s"),
        (("--model.init_args.lr", "fast"), "lr"),
    ],
)
def test_a_typo_in_an_override_is_refused_by_name(cell, capsys, override, name):
    with pytest.raises(SystemExit) as caught:
        runner.run(cell(overrides=override))
    assert caught.value.code == 2
    assert name in capsys.readouterr().err
    assert not cell().record_path.exists()


def test_precedence_is_base_method_data_preset_command_line(cell):
    this = cell(overrides=("--model.init_args.code", "6"))
    with runner.own_arguments():
        config = runner.ReconCLI(args=this.arguments(), run=False, save_config_callback=None).config
    assert config.model.init_args.code == 6  # command line over preset
    assert config.model.init_args.hidden == 16  # method's preset over method
    assert config.trainer.max_epochs == 2  # preset over base
    assert config.trainer.num_sanity_val_steps == 0  # base
    assert config.data.init_args.batch_size == 4


def test_train_time_adds_up_over_sessions(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    first = runner.TrainClock()
    now[0] = 150.0  # setting up is not training
    first.on_train_start(None, None)
    now[0] = 157.0
    assert first.seconds == 7.0
    second = runner.TrainClock()
    second.load_state_dict(first.state_dict())
    now[0] = 200.0
    second.on_train_start(None, None)
    now[0] = 203.0
    assert second.seconds == 10.0


def test_train_time_leaves_validation_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock, logged = runner.TrainClock(), {}
    module = SimpleNamespace(
        log=lambda name, value, sync_dist: logged.update({name: value}), device=torch.device("cpu")
    )
    fitting = SimpleNamespace(state=SimpleNamespace(fn="fit"))
    clock.on_train_start(fitting, module)
    now[0] = 10.0
    clock.on_validation_start(fitting, module)
    now[0] = 25.0
    assert clock.seconds == 10.0 and logged == {"val/train_s": 10.0}
    clock.on_validation_end(fitting, module)
    now[0] = 28.0
    assert clock.seconds == 13.0


def test_train_time_waits_for_the_gpu(monkeypatch):
    now, logged = [0.0], {}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    # What is queued takes until second 40.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: now.__setitem__(0, 40.0))
    for device, seconds in (("cpu", 10.0), ("cuda:0", 40.0)):
        now[0] = 0.0
        clock = runner.TrainClock()
        module = SimpleNamespace(
            log=lambda name, value, sync_dist: logged.update({name: value}), device=torch.device(device)
        )
        clock.on_train_start(None, module)
        now[0] = 10.0
        clock.on_validation_start(None, module)
        assert logged == {"val/train_s": seconds} and clock.seconds == seconds


def test_train_time_of_a_run_that_was_already_trained_is_what_the_checkpoint_says(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = runner.TrainClock()
    clock.load_state_dict({"seconds": 42.0})
    now[0] = 130.0  # resumed after the last epoch: nothing is left to train
    assert clock.seconds == 42.0


@pytest.mark.slow
def test_every_epoch_ends_with_a_checkpoint(cell, monkeypatch):
    steps = []
    save = Trainer.save_checkpoint
    monkeypatch.setattr(
        Trainer,
        "save_checkpoint",
        lambda self, *args, **kwargs: steps.append(self.global_step) or save(self, *args, **kwargs),
    )
    rare = ("--trainer.check_val_every_n_epoch", "3", "--trainer.max_epochs", "3")
    assert runner.run(cell(overrides=rare)).error is None
    assert steps[:3] == [3, 6, 9] and set(steps[3:]) == {9}  # and again when all is done
