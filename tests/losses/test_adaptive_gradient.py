"""What the adaptive gradient of Lin and Tian 2021 (section 3.2) does and what it does not.

T1 to T4 and T8 are claims of the paper, or of the maths under it, that hold. T5 to T7 are where a claim ends: each test
states what really happens.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d.losses.texture import SampleMode, alignment_loss, sample_image


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def interior(points: int, size: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, 1, N, 2) coordinates whose four pixels lie inside the image."""
    return (2 * random(1, 1, points, 2, seed=seed, dtype=dtype) - 1) * (1 - 2 / size)


def gradients(
    image: Tensor, flow: Tensor, variation: Tensor | None, target: Tensor | float, mode: SampleMode
) -> Tensor:
    """Of the squared error of eq. 19, with respect to the coordinates."""
    flow = flow.clone().requires_grad_()
    (sample_image(image, flow, variation, mode) - target).square().sum().backward()
    assert flow.grad is not None
    return flow.grad


def aligned_corners(image: Tensor, flow: Tensor, target: Tensor) -> Tensor:
    flow = flow.clone().requires_grad_()
    texels = F.grid_sample(image, flow, padding_mode="border", align_corners=True)
    (texels - target).square().sum().backward()
    assert flow.grad is not None
    return flow.grad


# T1, eq. 26: "if U_ij are the same and the coordinate falls into the center of a grid", the gradient is 0. The second
# condition is not needed.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_t1_a_constant_image_gives_coordinates_no_gradient_anywhere(channels, dtype):
    image = random(1, channels, 1, 1, seed=2, dtype=dtype).expand(1, channels, 32, 32)
    flow = interior(25_000, 32, dtype=dtype)
    target = random(1, channels, 1, 25_000, seed=3, dtype=dtype)
    assert not gradients(image, flow, None, target, "plain").any()
    assert not aligned_corners(image, flow, target).any()


# T2, eq. 27 to 30: a variation that is not constant gives a gradient.


def test_t2_a_variation_gives_every_point_a_gradient():
    image = torch.full((1, 1, 32, 32), 0.4, dtype=torch.float64)
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gradient = gradients(image, interior(2000, 32), 1 + 0.1 * noise, 0.9, "modulated")
    assert (gradient != 0).all() and gradient.norm(dim=-1).min() > 1e-4


def test_t2_the_variation_has_its_gradient_on_the_neighbours_alone():
    image = random(1, 3, 8, 8)
    variation = torch.ones(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    # Pixel coordinates (2.25, 5.5): column 2.25 is u = (2 * 2.25 + 1) / 8 - 1.
    flow = torch.tensor([[[[(2 * 2.25 + 1) / 8 - 1, (2 * 5.5 + 1) / 8 - 1]]]], dtype=torch.float64)
    (sample_image(image, flow, variation) - 2).square().sum().backward()
    assert variation.grad is not None
    assert sorted(map(tuple, variation.grad[0, 0].nonzero().tolist())) == [(5, 2), (5, 3), (6, 2), (6, 3)]


# T3: a variation of 1 changes nothing, and has a gradient itself.


def test_t3_a_variation_of_one_is_the_plain_sampler():
    image, flow, target = random(2, 3, 16, 16), interior(500, 16).expand(2, 1, 500, 2), random(2, 3, 1, 500, seed=5)
    variation = torch.ones(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.equal(sample_image(image, flow, variation), sample_image(image, flow, None, "plain"))
    plain = gradients(image, flow, None, target, "plain")
    assert torch.equal(gradients(image, flow, variation, target, "modulated"), plain)
    # dL/dI_var = sum_c I_r dL/dI', with I' = I_r * I_var.
    product = image.clone().requires_grad_()
    (sample_image(product, flow, None, "plain") - target).square().sum().backward()
    assert product.grad is not None and variation.grad is not None
    torch.testing.assert_close(variation.grad, (image * product.grad).sum(dim=1, keepdim=True), rtol=1e-12, atol=1e-12)
    assert variation.grad.abs().max() > 0.1


# T4, eq. 18, 24 and 25: the gradient is that of bilinear interpolation, of four pixels.


def test_t4_the_gradient_is_that_of_bilinear_interpolation():
    size = 16
    image, target = random(1, 1, size, size), 0.3
    flow = interior(1, size, seed=6)
    u = image[0, 0]
    x, y = ((flow[0, 0, 0] + 1) * size / 2 - 0.5).tolist()
    column, row = math.floor(x), math.floor(y)
    a, b = x - column, y - row
    top, bottom = u[row, column : column + 2], u[row + 1, column : column + 2]
    value = (1 - b) * ((1 - a) * top[0] + a * top[1]) + b * ((1 - a) * bottom[0] + a * bottom[1])
    by_x = (1 - b) * (top[1] - top[0]) + b * (bottom[1] - bottom[0])
    by_y = (1 - a) * (bottom[0] - top[0]) + a * (bottom[1] - top[1])
    expected = 2 * (value - target) * torch.stack([by_x, by_y]) * size / 2  # half an image is `size / 2` pixels
    found = gradients(image, flow, None, target, "plain")[0, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_t4_a_texel_reads_four_pixels_whose_weights_sum_to_one():
    image = random(1, 1, 16, 16).requires_grad_()
    sample_image(image, interior(1, 16, seed=6), None, "plain").sum().backward()
    assert image.grad is not None
    assert (image.grad != 0).sum() == 4 and image.grad.sum().item() == pytest.approx(1, abs=1e-12)


# T5: where no variation, or none of this kind, can help.


def test_t5_a_constant_variation_gives_no_gradient():
    image = torch.full((1, 3, 16, 16), 0.4, dtype=torch.float64)
    variation = torch.full((1, 1, 16, 16), 1.7, dtype=torch.float64)
    assert not gradients(image, interior(500, 16), variation, 0.9, "modulated").any()


def test_t5_a_black_image_gives_no_gradient_at_all():
    variation = (1 + 0.1 * random(1, 1, 16, 16)).requires_grad_()
    image = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    assert not gradients(image, interior(500, 16), variation, 0.9, "modulated").any()
    assert variation.grad is not None and not variation.grad.any()


def test_t5_a_texel_of_the_right_colour_does_not_move():
    image, flow = torch.full((1, 3, 16, 16), 0.4, dtype=torch.float64), interior(500, 16)
    variation = 1 + 0.1 * random(1, 1, 16, 16)
    target = sample_image(image, flow, variation).detach()
    assert not gradients(image, flow, variation, target, "modulated").any()


# T6: the padding. A fade to 0 would be an edge that no picture has.


def test_t6_the_border_is_repeated_and_no_edge():
    image = torch.full((1, 1, 32, 32), 0.4, dtype=torch.float64)
    flow = torch.tensor([[[[0.985, 0.2], [-0.3, -0.99]]]], dtype=torch.float64)
    assert not gradients(image, flow, None, 0.9, "plain").any()
    faded = flow.clone().requires_grad_()
    (F.grid_sample(image, faded, padding_mode="zeros", align_corners=False) - 0.9).square().sum().backward()
    assert faded.grad is not None and faded.grad[0, 0, 0, 0] > 1 and faded.grad[0, 0, 1, 1] < -1


# T7, Figs. 3 and 4: points near -0.5 on a constant 0.2, whose colour, 0.9, begins at +0.5. The paper's point finds it.
# Ours do not, with any form of the variation: the product is repainted, or the points wander around their start, in a
# direction that rounding decides (float32 and float64 differ). The first lies midway between two pixels, whose
# variations grow alike, and never moves at all.

STARTS = torch.tensor([-0.5, -0.484375, -0.52, -0.53], dtype=torch.float64)


def descend(mode: SampleMode, amplitude: float | None) -> tuple[Tensor, Tensor]:
    """Losses, and how far each point went to the right, after 400 steps of Adam on the points and variations.

    Variations, one for each point, are within `amplitude` of 1, None: anything.
    """
    image = torch.full((4, 1, 32, 32), 0.2, dtype=torch.float64)
    image[..., 24:] = 0.9
    points = torch.zeros(4, 1, 1, 2, dtype=torch.float64)
    points[:, 0, 0, 0] = STARTS
    points.requires_grad_()
    logits = torch.zeros(4, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([points, logits], lr=0.02)
    for _ in range(400):
        losses = (sample_image(image, points, varied(logits, amplitude), mode) - 0.9).square().flatten()
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    with torch.no_grad():
        losses = (sample_image(image, points, varied(logits, amplitude), mode) - 0.9).square().flatten()
    return losses, points.detach()[:, 0, 0, 0] - STARTS


def varied(logits: Tensor, amplitude: float | None) -> Tensor:
    return 1 + (logits if amplitude is None else amplitude * logits.tanh())


def test_t7_without_a_variation_no_point_ever_moves():
    losses, moved = descend("plain", None)
    assert losses.tolist() == pytest.approx([0.49] * 4) and not moved.any()


def test_t7_a_free_variation_paints_the_colour_instead_of_searching_it():
    losses, moved = descend("modulated", None)
    assert losses.max() < 1e-3 and moved[0] == 0 and 0.001 < moved.abs().max() < 0.1


def test_t7_a_bounded_variation_neither_paints_nor_reaches_the_colour():
    losses, moved = descend("modulated", 0.5)
    # What remains when 0.2 is multiplied by 1.5.
    assert losses.tolist() == pytest.approx([0.36] * 4, abs=0.005)
    assert moved[0] == 0 and 0.01 < moved.abs().max() < 0.2


def test_t7_straight_through_moves_points_and_reaches_no_colour():
    losses, moved = descend("straight_through", 0.5)
    assert losses.tolist() == pytest.approx([0.49] * 4)
    assert moved[0] == 0 and 0.01 < moved.abs().max() < 0.2


# T8: the wiring.


def test_t8_the_pseudo_label_gives_the_variation_no_gradient():
    # The paper optimises D_var by it (below eq. 30); eq. 12 does not contain I_var.
    flow = interior(6, 8).reshape(1, 6, 2).requires_grad_()
    variation = torch.ones(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    loss = alignment_loss(flow, torch.zeros(1, 6, 2, dtype=torch.float64), torch.ones(1, 6, dtype=torch.bool)).sum()
    by_flow, by_variation = torch.autograd.grad(loss, [flow, variation], allow_unused=True)
    assert by_variation is None and by_flow.abs().min() > 0


def test_t8_a_decoder_that_starts_at_zero_starts_as_the_plain_sampler_and_learns():
    decoder = torch.nn.Conv2d(4, 1, 3, padding=1).double()
    torch.nn.init.zeros_(decoder.weight)
    torch.nn.init.zeros_(decoder.bias)
    image, flow = random(1, 3, 16, 16), interior(100, 16)
    texels = sample_image(image, flow, 1 + 0.5 * decoder(random(1, 4, 16, 16, seed=7)).tanh())
    assert torch.equal(texels, sample_image(image, flow, None, "plain"))
    (texels - 0.9).square().sum().backward()
    assert decoder.weight.grad is not None and decoder.weight.grad.abs().min() > 0


def test_t8_straight_through_has_the_plain_value_and_the_modulated_gradients():
    image, flow, target = random(1, 3, 16, 16), interior(500, 16), random(1, 3, 1, 500, seed=5)
    variation = (1 + 0.3 * random(1, 1, 16, 16, seed=8)).requires_grad_()
    assert torch.equal(
        sample_image(image, flow, variation, "straight_through"), sample_image(image, flow, None, "plain")
    )
    # Its residual is that of the plain value, its slope that of the modulated image.
    found = gradients(image, flow, variation, target, "straight_through")
    by_variation = variation.grad
    residual = 2 * (sample_image(image, flow, None, "plain") - target)
    moved = flow.clone().requires_grad_()
    expected = torch.autograd.grad(sample_image(image, moved, variation), [moved, variation], residual)
    torch.testing.assert_close(found, expected[0], rtol=1e-12, atol=1e-12)
    assert by_variation is not None and by_variation.any()
    torch.testing.assert_close(by_variation, expected[1], rtol=1e-12, atol=1e-12)
