import math

import pytest
import torch
from torch import nn

from recon3d.networks.encoders import ConvEncoder, DPCEncoder


def parameters(layers) -> int:
    return sum(value.numel() for layer in layers for value in layer.parameters())


def test_layers_of_the_papers():
    encoder = ConvEncoder()
    convolutions = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in encoder if isinstance(layer, nn.Linear)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(4, 64), (64, 128), (128, 256)]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((5, 5), (2, 2), (2, 2))}
    assert [(f.in_features, f.out_features) for f in linear] == [(16384, 1024), (1024, 1024), (1024, 512)]
    assert sum(isinstance(layer, nn.ReLU) for layer in encoder) == 6  # after each, the code included
    by_hand = sum(25 * a * b + b for a, b in ((4, 64), (64, 128), (128, 256)))
    by_hand += sum(a * b + b for a, b in ((16384, 1024), (1024, 1024), (1024, 512)))
    assert parameters([*convolutions, *linear]) == by_hand
    norms = [layer for layer in encoder if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.num_features for layer in norms] == [64, 128, 256]
    assert parameters([encoder]) == by_hand + 2 * (64 + 128 + 256)


def test_without_batch_norm_it_is_the_encoder_of_nmr():
    kinds = [type(layer) for layer in ConvEncoder(batch_norm=False, width=4, hidden=8, code=8)]
    assert nn.BatchNorm2d not in kinds and kinds.count(nn.Conv2d) == 3


@pytest.mark.parametrize("size", [30, 32, 33])  # sides that do not halve evenly round up
def test_any_image_size_gives_a_code(size):
    encoder = ConvEncoder(in_channels=3, image_size=size, width=2, hidden=8, code=5)
    code = encoder(torch.rand(2, 3, size, size))
    assert code.shape == (2, 5) and bool((code >= 0).all())


@pytest.mark.parametrize(
    ("size", "channels"),
    [(128, [16, 32, 32, 64, 64, 128, 128, 256, 256]), (64, [16, 32, 32, 64, 64, 128, 128]), (8, [16])],
)
def test_the_encoder_of_dpc_halves_the_image_down_to_four_cells(size, channels):
    encoder = DPCEncoder(size)
    convolutions = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in encoder if isinstance(layer, nn.Linear)]
    kinds = [(5, 2)] + [(3, 2), (3, 1)] * (len(channels) // 2)
    assert [layer.out_channels for layer in convolutions] == channels
    assert [(layer.kernel_size, layer.stride) for layer in convolutions] == [((k, k), (s, s)) for k, s in kinds]
    assert [(f.in_features, f.out_features) for f in linear] == [(16 * channels[-1], 1024)] + 2 * [(1024, 1024)]
    slopes = [layer.negative_slope for layer in encoder if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * (len(channels) + 3), "after each, the code included"
    by_hand = sum(k**2 * a * b + b for (k, _), a, b in zip(kinds, [3, *channels], channels, strict=False))
    by_hand += sum(a * b + b for a, b in ((16 * channels[-1], 1024), (1024, 1024), (1024, 1024)))
    assert parameters([encoder]) == by_hand, "and no normalisation"
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, 1024)


def test_the_encoder_of_dpc_sees_grey_as_zero_and_every_weight_is_heard():
    torch.manual_seed(0)
    encoder = DPCEncoder(16, width=4, hidden=8)
    assert not encoder(torch.full((1, 3, 16, 16), 0.5)).any(), "[0, 1] becomes [-1, 1]; biases start at 0"
    image = torch.rand(2, 3, 16, 16, requires_grad=True)
    doubled = 0.5 + 2 * (image - 0.5)
    torch.testing.assert_close(encoder(doubled), 2 * encoder(image))  # LeakyReLU without biases
    kept = image.detach().clone()
    encoder(image).square().sum().backward()
    assert torch.equal(image, kept), "in-place activations stay off the input"
    assert bool((image.grad != 0).all())
    assert all(value.grad.isfinite().all() and value.grad.abs().sum() > 0 for value in encoder.parameters())


def test_the_encoder_of_dpc_starts_as_he_says():
    """The variance of a layer's weights is 2 / fan-in, also after the cut at two deviations of the normal."""
    torch.manual_seed(0)
    for layer in DPCEncoder(32):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight, std = layer.weight.detach(), math.sqrt(2 / layer.weight[0].numel())
            assert float(weight.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()) + 0.01)
            assert float(weight.abs().max()) < 2 * std / 0.87 and not layer.bias.any()


@pytest.mark.parametrize("size", [0, 4, 48, 100])
def test_the_encoder_of_dpc_refuses_images_that_do_not_halve_down_to_four_cells(size):
    with pytest.raises(ValueError, match=f"power of 2 from 8 on, got {size}"):
        DPCEncoder(size)
