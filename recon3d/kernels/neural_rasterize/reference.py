"""Textures and the edge gradient in vectorised torch, image by image: the definition of correct, on every device.

Everything about edges happens in the pixel frame of the authors' code: x to the right, y up, pixel centres at whole
numbers. Edges are swept along y for every column (axis 0) and along x for every row (axis 1).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from recon3d.kernels.soft_silhouette.reference import MIN_AREA
from recon3d.kernels.zbuffer.reference import MIN_Z

CHUNK = 2**22  # crossings x pixels looked at in one go; bounds the memory


def sample_textures(textures: Tensor, index: Tensor, weights: Tensor, eps: float) -> Tensor:
    """Trilinear samples (B, 3, S, S) of texture cubes (B, F, T, T, T, 3); any finite value where no face is.

    Args:
        textures: the cubes.
        index: (B, S, S) face of each pixel, or -1.
        weights: (B, S, S, 3) perspective-correct.
        eps: coordinates are clipped to [0, T - 1 - eps].
    """
    b, f, size = textures.shape[:3]
    if f == 0:
        return textures.new_zeros(b, 3, *index.shape[1:]) + 0 * textures.sum()
    coordinate = (weights * (size - 1)).clamp(0, size - 1 - eps)
    low = coordinate.floor().clamp(max=size - 2)
    part = coordinate - low
    cell = low.long()
    flat = textures.flatten(1, 4)
    result = torch.zeros((), dtype=textures.dtype, device=textures.device)
    for corner in itertools.product((0, 1), repeat=3):
        texel = index.clamp(min=0)
        weight = torch.ones_like(part[..., 0])
        for axis, upper in enumerate(corner):
            texel = texel * size + cell[..., axis] + upper
            weight = weight * (part[..., axis] if upper else 1 - part[..., axis])
        color = flat.gather(1, texel.flatten(1).unsqueeze(-1).expand(-1, -1, 3)).reshape(*index.shape, 3)
        result = result + weight.unsqueeze(-1) * color
    return result.permute(0, 3, 1, 2)


def edge_gradient(face_verts: Tensor, index: Tensor, channels: Tensor, grad: Tensor, eps: float, paper: bool) -> Tensor:
    """Gradient (B, F, 3, 2) of x and y of the corners; see `recon3d.kernels.neural_rasterize.neural_rasterize`.

    Args:
        face_verts: (B, F, 3, 3).
        index: (B, S, S) face of each pixel, or -1.
        channels: (B, K, S, S) rendered values.
        grad: (B, K, S, S) gradient of the loss with respect to them.
        eps: added to distances.
        paper: the rule of the paper instead of the code's.
    """
    size = index.shape[-1]
    result = torch.zeros(*face_verts.shape[:3], 2, dtype=torch.float64, device=face_verts.device)
    if face_verts.shape[1] == 0:
        return result
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=face_verts.device)  # x to the right, y up
    for b, verts in enumerate(face_verts.double()):
        # Pixel x and y, and z to tell corners apart.
        corners = torch.cat([((sign * verts[..., :2] + 1) * size - 1) / 2, verts[..., 2:]], dim=-1)
        first, second, third = corners[..., :2].unbind(dim=1)
        area = _cross(second - first, third - first)
        clockwise = area < 0
        # Each face in counter-clockwise order, and the corner that each of its places stands for.
        place = torch.tensor([[0, 1, 2], [2, 1, 0]], device=area.device)[clockwise.long()]
        ordered = corners.gather(1, place.unsqueeze(-1).expand(-1, -1, 3))
        drawn = (area.abs() * (2 / size) ** 2 > MIN_AREA) & (verts[..., 2] > MIN_Z).all(dim=1)
        # Rows from the bottom, as y points up: (size,size) of [row, column], and (K,size,size).
        owner, value, slope = index[b].flip(0), channels[b].double().flip(1), grad[b].double().flip(1)
        for axis in (0, 1):
            # Along a column: [column, row].
            lines = (owner.T, value.mT, slope.mT) if axis == 0 else (owner, value, slope)
            for a in range(3):
                ends = _sweep_edge(ordered.roll(-a, dims=1), drawn, axis, *lines, eps, paper)
                for end, grad_end in zip((a, (a + 1) % 3), ends, strict=True):
                    along = result[b, :, :, 1 - axis]
                    along.scatter_add_(1, place[:, end : end + 1], sign[1 - axis] * grad_end.unsqueeze(1))
    return result


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _sweep_edge(
    corners: Tensor, drawn: Tensor, axis: int, owner: Tensor, value: Tensor, slope: Tensor, eps: float, paper: bool
) -> tuple[Tensor, Tensor]:
    """Gradient (F,), (F,) of the ends a and b of edge (a, b) of every face with corners (a, b, c), along the sweep.

    `owner` (S,S) and `value`, `slope` (K,S,S) are indexed by the line u, then by the pixel on it.
    """
    size = owner.shape[-1]
    u, v = corners[..., axis], corners[..., 1 - axis]
    low, high = u[:, :2].amin(dim=1), u[:, :2].amax(dim=1)
    # Truncation towards zero, as in the code: an edge that ends in (-1, 0) still visits line 0.
    from_line = low.clamp(0, size).ceil().long()
    to_line = high.clamp(-1, size - 1).trunc().long()
    count = (to_line - from_line + 1).clamp(min=0) * (drawn & (low < high))
    face = torch.arange(len(u), device=u.device).repeat_interleave(count)
    start = count.cumsum(0) - count
    line = torch.arange(len(face), device=u.device) - start[face] + from_line[face]
    grad_a, grad_b = torch.zeros_like(low), torch.zeros_like(low)
    for some in torch.arange(len(face), device=u.device).split(max(1, CHUNK // (size * len(value)))):
        f, at = face[some], line[some]
        ua, ub, uc = u[f].unbind(dim=1)
        va, vb, vc = v[f].unbind(dim=1)
        crossing = va + (vb - va) / (ub - ua) * (at - ua)
        outward = torch.where(ua < ub, -1, 1) * (1 if axis == 0 else -1)
        inner = torch.where(outward > 0, crossing.floor(), crossing.ceil())
        outer = inner + outward
        valid = (inner >= 0) & (inner < size) & (outer >= 0) & (outer < size)
        f, at, ua, ub, uc, va, vb, vc, crossing, outward, inner, outer = (
            entry[valid] for entry in (f, at, ua, ub, uc, va, vb, vc, crossing, outward, inner, outer)
        )
        i, o = inner.long(), outer.long()
        q = torch.arange(size, device=u.device).unsqueeze(0)  # (1,S), against crossings (N,1)
        shown = owner[at]  # (N,S)
        # The opposite edge, between c and the end on the other side of this line.
        beyond_c = (at - ua) * (at - uc) < 0
        ue, ve = torch.where(beyond_c, ua, ub), torch.where(beyond_c, va, vb)
        level = ue == uc  # the line runs along the opposite edge
        opposite = torch.where(level, vc, ve + (vc - ve) / torch.where(level, 1.0, uc - ue) * (at - ue))
        limit = torch.where(outward > 0, opposite.ceil(), opposite.floor())
        outside = (q - o.unsqueeze(1)) * outward.unsqueeze(1) >= 0
        inside = (q >= torch.minimum(i, limit).unsqueeze(1)) & (q <= torch.maximum(i, limit).unsqueeze(1))
        inside &= shown == f.unsqueeze(1)
        near = owner[at, i]
        change = {
            "outside": _gain(value, slope, at, i, paper) * outside,
            "inside": _gain(value, slope, at, o, paper) * inside,
        }
        reach = (q - crossing.unsqueeze(1)) * 2 / size
        for result, other, this, end in ((grad_a, ub, ua, 0), (grad_b, ua, ub, 1)):
            # Distance that this end has to move, the other fixed.
            moving = other != at
            ratio = (other - this) / torch.where(moving, other - at, 1.0)
            distance = ratio.unsqueeze(1) * reach
            distance = torch.where(distance > 0, distance + eps, distance - eps)
            if paper:
                corner = corners[f, end].unsqueeze(1)
                visible = (near >= 0) & (corners[near.clamp(min=0)] == corner).all(dim=-1).any(dim=1)
                gain = (change["outside"] + change["inside"]) * visible.unsqueeze(1)
            else:
                gain = change["outside"] * (near == f).unsqueeze(1) + change["inside"]
            result.index_add_(0, f, -(gain / distance).sum(dim=1) * moving)
    return grad_a, grad_b


def _gain(value: Tensor, slope: Tensor, line: Tensor, pixel: Tensor, paper: bool) -> Tensor:
    """What the loss gains (N,S), at first order, where the pixels of a line take the colour of its `pixel`; >= 0."""
    change = (value[:, line] - value[:, line, pixel].unsqueeze(-1)) * slope[:, line]  # (K,N,S)
    return change.clamp(min=0).sum(dim=0) if paper else change.sum(dim=0).clamp(min=0)
