"""Image encoders."""

from __future__ import annotations

import math

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


class DPCEncoder(nn.Sequential):
    """The encoder of Insafutdinov and Dosovitskiy 2018 (DPC), which Zubic and Lio 2021 take over (appendix A).

    A 5x5 convolution of stride 2, then pairs of 3x3 convolutions, the first of stride 2 doubling the channels, down to
    4x4 cells; three linear layers; LeakyReLU(0.2) after each. Images in [0, 1] are mapped to [-1, 1].

    Deviation: images lie on black as everywhere in this project, where the authors put white behind them; padding is
    symmetric, TensorFlow's is not, which matters to none but ported weights.

    Args:
        image_size: H, a power of 2 from 8 on; 64 gives the paper's seven convolutions, the released code has 128.
        width: channels of the first convolution; 16 in both papers.
        hidden: size of the linear layers; 1024 in both papers.
    """

    def __init__(self, image_size: int = 64, width: int = 16, hidden: int = 1024) -> None:
        levels = int(math.log2(max(image_size, 1)))
        if image_size < 8 or image_size != 2**levels:
            raise ValueError(f"DPCEncoder: expected an image_size that is a power of 2 from 8 on, got {image_size}.")
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, stride=2, padding=2), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for _ in range(levels - 3):  # of 2^(levels-1) cells after the first convolution, 4 are left
            for out, stride in ((2 * channels, 2), (2 * channels, 1)):
                layers += [nn.Conv2d(channels, out, 3, stride=stride, padding=1), nn.LeakyReLU(0.2, inplace=True)]
                channels = out
        layers.append(nn.Flatten())
        for before in (channels * 16, hidden, hidden):
            layers += [nn.Linear(before, hidden), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _he_truncated(layer)

    def forward(self, image: Tensor) -> Tensor:
        """Code (B, hidden) of images (B, 3, H, H)."""
        return super().forward(2.0 * image - 1.0)


def _he_truncated(layer: nn.Conv2d | nn.Linear) -> None:
    """He initialisation by fan-in from a normal cut at two deviations; 1.3 makes up for what the cut takes away."""
    std = math.sqrt(1.3 * 2.0 / layer.weight[0].numel())
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
