import itertools

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from recon3d.geometry.templates import icosphere
from recon3d.losses.silhouette import silhouette_iou_loss
from recon3d.methods.base import ReconstructionMethod
from recon3d.methods.softras import SoftRasMesh
from recon3d.renderers.soft import render_soft_rgb, render_soft_silhouette
from recon3d.structures import ViewBatch

SIZE = 32
SMALL = {"image_size": SIZE, "width": 4, "hidden": 16, "code": 8}


def small(**changes) -> SoftRasMesh:
    torch.manual_seed(0)
    return SoftRasMesh(**SMALL | changes)


def answers(method: SoftRasMesh, batch: ViewBatch):
    return method(batch.inputs(method.in_channels, method.encoded_views))


def trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


def test_defaults_are_the_papers_network():
    method = SoftRasMesh()
    encoder = sum(25 * a * b + b + 2 * b for a, b in ((4, 64), (64, 128), (128, 256)))
    encoder += sum(a * b + b for a, b in ((16384, 1024), (1024, 1024), (1024, 512)))
    decoder = sum(a * b + b for a, b in ((512, 1024), (1024, 2048), (2048, 3), (2048, 1926)))
    assert sum(value.numel() for value in method.parameters()) == encoder + decoder


def test_silhouette_loss_is_the_mean_over_both_meshes_in_both_cameras(full_batch):
    # Three views: the third is no part of training. Sigma is large, so that every render matters.
    method, batch = small(sigma=1e-3), full_batch(objects=2, views=3, size=SIZE)
    recon = answers(method, batch)
    assert recon.verts.shape == (4, 642, 3)
    terms = []
    for item in range(2):
        for mesh in range(2):
            for view in range(2):
                render = render_soft_silhouette(
                    recon.verts[2 * item + mesh], recon.mesh.faces_list()[0], batch.cameras[item, view], SIZE, 1e-3,
                    backend="reference",
                )  # fmt: skip
                terms.append(silhouette_iou_loss(render, batch.masks[item, view, 0]))
    assert torch.stack(terms).std() > 1e-3
    torch.testing.assert_close(method.losses(batch, recon)["iou"], torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def test_priors_are_means_over_all_meshes(full_batch):
    method, batch = small(), full_batch(size=SIZE)
    recon = answers(method, batch)
    losses = method.losses(batch, recon)
    assert losses.keys() == {"iou", "laplacian", "flatten"}
    for name, prior in (("laplacian", method.laplacian_loss), ("flatten", method.flatten_loss)):
        torch.testing.assert_close(losses[name], sum(prior(verts[None]).sum() for verts in recon.verts) / 4)


def test_total_is_weighed_as_in_equation_6(full_batch):
    batch = full_batch(size=SIZE)
    method = small(iou_weight=2.0, laplacian_weight=0.3, flatten_weight=0.07)
    losses = method.losses(batch, answers(method, batch))
    logged = {}
    method.log_dict = lambda values, **kwargs: logged.update(values)
    total = method.training_step(batch, 0)
    torch.testing.assert_close(total, 2 * losses["iou"] + 0.3 * losses["laplacian"] + 0.07 * losses["flatten"])
    assert logged.keys() == {"train/iou", "train/laplacian", "train/flatten", "train/loss"}
    torch.testing.assert_close(logged["train/laplacian"], losses["laplacian"])  # unweighted


@pytest.mark.parametrize("name", ["laplacian", "flatten"])
def test_a_weight_of_zero_drops_the_prior(full_batch, name):
    method, batch = small(**{f"{name}_weight": 0.0}), full_batch(size=SIZE)
    assert method.losses(batch, answers(method, batch)).keys() == {"iou", "laplacian", "flatten"} - {name}


def test_a_loss_without_a_weight_is_an_error(full_batch):
    method = small()
    method.losses = lambda batch, recon: {"iou": recon.verts.sum(), "other": recon.verts.sum()}
    with pytest.raises(KeyError, match="other"):
        method.training_step(full_batch(size=SIZE), 0)


def test_colour_compares_each_mesh_with_its_own_view(full_batch):
    method, batch = small(color=True, sigma=1e-3, gamma=1e-2), full_batch(size=SIZE)
    recon = answers(method, batch)
    squares = []
    for item in range(2):
        for view in range(2):
            mesh = 2 * item + view
            image = render_soft_rgb(
                recon.verts[mesh], recon.mesh.faces_list()[0], batch.cameras[item, view], SIZE, 1e-3, 1e-2,
                backend="reference", vert_colors=recon.vert_colors[mesh],
            )  # fmt: skip
            squares.append((image - batch.images[item, view] * batch.masks[item, view]).square().mean())
    loss = method.losses(batch, recon)["color"]
    torch.testing.assert_close(loss, torch.stack(squares).mean(), rtol=1e-3, atol=1e-6)
    loss.backward()
    gradients = [value.grad for value in method.color_decoder.parameters()]
    assert all(value.isfinite().all() and value.abs().sum() > 0 for value in gradients)
    assert recon.mesh.textures.verts_features_padded().shape == (4, 642, 3)


def test_geometry_only_has_no_colours(full_batch):
    recon = answers(small(), full_batch(size=SIZE))
    assert recon.vert_colors is None and recon.mesh.textures is None


def test_sigma_schedule():
    """The code's 1e-4, then 3e-5 from 60 % on; the paper's constant 3e-5."""
    dropping, constant = small(sigma_schedule="drop"), small()
    assert dropping.current_sigma() == 3e-5  # not in training
    seen = []
    for share in (0.0, 0.59, 0.6, 1.0):
        for method in (dropping, constant):
            method._trainer = object()
            method.progress = lambda share=share: share
            seen.append(method.current_sigma())
    assert seen == pytest.approx([1e-4, 3e-5, 1e-4, 3e-5, 3e-5, 3e-5, 3e-5, 3e-5])


class Probe(ReconstructionMethod):
    """Notes learning rate and progress at each step."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[float, float]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.optimizers().param_groups[0]["lr"], self.progress()))
        return self.weight.sum()


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_learning_rate_schedules(schedule):
    probe = Probe(lr=1e-2, schedule=schedule)
    fitting = trainer(max_epochs=2)
    fitting.fit(probe, DataLoader([torch.zeros(1)] * 50, batch_size=None))
    rates, progress = zip(*probe.seen, strict=True)
    assert progress == pytest.approx([step / 100 for step in range(100)])
    (optimizer,) = fitting.optimizers
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["betas"] == (0.9, 0.999)
    if schedule == "constant":
        assert set(rates) == {1e-2}
    elif schedule == "step":
        assert rates == pytest.approx([1e-2] * 60 + [3e-3] * 40)
    else:
        assert max(rates) == pytest.approx(1e-2) and rates.index(max(rates)) <= 3
        assert all(a >= b for a, b in itertools.pairwise(rates[3:])) and rates[-1] < 1e-4


def test_one_object_is_learned(full_batch):
    """30 steps on one ellipsoid halve the silhouette loss of the initial sphere, near enough."""
    method, batch = small(sigma=1e-4, lr=3e-3, width=8, hidden=32, code=16), full_batch(objects=1, size=SIZE)
    with torch.no_grad():
        recon = answers(method, batch)
        first = method.losses(batch, recon)["iou"]
    assert (recon.verts[0] - icosphere(3, 0.25)[0]).norm(dim=1).max() < 0.1  # starts near the sphere
    trainer(max_epochs=1).fit(method, DataLoader([batch] * 30, batch_size=None))
    with torch.no_grad():
        last = method.losses(batch, answers(method, batch))["iou"]
    assert last < 0.6 * first
