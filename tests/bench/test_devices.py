"""Two processes on the CPU (gloo) beside one: the same Records, the same weights, and a failure that is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from recon3d.bench import runner
from recon3d.bench.record import Record, load
from recon3d.bench.runner import Cell

TWO = ("--trainer.devices", "2")
PHOTOGRAPHS = {"image_size": 64, "train_photographs": 8, "val_photographs": 4, "test_photographs": 5}


@pytest.fixture(scope="module")
def odd_configs(tmp_path_factory, tiny_configs) -> Path:
    """`tiny_configs` with odd data: 3 views of 3 objects as `odd`, 5 photographs of birds as `birds`."""
    folder = tmp_path_factory.mktemp("odd")
    configs, root = folder / "configs", folder / "shapes"
    shutil.copytree(tiny_configs, configs)
    tiny = yaml.safe_load((configs / "data/tiny.yaml").read_text())
    shutil.copytree(tiny["data"]["init_args"]["root"], root)
    for split in ("val", "test"):
        for path in root.glob(f"lamp_{split}_*.npz"):
            values = dict(np.load(path))
            np.savez(path, **{name: value[:1] for name, value in values.items()})
        (root / f"lamp_{split}_ids.txt").write_text("a\n")
    tiny["data"]["init_args"] |= {"root": str(root)}
    (configs / "data/odd.yaml").write_text(yaml.safe_dump(tiny))
    birds = {"class_path": "recon3d.data.synthetic_photographs.SyntheticBirdsDataModule"}
    birds["init_args"] = {"root": str(folder / "birds"), "name": "birds", **PHOTOGRAPHS}  # type: ignore[assignment]
    (configs / "data/birds.yaml").write_text(yaml.safe_dump({"data": birds}))
    loader = {"batch_size": 4, "train_steps_per_epoch": 3}
    preset = {"trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1}, "data": {"init_args": loader}}
    (configs / "presets/tiny.yaml").write_text(yaml.safe_dump(preset))
    views = {"data": {"init_args": {"test_views": 3, "val_views": 3}}}
    (configs / "presets/tiny/odd.yaml").write_text(yaml.safe_dump(views))
    return configs


@pytest.fixture
def cell(odd_configs, tmp_path) -> Callable[..., Cell]:
    def make(method: str = "softras", **changes: Any) -> Cell:
        places = {"configs": odd_configs, "results": tmp_path / "board" / "results", "runs": tmp_path / "runs"}
        return Cell(**{"method": method, "data": "odd", "preset": "tiny"} | places | changes)

    return make


def checkpoint(this: Cell) -> Path:
    (path,) = (this.runs / this.data / this.preset).glob(f"{this.method}--seed{this.seed}-*/{runner.CHECKPOINT}")
    return path


def content(this: Cell) -> dict[str, Any]:
    return torch.load(checkpoint(this), weights_only=True)


def evidence(record: Record) -> dict[str, Any]:
    """All of a Record but what it cost, and when and on what it was made."""
    assert record.error is None
    values = dict(vars(record))
    assert values.pop("cost") is not None and values.pop("provenance") is not None
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "data", "samples"),
    [
        ("softras", "odd", 9),  # a mesh
        ("effective_loss", "odd", 9),  # points
        ("effective_loss_voxels", "odd", 9),
        ("retrieval", "odd", 9),
        ("umr", "birds", 5),  # texture, flow, cameras, and a measure of the set
    ],
)
def test_two_processes_give_the_record_of_one_to_the_last_digit(cell, tmp_path, method, data, samples):
    this = cell(method, data=data)
    alone = runner.run(this)
    folder = checkpoint(this).parent
    table = (folder / "samples.csv").read_bytes()
    weights = content(this)["state_dict"]
    (folder / "samples.csv").unlink()
    both = runner.run(replace(this, overrides=TWO, results=tmp_path / "both"))
    assert evidence(both) == evidence(alone)
    scored = [result.n for result in both.measures.values() if result.value is not None]
    assert scored.count(samples) > 4 and (method != "umr" or both.measures["pck_flow"].value is not None)
    assert (folder / "samples.csv").read_bytes() == table and len(pd.read_csv(folder / "samples.csv")) == samples
    assert both.cost.ms_per_image > 0 and both.cost.peak_mem_mib > 0
    assert all(torch.equal(value, weights[name]) for name, value in content(this)["state_dict"].items())
    assert content(this)["global_step"] == both.cost.steps == alone.cost.steps


@pytest.mark.slow
def test_what_is_not_optimised_is_fitted_alike_by_one_process_and_two(cell, tmp_path):
    for method, key in (("mean_shape", "shapes"), ("retrieval", "retrieval")):
        this = cell(method)
        other = replace(this, overrides=TWO, results=tmp_path / "both", runs=tmp_path / "runs-both")
        alone, both = runner.run(this), runner.run(other)
        assert evidence(both) == evidence(alone)
        ours, theirs = content(this)[key], content(other)[key]
        assert ours.keys() == theirs.keys() and len(ours) > 1
        for name, value in ours.items():
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert same, (method, name)


@pytest.mark.slow
def test_a_failure_of_one_process_ends_all_and_is_in_the_record(cell, odd_configs, tmp_path):
    configs = tmp_path / "configs"
    shutil.copytree(odd_configs, configs)
    module = tmp_path / "broken_module.py"
    module.write_text(
        "from recon3d.methods.softras import SoftRasMesh\n"
        "class Broken(SoftRasMesh):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        if self.global_rank == 1 and self.global_step == 2:\n"
        "            raise ArithmeticError('process 1 had enough')\n"
        "        return super().training_step(batch, batch_idx)\n"
    )
    method = yaml.safe_load((configs / "methods/softras.yaml").read_text())
    method["model"]["class_path"] = "broken_module.Broken"
    (configs / "methods/softras.yaml").write_text(yaml.safe_dump(method))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        this = cell(configs=configs, overrides=TWO)
        record = runner.run(this)
    assert record.error is not None and load(this.record_path) == record
    assert record.error.startswith("process 1 of 2: ArithmeticError: process 1 had enough\nin training_step")


def test_a_batch_that_two_processes_cannot_share_is_refused_before_training(cell, monkeypatch):
    monkeypatch.setattr(runner, "run_in_processes", lambda *_: pytest.fail("started"))
    record = runner.run(cell(overrides=(*TWO, "--data.init_args.batch_size", "3")))
    assert record.error is not None and "batch_size 3 cannot be shared by 2 processes" in record.error


@pytest.mark.parametrize(
    ("variables", "program"),
    [
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_RANK": "0"}, "torchrun"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "srun"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK"),
    ],
)
def test_bench_below_a_launcher_says_what_to_do(cell, monkeypatch, variables, program):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runner.ReconCLI, "instantiate_trainer", lambda self, **_: None)
    with pytest.raises(ValueError, match=program):
        runner._devices(None)  # type: ignore[arg-type]
