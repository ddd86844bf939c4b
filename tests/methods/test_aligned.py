"""Methods with unknown cameras, by one that answers with the truth, seen from a frame of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recon3d.geometry.cameras import project
from recon3d.geometry.poses import posed_camera
from recon3d.methods.aligned import SimilarityAlignment, WorldAlignment, align_after_training, align_on_validation
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Camera, Reconstruction, ViewBatch

FRAME = torch.tensor(Rotation.from_euler("xyz", [40, -100, 70], degrees=True).as_matrix()).float()
DISTANCE, FOCAL = 2.732, 3.732


def view_batch(objects: list[int], views: int = 3, **changes: Any) -> ViewBatch:
    """Bent clouds; the first pixel of an image holds the number of its object and view."""
    points, cameras = [], []
    for number in objects:
        generator = torch.Generator().manual_seed(number)
        cloud = torch.rand(400, 3, generator=generator) - 0.5
        cloud = cloud * torch.tensor([1.0, 0.3, 0.1 + 0.05 * number])
        points.append(cloud + cloud[:, :1].square() * torch.tensor([0.0, 1.0, -0.6]))  # no symmetry
        cameras.append(posed_camera(torch.randn(5, 4, generator=generator), DISTANCE, FOCAL)[None, :views])
    images = torch.zeros(len(objects), views, 3, 8, 8)
    images[:, :, 0, 0, 0] = torch.tensor(objects)[:, None]
    images[:, :, 1, 0, 0] = torch.arange(views)
    fields: dict[str, Any] = {
        "images": images,
        "masks": torch.ones(len(objects), views, 1, 8, 8),
        "sample_id": tuple(f"bow/{number}/v00" for number in objects),
        "category": ("bow",) * len(objects),
        "points": torch.stack(points),
        "cameras": Camera.cat(cameras),
    }
    return ViewBatch(**fields | changes)


class Oracle(ReconstructionMethod):
    """Answers with the true cloud and camera, in the frame ``points @ FRAME.T``."""

    needs = frozenset({"masks"})

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr=lr)
        self.loss_weights = {"some": 1.0}
        self.weight = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1)
        self.norm.eval()
        self.alignment = WorldAlignment()
        self.asked: list[int] = []

    def forward(self, image: Tensor) -> Reconstruction:
        numbers, views = image[:, 0, 0, 0].int().tolist(), image[:, 1, 0, 0].int().tolist()
        self.asked += numbers
        truth = view_batch(numbers, views=5)
        assert truth.points is not None and truth.cameras is not None
        camera = Camera.cat([truth.cameras[index, view][None] for index, view in enumerate(views)])
        camera = replace(camera, R=FRAME @ camera.R)
        points, camera = self.alignment(truth.points @ FRAME.T + 0 * self.weight, camera)
        return Reconstruction(points=points, camera=camera)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        return {"some": (self.weight - 1).square().sum()}

    def on_train_epoch_end(self) -> None:
        align_after_training(self, self.alignment)


def degrees(alignment: WorldAlignment) -> float:
    """Angle between the fitted and the right rotation."""
    difference = Rotation.from_matrix(alignment.rotation.numpy() @ FRAME.numpy().T)
    return float(np.rad2deg(difference.magnitude()))


def test_answers_lie_in_the_object_frame_once_fitted():
    method = Oracle().eval()
    batch = view_batch([7, 8])
    before = method.reconstruct(batch)
    align_on_validation(method, method.alignment, [view_batch([0, 1]), view_batch([2, 3])])
    after = method.reconstruct(batch)
    torch.testing.assert_close(after.points, batch.points, atol=1e-3, rtol=0)
    torch.testing.assert_close(after.camera.R, batch.cameras.R[:, 0], atol=1e-3, rtol=0)
    assert not torch.allclose(before.points, batch.points, atol=0.1)
    torch.testing.assert_close(project(after.camera, after.points), project(before.camera, before.points))


class OrthographicOracle(Oracle):
    """Answers in a frame of another size and place too, seen by orthographic cameras."""

    size, place = 0.4, torch.tensor([0.3, -0.1, 0.5])

    def __init__(self) -> None:
        super().__init__()
        self.alignment = SimilarityAlignment()

    def forward(self, image: Tensor) -> Reconstruction:
        truth = view_batch(image[:, 0, 0, 0].int().tolist(), views=5)
        views = image[:, 1, 0, 0].int().tolist()
        assert truth.points is not None and truth.cameras is not None
        camera = Camera.cat([truth.cameras[index, view][None] for index, view in enumerate(views)])
        # Of points q = size * p @ FRAME.T + place.
        rotation = FRAME @ camera.R
        shift = self.size * camera.T - self.place @ rotation
        camera = replace(camera, R=rotation, T=shift, focal=camera.focal / self.size, orthographic=True)
        points, camera = self.alignment(self.size * truth.points @ FRAME.T + self.place, camera)
        return Reconstruction(points=points, camera=camera)


def test_a_similarity_is_found_and_changes_nothing_of_what_is_seen():
    method = OrthographicOracle().eval()
    batch = view_batch([7, 8])
    before = method.reconstruct(batch)
    align_on_validation(method, method.alignment, [view_batch([0, 1]), view_batch([2, 3])])
    after = method.reconstruct(batch)
    assert float(method.alignment.scale) == pytest.approx(1 / 0.4, rel=1e-3)
    torch.testing.assert_close(after.points, batch.points, atol=2e-3, rtol=0)
    torch.testing.assert_close(after.camera.focal, batch.cameras.focal[:, 0], atol=1e-2, rtol=0)
    seen, was = project(after.camera, after.points)[..., :2], project(before.camera, before.points)[..., :2]
    torch.testing.assert_close(seen, was, atol=1e-4, rtol=1e-4)
    method.alignment.reset()
    torch.testing.assert_close(method.reconstruct(batch).points, before.points)


def test_training_keeps_its_frame_and_modes_stay():
    method = Oracle()
    method.train()
    method.norm.eval()
    raw = method(view_batch([5]).inputs(3)).points
    align_on_validation(method, method.alignment, [view_batch([0, 1])])
    assert method.training and method.alignment.training and not method.norm.training
    assert torch.equal(method(view_batch([5]).inputs(3)).points, raw)
    assert degrees(method.alignment) < 0.1


def test_a_second_fit_does_not_build_on_the_first():
    method = Oracle().eval()
    for _ in range(2):
        align_on_validation(method, method.alignment, [view_batch([0, 1])])
    assert degrees(method.alignment) < 0.1


def test_so_many_objects_of_each_category_and_five_views_are_asked_for():
    method = Oracle().eval()
    batches = [view_batch([0, 1]), view_batch([0, 1]), view_batch([0, 1]), view_batch([2, 3])]
    batches.append(view_batch([4, 5], category=("bow", "ball"), sample_id=("bow/4/v00", "ball/5/v00")))
    align_on_validation(method, method.alignment, batches, objects=2)
    # The third batch would be views 6 to 9 of its objects, the fourth objects 3 and 4 of a category.
    assert method.asked == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [4] * 3 + [5] * 3


@pytest.mark.parametrize("missing", ["points", "cameras"])
def test_without_ground_truth_it_says_so(missing, caplog):
    method = Oracle().eval()
    method.alignment.rotation.copy_(FRAME)
    align_on_validation(method, method.alignment, [view_batch([0], **{missing: None})])
    assert "no points or no cameras" in caplog.text
    assert torch.equal(method.alignment.rotation, torch.eye(3))


def test_no_finite_prediction_is_no_crash(caplog):
    method = Oracle()
    nn.init.constant_(method.weight, float("nan"))
    align_on_validation(method, method.alignment, [view_batch([0])])
    assert "none of 1 models" in caplog.text
    assert torch.equal(method.alignment.rotation, torch.eye(3))


class AtEpochs(Callback):
    """Notes the rotation at the start of every validation."""

    def __init__(self) -> None:
        self.angles: list[float] = []

    def on_validation_start(self, trainer, pl_module) -> None:
        self.angles.append(degrees(pl_module.alignment))


def trainer_of(folder: Path, epochs: int, **arguments: Any) -> tuple[Trainer, AtEpochs]:
    noted = AtEpochs()
    keeper = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    return Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=[noted, keeper], **arguments,
    ), noted  # fmt: skip


def loaders() -> tuple[DataLoader, DataLoader]:
    train = [view_batch([number], points=None, cameras=None) for number in range(2)]
    return DataLoader(train, batch_size=None), DataLoader([view_batch([0, 1]), view_batch([2, 3])], batch_size=None)


def test_fitted_once_at_the_end_and_saved(tmp_path):
    method, (trainer, noted) = Oracle(), trainer_of(tmp_path, epochs=2)
    trainer.fit(method, *loaders())
    assert degrees(method.alignment) < 0.1 and noted.angles == [pytest.approx(degrees(WorldAlignment()))] * 2
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["alignment.rotation"], method.alignment.rotation)
    assert method.training


def test_steps_may_end_the_training_too(tmp_path):
    method, (trainer, _) = Oracle(), trainer_of(tmp_path, epochs=-1, max_steps=3)
    trainer.fit(method, *loaders())
    assert trainer.global_step == 3 and degrees(method.alignment) < 0.1


def test_a_resumed_run_fits_at_its_own_end(tmp_path):
    first, (trainer, _) = Oracle(), trainer_of(tmp_path, epochs=1)
    trainer.fit(first, *loaders())
    again, (trainer, noted) = Oracle(), trainer_of(tmp_path, epochs=3)
    trainer.fit(again, *loaders(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert noted.angles == [pytest.approx(degrees(first.alignment), abs=1e-6)] * 2  # loaded, and kept till the end
    assert degrees(again.alignment) < 0.1
    finished, (trainer, _) = Oracle(), trainer_of(tmp_path, epochs=3)
    trainer.fit(finished, *loaders(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(finished.alignment.rotation, again.alignment.rotation)


def test_no_validation_data_is_said(tmp_path, caplog):
    method, (trainer, _) = Oracle(), trainer_of(tmp_path, epochs=1)
    with caplog.at_level(logging.WARNING):
        trainer.fit(method, loaders()[0])
    assert "No validation data" in caplog.text
    assert torch.equal(method.alignment.rotation, torch.eye(3))


SCRIPT = """
import importlib.util, json, sys
import torch
spec = importlib.util.spec_from_file_location("test_aligned", sys.argv[3])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
method = tests.Oracle().eval()
share = [tests.view_batch([0, 1])] if rank == 0 else [tests.view_batch([2], points=None)]  # the second has no points
tests.align_on_validation(method, method.alignment, share)
print(json.dumps([method.alignment.rotation.tolist(), method.asked, tests.degrees(method.alignment)]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_the_first_process_fits_for_all(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store"), __file__],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (rotation, asked, error), (other, not_asked, _) = (json.loads(answer.splitlines()[-1]) for answer in answers)
    assert rotation == other and error < 0.1
    assert asked and not not_asked
