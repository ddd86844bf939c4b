"""What goes wrong around a run, made to go wrong for real: each has a clear end, and nothing is lost."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from recon3d.bench import runner
from recon3d.bench.record import load, save
from recon3d.bench.run_folder import LOCK, BusyError, alone, check_writable, training_log
from recon3d.bench.runner import Cell
from recon3d.bench.survival import FiniteTraining, RandomState
from recon3d.data.mat_writing import write_mat
from recon3d.data.npz import write_npz
from recon3d.files import replace_file
from recon3d.methods.softras import SoftRasMesh

STEPS = 3  # of an epoch


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to let files of this process grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who owns nothing, also where the tests run as root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def checkpoint_of(this: Cell) -> Path:
    return this.folder(runner.resolved_hash(runner._built(this))) / runner.CHECKPOINT


def failing_at(step: int, error: BaseException) -> Callable[..., Any]:
    """SoftRas's losses until a step, then an error."""
    losses = SoftRasMesh.losses

    def until(self: Any, *args: Any) -> Any:
        if self.global_step == step:
            raise error
        return losses(self, *args)

    return until


@pytest.fixture
def half_trained(cell, monkeypatch) -> Cell:
    """A run that ended in its second epoch, with the checkpoint of the first."""
    with monkeypatch.context() as patch:
        patch.setattr(SoftRasMesh, "losses", failing_at(STEPS + 1, RuntimeError("power cut")))
        record = runner.run(cell())
    assert "power cut" in str(record.error)
    assert torch.load(checkpoint_of(cell()), weights_only=True)["global_step"] == STEPS
    return cell()


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(half_trained, monkeypatch):
    path = checkpoint_of(half_trained)
    before = path.read_bytes()
    assert len(before) > 40_000
    with files_up_to(40_000):
        record = runner.run(half_trained)
    assert record.error is not None and str(path) in record.error
    assert "File too large" in record.error and "Free space and run the same command again" in record.error
    assert path.read_bytes() == before and not list(path.parent.glob(".*.part"))
    assert load(half_trained.record_path) == record
    seen = []
    monkeypatch.setattr(SoftRasMesh, "on_train_batch_start", lambda self, *_: seen.append(self.global_step), False)
    assert runner.run(half_trained).error is None
    assert seen == [STEPS, STEPS + 1, STEPS + 2]


def test_files_of_a_run_and_a_data_set_are_whole_on_a_full_disk(tmp_path, run):
    record = run()
    record_path = tmp_path / record.data.name / record.preset / f"{record.method}--seed0.json"
    record_path.parent.mkdir(parents=True)
    table = pd.DataFrame({"sample_id": ["a"] * 500, "voxel_iou": [0.5] * 500})
    longer = replace(record, error=None, provenance=replace(record.provenance, device="x" * 2000))
    writers: dict[Path, tuple[Callable[[], object], Callable[[], object]]] = {
        record_path: (lambda: save(record, record_path), lambda: save(longer, record_path)),
        (csv := tmp_path / "samples.csv"): (
            lambda: replace_file(csv, lambda path: table[:2].to_csv(path, index=False)),
            lambda: replace_file(csv, lambda path: table.to_csv(path, index=False)),
        ),
        (npz := tmp_path / "car_test_images.npz"): (
            lambda: write_npz(npz, 1, {"arr_0": np.zeros((1, 4))}),
            lambda: write_npz(npz, 1, {"arr_0": np.zeros((1, 4000))}),
        ),
        (mat := tmp_path / "cloud.mat"): (
            lambda: write_mat(mat, {"points": np.zeros(3)}),
            lambda: write_mat(mat, {"points": np.random.default_rng(0).random(4000)}),
        ),
    }
    for path, (first, second) in writers.items():
        first()
        before = path.read_bytes()
        assert len(before) < 3000
        with files_up_to(3000), pytest.raises(OSError, match="Free space and run the same command again") as caught:
            second()
        assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
        assert path.read_bytes() == before and not list(path.parent.glob(".*"))
        second()
        assert path.read_bytes() != before


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {Bomb.place}",))

    place = ""


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 100)


def one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 255
    path.write_bytes(content)


def of_another_method(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"recon3d_method": "recon3d.methods.voxel.VoxelGrid"}, path)


def counted_by_hand(path: Path) -> None:
    """As a method that stepped its optimisers by itself left it, before it left that to the Trainer."""
    content = torch.load(path, weights_only=True)
    loop = content["loops"]["fit_loop"]
    total = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    assert total["completed"] == STEPS
    loop["epoch_loop.manual_optimization.optim_step_progress"]["total"] = dict(total)
    total |= {"ready": 0, "completed": 0}
    torch.save(content, path)


def program(path: Path) -> None:
    Bomb.place = str(path.with_name("executed"))
    torch.save({"state_dict": Bomb()}, path)


def old_pickle(path: Path) -> None:
    Bomb.place = str(path.with_name("executed"))
    path.write_bytes(pickle.dumps(Bomb()))


def test_a_damaged_checkpoint_is_named_kept_and_never_executed(half_trained):
    path = checkpoint_of(half_trained)
    good = path.read_bytes()
    for damage in (truncated, garbage, one_byte, of_another_method, counted_by_hand, program, old_pickle):
        path.write_bytes(good)
        damage(path)
        damaged = path.read_bytes()
        assert damaged != good
        record = runner.run(half_trained)
        first = str(record.error).splitlines()[0]
        assert "cannot go on from" in first and str(path) in first and "--force" in first, damage
        assert path.read_bytes() == damaged and not path.with_name("executed").exists(), damage
    path.write_bytes(good)
    assert runner.run(half_trained).error is None


@pytest.mark.slow
def test_force_trains_over_a_damaged_checkpoint(half_trained):
    garbage(checkpoint_of(half_trained))
    assert runner.run(half_trained, force=True).error is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_the_step_and_leaves_the_checkpoint(cell, monkeypatch, value):
    losses = SoftRasMesh.losses

    def broken(self: Any, *args: Any) -> dict[str, torch.Tensor]:
        found = losses(self, *args)
        return found | {"flatten": found["flatten"] * value} if self.global_step == STEPS + 1 else found

    monkeypatch.setattr(SoftRasMesh, "losses", broken)
    record = runner.run(cell())
    assert record.error is not None and load(cell().record_path) == record
    first = record.error.splitlines()[0]
    assert first.startswith(f"FloatingPointError: NaN or infinite loss at step {STEPS + 1} (epoch 1)")
    assert f"train/flatten = {value}, train/loss = {value}." in first and "train/iou" not in first
    kept = torch.load(checkpoint_of(cell()), weights_only=True)
    assert kept["global_step"] == STEPS and all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def test_weights_that_are_not_finite_never_reach_the_disk(cell, monkeypatch):
    """The loss of the last step of an epoch is finite, its gradient is not."""
    losses = SoftRasMesh.losses

    def broken(self: Any, batch: Any, recon: Any) -> dict[str, torch.Tensor]:
        found = losses(self, batch, recon)
        if self.global_step == 2 * STEPS - 1:
            found["flatten"] = found["flatten"] + (found["flatten"] * 0).sqrt()  # 0, whose gradient is infinite times 0
        return found

    monkeypatch.setattr(SoftRasMesh, "losses", broken)
    record = runner.run(cell())
    assert record.error is not None and f"after step {2 * STEPS}: no checkpoint was written" in record.error
    kept = torch.load(checkpoint_of(cell()), weights_only=True)
    assert kept["global_step"] == STEPS and all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


@pytest.mark.parametrize(("world", "device"), [(1, "meta"), (2, "cpu")])
def test_an_accelerator_is_not_waited_for_in_every_step(world, device):
    looked: list[int] = []

    class Loss:
        def __init__(self, step: int) -> None:
            self.device, self.step = torch.device(device), step

        def isfinite(self) -> bool:
            looked.append(self.step)
            return self.step < 19

    decide = SimpleNamespace(reduce_boolean_decision=lambda finite: finite)
    trainer = SimpleNamespace(world_size=world, log_every_n_steps=10, strategy=decide, current_epoch=0)
    trainer.callback_metrics = {"train/mask": torch.tensor(float("nan")), "val/chamfer": torch.tensor(float("nan"))}
    with pytest.raises(FloatingPointError, match=r"step 19 \(epoch 0, seen every 10 steps\): train/mask = nan\."):
        for step in range(30):
            trainer.global_step = step
            FiniteTraining().on_before_backward(trainer, None, Loss(step))
    assert looked == [9, 19]


def test_what_one_process_of_several_finds_stops_all():
    trainer = SimpleNamespace(world_size=2, log_every_n_steps=1, global_step=0, current_epoch=0, callback_metrics={})
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda finite: False)
    with pytest.raises(FloatingPointError, match="of another process"):
        FiniteTraining().on_before_backward(trainer, None, torch.tensor(1.0))


def test_a_resumed_run_draws_what_it_would_have_drawn():
    torch.manual_seed(5)
    torch.rand(3)
    state = RandomState().state_dict()
    expected = torch.rand(4)
    for resume in (
        lambda found: found.on_train_epoch_start(None, None),
        lambda found: found.on_train_batch_start(None, None, None, 0),
    ):
        found = RandomState()
        found.load_state_dict(state)
        torch.manual_seed(7)  # setting up draws as well
        resume(found)
        assert torch.equal(torch.rand(4), expected)
        resume(found)  # once only
        assert not torch.equal(torch.rand(4), expected)


def test_a_second_process_at_the_same_run_is_told_so_and_changes_nothing(half_trained):
    folder = checkpoint_of(half_trained).parent
    before = half_trained.record_path.read_bytes()
    with alone(folder), pytest.raises(BusyError, match=f"in use by process {os.getpid()} on "):
        runner.run(half_trained)
    assert half_trained.record_path.read_bytes() == before
    assert runner.run(half_trained).error is None


def test_a_killed_process_leaves_no_lock_and_no_half_written_files(tmp_path):
    code = (
        "import os, sys, pathlib\n"
        "from recon3d.bench.run_folder import alone\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with alone(folder):\n"
        "    (folder / '.last.ckpt.1.part').touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, ".last.ckpt.1.part"}
    with alone(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_without_locks_nothing_is_removed_that_another_process_may_be_writing(tmp_path, monkeypatch, caplog):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".last.ckpt.1.part").touch()
    with alone(tmp_path):
        assert (tmp_path / ".last.ckpt.1.part").exists()


def test_a_run_on_other_data_does_not_go_on_from_the_weights_of_the_first(cell, tmp_path):
    """The folder of a run does not depend on where its data lie."""
    this = cell(method="mean_shape")
    root = yaml.safe_load((this.configs / "data/tiny.yaml").read_text())["data"]["init_args"]["root"]
    other_root = shutil.copytree(root, tmp_path / "other")
    for path in other_root.glob("lamp_test_*.npz"):  # one object less
        np.savez(path, **{name: value[:1] for name, value in np.load(path).items()})
    (other_root / "lamp_test_ids.txt").write_text("a\n")
    other = cell(method="mean_shape", overrides=("--data.init_args.root", str(other_root)))
    first = runner.run(this)
    path = checkpoint_of(this)
    assert first.error is None and path == checkpoint_of(other)
    weights = path.read_bytes()
    refused = runner.run(other)
    assert "was trained on other data" in str(refused.error) and "METHOD=mean_shape FORCE=1" in str(refused.error)
    assert load(this.record_path) == first and path.read_bytes() == weights
    forced = runner.run(other, force=True)
    assert forced.error is None and forced.data.hash != first.data.hash
    assert runner.run(other) == forced  # finished
    assert "was trained on other data" in str(runner.run(this).error)
    (path.parent / "data_hash").unlink()  # of a run of before it was kept
    assert runner.run(this).data.hash == first.data.hash


def test_a_baseline_waits_for_the_process_that_is_at_it(tmp_path):
    order: list[str] = []

    def second() -> None:
        with alone(tmp_path, wait=True):
            order.append("second")

    with alone(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_results_that_cannot_be_written_are_known_before_training(cell, monkeypatch):
    monkeypatch.setattr(runner, "_run_held", lambda *_: pytest.fail("started"))
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        this = cell(results=Path(place) / "board" / "results")
        with without_rights():
            with pytest.raises(PermissionError, match="board"):
                runner.run(this)
            with pytest.raises(PermissionError, match=r"cannot be written to\. Give another with --leaderboard"):
                check_writable(Path(place))


def test_a_damaged_file_of_the_data_set_is_recorded_with_its_name(cell, nmr_root, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for file in nmr_root.iterdir():
        (root / file.name).symlink_to(file)
    (root / "car_train_images.npz").unlink()
    (root / "car_train_images.npz").write_bytes(b"PK")
    record = runner.run(cell(overrides=("--data.init_args.root", str(root))))
    assert str(record.error).startswith(f"DataFileError: {root / 'car_train_images.npz'}: ")


def test_the_log_of_a_resumed_run_is_one_series(tmp_path):
    def session(number: int, text: str) -> None:
        path = tmp_path / f"csv/version_{number}/metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    with pytest.raises(FileNotFoundError, match="no logs"):
        training_log(tmp_path)
    session(0, "epoch,step,train/loss,val/chamfer\n0,0,1.0,\n0,1,0.9,\n0,1,,5.0\n1,2,0.8,\n1,3,0.7,\n2,4,0.")
    session(2, "epoch,step,train/loss\n1,2,0.8\n1,3,0.75\n")
    session(10, "epoch,step,test/chamfer\n2,4,4.0\n")  # only tested
    log = training_log(tmp_path)
    assert log["step"].tolist() == [0, 1, 1, 2, 3]
    assert log["train/loss"].dropna().tolist() == [1.0, 0.9, 0.8, 0.75]
    assert log["val/chamfer"].dropna().tolist() == [5.0]
