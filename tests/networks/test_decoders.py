import math

import numpy as np
import pytest
import torch

from recon3d.geometry.templates import icosphere
from recon3d.networks.decoders import OctantSphereDecoder, PointDecoder, VertexColorDecoder, VolumeDecoder


def with_outputs(offset: torch.Tensor, center: torch.Tensor) -> OctantSphereDecoder:
    """A decoder whose last layers give these numbers for any code."""
    decoder = OctantSphereDecoder(code=4, hidden=(4, 4)).double()
    with torch.no_grad():
        for layer, value in ((decoder.offset, offset), (decoder.center, center)):
            layer.weight.zero_()
            layer.bias.copy_(value.flatten())
    return decoder


def some_outputs(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        scale * torch.randn(642, 3, generator=generator).double(),
        scale * torch.randn(3, generator=generator).double(),
    )


def test_layers_of_the_papers():
    decoder = OctantSphereDecoder()
    by_hand = sum(a * b + b for a, b in ((512, 1024), (1024, 2048), (2048, 3), (2048, 642 * 3)))
    assert sum(value.numel() for value in decoder.parameters()) == by_hand
    assert decoder.faces.shape == (1280, 3)
    assert decoder(torch.rand(2, 512)).shape == (2, 642, 3)


def test_zero_outputs_give_the_sphere_of_radius_a_quarter():
    verts = with_outputs(torch.zeros(642, 3), torch.zeros(3))(torch.rand(1, 4).double())
    torch.testing.assert_close(verts[0].float(), icosphere(3, 0.25)[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_vertices_by_the_formula_of_the_paper(scale):
    offset, center = some_outputs(scale)
    verts = with_outputs(offset, center)(torch.rand(2, 4).double())
    base = 0.5 * icosphere(3)[0].double().numpy()
    c = np.tanh(0.1 * center.numpy())
    expected = np.empty_like(base)
    for index in np.ndindex(base.shape):  # one coordinate at a time, by cases
        ci, b = c[index[1]], abs(base[index])
        if b == 0:
            expected[index] = ci / 2
            continue
        s = 1 / (1 + (1 - b) / b * np.exp(-offset.numpy()[index]))
        expected[index] = (ci + s * (1 - ci)) / 2 if base[index] > 0 else (ci - s * (1 + ci)) / 2
    np.testing.assert_allclose(verts[0].detach(), expected, atol=1e-6)
    assert torch.equal(verts[0], verts[1])


def test_every_vertex_stays_in_its_octant_about_the_centre_and_inside_the_cube():
    offset, center = some_outputs(8.0)
    verts = with_outputs(offset, center)(torch.rand(1, 4).double())[0].detach()
    template = icosphere(3)[0]
    middle = 0.5 * torch.tanh(0.1 * center)
    assert bool(((verts - middle).sign() == template.sign())[template != 0].all())
    assert bool((verts.abs() < 0.5).all())
    assert float(verts.max()) > 0.49 and float(verts.min()) < -0.49  # the limits are reached


def test_coordinates_that_are_zero_in_the_template_are_frozen_and_harmless():
    offset, center = some_outputs(1.0)
    decoder = with_outputs(offset, center)
    verts = decoder(torch.rand(1, 4).double())
    frozen = icosphere(3)[0] == 0
    assert int(frozen.sum()) == 3 * 32
    torch.testing.assert_close(
        verts[0][frozen], (0.5 * torch.tanh(0.1 * center)).expand(642, 3)[frozen], rtol=0, atol=1e-12
    )
    weights = torch.randn(642, 3, generator=torch.Generator().manual_seed(1)).double()
    (verts[0] * weights).sum().backward()
    gradient = decoder.offset.bias.grad.reshape(642, 3)
    assert gradient.isfinite().all() and bool((gradient[frozen] == 0).all()) and bool((gradient[~frozen] != 0).all())
    assert bool((decoder.center.bias.grad != 0).all())
    assert all(value.grad.isfinite().all() for value in decoder.parameters())


def test_gradient_to_the_outputs():
    offset, center = some_outputs(0.5)
    decoder = with_outputs(offset, center)
    code = torch.rand(1, 4).double()
    direction = torch.randn(642, 3, generator=torch.Generator().manual_seed(2)).double()

    def moved(step: float) -> torch.Tensor:
        return with_outputs(offset + step * direction, center + step * direction[0])(code).detach().sum()

    decoder(code).sum().backward()
    analytic = (decoder.offset.bias.grad.reshape(642, 3) * direction).sum() + (
        decoder.center.bias.grad * direction[0]
    ).sum()
    numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


def test_colours_are_colours():
    decoder = VertexColorDecoder(code=4, n_verts=6, hidden=(8, 8))
    colors = decoder(100 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert colors.shape == (3, 6, 3) and bool(((colors >= 0) & (colors <= 1)).all())
    default = VertexColorDecoder(512, 642)
    by_hand = sum(a * b + b for a, b in ((512, 1024), (1024, 2048), (2048, 642 * 3)))
    assert sum(value.numel() for value in default.parameters()) == by_hand


def test_the_volume_generator_of_the_paper():
    """From 3^3 to 6^3, 15^3 and 32^3 cells."""
    decoder = VolumeDecoder()
    by_hand = 512 * 27 * 512 + 27 * 512
    by_hand += sum(a * b * k**3 + b for a, b, k in ((512, 256, 4), (256, 96, 5), (96, 1, 6)))
    assert sum(value.numel() for value in decoder.parameters()) == by_hand
    sides = []
    small = VolumeDecoder(code=4, channels=(3, 2, 2))
    for layer in small:
        if isinstance(layer, torch.nn.ConvTranspose3d):
            layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[2:]))
    occupancy = small(10 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert sides == [(6, 6, 6), (15, 15, 15), (32, 32, 32)]
    assert occupancy.shape == (5, 32, 32, 32) and bool(((occupancy > 0) & (occupancy < 1)).all())


def test_every_weight_of_the_volume_generator_is_heard_in_the_grid():
    torch.manual_seed(0)
    decoder = VolumeDecoder(code=6, channels=(8, 4, 4))
    code = torch.rand(4, 6, requires_grad=True)
    decoder(code).square().sum().backward()
    assert all(value.grad.isfinite().all() and value.grad.abs().sum() > 0 for value in decoder.parameters())
    assert bool((code.grad.abs().sum(dim=1) > 0).all())


def test_points_are_half_the_tanh_of_one_linear_layer():
    torch.manual_seed(0)
    decoder = PointDecoder(code=4, n_points=5).double()
    with torch.no_grad():
        decoder.layer.bias.normal_()
    code = 3 * torch.randn(2, 4).double()
    points = decoder(code).detach().numpy()
    weight, bias = decoder.layer.weight.detach().numpy(), decoder.layer.bias.detach().numpy()
    assert points.shape == (2, 5, 3)
    for b, j, axis in np.ndindex(points.shape):
        row = 3 * j + axis
        expected = math.tanh(sum(w * c for w, c in zip(weight[row], code[b].tolist(), strict=True)) + bias[row]) / 2
        assert points[b, j, axis] == pytest.approx(expected, abs=1e-12)
    assert np.abs(decoder(1e3 * code).detach().numpy()).max() <= 0.5


def test_the_point_decoder_of_the_papers():
    torch.manual_seed(0)
    decoder = PointDecoder()
    assert [tuple(value.shape) for value in decoder.parameters()] == [(6000, 1024), (6000,)]
    weight = decoder.layer.weight.detach()
    # A normal of deviation 0.025 cut at two deviations has 0.8796 of it.
    assert float(weight.std()) == pytest.approx(0.8796 * 0.025, rel=5e-3) and float(weight.abs().max()) <= 0.05
    assert not decoder.layer.bias.any()
    assert decoder(torch.rand(3, 1024)).shape == (3, 2000, 3)
