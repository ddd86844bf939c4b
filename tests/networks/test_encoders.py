import pytest
import torch
from torch import nn

from recon3d.networks.encoders import ConvEncoder


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
