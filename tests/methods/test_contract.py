"""What every method owes, for each yaml in configs/methods and configs/variants: it is tested by being there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.bench.runner import Cell, ReconCLI, own_arguments
from recon3d.methods.base import ReconstructionMethod
from recon3d.methods.loading import load_method
from recon3d.structures import Reconstruction, ViewBatch

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = sorted(path.stem for kind in ("methods", "variants") for path in (CONFIGS / kind).glob("*.yaml"))
STEPS = 2
SAME_CODE = {"umr": "adaptive_texture"}  # a method that is another one with parts switched off


@dataclass
class Trained:
    """A method after a few steps, what it was before them, and what it was trained on."""

    method: ReconstructionMethod
    before: dict[str, Tensor]
    trainer: Trainer
    batch: ViewBatch


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tiny_configs, full_batch) -> Iterator[Trained]:
    cell = Cell(request.param, "tiny", "tiny", configs=tiny_configs)
    with own_arguments():
        method = ReconCLI(args=cell.arguments(), run=False, save_config_callback=None).model
    batch = full_batch(
        objects=2,
        views=max(2, method.min_views),
        size=method.hparams.get("image_size", 64),
        photographs=method.photographs,
    )
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    if method.needs:
        trainer.fit(method, DataLoader([batch] * STEPS, batch_size=None))
    else:
        trainer.strategy.connect(method)
    yield Trained(method.eval(), before, trainer, batch)


def answer(recon: Reconstruction) -> list[Tensor]:
    """Every tensor of a reconstruction, those of subclasses too."""
    tensors = [value for value in vars(recon).values() if isinstance(value, Tensor)]
    if recon.mesh is not None:
        tensors += [recon.mesh.verts_padded(), recon.mesh.faces_padded()]
    if recon.camera is not None:
        tensors += [recon.camera.R, recon.camera.T, recon.camera.focal, recon.camera.center]
    return tensors


def test_class_lives_in_the_module_of_its_yaml(request, trained):
    stem = request.node.callspec.params["trained"].partition("-")[0]
    module = type(trained.method).__module__
    assert module == f"recon3d.methods.{SAME_CODE.get(stem, stem)}"


def test_declarations(trained):
    method = trained.method
    assert method.in_channels in (3, 4)
    assert method.needs <= {field.name for field in fields(ViewBatch)}
    assert 1 <= method.encoded_views <= method.min_views
    if method.paper is not None:
        assert method.paper.title and 1990 < method.paper.year < 2100 and method.paper.url.startswith("https://")
    if method.in_channels == 4:
        assert "masks" in method.needs or not method.needs


def test_answers_for_every_image_and_is_finite(trained):
    with torch.inference_mode():
        recon = trained.method.reconstruct(trained.batch)
    assert isinstance(recon, Reconstruction) and len(recon) == len(trained.batch)
    assert all(value.isfinite().all() for value in answer(recon) if value.is_floating_point())
    if recon.mesh is not None:
        assert int(recon.mesh.faces_packed().max()) < len(recon.mesh.verts_packed())
    if recon.voxels is not None:
        assert recon.voxels.dtype == torch.bool


def test_same_image_same_bits_in_eval_mode(trained):
    image = trained.batch.inputs(trained.method.in_channels)
    with torch.inference_mode():
        first, second = answer(trained.method(image)), answer(trained.method(image.clone()))
    assert first and all(map(torch.equal, first, second))


def test_losses_are_named_weighted_scalars(trained):
    method, batch = trained.method, trained.batch
    if not trained.before:
        pytest.skip("has no parameters")
    losses = method.losses(batch, method(batch.inputs(method.in_channels, method.encoded_views)))
    assert losses and losses.keys() <= method.loss_weights.keys()
    for value in losses.values():
        assert value.shape == () and value.isfinite() and value.requires_grad


def test_every_parameter_is_trained(trained):
    after = dict(trained.method.named_parameters())
    still = [name for name, value in after.items() if value.requires_grad and torch.equal(value, trained.before[name])]
    # Of the candidates for a camera, only those that win are trained.
    still = [name for name in still if not name.startswith("ensemble.candidates.")]
    assert still == []
    assert all(value.isfinite().all() for value in after.values())


def test_checkpoint_gives_the_same_method_back(trained, tmp_path):
    checkpoint = tmp_path / "some.ckpt"
    trained.trainer.save_checkpoint(checkpoint)
    loaded = load_method(checkpoint)
    assert type(loaded) is type(trained.method) and not loaded.training
    assert loaded.loss_weights == trained.method.loss_weights
    with torch.inference_mode():
        ours, theirs = (answer(method.reconstruct(trained.batch)) for method in (trained.method, loaded))
    assert ours and all(map(torch.equal, ours, theirs))


def refusal(method: ReconstructionMethod, batch: ViewBatch) -> str:
    with pytest.raises(ValueError) as caught:
        method.training_step(batch, 0)
    return str(caught.value)


def test_a_missing_field_is_named(trained):
    optional = {field.name for field in fields(ViewBatch) if field.default is None}
    for name in trained.method.needs & optional:
        message = refusal(trained.method, replace(trained.batch, **{name: None}))
        assert f"lacks ['{name}']" in message and type(trained.method).__name__ in message


def test_too_few_views_are_refused(trained, full_batch):
    views = trained.method.min_views
    if views == 1:
        pytest.skip("trains on single views")
    message = refusal(trained.method, full_batch(views=views - 1))
    assert f"{views} views" in message and f"gives {views - 1} views" in message
