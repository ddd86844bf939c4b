"""Discriminators of images, for `recon3d.losses.adversarial`."""

from __future__ import annotations

from torch import Tensor, nn


class ImageDiscriminator(nn.Sequential):
    """The discriminator of Li et al. 2020 (UMR): four 3x3 convolutions of stride 2, a 1x1 one, and a linear layer.

    Images (B, C, S, S) in [0, 1] to logits (B,), before the sigmoid. Without normalisation layers, which would mix the
    images of a batch and make a penalty on the gradient of each meaningless.

    Deviation: LeakyReLU(0.2) where UMR has ReLU, because its single last channel starts at 0 everywhere in 44% of the
    random initialisations (200 seeds), and then no gradient ever leaves the discriminator.

    Args:
        channels: of the images.
        image_size: S, a multiple of 16.
        width: channels of the first convolution, 32 in UMR; the others have 2, 1 and 1 times as many.

    Raises:
        ValueError: an image_size that is no multiple of 16.
    """

    def __init__(self, channels: int = 3, image_size: int = 256, width: int = 32) -> None:
        if image_size < 16 or image_size % 16:
            raise ValueError(f"ImageDiscriminator: expected an image_size that is a multiple of 16, got {image_size}.")
        layers: list[nn.Module] = []
        for out in (width, 2 * width, width, width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = out
        layers += [nn.Conv2d(channels, 1, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear((image_size // 16) ** 2, 1)]
        super().__init__(*layers)
        self.shape = (layers[0].in_channels, image_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) of images (B, C, S, S).

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"ImageDiscriminator: expected images (B, {', '.join(map(str, self.shape))}), got "
                f"{tuple(images.shape)}."
            )
        return super().forward(images).squeeze(dim=1)
