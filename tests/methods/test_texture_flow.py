"""Signs and frames: with the flow of a known view, the object is painted as the photograph shows it, on every path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer

from recon3d.geometry.cameras import project
from recon3d.geometry.symmetric_sphere import symmetrise
from recon3d.geometry.weak_perspective import cmr_to_object, object_camera, weak_perspective_camera
from recon3d.losses.texture import sample_image
from recon3d.methods.adaptive_texture import AdaptiveTextureUMR
from recon3d.methods.cmr import CMR
from recon3d.methods.loading import load_method
from recon3d.methods.part_assignment import assign_parts
from recon3d.networks.texture import upright_quaternions
from recon3d.renderers.hard import render_hard
from recon3d.structures import ViewBatch
from tests.conftest import TINY_NETWORKS

SIZE = 64
POSE = torch.cat([torch.tensor([0.7, 0.1, -0.05]), upright_quaternions(8)[1]])[None]  # between side and front
FLIPPED = POSE * torch.tensor([1.0, -1, -1, 1, 1, 1, 1])


@pytest.fixture(scope="module")
def scene():
    """A method, an image of smooth colours, and what the method would say of it if it knew the view."""
    torch.manual_seed(0)
    method = AdaptiveTextureUMR(**TINY_NETWORKS["adaptive_texture"] | {"texture_size": 64, "texels": 4, "parts": True})
    generator = torch.Generator().manual_seed(1)
    colors = torch.rand(1, 3, 5, 5, generator=generator)
    image = F.interpolate(colors, (SIZE, SIZE), mode="bicubic", align_corners=True).clamp(0, 1)
    rows, columns = 64, 128
    azimuth = torch.pi * ((2 * torch.arange(columns) + 1) / columns - 1)
    polar = torch.pi * (2 * torch.arange(rows) + 1) / (2 * rows)
    sphere = torch.stack(
        [
            polar.sin()[:, None] * azimuth.cos(),
            polar.sin()[:, None] * azimuth.sin(),
            polar.cos()[:, None].expand(rows, columns),
        ],
        dim=-1,
    )
    flow_map = -project(weak_perspective_camera(POSE), sphere.reshape(1, -1, 3))[..., :2].reshape(1, rows, columns, 2)
    texture = sample_image(image, flow_map, None, "plain")
    with torch.no_grad():
        recon = method(image.expand(2, -1, -1, -1))
    recon = replace(
        recon,
        verts=symmetrise(method.template, method.n_side)[None],
        poses=POSE[:, None],
        probability=torch.ones(1, 1),
        flow_map=flow_map,
        texels=method.at_texels(flow_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        texture=texture,
    )
    mask = (method.silhouettes(recon.verts, POSE[:, None])[:, 0] > 0.5).float()[:, None]
    return method, image, mask, recon


def error(painted, image, mask):
    return float(((painted - image).abs() * mask).sum() / (3 * mask.sum()))


def near_side(method, recon):
    """Where the textured side (x >= 0) is seen: the other side is painted with its mirror image."""
    shown = torch.zeros(1, 3, 64, 128)
    shown[..., 32:96] = 1
    both = method.paint(recon.verts, shown, POSE)
    corners = recon.verts[0][method.faces]
    atlas = (corners[..., 0].mean(dim=1) > 0).float()
    face = render_hard(
        recon.verts, method.faces, weak_perspective_camera(POSE), SIZE, atlas[:, None].expand(-1, 3), lit=False
    )
    return both[:, :1].round() * face.image[:, :1].round()


def test_soft_and_hard_renders_show_the_photograph(scene):
    method, image, mask, recon = scene
    inside = mask * near_side(method, recon)
    assert inside.sum() > 500
    painted = method.paint(recon.verts, recon.texture, POSE)
    assert error(painted, image, inside) < 0.03 < 0.1 < error(painted, image.flip(-1), inside)
    camera = object_camera(weak_perspective_camera(POSE))
    textures = method._textures(recon.texture)
    seen = render_hard(cmr_to_object(recon.verts), method.faces, camera, SIZE, lit=False, textures=textures)
    assert error(seen.image, image, inside) < 0.03 < 0.1 < error(seen.image, image.flip(-2), inside)


def test_alignment_is_best_where_faces_take_what_shows_them(scene):
    method, image, mask, recon = scene
    losses = method.texture_losses(recon, image, mask, POSE[:, None], torch.ones(1, 1))
    wrong = method.texture_losses(recon, image, mask, FLIPPED[:, None], torch.ones(1, 1))
    # Faces of the far side, which share the texture of their mirror images, cost something in any case.
    assert losses["align"] < 0.4 * wrong["align"]
    for u_or_v in (torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0])):
        turned = replace(recon, texels=recon.texels * u_or_v)
        assert (
            losses["align"] < 0.1 * method.texture_losses(turned, image, mask, POSE[:, None], torch.ones(1, 1))["align"]
        )


def test_parts_lie_where_their_vertices_are_seen(scene):
    method, _, mask, recon = scene
    template = recon.verts[0]
    method.part_losses.labels.copy_(torch.where(template[:, 2] > 0.4, 1, torch.where(template[:, 2] < -0.4, 4, 3)))
    v = ((2 * torch.arange(SIZE) + 1) / SIZE - 1)[:, None].expand(SIZE, SIZE)
    center, radius = POSE[0, 2], 0.7
    parts = torch.zeros(1, 5, SIZE, SIZE)
    parts[:, 1] = mask[:, 0] * (v < center - 0.4 * radius)  # +z is up, v down
    parts[:, 4] = mask[:, 0] * (v > center + 0.4 * radius)
    draws = torch.Generator().manual_seed(0)
    right = method.part_losses(method, recon, POSE, parts, mask, draws)
    upside_down = method.part_losses(method, recon, POSE, parts[:, [0, 4, 2, 3, 1]], mask, draws)
    assert right["part_points"] < 0.1 * upside_down["part_points"]
    assert right["part_probability"] < 0.3 * upside_down["part_probability"]
    # Without a belly there is still a head.
    method.part_losses.labels[method.part_losses.labels == 4] = 3
    assert 0 < method.part_losses(method, recon, POSE, parts, mask, draws)["part_points"] < torch.inf
    method.part_losses.labels.zero_()
    assert method.part_losses(method, recon, POSE, parts, mask, draws) == {}


def test_vertices_get_the_parts_that_their_texture_shows(scene, monkeypatch, caplog):
    method, image, mask, recon = scene
    upper = (torch.arange(SIZE)[:, None] < SIZE // 2 - 2).expand(SIZE, SIZE).float()
    parts = torch.stack([torch.zeros_like(upper), upper, torch.zeros_like(upper), 1 - upper, torch.zeros_like(upper)])
    batch = ViewBatch(image[:, None], mask[:, None], ("a",), ("x",), parts=parts[None, None])
    monkeypatch.setattr(type(method), "forward", lambda self, images: recon)
    labels = assign_parts(method, [batch, batch])
    z = symmetrise(method.template, method.n_side)[:, 2]
    assert (labels[z > 0.3] == 1).all() and (labels[z < -0.3] == 3).all()
    assert "by part" in caplog.text  # there is no belly


def test_methods_built_in_python_come_back_from_their_checkpoints(tmp_path):
    for built in (
        CMR(**TINY_NETWORKS["cmr"]),
        AdaptiveTextureUMR(**TINY_NETWORKS["adaptive_texture"] | {"perceptual_weights": tmp_path / "gone.pth"}),
    ):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
        trainer.strategy.connect(built)
        trainer.save_checkpoint(tmp_path / "some.ckpt")
        loaded = load_method(tmp_path / "some.ckpt")  # its networks for losses are not needed
        assert type(loaded) is type(built)
        assert all(torch.equal(loaded.state_dict()[name], value) for name, value in built.state_dict().items())


def test_rate_begins_again_with_the_second_stage():
    class Fixed:
        max_epochs, estimated_stepping_batches = 10, 1000

    method = AdaptiveTextureUMR(**TINY_NETWORKS["adaptive_texture"] | {"template_epochs": 4})
    method._trainer = Fixed()
    rates = [method._inverse(step) for step in (0, 399, 400, 900)]
    assert rates == pytest.approx([1, 1 / (1 + 5e-4 * 399), 1, 1 / (1 + 5e-4 * 500)])
