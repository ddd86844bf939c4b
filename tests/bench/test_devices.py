"""Two processes on the CPU (gloo) beside one: the same Records, the same weights, and a failure that is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
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

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from tests.bench.device_runs import Job  # noqa: E402

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
    birds["init_args"] = {"root": str(folder / "birds"), "name": "birds", **PHOTOGRAPHS}
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


def start(job: Job) -> None:
    """Run a job with a fresh interpreter."""
    job.out.mkdir(exist_ok=True)
    torch.save(job, job.out / "job")
    command = [sys.executable, "-m", "tests.bench.device_runs", str(job.out / "job")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_record_of_an_earlier_run_is_no_result_of_processes_that_wrote_none(cell, monkeypatch):
    this = cell("template", overrides=TWO)
    earlier = runner.run(replace(this, overrides=()))
    assert earlier.error is None
    monkeypatch.setattr(runner, "run_in_processes", lambda *_: None)
    record = runner.run(this, force=True)
    assert record.error == "the 2 processes have ended without a Record, see above"
    assert load(this.record_path) == earlier


@pytest.mark.slow
def test_bench_on_two_devices_tests_a_checkpoint_as_on_one(cell, tmp_path):
    this = cell()
    alone = runner.run(this)
    folder = checkpoint(this).parent
    table = (folder / "samples.csv").read_bytes()
    weights = content(this)["state_dict"]
    (folder / "samples.csv").unlink()
    both = runner.run(replace(this, overrides=TWO, results=tmp_path / "both"))
    assert evidence(both) == evidence(alone)
    assert [result.n for result in both.measures.values() if result.value is not None].count(9) > 4
    assert (folder / "samples.csv").read_bytes() == table and len(pd.read_csv(folder / "samples.csv")) == 9
    assert both.cost.ms_per_image > 0 and both.cost.peak_mem_mib > 0
    assert all(torch.equal(value, weights[name]) for name, value in content(this)["state_dict"].items())
    assert content(this)["global_step"] == both.cost.steps == alone.cost.steps == 6


@pytest.mark.slow
def test_two_processes_give_the_records_of_one_to_the_last_digit(cell, tmp_path):
    tested = [cell("effective_loss"), cell("effective_loss_voxels"), cell("umr", data="birds")]  # of one's checkpoint
    fitted = [cell("template"), cell("mean_shape"), cell("retrieval")]  # each by itself: nothing is optimised
    alone = [runner.run(this) for this in tested + fitted]
    others = [replace(this, overrides=TWO, results=tmp_path / "both") for this in tested]
    others += [replace(this, overrides=TWO, results=tmp_path / "both", runs=tmp_path / "runs-both") for this in fitted]
    start(Job("records", others, 2, tmp_path / "out", {}))
    for other, record in zip(others, alone, strict=True):
        assert evidence(load(other.record_path)) == evidence(record), other.method
        samples = [result.n for result in record.measures.values() if result.value is not None]
        assert samples.count(5 if other.data == "birds" else 9) > 2
    assert alone[2].measures["pck_flow"].value is not None
    for number, key in ((4, "shapes"), (5, "retrieval")):
        ours, theirs = content((tested + fitted)[number])[key], content(others[number])[key]
        assert ours.keys() == theirs.keys() and len(ours) > 1
        for name, value in ours.items():
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert same, (key, name)


@pytest.mark.slow
def test_every_method_trains_in_two_processes_and_ends_alike_in_both(cell, full_batch, tmp_path):
    methods = sorted(path.stem for kind in ("methods", "variants") for path in (ROOT / "configs" / kind).glob("*.yaml"))
    batches = {}
    for name in sorted({*methods} - {"softras", "neural_renderer"}):
        method = runner._built(cell(name)).model
        if method.needs:
            size, views = method.hparams.get("image_size", 64), max(2, method.min_views)
            whole = full_batch(views=views, size=size, photographs=method.photographs)
            batches[name] = [replace(whole, images=whole.images * shade) for shade in (1.0, 0.9, 0.8, 0.7)]
    trained = [cell(name, overrides=TWO) for name in batches]
    # On data of their own: validations of unequal length, with batch norm; and the same step as in one process.
    own = [cell("softras", overrides=TWO), cell("neural_renderer", overrides=TWO)]
    start(Job("training", trained + own, 2, tmp_path / "both", batches))
    start(Job("training", [replace(own[1], overrides=())], 1, tmp_path / "one", {}))
    for this in trained + own:
        one, other = (
            torch.load(tmp_path / "both" / f"{this.method}-{this.data}-{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        assert one[0].keys() == other[0].keys() and one[2] == other[2]
        unlike = [name for name, value in one[0].items() if not torch.equal(value, other[0][name])]
        assert unlike == [], this.method
        if this.method not in ("mean_shape", "retrieval"):
            assert one[2] > 0 and one[1] != other[1]  # different shares
    both = [torch.load(tmp_path / "both" / f"neural_renderer-odd-{rank}.pt", weights_only=True)[1] for rank in (0, 1)]
    alone = torch.load(tmp_path / "one" / "neural_renderer-odd-0.pt", weights_only=True)[1]
    # No batch norm, and the same objects in each step: the mean of the shares is the whole.
    assert len(alone) == 6 and np.mean(both, axis=0) == pytest.approx(alone, rel=1e-4)
    assert not np.allclose(both[0], alone, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("variables", "program"),
    [
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_RANK": "0"}, "torchrun"),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "0"}, "srun"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK"),
    ],
)
def test_bench_below_a_launcher_says_what_to_do(cell, monkeypatch, variables, program):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    record = runner.run(cell())
    assert record.error is not None and program in record.error and "use recon3d fit" in record.error.lower()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--trainer.num_nodes", "2"), "several machines"),
        ((*TWO, "--trainer.strategy", "ddp_spawn"), "not by DDPStrategy"),
    ],
)
def test_bench_refuses_processes_that_it_cannot_start(cell, options, reason):
    assert reason in str(runner.run(cell(overrides=options)).error)
