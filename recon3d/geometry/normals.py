"""Oriented normals of raw point clouds: the outer shell of a cloud, and which way is out.

First half of the way from a predicted cloud to a surface; `recon3d.geometry.poisson` is the second. A predicted cloud
has no normals, is noisy, has stray points, and may fill the inside of the object: silhouettes do not say that it is
hollow. What a point sees decides here: a point of the outer shell is seen from outside, and the mean direction from
which it is seen is the way out. That orients every point by itself, so no error spreads from point to point as it does
when signs are handed on along a spanning tree: of 2,000 points of a plate 0.06 thick that turned half, and 0 to 1 %
here. Hidden point removal [1] from 26 sides was as good (0.5 to 2 % there) at four times the cost.

[1] Katz et al. 2007, Direct Visibility of Point Sets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pytorch3d.ops import knn_points
from scipy.spatial import cKDTree
from torch import Tensor

# Chosen on validation objects of synthetic and open_shapes as noisy, filled, thinned and stray-ridden clouds of 500 to
# 8,000 points, by the voxel IoU of the surface; `benchmarks.bench_poisson` measures what came of it.
NEIGHBOURS = 24
OUTLIER_SIGMAS = 3.0
SEEN = 0.02  # a point seen from less of the sphere is inside
MAX_AREA = 5.0  # medians
MAX_BUFFER = 128  # pixels along a side of a depth buffer: bounds memory for clouds of very uneven density


class OrientedPoints(NamedTuple):
    """The outer shell of a cloud of N points.

    Attributes:
        points: (M, 3), the M <= N points that are no outliers and are seen from outside.
        normals: (M, 3), unit length, outward.
        areas: (M,), the area for which each point stands, up to a common factor.
    """

    points: Tensor
    normals: Tensor
    areas: Tensor


def oriented_points(points: Tensor, k: int = NEIGHBOURS) -> OrientedPoints:
    """Outer shell of a raw cloud with outward normals and areas. Deterministic; no gradients.

    1. Outliers go: points whose mean distance to 8 neighbours is 3 standard deviations above the mean of the cloud.
    2. Points that are seen from less than 2 % of the directions go (`exposure`).
    3. The normal is the direction of least variance of the k nearest neighbours in the shell, its sign towards the
       exposure, averaged with the direction of the exposure. Where a part is thinner than the neighbourhood, the
       neighbours lie on both sides and their variance says nothing; the exposure still does.
    4. The area is the mean squared distance to these neighbours, at most 5 times the median: a stray point that passed
       1 must not count for a whole side.

    Args:
        points: (N, 3), finite, N > k.
        k: neighbours, at least 8.

    Returns:
        OrientedPoints of at most N points, on the device of `points`; none if the points are all but the same, or if
        no more than k are left.
    """
    points = points.detach()
    nothing = OrientedPoints(points[:0], points[:0], points[:0, 0])
    spread = (points.amax(dim=0) - points.amin(dim=0)).max()
    if not bool(spread > 1e-5 * points.abs().max()):  # nothing but rounding
        return nothing
    distances, _ = nearest_neighbours(points, 8)
    mean = distances.mean(dim=1)
    inlier = mean <= mean.mean() + OUTLIER_SIGMAS * mean.std()
    points, mean = points[inlier], mean[inlier]
    seen = exposure(points, float(mean.median()))
    shell = seen.norm(dim=1) > SEEN
    points, outward = points[shell], F.normalize(seen[shell], dim=1)
    if len(points) <= k:
        return nothing
    distances, index = nearest_neighbours(points, k)
    around = torch.cat([points[:, None], points[index]], dim=1)  # (M,k+1,3)
    around = around - around.mean(dim=1, keepdim=True)
    normals = torch.linalg.eigh(around.mT @ around).eigenvectors[:, :, 0]
    normals = torch.where((normals * outward).sum(dim=1, keepdim=True) < 0, -normals, normals)
    areas = distances.square().mean(dim=1)
    return OrientedPoints(points, F.normalize(normals + outward, dim=1), areas.clamp(max=MAX_AREA * areas.median()))


def nearest_neighbours(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (N, k), rising, and indices (N, k) of the k nearest other points of a cloud (N, 3), N > k.

    SciPy's KD-tree on the CPU, PyTorch3D's `knn_points` on CUDA. A point that coincides with others counts itself or
    one of them as its nearest, at distance 0.
    """
    if points.device.type == "cpu":
        distances, index = cKDTree(points.numpy()).query(points.numpy(), range(2, k + 2))
        return torch.as_tensor(distances, dtype=points.dtype), torch.as_tensor(index)
    squared, index, _ = knn_points(points[None], points[None], K=k + 1)
    return squared[0, :, 1:].sqrt(), index[0, :, 1:]


def exposure(points: Tensor, spacing: float, directions: int = 64) -> Tensor:
    """Sum of the directions from which each point is seen, over their number: (N, 3), pointing out.

    From each direction, spread evenly over the sphere, the cloud is drawn orthographically into a depth buffer whose
    pixels are 1.5 spacings wide. A point at the depth of its pixel is seen; one that lies a spacing or more behind it
    is hidden; in between the weight falls linearly. Surfaces that are seen at a slant so count for less.

    Args:
        points: (N, 3).
        spacing: typical distance of neighbours, in the unit of the points.
        directions: how many.
    """
    index = torch.arange(directions, dtype=points.dtype) + 0.5
    height = 1 - 2 * index / directions
    turn = index * (math.pi * (3 - math.sqrt(5)))  # the golden angle: a Fibonacci lattice
    ring = (1 - height.square()).sqrt()
    to_eye = torch.stack([ring * turn.cos(), height, ring * turn.sin()], dim=1).to(points.device)
    right = F.normalize(torch.stack([to_eye[:, 2], torch.zeros_like(to_eye[:, 0]), -to_eye[:, 0]], dim=1), dim=1)
    up = torch.linalg.cross(to_eye, right)

    extent = float((points.amax(dim=0) - points.amin(dim=0)).norm())
    spacing = max(spacing, extent / MAX_BUFFER)
    plane = torch.stack([points @ right.T, points @ up.T], dim=-1) / (1.5 * spacing)  # (N,D,2)
    depth = points @ to_eye.T  # (N,D), larger is nearer
    pixel = (plane - plane.amin(dim=0)).long()
    side = int(pixel.max()) + 1
    flat = (torch.arange(directions, device=points.device) * side + pixel[..., 0]) * side + pixel[..., 1]
    buffer = depth.new_full((directions * side * side,), -torch.inf)
    buffer = buffer.scatter_reduce(0, flat.flatten(), depth.flatten(), "amax")
    seen = (1 - (buffer[flat] - depth) / spacing).clamp(min=0)
    return seen @ to_eye / directions
