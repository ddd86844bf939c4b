"""Killed at the worst moments and started again: the losses, scores and weights of a run that nothing happened to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from recon3d.bench import runner
from recon3d.bench.record import load
from recon3d.bench.run_folder import training_log
from recon3d.bench.runner import Cell

EPOCHS, STEPS = 4, 3
# `recon3d bench` that kills itself, as the system would, in the n-th call of a function.
PROGRAM = """
import os, signal, sys
import torch
from recon3d.bench import runner
from recon3d.evaluation.evaluator import Evaluator
from recon3d.methods.base import ReconstructionMethod

owner, name = {"step": (ReconstructionMethod, "training_step"), "validation": (Evaluator, "update"),
               "checkpoint": (torch, "save"), "rename": (os, "fsync"), "never": (os, "sep")}[sys.argv[1]]
count, kind, function = int(sys.argv[2]), signal.Signals[sys.argv[3]], getattr(owner, name)

def deadly(*args, **kwargs):
    global count
    count -= 1
    if count == 0:
        if name == "save":  # half of it is written
            args[1].write(b"half a checkpoint")
            args[1].flush()
        os.kill(os.getpid(), kind)
    return function(*args, **kwargs)

if callable(function):
    setattr(owner, name, deadly)
from recon3d.cli import main
sys.exit(main(sys.argv[4:]))
"""


def start(cell: Cell, moment: str = "never", count: int = 0, kind: str = "SIGKILL") -> subprocess.CompletedProcess[str]:
    """`recon3d bench` of a cell in a process of its own."""
    places = {"configs": cell.configs, "leaderboard": cell.results.parent, "runs": cell.runs}
    options = {"method": cell.method, "data": cell.data, "preset": cell.preset, **places}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, str(count), kind, "bench", "--alone", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def folder_of(cell: Cell) -> Path:
    (folder,) = (cell.runs / cell.data / cell.preset).glob(f"{cell.method}--seed{cell.seed}-*")
    return folder


def content(cell: Cell) -> dict[str, Any]:
    return torch.load(folder_of(cell) / runner.CHECKPOINT, weights_only=True)


def assert_same_run(one: Cell, other: Cell) -> None:
    """The same losses of every step, validations, scores and weights, to the bit."""
    logs = [training_log(folder_of(cell)).drop(columns="val/train_s", errors="ignore") for cell in (one, other)]
    pd.testing.assert_frame_equal(*logs, check_exact=True, check_like=True)
    steps = logs[0].dropna(subset=["train/loss"])["step"]
    assert list(steps) == list(range(EPOCHS * STEPS))
    records = [load(cell.record_path) for cell in (one, other)]
    assert records[0].error is None and records[0].measures == records[1].measures
    assert records[0].cost.steps == records[1].cost.steps == EPOCHS * STEPS
    weights = [content(cell)["state_dict"] for cell in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    optimisers = [content(cell)["optimizer_states"][0]["state"] for cell in (one, other)]
    for number, state in optimisers[0].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(optimisers[1][number][k])) for k, v in state.items())


@pytest.fixture(scope="module")
def configs(tmp_path_factory, tiny_configs) -> Path:
    """`tiny_configs` with 4 epochs of 3 steps and photographs of birds as `birds`."""
    folder = tmp_path_factory.mktemp("kill")
    shutil.copytree(tiny_configs, folder / "configs")
    few = {"image_size": 64, "train_photographs": 8, "val_photographs": 4, "test_photographs": 4}
    birds = {"class_path": "recon3d.data.synthetic_photographs.SyntheticBirdsDataModule"}
    birds["init_args"] = {"root": str(folder / "birds"), "name": "birds", **few}
    (folder / "configs/data/birds.yaml").write_text(yaml.safe_dump({"data": birds}))
    trainer = {"max_epochs": EPOCHS, "accelerator": "cpu", "log_every_n_steps": 1, "check_val_every_n_epoch": 2}
    loader = {"batch_size": 4, "train_steps_per_epoch": STEPS}
    preset = {"trainer": trainer, "data": {"init_args": loader}}
    (folder / "configs/presets/tiny.yaml").write_text(yaml.safe_dump(preset))
    views = {"data": {"init_args": {"test_views": 1, "val_views": 1}}}
    (folder / "configs/presets/tiny/tiny.yaml").write_text(yaml.safe_dump(views))
    return folder / "configs"


@pytest.fixture
def cell(cell, configs) -> Callable[..., Cell]:
    """The cell of the other tests with these configs."""
    return lambda **changes: cell(**{"configs": configs} | changes)


def with_workers(configs: Path, folder: Path, workers: int) -> Path:
    shutil.copytree(configs, folder)
    preset = yaml.safe_load((folder / "presets/tiny.yaml").read_text())
    preset["data"]["init_args"]["num_workers"] = workers
    (folder / "presets/tiny.yaml").write_text(yaml.safe_dump(preset))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "data", "workers"),
    [
        ("softras", "tiny", 0),
        ("effective_loss-pose", "tiny", 2),  # several candidates of the camera
        ("effective_loss_voxels", "tiny", 0),  # draws from torch's generator in every step
        ("adaptive_texture", "birds", 0),  # two players, a generator of its own, statistics of the data
        ("adaptive_texture", "birds", 2),
    ],
)
def test_four_epochs_equal_two_a_kill_and_two(cell, configs, tmp_path, method, data, workers):
    whole = cell(method=method, data=data, runs=tmp_path / "whole", results=tmp_path / "whole" / "results")
    assert runner.run(whole).error is None
    this = cell(method=method, data=data, configs=with_workers(configs, tmp_path / "configs", workers))
    for moment, count, saved in (
        ("step", 2 * STEPS + 2, 2 * STEPS),  # in the middle of the third epoch
        ("checkpoint", 1, 2 * STEPS),  # while that of the third epoch is written
        ("rename", 3, 2 * STEPS),  # when it is written and not in its place; the first two are of recon3d.yaml
        ("validation", 1, 2 * STEPS),  # of the fourth epoch, so the third is trained once more
    ):
        died = start(this, moment, count)
        if moment == "validation":
            saved = 3 * STEPS
        assert died.returncode == -signal.SIGKILL, died.stderr[-3000:]
        assert content(this)["global_step"] == saved and not this.record_path.exists()
    done = start(this)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Going on from" in done.stderr
    assert not list(folder_of(this).glob(".*.part"))
    assert_same_run(this, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step", "saved", "status"), [("SIGTERM", 5, 5, 143), ("SIGINT", 5, STEPS, 130)])
def test_a_stopped_bench_says_so_and_goes_on(cell, tmp_path, kind, step, saved, status):
    """SIGTERM, as of Slurm and docker stop, leaves a checkpoint within the epoch; Ctrl-C that of the last epoch."""
    whole = cell(method="effective_loss_voxels", runs=tmp_path / "whole", results=tmp_path / "whole" / "results")
    assert runner.run(whole).error is None
    this = cell(method="effective_loss_voxels")
    stopped = start(this, "step", step, kind)
    assert stopped.returncode == status, stopped.stderr[-3000:]
    assert "The same command goes on" in stopped.stderr and "Traceback" not in stopped.stderr
    assert content(this)["global_step"] == saved and not this.record_path.exists()
    done = start(this)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(this, whole)


METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs/methods").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_weights_with_and_without_workers(cell, tmp_path, method):
    data = "birds" if method in ("adaptive_texture", "umr", "cmr") else "tiny"
    contents = []
    for number, workers in enumerate((0, 0, 2)):
        folder = tmp_path / str(number)
        options = ("--data.init_args.num_workers", str(workers), "--trainer.max_epochs", "1")
        this = cell(method=method, data=data, overrides=options, runs=folder, results=folder / "results")
        assert runner.run(this).error is None
        contents.append(content(this))
    for other in contents[1:]:
        assert other["state_dict"].keys() == contents[0]["state_dict"].keys()
        for key in ("state_dict", "shapes", "retrieval"):  # mean_shape and retrieval keep what they learn by themselves
            for name, value in contents[0].get(key, {}).items():
                same = torch.equal(value, other[key][name]) if torch.is_tensor(value) else value == other[key][name]
                assert same, (key, name)
