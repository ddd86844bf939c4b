"""Priors on the shape of a mesh: smooth (Laplacian) and flat across edges.

Both are sums over vertices or edges, not means, and depend on the scale of the mesh; the papers' weights belong to
exactly these forms at the +-0.5 scale. PyTorch3D's `mesh_laplacian_smoothing` and `mesh_normal_consistency` are other
quantities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.geometry.templates import edge_opposite_verts, unique_edges


class LaplacianLoss(torch.nn.Module):
    """Sum over vertices of the squared distance to the mean of the neighbours (Liu et al. 2019, eq. 4).

    The connectivity is fixed: `faces` (F, 3) over `n_verts` vertices. Called with verts (B, V, 3), returns (B,).
    """

    edges: Tensor
    degree: Tensor

    def __init__(self, faces: Tensor, n_verts: int) -> None:
        super().__init__()
        edges = unique_edges(faces)
        self.register_buffer("edges", torch.cat([edges, edges.flip(1)]), persistent=False)  # both directions
        degree = torch.bincount(self.edges[:, 0], minlength=n_verts).clamp(min=1)
        self.register_buffer("degree", degree.unsqueeze(1).float(), persistent=False)

    def forward(self, verts: Tensor) -> Tensor:
        """Loss (B,) of verts (B, V, 3)."""
        sums = torch.zeros_like(verts).index_add(1, self.edges[:, 0], verts[:, self.edges[:, 1]])
        return (verts - sums / self.degree).square().sum(dim=(1, 2))


class FlattenLoss(torch.nn.Module):
    """Sum over edges of ``(cos theta + 1)^2``, theta the angle between the two faces at the edge (eq. 5).

    Theta is pi where the faces continue each other in a plane. It is measured between the parts of ``v2 - v0`` and
    ``v3 - v0`` orthogonal to the edge v0 v1. As in the authors' code, `eps` stands inside every root and is added to
    every denominator, because the weights of the paper were tuned with it. It biases small meshes: on the papers'
    sphere the loss is 0.0312 at radius 1, but 0.0800 at radius 0.25. There it also depends, within 3 %, on which end of
    an edge has the smaller index and so is v0; with the vertex numbers of the authors' template it is 0.0798.

    Called with verts (B, V, 3), returns (B,).
    """

    quads: Tensor

    def __init__(self, faces: Tensor, eps: float = 1e-6) -> None:
        super().__init__()
        self.register_buffer("quads", edge_opposite_verts(faces), persistent=False)
        self.eps = eps

    def forward(self, verts: Tensor) -> Tensor:
        """Loss (B,) of verts (B, V, 3)."""
        v0, v1, v2, v3 = (verts[:, self.quads[:, k]] for k in range(4))
        edge = v1 - v0
        first, first_length = self._orthogonal(edge, v2 - v0)
        second, second_length = self._orthogonal(edge, v3 - v0)
        cos = (first * second).sum(dim=-1) / (first_length * second_length + self.eps)
        return (cos + 1).square().sum(dim=1)

    def _orthogonal(self, edge: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """The part of `side` orthogonal to `edge`, and its length."""
        dot, edge_squared = (edge * side).sum(dim=-1), edge.square().sum(dim=-1)
        edge_length = (edge_squared + self.eps).sqrt()
        side_length = (side.square().sum(dim=-1) + self.eps).sqrt()
        cos = dot / (edge_length * side_length + self.eps)
        sin = (1 - cos.square() + self.eps).sqrt()
        return side - edge * (dot / (edge_squared + self.eps)).unsqueeze(-1), side_length * sin
