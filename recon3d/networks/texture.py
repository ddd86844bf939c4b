"""Heads of the methods that paint a symmetric mesh with the pixels of its photograph (CMR, UMR, Adaptive Texture).

From the code of `networks.resnet.ResNetEncoder` to a shape, cameras, a texture flow, and a variation of the image that
is sampled. Layers are those of the codes of Kanazawa et al. 2018 (CMR) and Li et al. 2020 (UMR).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pytorch3d.transforms import quaternion_multiply
from torch import Tensor, nn

from recon3d.networks.resnet import linear_block, small_weights

MIN_SCALE = 1e-12


class ShapeHead(nn.Module):
    """Offsets of the template's half mesh by one linear layer that begins near zero.

    With `latent`, the code first becomes mean and variance of a normal distribution, from which a draw is taken in
    training, and the mean in eval mode (UMR's code; it has no KL loss, and draws in evaluation too).

    Args:
        code: size of the encoder's code.
        n_verts: of the half mesh.
        latent: size of the draw; 350 in UMR's code; None for none (CMR).

    Attributes:
        generator: draws on the CPU; None is PyTorch's own.
    """

    def __init__(self, code: int, n_verts: int, latent: int | None = None) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None
        self.mean = self.log_variance = None
        if latent is not None:
            self.mean, self.log_variance = (
                nn.Sequential(nn.Linear(code, code), nn.LeakyReLU(0.2), nn.Linear(code, latent)) for _ in range(2)
            )
        self.apply(small_weights)
        self.offset = nn.Linear(latent or code, 3 * n_verts)
        nn.init.normal_(self.offset.weight, 0.0, 1e-4)
        nn.init.zeros_(self.offset.bias)

    def shape_code(self, code: Tensor) -> Tensor:
        """What the linear layer reads, (B, latent or code)."""
        if self.mean is None or self.log_variance is None:
            return code
        mean = self.mean(code)
        if not self.training:
            return mean
        noise = torch.randn(mean.shape, generator=self.generator).to(mean)
        return mean + noise * torch.exp(0.5 * self.log_variance(code))

    def forward(self, shape_code: Tensor) -> Tensor:
        """Offsets (B, n_verts, 3) of shape codes."""
        return self.offset(shape_code).unflatten(1, (-1, 3))


class CameraHead(nn.Module):
    """Weak-perspective cameras with probabilities: K hypotheses of a 7-vector (see `geometry.weak_perspective`).

    A trunk of two linear layers, then for each hypothesis two blocks and linear outputs: a quaternion, a scale
    ``relu(1 + o)``, a translation, and a logit. Hypothesis k begins upright, turned by 360 k / K degrees about the up
    axis.

    Deviation: in UMR's code all hypotheses begin near the identity, and a set of base rotations 45 degrees apart is
    computed but not used, because hypotheses that begin together tend to stay together.

    Args:
        code: size of the encoder's code.
        hypotheses: K; 8 in UMR's second stage, 1 in its first stage and in CMR.
    """

    base: Tensor

    def __init__(self, code: int, hypotheses: int = 8) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(code, code),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Linear(code, code),
            nn.LeakyReLU(0.1, inplace=True),
        )
        self.heads = nn.ModuleList(
            nn.Sequential(*linear_block(code, code), *linear_block(code, code), nn.Linear(code, 8))
            for _ in range(hypotheses)
        )
        self.apply(small_weights)
        self.register_buffer("base", upright_quaternions(hypotheses), persistent=False)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (B, K, 7) and probabilities (B, K) of codes (B, code)."""
        code = self.trunk(code)
        raw = torch.stack([head(code) for head in self.heads], dim=1).float()  # (B,K,8); bf16 would move by pixels
        quaternion, scale, shift, logit = raw.split((4, 1, 2, 1), dim=-1)
        turn = F.normalize(quaternion + quaternion.new_tensor([1.0, 0.0, 0.0, 0.0]), dim=-1)
        pose = torch.cat(
            [F.relu(1 + scale) + MIN_SCALE, shift, quaternion_multiply(turn, self.base.expand_as(turn))], -1
        )
        return pose, logit.squeeze(-1).softmax(dim=1)


def upright_quaternions(count: int) -> Tensor:
    """(count, 4): rotations from CMR's frame to the image's that show +z up, in evenly spaced azimuths.

    The first shows the side whose outward direction is +x, the others follow by turning the object about its up axis.
    """
    # x_image = y, y_image (down) = -z, depth = -x: a quarter turn that brings the side to the viewer.
    half = torch.pi * torch.arange(count) / count
    azimuth = torch.stack([half.cos(), torch.zeros(count), torch.zeros(count), half.sin()], dim=1)
    side = torch.tensor([0.5, 0.5, 0.5, -0.5])
    return quaternion_multiply(side.expand(count, -1), azimuth)


class UpsamplingDecoder(nn.Module):
    """Maps of twice the size per block, from a code: the decoder of CMR's texture flow.

    Two blocks of linear layer, batch norm and LeakyReLU make the seed; each further block is bilinear upsampling, a
    convolution, LeakyReLU, and a convolution with batch norm and LeakyReLU, of half the channels.

    Args:
        code: size of the encoder's code.
        seed: rows and columns of the first map; (4, 8) for a flow, (4, 4) for an image.
        size: rows of the result, a power of 2 times the seed's.
        width: channels of the seed; 256 in the codes.
        channels: of the result.
    """

    def __init__(self, code: int, seed: tuple[int, int], size: int, width: int, channels: int) -> None:
        super().__init__()
        blocks = round(math.log2(size / seed[0]))
        if seed[0] * 2**blocks != size or blocks < 1:
            raise ValueError(f"UpsamplingDecoder: expected a size of {seed[0]} times a power of 2, got {size}.")
        area = seed[0] * seed[1]
        layers: list[nn.Module] = [
            *linear_block(code, width * area),
            *linear_block(width * area, width * area),
            nn.Unflatten(1, (width, *seed)),
        ]
        for _ in range(blocks):
            narrow = max(width // 2, 8)
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(width, narrow, 3, padding=1, padding_mode="reflect"),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(narrow, narrow, 3, padding=1),
                nn.BatchNorm2d(narrow),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            width = narrow
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.Sequential(*layers)
        self.apply(small_weights)

    def forward(self, code: Tensor) -> Tensor:
        """(B, channels, rows, columns) of codes (B, code), unbounded."""
        return self.last(self.layers(code))


class FlowDecoder(nn.Module):
    """The texture flow D_flow: for each texel of a UV map, the place in the image that its colour comes from.

    Deviation: flows begin as the view of a sphere from its side (`spread`), while those of the codes begin at the
    centre of the image, from where the gradient of the sampler, which sees four pixels, takes long to spread them.

    Args:
        code: size of the encoder's code.
        size: rows H of the map, which has 2 H columns; 128 in the codes.
        width: channels of the 4x8 seed; 256 in the codes.
        spread: radius of the sphere that the first flow shows, in [0, 1); 0 is the codes' start.
    """

    start: Tensor

    def __init__(self, code: int, size: int = 128, width: int = 256, spread: float = 0.6) -> None:
        super().__init__()
        if not 0 <= spread < 1:
            raise ValueError(f"FlowDecoder: expected spread in [0, 1), got {spread}.")
        self.decoder = UpsamplingDecoder(code, (4, 8), size, width, 2)
        # The sphere's texture coordinates, see `geometry.symmetric_sphere`: azimuth from +x to +y, and angle from +z.
        azimuth = torch.pi * ((2 * torch.arange(2 * size) + 1) / (2 * size) - 1)
        polar = torch.pi * (2 * torch.arange(size) + 1) / (2 * size)
        y, z = polar.sin()[:, None] * azimuth.sin(), polar.cos()[:, None].expand(-1, 2 * size)
        self.register_buffer("start", torch.atanh(spread * torch.stack([y, -z])), persistent=False)

    def forward(self, code: Tensor) -> Tensor:
        """Flow (B, H, 2H, 2) in (-1, 1): u to the right, v down in the image."""
        return torch.tanh(self.start + self.decoder(code)).permute(0, 2, 3, 1)


class VariationDecoder(nn.Module):
    """The new decoder D_var of Lin and Tian 2021 (eq. 11): what the sampled image is multiplied by.

    ``I_var = 1 + amplitude * tanh(f)``, and f is exactly 0 at first, because its last layer is. So the first texture is
    that of the plain sampler, and the last layer gets a gradient.

    Deviation: the paper says only that the decoder's output multiplies the image; range, start, one channel and the
    architecture (that of the flow) are ours, because an unbounded factor paints the texture instead of moving the flow.

    Args:
        code: size of the encoder's code.
        image_size: S.
        width: channels of the 4x4 seed.
        amplitude: largest distance from 1, in (0, 1).
    """

    def __init__(self, code: int, image_size: int = 256, width: int = 256, amplitude: float = 0.5) -> None:
        super().__init__()
        if not 0 < amplitude < 1:
            raise ValueError(f"VariationDecoder: expected an amplitude in (0, 1), got {amplitude}.")
        self.amplitude = amplitude
        self.decoder = UpsamplingDecoder(code, (4, 4), image_size, width, 1)
        for value in self.decoder.last.parameters():
            nn.init.zeros_(value)

    def forward(self, code: Tensor) -> Tensor:
        """I_var (B, 1, S, S) in (1 - amplitude, 1 + amplitude)."""
        return 1 + self.amplitude * torch.tanh(self.decoder(code))
