"""Random points on surfaces: ground-truth clouds of data sets, and predicted meshes on their way to point metrics."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_surface(verts: Tensor, faces: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points drawn uniformly, by area, from the surface of a triangle mesh.

    The same generator state gives the same faces and the same places on them. Points carry gradients to `verts`;
    the choice of faces does not.

    Args:
        verts: (V, 3), any frame and unit.
        faces: (F, 3) int64.
        n: number of points.
        generator: its device may differ from the device of `verts`, so that a CPU generator serves every device.

    Returns:
        points (n, 3), unit normals (n, 3) of their faces (right-hand rule), and the face index (n,) of each point.

    Raises:
        ValueError: the surface has no area, or its area is not finite.
    """
    # float64: in a float32 running sum the small faces of a CAD mesh get no share, or twice their share.
    corners = verts.double()[faces]  # (F, 3, 3)
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled_area = cross.detach().norm(dim=1)
    total = float(doubled_area.sum())
    if not 0 < total < float("inf"):
        raise ValueError(
            f"sample_surface: expected a surface of positive, finite area, got {len(faces)} faces of total area "
            f"{total / 2}; drop this mesh or repair its vertices."
        )
    uniform = torch.rand(n, 3, dtype=torch.float64, generator=generator, device=generator.device).to(verts.device)
    cumulative = doubled_area.cumsum(0)
    # right=True skips faces without area; the quotient is exactly 1 at the last face that has some.
    face = torch.searchsorted(cumulative / cumulative[-1], uniform[:, 0].contiguous(), right=True)
    from_first = uniform[:, 1].sqrt()  # square root: a line parallel to the far side is as likely as it is long
    along = from_first * uniform[:, 2]
    weights = torch.stack([1 - from_first, from_first - along, along], dim=1)
    points = (weights[:, :, None] * corners[face]).sum(dim=1)
    normals = cross[face] / doubled_area[face, None]
    return points.to(verts.dtype), normals.to(verts.dtype), face
