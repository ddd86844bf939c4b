"""Image encoders."""

from __future__ import annotations

from torch import Tensor, nn


class ConvEncoder(nn.Sequential):
    """The encoder of NMR and SoftRas: three 5x5 convolutions of stride 2, three linear layers, ReLU after each.

    Images (B, C, S, S) in [0, 1], not normalised further, to codes (B, code).

    Args:
        in_channels: 3, or 4 for RGB and mask.
        image_size: S.
        width: channels of the first convolution; the others have 2 and 4 times as many. 64 in both papers.
        hidden: size of the first two linear layers. 1024 in both papers.
        code: size of the code. 512 in both papers.
        batch_norm: normalise after each convolution; SoftRas does (its section 5.1), NMR does not.
    """

    def __init__(
        self,
        in_channels: int = 4,
        image_size: int = 64,
        width: int = 64,
        hidden: int = 1024,
        code: int = 512,
        batch_norm: bool = True,
    ) -> None:
        layers: list[nn.Module] = []
        channels, size = in_channels, image_size
        for out in (width, 2 * width, 4 * width):
            layers.append(nn.Conv2d(channels, out, kernel_size=5, stride=2, padding=2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU(inplace=True))
            channels, size = out, (size + 1) // 2
        layers.append(nn.Flatten())
        for before, after in ((channels * size * size, hidden), (hidden, hidden), (hidden, code)):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        super().__init__(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Code (B, code) of images (B, C, S, S)."""
        return super().forward(image)
