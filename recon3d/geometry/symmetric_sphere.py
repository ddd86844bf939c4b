"""The template of CMR, UMR and Adaptive Texture: a sphere that is its own mirror image, with the UV map of its texture.

In the frame of CMR (`recon3d.geometry.weak_perspective`): the mirror plane is x = 0, +z is up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon3d.geometry.templates import icosphere

PLANE = 1e-6  # a vertex nearer to the mirror plane than this lies on it


class SymmetricSphere(NamedTuple):
    """A sphere of radius 1 whose right half follows from its left half.

    Attributes:
        half: (P + S, 3) the P vertices on the mirror plane, then the S with x > 0.
        n_side: S.
        faces: (F, 3) into the vertices of `symmetrise`, counter-clockwise seen from outside; first the faces that are
            their own mirror image, then those with x >= 0, then the mirror images of these in the same order.
        n_own: faces that are their own mirror image.
        uv: (F, 3, 2) of each corner, in [-1, 1]: a face and its mirror image have the same texture.
    """

    half: Tensor
    n_side: int
    faces: Tensor
    n_own: int
    uv: Tensor


def symmetric_sphere(level: int = 3) -> SymmetricSphere:
    """Icosphere in the order of CMR: 642 vertices (32 on the plane, 305 on each side), 1,280 faces (32 + 2 x 624).

    Texture coordinates are those of the undeformed sphere, u = atan2(y, x) / pi and v = 2 arccos(z) / pi - 1
    (Kanazawa et al. 2018, their code). The textured half has |u| <= 1/2 but for the faces across the plane, so nothing
    crosses the seam at |u| = 1. At a pole, where u is undefined, a corner takes the mean of the face's others.

    Args:
        level: of subdivision, see `recon3d.geometry.templates.icosphere`; at least 1, so that poles are vertices.
    """
    if level < 1:
        raise ValueError(f"symmetric_sphere: expected a level of at least 1, got {level}.")
    verts, faces = icosphere(level)
    on_plane, positive = verts[:, 0].abs() < PLANE, verts[:, 0] >= PLANE
    side = torch.nonzero(positive)[:, 0]
    flip = verts.new_tensor([-1.0, 1.0, 1.0])
    distance = torch.cdist((verts[side] * flip).double(), verts.double())
    partner = distance.argmin(dim=1)  # coordinates of mirrored vertices are equal to the bit
    old_order = torch.cat([torch.nonzero(on_plane)[:, 0], side, partner])
    number = torch.empty(len(verts), dtype=torch.long)
    number[old_order] = torch.arange(len(verts))
    ordered, faces = verts[old_order], number[faces]

    n_plane, n_side = int(on_plane.sum()), len(side)
    left, right = faces < n_plane + n_side, (faces < n_plane) | (faces >= n_plane + n_side)
    own = faces[~left.all(dim=1) & ~right.all(dim=1)]
    kept = faces[left.all(dim=1)]
    # Corners 0 and 1 change places, so that the mirrored face is wound like the others; the texels of an atlas lie
    # symmetrically to these two.
    mirrored = torch.where(kept < n_plane, kept, kept + n_side)[:, [1, 0, 2]]
    uv = _sphere_uv(ordered[torch.cat([own, kept])])
    return SymmetricSphere(
        half=ordered[: n_plane + n_side],
        n_side=n_side,
        faces=torch.cat([own, kept, mirrored]),
        n_own=len(own),
        uv=torch.cat([uv, uv[len(own) :][:, [1, 0, 2]]]),
    )


def symmetrise(half: Tensor, n_side: int) -> Tensor:
    """Vertices (..., V, 3) of a half (..., P + S, 3): the last S of it again, with x negated.

    Vertices of the mirror plane are free to leave it, as in the authors' codes.
    """
    return torch.cat([half, half[..., -n_side:, :] * half.new_tensor([-1.0, 1.0, 1.0])], dim=-2)


def _sphere_uv(corners: Tensor) -> Tensor:
    """(F, 3, 2) of unit vectors (F, 3, 3)."""
    x, y, z = corners.unbind(-1)
    pole = (x.abs() < PLANE) & (y.abs() < PLANE)
    u = torch.atan2(y, x).masked_fill(pole, 0.0) / torch.pi
    u = torch.where(pole, u.sum(dim=1, keepdim=True) / 2, u)  # a face has at most one pole
    v = 2 * torch.arccos(z.clamp(-1, 1)) / torch.pi - 1
    return torch.stack([u, v], dim=-1)
