"""Shape decoders: codes to deformed templates."""

from __future__ import annotations

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
        return self.layers(code).reshape(len(code), -1, 3)
