import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from recon3d.methods.neural_renderer import NeuralRendererMesh
from recon3d.renderers.neural import render_neural_silhouette

SIZE = 32


def small(**changes) -> NeuralRendererMesh:
    torch.manual_seed(0)
    return NeuralRendererMesh(**{"image_size": SIZE, "width": 4, "hidden": 16, "code": 8} | changes)


def answers(method, batch):
    return method(batch.inputs(method.in_channels, method.encoded_views))


def test_defaults_are_the_papers_network():
    method = NeuralRendererMesh()
    encoder = sum(25 * a * b + b for a, b in ((4, 64), (64, 128), (128, 256)))  # no batch norm
    encoder += sum(a * b + b for a, b in ((16384, 1024), (1024, 1024), (1024, 512)))
    decoder = sum(a * b + b for a, b in ((512, 1024), (1024, 2048), (2048, 3), (2048, 1926)))
    assert sum(value.numel() for value in method.parameters()) == encoder + decoder


def test_initial_weights_have_the_variance_of_the_code():
    for name, value in NeuralRendererMesh().named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        elif value.numel() > 1e4:
            assert float(value.detach().std()) == pytest.approx(value[0].numel() ** -0.5, rel=0.02), name


def test_silhouette_loss_is_the_mean_over_both_meshes_in_both_cameras(full_batch):
    method, batch = small(), full_batch(objects=2, views=3, size=SIZE)
    recon = answers(method, batch)
    assert recon.verts.shape == (4, 642, 3)
    terms = []
    for item in range(2):
        for mesh in range(2):
            for view in range(2):
                render = render_neural_silhouette(
                    recon.verts[2 * item + mesh], recon.mesh.faces_list()[0], batch.cameras[item, view], SIZE, 2,
                    backend="reference",
                )  # fmt: skip
                mask = batch.masks[item, view, 0]
                overlap = (render * mask).sum()
                terms.append(1 - overlap / (render.sum() + mask.sum() - overlap))
    assert torch.stack(terms).std() > 1e-3
    torch.testing.assert_close(method.losses(batch, recon)["silhouette"], torch.stack(terms).mean())


def test_smoothness_is_off_in_table_1_and_a_mean_over_all_meshes_where_it_is_on(full_batch):
    batch = full_batch(size=SIZE)
    assert small().losses(batch, answers(small(), batch)).keys() == {"silhouette"}
    method = small(smoothness_weight=1e-3)
    recon = answers(method, batch)
    expected = sum(method.smoothness_loss(verts[None]).sum() for verts in recon.verts) / 4
    torch.testing.assert_close(method.losses(batch, recon)["smoothness"], expected)
    assert method.loss_weights == {"silhouette": 1.0, "smoothness": 1e-3}


def test_step_schedule_is_the_codes():
    method = small(lr=1e-3, schedule="step")
    trainer = Trainer(
        accelerator="cpu", max_steps=20, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    rates = []

    def training_step(batch, batch_idx):
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        return method(batch).verts.square().sum()

    method.training_step = training_step
    trainer.fit(method, DataLoader([torch.rand(1, 4, SIZE, SIZE)] * 20, batch_size=None))
    assert rates == pytest.approx([1e-3] * 19 + [1e-4])  # x 0.1 from 95 % of the 20 steps on


@pytest.mark.parametrize("gradient", ["code", "paper"])
def test_learns_one_object(full_batch, gradient):
    batch = full_batch(objects=1, size=SIZE)
    method = small(gradient=gradient, width=8, hidden=64, code=32)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        loss = method.losses(batch, answers(method, batch))["silhouette"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 0.4 and losses[-1] < 0.2
