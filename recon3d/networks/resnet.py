"""The image encoder of CMR, UMR and Adaptive Texture: a ResNet-18 that keeps its last feature map, and two layers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNetEncoder(nn.Module):
    """RGB images to codes: ResNet-18 to 1/32 of the size, a 4x4 convolution of stride 2, two linear layers.

    Each of the three has batch norm and LeakyReLU(0.2). Source: the codes of Kanazawa et al. 2018 and Li et al. 2020;
    the paper of Lin and Tian 2021 says "ResNet". Images are normalised inside as ImageNet's are.

    Args:
        image_size: of the square images, a multiple of 64; 256 in the codes. Fixed, because the map is flattened.
        code: size of the code; 200 in the codes.
        width: channels of the 4x4 convolution; 256 in the codes.
        weights: torchvision's state dict ``resnet18-f37072fd.pth`` (IMAGENET1K_V1), as the codes begin with; None
            begins with random weights.

    Raises:
        ValueError: another image size, or weights of another network.
        FileNotFoundError: no such weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int = 256, code: int = 200, width: int = 256, weights: Path | None = None) -> None:
        super().__init__()
        if image_size < 64 or image_size % 64:
            raise ValueError(f"ResNetEncoder: expected image_size to be a multiple of 64, got {image_size}.")
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        trunk = resnet18()
        if weights is not None:
            _load(trunk, weights)
        children = dict(trunk.named_children())
        self.trunk = nn.Sequential(*(children[name] for name in children if name not in ("avgpool", "fc")))
        self.head = nn.Sequential(
            nn.Conv2d(512, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
            *linear_block(width * (image_size // 64) ** 2, code),
            *linear_block(code, code),
        )
        self.head.apply(small_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Codes (B, code) of RGB images (B, 3, S, S) in [0, 1]."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"ResNetEncoder: expected images (B, 3, {self.image_size}, {self.image_size}), got "
                f"{tuple(images.shape)}; set image_size of the method to that of the data."
            )
        return self.head(self.trunk((images - self.mean) / self.std))


def linear_block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A linear layer, batch norm and LeakyReLU(0.2)."""
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.2, inplace=True)


def small_weights(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02^2) with zero biases, as the codes do in all layers but the ResNet's."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _load(trunk: nn.Module, weights: Path) -> None:
    source = f"torchvision's {ResNet18_Weights.IMAGENET1K_V1.url.rpartition('/')[2]}"
    if not weights.is_file():
        raise FileNotFoundError(f"No weights at {weights}; expected {source}.")
    try:
        trunk.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged pickle fails in any opcode, with KeyError, IndexError and others
        raise ValueError(f"{weights} does not hold the weights of {source}: {error}") from error
