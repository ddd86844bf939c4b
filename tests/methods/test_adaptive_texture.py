"""What the adaptive texture trains with what: players kept apart, stages, template, parts, and the sampled image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from scipy.spatial.transform import Rotation
from torch.utils.data import DataLoader

from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import weak_perspective_camera
from recon3d.methods.adaptive_texture import AdaptiveTextureUMR, turn_about_vertical
from tests.conftest import TINY_NETWORKS

TINY = TINY_NETWORKS["adaptive_texture"] | {"schedule": "constant"}


@pytest.fixture
def batch(full_batch):
    return full_batch(objects=3, views=1, size=64, photographs=True)


def make(seed=0, **changes):
    torch.manual_seed(seed)
    method = AdaptiveTextureUMR(**TINY | changes)
    if method.frechet is not None:
        method.frechet.fit([torch.randn(20, 64, generator=torch.Generator().manual_seed(1))])
    return method


def losses_of(method, batch):
    return method.losses(batch, method(batch.inputs(3)))


def trained_by(loss, method):
    """Names of the parts of the network that a loss has a gradient for."""
    method.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, value in method.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }


def test_each_loss_trains_what_it_should(batch):
    method = make(parts=True)
    # Away from the start, where the last layer of D_var is 0 and hides the others.
    for value in method.variation.decoder.last.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    method.part_losses.labels[:] = torch.arange(642) % 5
    losses = losses_of(method, batch)
    generator = {"encoder", "shape", "flow", "variation"}
    trained = {name: trained_by(value, method) for name, value in losses.items()}
    assert trained["mask"] == {"encoder", "shape", "cameras"}
    for name in ("pixel", "perceptual"):
        assert trained[name] == {"encoder", "flow", "variation"}
    # The label of the alignment does not reach D_var (claim T8): the sentence of the paper holds in no direct sense.
    assert trained["align"] == {"encoder", "flow"}
    assert trained["barrier"] == {"encoder", "flow"}
    assert trained["variation"] == {"encoder", "variation"}
    assert trained["gan"] == trained["frechet"] == generator
    assert trained["discriminator"] == trained["gradient_penalty"] == {"discriminator"}
    assert trained["part_points"] == trained["entropy"] == {"encoder", "cameras"}
    assert trained["part_probability"] == {"encoder", "shape"}


def test_of_umr_the_gan_trains_the_shape_alone(batch):
    method = make(gan_texture=False, variation=0.0, mode="plain", frechet_weight=0.0)
    assert trained_by(losses_of(method, batch)["gan"], method) == {"encoder", "shape"}
    assert method.frechet is None and method.variation is None


def test_first_texture_is_the_plain_one(batch):
    method = make().eval()
    with torch.no_grad():
        recon = method(batch.inputs(3))
    modulated, plain = (textures.maps_padded() for textures in (recon.mesh.textures, recon.plain_textures))
    assert torch.equal(modulated, plain)
    torch.nn.init.normal_(method.variation.decoder.last.bias, 0, 1)
    with torch.no_grad():
        recon = method(batch.inputs(3))
    assert not torch.allclose(recon.mesh.textures.maps_padded(), recon.plain_textures.maps_padded(), atol=0.01)


def test_straight_through_shows_the_plain_texture_and_still_trains_the_variation(batch):
    method = make(mode="straight_through")
    torch.nn.init.normal_(method.variation.decoder.last.weight, 0, 1)
    recon = method(batch.inputs(3))
    assert torch.allclose(recon.texture, recon.plain_textures.maps_padded().permute(0, 3, 1, 2), atol=1e-6)
    assert "variation" in trained_by(method.losses(batch, recon)["pixel"], method)


def test_answer_is_of_the_most_probable_camera_and_sees_the_same_in_both_frames(batch):
    method = make().eval()
    method.alignment.rotation.copy_(torch.tensor(Rotation.random(random_state=0).as_matrix()))
    method.alignment.scale.fill_(1.7)
    method.alignment.shift.copy_(torch.tensor([0.1, -0.2, 0.3]))
    with torch.no_grad():
        recon = method(batch.inputs(3))
    best = recon.poses[torch.arange(3), recon.probability.argmax(dim=1)]
    inside = project(weak_perspective_camera(best), recon.verts)
    outside = project(recon.camera, recon.mesh.verts_padded())
    assert torch.allclose(inside[..., :2], outside[..., :2], atol=1e-5)


def test_random_views_turn_about_the_vertical():
    quaternion = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    poses = torch.cat([torch.randn(5, 3), quaternion], dim=1)
    angle = torch.linspace(0, 6, 5)
    turned = turn_about_vertical(poses, angle)
    assert torch.equal(turned[:, :3], poses[:, :3])
    for before, after, radians in zip(poses[:, 3:], turned[:, 3:], angle.tolist(), strict=True):
        expected = Rotation.from_rotvec([0, radians, 0]) * Rotation.from_quat(before[[1, 2, 3, 0]].numpy())
        assert (expected.inv() * Rotation.from_quat(after[[1, 2, 3, 0]].numpy())).magnitude() < 1e-3


def fit(method, batch, epochs):
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(method, DataLoader([batch] * 2, batch_size=None))
    return trainer


def test_a_template_that_moves_takes_no_shape_with_it(batch):
    method = make()
    torch.nn.init.normal_(method.shape.offset.bias, 0, 0.1)
    method.eval()
    with torch.no_grad():
        before = method(batch.inputs(3)).verts
        start = method.template.clone()
        method.update_template([batch, batch])
        after = method(batch.inputs(3))
    assert torch.allclose(after.verts, before, atol=1e-5)
    assert after.offset.mean(dim=0).abs().max() < 1e-5
    assert (method.template - start).norm(dim=1).mean() > 0.01


def test_two_stages(batch):
    seen = []

    class Watched(AdaptiveTextureUMR):
        def losses(self, batch, recon):
            losses = super().losses(batch, recon)
            plain = torch.equal(recon.texture, recon.plain_textures.maps_padded().permute(0, 3, 1, 2))
            seen.append((self.current_epoch, set(losses), plain))
            return losses

    torch.manual_seed(0)
    method = Watched(**TINY | {"template_epochs": 2, "template_every": 1, "lr": 1e-2})
    sphere = method.template.clone()
    fit(method, batch, 4)
    assert not torch.equal(method.template, sphere)
    for epoch, names, plain in seen:
        assert ("frechet" in names) == (epoch >= 2)
        assert ("orientation" in names) == (epoch == 0)
        if epoch < 2:
            assert plain
    assert not seen[-1][2]  # D_var has begun to change the image


def test_parts_are_assigned_once_and_become_losses(batch):
    # One part above the other on the image, and a flow that takes the texture from where it is seen.
    method = make(parts=True, template_epochs=1, lr=1e-3)
    parts = torch.zeros_like(batch.parts)
    parts[:, :, 1, :32], parts[:, :, 3, 32:] = 1.0, 1.0
    fit(method, replace(batch, parts=parts), 2)
    assert set(method.part_losses.labels.tolist()) <= {0, 1, 3}
    assert method.part_losses.labels.any()


def test_template_and_parts_of_another_training(batch, tmp_path):
    method = make(template_epochs=1, lr=1e-2)
    trainer = fit(method, batch, 1)
    method.part_losses.labels.fill_(3)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    second = make(template=tmp_path / "first.ckpt")
    assert torch.equal(second.template, method.template)
    assert (second.part_losses.labels == 3).all()
    assert second.hparams["template"] is None  # its own checkpoints have it
    (tmp_path / "other.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint"):
        make(template=tmp_path / "other.ckpt")


def test_a_resumed_training_goes_on_to_the_bit(batch, tmp_path):
    whole, first = make(), make()
    fit(whole, batch, 2)
    fit(first, batch, 1).save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(0)  # as seed_everything does in a new process
    second = AdaptiveTextureUMR(**TINY)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(second, DataLoader([batch] * 2, batch_size=None), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert trainer.global_step == 4
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_a_mode_without_its_decoder_is_refused():
    with pytest.raises(ValueError, match="mode modulated needs a variation above 0"):
        AdaptiveTextureUMR(**TINY | {"variation": 0.0})


def test_the_discriminator_sees_other_views_than_the_photographs(batch, monkeypatch):
    method = make(texture_cameras="drawn")
    painted = []
    paint = method.paint
    monkeypatch.setattr(
        method, "paint", lambda verts, texture, poses: painted.append(poses) or paint(verts, texture, poses)
    )
    losses_of(method, batch)
    shown, unseen = painted
    assert torch.equal(shown[:, :3], unseen[:, :3])  # scale and place stay
    between = [
        Rotation.from_quat(after[[1, 2, 3, 0]].numpy()) * Rotation.from_quat(before[[1, 2, 3, 0]].numpy()).inv()
        for before, after in zip(shown[:, 3:], unseen[:, 3:], strict=True)
    ]
    for turn in between:  # about the image's vertical, by an angle of its own
        assert abs(turn.as_rotvec()[[0, 2]]).max() < 1e-3
    assert len({round(turn.magnitude(), 3) for turn in between}) == 3
