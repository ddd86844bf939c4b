from __future__ import annotations

import re

import pytest
import torch

from recon3d.losses.adversarial import discriminator_loss, gradient_penalty
from recon3d.networks.discriminators import ImageDiscriminator


@pytest.mark.parametrize(("channels", "size", "width"), [(3, 32, 32), (1, 48, 8), (3, 16, 4)])
def test_gives_one_logit_for_each_image(channels, size, width):
    assert ImageDiscriminator(channels, size, width)(torch.rand(5, channels, size, size)).shape == (5,)


def test_has_the_parameters_of_umr():
    # 3x3 convolutions 3 -> 32 -> 64 -> 32 -> 32, a 1x1 one to 1 channel, a linear layer of 16x16 at 256 pixels.
    convolutions = (3 * 32 + 32 * 64 + 64 * 32 + 32 * 32) * 9 + 32 + 64 + 32 + 32
    expected = convolutions + 32 + 1 + 16 * 16 + 1
    assert sum(value.numel() for value in ImageDiscriminator().parameters()) == expected


def test_images_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    network = ImageDiscriminator(image_size=32, width=8).train()
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-5, atol=1e-6)


def test_every_initialisation_lets_gradients_out():
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    for seed in range(20):
        torch.manual_seed(seed)
        (gradient,) = torch.autograd.grad(ImageDiscriminator(image_size=16, width=4)(image).sum(), image)
        assert gradient.any()


def test_learns_to_tell_dark_images():
    torch.manual_seed(0)
    network = ImageDiscriminator(image_size=16, width=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        real = torch.rand(8, 3, 16, 16, generator=generator)
        fake = 0.6 * torch.rand(8, 3, 16, 16, generator=generator)
        loss = discriminator_loss(network(real), network(fake))
        optimizer.zero_grad()
        (loss + 0.1 * gradient_penalty(network, real, fake, generator)).backward()
        optimizer.step()
    assert loss.item() < 0.8  # 2 log 2 = 1.39 for one that cannot tell


@pytest.mark.parametrize("size", [0, 8, 40])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"a multiple of 16, got {size}"):
        ImageDiscriminator(image_size=size)
    with pytest.raises(ValueError, match=re.escape("expected images (B, 3, 16, 16), got (2, 3, 16, 32)")):
        ImageDiscriminator(image_size=16)(torch.rand(2, 3, 16, 32))
