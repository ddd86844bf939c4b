"""Shape decoders: codes to deformed templates, their colours, point clouds, and occupancy grids."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recon3d.geometry.templates import icosphere


class OctantSphereDecoder(nn.Module):
    """Deforms a sphere so that every vertex keeps its octant about a moving centre (NMR, and SoftRas after it).

    With template coordinate t of the unit sphere, ``L = logit(|t| / 2)``, network outputs o and b, centre
    ``c = tanh(0.1 o)`` and ``s = sign(t) sigmoid(L + b)``, a vertex coordinate is
    ``(relu(s) (1 - c) - relu(-s) (1 + c) + c) / 2``: positive ones move in (c/2, 1/2), negative ones in (-1/2, c/2),
    and those that are 0 in the template stay at c/2. Zero outputs give the sphere of radius 1/4.

    Args:
        code: size of the code.
        hidden: sizes of the two hidden layers. 1024 and 2048 in both papers.
        level: subdivisions of the icosphere; 3 is the papers' template of 642 vertices.
    """

    faces: Tensor
    sign: Tensor
    base: Tensor

    def __init__(self, code: int = 512, hidden: tuple[int, int] = (1024, 2048), level: int = 3) -> None:
        super().__init__()
        verts, faces = icosphere(level)
        self.register_buffer("faces", faces, persistent=False)
        self.register_buffer("sign", verts.sign(), persistent=False)
        self.register_buffer("base", torch.logit(0.5 * verts.abs()), persistent=False)
        self.hidden = nn.Sequential(
            nn.Linear(code, hidden[0]), nn.ReLU(inplace=True), nn.Linear(hidden[0], hidden[1]), nn.ReLU(inplace=True)
        )
        self.center = nn.Linear(hidden[1], 3)
        self.offset = nn.Linear(hidden[1], verts.numel())

    def forward(self, code: Tensor) -> Tensor:
        """Vertices (B, V, 3) in (-0.5, 0.5) from codes (B, code)."""
        hidden = self.hidden(code)
        center = torch.tanh(0.1 * self.center(hidden)).unsqueeze(1)
        offset = self.offset(hidden).reshape(len(code), -1, 3)
        # logit(0) = -inf: sigmoid gives 0 with zero gradient, so vertices on a coordinate plane stay on it.
        moved = self.sign * torch.sigmoid(self.base + offset)
        return 0.5 * (moved.relu() * (1 - center) - (-moved).relu() * (1 + center) + center)


class VertexColorDecoder(nn.Module):
    """Per-vertex RGB in (0, 1): the colour head of SoftRas, whose layers the paper does not give.

    It has the hidden sizes of the shape decoder.
    """

    def __init__(self, code: int, n_verts: int, hidden: tuple[int, int] = (1024, 2048)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code, hidden[0]),
            nn.ReLU(inplace=True),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(inplace=True),
            nn.Linear(hidden[1], 3 * n_verts),
            nn.Sigmoid(),
        )

    def forward(self, code: Tensor) -> Tensor:
        """Colours (B, V, 3) from codes (B, code)."""
        colors: Tensor = self.layers(code)
        return _single(colors).reshape(len(code), -1, 3)


class VolumeDecoder(nn.Sequential):
    """Occupancy grids by transposed convolutions: the volume generator of Yan et al. 2016 (arXiv 1612.00814).

    A linear layer to 3^3 cells, then kernels of 4, 5 and 6 cells with strides 1, 2 and 2 (no padding but 1 in the
    last), to 6^3, 15^3 and 32^3 cells; ReLU between, a sigmoid at the end. Kernels and channels are the paper's,
    strides and padding those of the authors' code.

    Deviation: the last bias makes the first grids almost empty (`start`), because from grids of 1/2 throughout, all
    images push occupancy down together until the sigmoid is flat and every answer is the same.

    Args:
        code: size of the code; 512 in the paper.
        channels: of the grids of 3^3, 6^3 and 15^3 cells; 512, 256 and 96 in the paper.
        batch_norm: normalise before each ReLU; the paper does not.
        start: occupancy that a new network gives, roughly; about that of the objects. Ours.
    """

    def __init__(
        self,
        code: int = 512,
        channels: tuple[int, int, int] = (512, 256, 96),
        batch_norm: bool = False,
        start: float = 0.12,
    ) -> None:
        first, second, third = channels
        layers: list[nn.Module] = [nn.Linear(code, 27 * first), nn.Unflatten(1, (first, 3, 3, 3))]
        for before, after, kernel, stride, padding in (
            (first, second, 4, 1, 0),
            (second, third, 5, 2, 0),
            (third, 1, 6, 2, 1),
        ):
            if batch_norm:
                layers.append(nn.BatchNorm3d(before))
            layers += [nn.ReLU(inplace=True), nn.ConvTranspose3d(before, after, kernel, stride, padding)]
        last = layers[-1]
        assert isinstance(last, nn.ConvTranspose3d) and last.bias is not None
        nn.init.constant_(last.bias, math.log(start / (1 - start)))
        super().__init__(*layers, nn.Sigmoid())

    def forward(self, code: Tensor) -> Tensor:
        """Occupancy (B, 32, 32, 32) in (0, 1) of codes (B, code)."""
        return _single(super().forward(code).squeeze(1))


class PointDecoder(nn.Module):
    """Point clouds by one linear layer, tanh and a half: the decoder of Insafutdinov and Dosovitskiy 2018 (DPC).

    Args:
        code: size of the code; 1024 in the paper.
        n_points: N.
    """

    def __init__(self, code: int = 1024, n_points: int = 2000) -> None:
        super().__init__()
        self.layer = nn.Linear(code, 3 * n_points)
        nn.init.trunc_normal_(self.layer.weight, std=0.025, a=-0.05, b=0.05)
        nn.init.zeros_(self.layer.bias)

    def forward(self, code: Tensor) -> Tensor:
        """Points (B, N, 3) in (-0.5, 0.5) of the object frame, from codes (B, code)."""
        return 0.5 * torch.tanh(_single(self.layer(code))).unflatten(1, (-1, 3))


def _single(value: Tensor) -> Tensor:
    """At least single precision: half of it, as autocast gives, would move vertices by a pixel."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
