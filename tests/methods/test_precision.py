"""Training with reduced precision and with accumulated gradients, for each yaml in configs/methods and variants."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.bench.runner import Cell, ReconCLI, own_arguments
from recon3d.evaluation.evaluator import Evaluator
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Camera, ViewBatch

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = sorted(path.stem for kind in ("methods", "variants") for path in (CONFIGS / kind).glob("*.yaml"))


def build(name: str, configs: Path, *options: str) -> ReconstructionMethod:
    cell = Cell(name, "tiny", "tiny", configs=configs, overrides=options)
    with own_arguments():
        return ReconCLI(args=cell.arguments(), run=False, save_config_callback=None).model


def trainer(**options: Any) -> Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(accelerator="cpu", **{"max_epochs": 1} | dict.fromkeys(quiet, False) | options)


def batches_of(method: ReconstructionMethod, full_batch: Any, count: int) -> list[ViewBatch]:
    views, size = max(2, method.min_views), method.hparams.get("image_size", 64)
    whole = full_batch(views=views, size=size, photographs=method.photographs)
    return [replace(whole, images=whole.images * (1 - 0.1 * number)) for number in range(count)]


def joined(batches: list[ViewBatch]) -> ViewBatch:
    values: dict[str, Any] = {}
    for field in fields(ViewBatch):
        parts = [getattr(batch, field.name) for batch in batches]
        if isinstance(parts[0], Tensor):
            values[field.name] = torch.cat(parts)
        elif isinstance(parts[0], Camera):
            values[field.name] = Camera.cat(parts)
        else:
            values[field.name] = sum(parts, ())
    return ViewBatch(**values)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "template"])
def test_trains_and_answers_in_bfloat16(name, tiny_configs, full_batch):
    method = build(name, tiny_configs)
    before = {key: value.detach().clone() for key, value in method.named_parameters()}
    shown = batches_of(method, full_batch, 2)
    evaluator = Evaluator()
    run = trainer(precision="bf16-mixed", callbacks=[evaluator])
    run.fit(method, DataLoader(shown, batch_size=None))
    trained = [key for key, value in method.named_parameters() if value.requires_grad]
    still = [key for key in trained if torch.equal(method.get_parameter(key), before[key])]
    # A bias before a batch norm has no gradient but rounding.
    assert [key for key in still if not key.endswith("bias") and "ensemble.candidates." not in key] == []
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in method.parameters())
    run.validate(method, DataLoader(shown[:1], batch_size=None), verbose=False)
    assert evaluator.results["voxel_iou"].n == 2


def test_two_accumulated_batches_are_one_of_twice_the_size(tiny_configs, full_batch):
    weights = {}
    for accumulated in (1, 2):
        torch.manual_seed(0)
        method = build("neural_renderer", tiny_configs)  # without batch norm
        shown = batches_of(method, full_batch, 4)
        if accumulated == 1:
            shown = [joined(shown[:2]), joined(shown[2:])]
        run = trainer(accumulate_grad_batches=accumulated)
        run.fit(method, DataLoader(shown, batch_size=None))
        assert run.global_step == 2
        weights[accumulated] = dict(method.named_parameters())
    for key, value in weights[1].items():
        # Adam's first steps are of the size of the learning rate, 1e-4, whatever the gradient.
        torch.testing.assert_close(weights[2][key], value, rtol=0, atol=1e-6, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softras", "adaptive_texture", "dpc"])
def test_schedules_count_steps_and_not_batches(name, tiny_configs, full_batch):
    method = build(name, tiny_configs, "--model.init_args.schedule", "cosine", "--model.init_args.lr", "1e-3")
    run = trainer(accumulate_grad_batches=2, max_epochs=2)
    run.fit(method, DataLoader(batches_of(method, full_batch, 4), batch_size=None))
    assert run.global_step == run.estimated_stepping_batches == 4 and method.progress() == 1.0
    assert method.lr_schedulers().last_epoch == 4


def test_nothing_to_optimise_has_nothing_to_accumulate(tiny_configs, full_batch):
    method = build("mean_shape", tiny_configs)
    with pytest.raises(Exception, match="accumulation is not supported for manual optimization"):
        trainer(accumulate_grad_batches=2).fit(method, DataLoader(batches_of(method, full_batch, 2), batch_size=None))
