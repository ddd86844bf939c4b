"""Heads on textured meshes: ranges, starts, sizes that the papers' codes have."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from recon3d.geometry.symmetric_sphere import symmetric_sphere, symmetrise
from recon3d.networks.texture import (
    CameraHead,
    FlowDecoder,
    ShapeHead,
    UpsamplingDecoder,
    VariationDecoder,
    upright_quaternions,
)


@pytest.fixture
def code():
    return torch.randn(4, 20, generator=torch.Generator().manual_seed(0))


def test_shapes_begin_as_the_template(code):
    torch.manual_seed(0)
    head = ShapeHead(20, 337, latent=30)
    offset = head(head.shape_code(code))
    assert offset.shape == (4, 337, 3)
    assert 0 < offset.abs().max() < 5e-3


def test_draws_in_training_and_answers_the_mean_in_eval_mode(code):
    head = ShapeHead(20, 5, latent=30)
    head.generator = torch.Generator().manual_seed(3)
    first, second = head.shape_code(code), head.shape_code(code)
    assert not torch.equal(first, second)
    head.generator.manual_seed(3)
    assert torch.equal(head.shape_code(code), first)
    head.eval()
    assert torch.equal(head.shape_code(code), head.mean(code))
    # The spread of the draws is that of the second head.
    head.train()
    draws = torch.stack([head.shape_code(code) for _ in range(4000)])
    assert torch.allclose(draws.std(dim=0), torch.exp(0.5 * head.log_variance(code)), rtol=0.15)


def test_without_latent_the_code_is_read(code):
    assert ShapeHead(20, 5).shape_code(code) is code


def test_cameras_are_poses_with_probabilities(code):
    torch.manual_seed(0)
    poses, probability = CameraHead(20, hypotheses=8)(code)
    assert poses.shape == (4, 8, 7) and probability.shape == (4, 8)
    assert torch.allclose(poses[..., 3:].norm(dim=-1), torch.ones(4, 8))
    assert (poses[..., 0] > 0).all()
    assert torch.allclose(probability.sum(dim=1), torch.ones(4))


def test_hypotheses_begin_upright_and_45_degrees_apart(code):
    torch.manual_seed(0)
    poses, _ = CameraHead(20, hypotheses=8).eval()(code)
    rotations = [Rotation.from_quat(q[[1, 2, 3, 0]]) for q in poses[0, :, 3:].detach().numpy()]
    for rotation, following in zip(rotations, rotations[1:] + rotations[:1], strict=True):
        # +z of the object is up in the image, whose v points down.
        assert rotation.apply([0, 0, 1]) == pytest.approx([0, -1, 0], abs=0.2)
        assert (rotation.inv() * following).magnitude() == pytest.approx(torch.pi / 4, abs=0.2)


def test_first_upright_view_is_of_the_side():
    rotation = Rotation.from_quat(upright_quaternions(4)[0].numpy()[[1, 2, 3, 0]])
    assert rotation.apply([1, 0, 0]) == pytest.approx([0, 0, -1], abs=1e-6)  # +x is nearest
    assert rotation.apply([0, 1, 0]) == pytest.approx([1, 0, 0], abs=1e-6)  # the tail is on the right


def test_flow_has_the_shape_and_range_of_image_coordinates(code):
    flow = FlowDecoder(20, size=16, width=16)(code)
    assert flow.shape == (4, 16, 32, 2)
    assert flow.abs().max() <= 1


def test_flow_begins_as_the_view_of_a_sphere_from_its_side(code):
    torch.manual_seed(0)
    decoder = FlowDecoder(20, size=32, width=16, spread=0.6).eval()
    flow = decoder(code)[0].detach()
    # The texel that the template's vertices of the +x side, of its back end (+y) and of its top look up.
    sphere = symmetric_sphere()
    corners = symmetrise(sphere.half, sphere.n_side)[sphere.faces].reshape(-1, 3)
    grid = sphere.uv.reshape(1, 1, -1, 2)
    seen = torch.nn.functional.grid_sample(
        flow.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False
    )
    u, v = seen[0, :, 0]
    kept = corners[:, 0] >= 0
    assert torch.allclose(u[kept], 0.6 * corners[kept, 1], atol=0.15)
    assert torch.allclose(v[kept], -0.6 * corners[kept, 2], atol=0.15)
    assert FlowDecoder(20, size=32, width=16, spread=0.0).start.abs().max() == 0


def test_flow_decoder_of_the_papers_has_their_size():
    # The 8192 x 8192 layer makes most of it.
    count = sum(value.numel() for value in FlowDecoder(200).parameters())
    assert 8192 * 8192 < count < 8192 * 8192 + 3_000_000


def test_variation_begins_at_exactly_1_and_stays_in_its_range(code):
    decoder = VariationDecoder(20, image_size=32, width=16, amplitude=0.5)
    assert torch.equal(decoder(code), torch.ones(4, 1, 32, 32))
    for value in decoder.decoder.last.parameters():
        value.data.normal_(0, 100)
    varied = decoder(code)
    assert varied.min() >= 0.5 and varied.max() <= 1.5 and varied.std() > 0.1


def test_only_the_last_layer_of_the_variation_has_a_gradient_at_first(code):
    decoder = VariationDecoder(20, image_size=16, width=16)
    (decoder(code) * torch.rand(4, 1, 16, 16)).sum().backward()
    assert decoder.decoder.last.weight.grad.abs().sum() > 0
    assert all(value.grad.abs().sum() == 0 for value in decoder.decoder.layers.parameters())


@pytest.mark.parametrize("size", [4, 12, 100])
def test_sizes_that_do_not_double_are_refused(size):
    with pytest.raises(ValueError, match=f"4 times a power of 2, got {size}"):
        UpsamplingDecoder(20, (4, 4), size, 16, 1)


def test_an_amplitude_that_may_blacken_the_image_is_refused():
    with pytest.raises(ValueError, match=r"amplitude in \(0, 1\), got 1"):
        VariationDecoder(20, 16, 16, amplitude=1.0)
