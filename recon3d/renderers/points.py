"""The point-cloud renderer of Insafutdinov and Dosovitskiy 2018 (DPC): points and cameras in, silhouettes out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon3d.geometry.cameras import project
from recon3d.structures import Camera

EMPTY = 1e-5  # occupancies are kept this far from 0 and from 1, so that their logarithms are finite; the authors' code


def render_point_silhouettes(
    points: Tensor,
    camera: Camera,
    resolution: int,
    sigma: float,
    scale: Tensor | None = None,
    taps: int = 21,
) -> Tensor:
    """Silhouettes of point clouds: splatted to a grid that is aligned with the rays, smoothed, and looked through.

    The frustum is warped to a cube of V^3 cells: the pixels, and depth about the world's origin. Each point adds
    trilinear weights, 1 in all, to the 8 cells around it; sums are cut at 1. The grid is smoothed by a Gaussian of
    `taps` cells an axis, that sums to 1, with nothing outside; multiplied by `scale`; and cut to [EMPTY, 1 - EMPTY]. A
    ray ends in cell k with the probability ``o_k prod_{l<k} (1 - o_l)``; a pixel is the sum of these over its cells,
    which is ``1 - prod_k (1 - o_k)``.

    Points outside the cube, or at or behind the camera, are left out and have no gradient. Once differentiable in the
    points, the camera and the scale; the same bits for the same input on the CPU.

    Deviations, so that masks compare pixel for pixel and any camera is served: cells are centred on the pixels, where
    the authors' outermost ones are centred on the border of the frame; cells at the origin are as deep as they are wide
    (a length of V cells there: 1.46 in the NMR cameras), where the authors' are 1/V deep whatever the camera, which is
    0.94 of the width in theirs.

    Args:
        points: (..., N, 3) in the world; leading dimensions broadcast against the camera's.
        camera: leading shape (...); the origin is in front of it.
        resolution: V, side of the silhouettes and of the grid.
        sigma: standard deviation of the smoothing, in cells; 3 at the start of the authors' training, 0.2 at its end.
        scale: (...) factors of the occupancies, in [0, 1]; None is 1.
        taps: cells that the smoothing covers along an axis, odd; 21 in the authors' code.

    Returns:
        (..., V, V) in (0, 1), at least ``V * EMPTY`` or so; row 0 at the top, pixel centres as in `recon3d.structures`.

    Raises:
        ValueError: shapes that do not fit, points that are not finite, an origin that is not in front of a perspective
            camera, resolution < 1, sigma <= 0, or taps that are not odd.

    References:
        Insafutdinov and Dosovitskiy 2018 (arXiv 1810.09381), section 3.
    """
    lead = _checked_shape(points, camera, resolution, sigma, scale, taps)
    clouds, n = lead.numel(), points.shape[-2]
    cells, inside = _cells(points.expand(*lead, n, 3), camera, resolution)
    # Leading dimensions become one, of C clouds: (...,N) -> (C,N).
    grids = _splat(cells.reshape(3, clouds, n), inside.reshape(clouds, n), resolution)  # (C,V,V,V): depth, row, column
    factors = grids.new_ones(clouds) if scale is None else scale.expand(lead).reshape(clouds)
    silhouettes = _LookThrough.apply(grids, factors, _band(grids, sigma, taps))
    return silhouettes.reshape(*lead, resolution, resolution)


def _checked_shape(
    points: Tensor, camera: Camera, resolution: int, sigma: float, scale: Tensor | None, taps: int
) -> torch.Size:
    """Common leading shape of points, camera and scale."""
    shapes = [points.shape[:-2], camera.shape, *([] if scale is None else [scale.shape])]
    try:
        lead = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        lead = None
    if points.ndim < 2 or points.shape[-1] != 3 or lead is None:
        raise ValueError(
            "render_point_silhouettes: expected points (...,N,3), and camera and scale whose shapes broadcast against "
            f"(...), got {tuple(points.shape)}, {tuple(camera.shape)} and {None if scale is None else scale.shape}."
        )
    if resolution < 1 or not sigma > 0 or taps < 1 or taps % 2 == 0:
        raise ValueError(
            "render_point_silhouettes: expected resolution of at least 1, sigma > 0 and an odd number of taps, got "
            f"{resolution}, {sigma} and {taps}."
        )
    if not bool(points.isfinite().all()):
        raise ValueError("render_point_silhouettes: expected finite points, got NaN or infinity; did training diverge?")
    if not camera.orthographic and bool((camera.T[..., 2] <= 0).any()):
        raise ValueError(
            "render_point_silhouettes: expected cameras with the origin in front of them, got one for which it is at "
            f"depth {float(camera.T[..., 2].min()):.3g}."
        )
    return lead


def _cells(points: Tensor, camera: Camera, v: int) -> tuple[Tensor, Tensor]:
    """Positions in the grid, (3, ..., N): depth, row and column in cells; and which points are in it, (..., N)."""
    x, y, z = project(camera, points).unbind(dim=-1)
    center = camera.T[..., 2:]
    width = camera.focal.mean(dim=-1, keepdim=True) / (1.0 if camera.orthographic else center)  # of a unit, in NDC
    ndc = torch.stack([(center - z) * width, y, x])  # in [-1, 1] inside; all three fall as the index rises
    inside = (ndc.detach().abs() <= 1.0).all(dim=0)
    if not camera.orthographic:
        inside &= z > 0
    return 0.5 * (v * (1.0 - ndc) - 1.0), inside


def _splat(cells: Tensor, inside: Tensor, v: int) -> Tensor:
    """Trilinear weights of the points (3, C, N) of C clouds that are `inside` (C, N), summed: (C, V, V, V)."""
    cells = torch.where(inside, cells, 0.0)
    lower = cells.detach().floor()
    far = cells - lower
    weight = torch.stack([1.0 - far, far], dim=1)  # (3,2,C,N)
    index = torch.stack([lower, lower + 1.0], dim=1).long()
    weight = torch.where((index >= 0) & (index < v) & inside, weight, 0.0)
    index = index.clamp(0, v - 1)
    cloud = torch.arange(len(inside), device=cells.device).unsqueeze(1)
    # Every choice of a neighbour in depth, row and column: (2,2,2,C,N).
    plane = (cloud * v + index[0])[:, None, None]
    flat = (plane * v + index[1][:, None]) * v + index[2]
    total = weight[0][:, None, None] * weight[1][:, None] * weight[2]
    grids = cells.new_zeros(len(inside) * v**3)
    return grids.scatter_add(0, flat.flatten(), total.flatten()).unflatten(0, (len(inside), v, v, v))


def _band(like: Tensor, sigma: float, taps: int) -> Tensor:
    """Smoothing along an axis of V cells as a symmetric matrix (V, V): Gaussian of `taps` cells that sum to 1.

    Three products with it are 15 to 25 times as fast on a CPU as 3-D convolutions of one channel.
    """
    steps = torch.arange(max(like.shape[-1], taps), device=like.device, dtype=like.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma).square()) * (steps <= taps // 2)  # from the middle outwards
    kernel = kernel / (2.0 * kernel.sum() - kernel[0])
    cells = torch.arange(like.shape[-1], device=like.device)
    return kernel[(cells[:, None] - cells).abs()]


class _LookThrough(torch.autograd.Function):
    """From splatted grids (C,V,V,V) to silhouettes (C,V,V): cut, smooth, scale, cut, end the rays.

    One function, because autograd's chain of these operations keeps four times as many grids and is half as fast.
    """

    @staticmethod
    def forward(ctx: Any, grids: Tensor, scale: Tensor, band: Tensor) -> Tensor:
        smooth = _smooth(grids.clamp(max=1.0), band)
        passed = _pass(smooth, scale)
        through = passed.prod(dim=1)
        ctx.save_for_backward(grids <= 1.0, smooth, scale, band, through)
        return 1.0 - through

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        uncut, smooth, scale, band, through = ctx.saved_tensors
        passed = _pass(smooth, scale)
        free = (passed > EMPTY) & (passed < 1.0 - EMPTY)
        by_occupancy = ((gradient * through).unsqueeze(1) / passed).mul_(free)
        by_scale = (by_occupancy * smooth).sum(dim=(1, 2, 3))
        by_grid = _smooth(by_occupancy.mul_(scale[:, None, None, None]), band).mul_(uncut)
        return by_grid, by_scale, None


def _pass(smooth: Tensor, scale: Tensor) -> Tensor:
    """Probability of a ray's passing each cell."""
    return (1.0 - smooth * scale[:, None, None, None]).clamp_(EMPTY, 1.0 - EMPTY)


def _smooth(grids: Tensor, band: Tensor) -> Tensor:
    """Grids (C,V,V,V) smoothed along their three axes; the argument is overwritten."""
    c, v = grids.shape[:2]
    columns = grids @ band
    torch.bmm(band.expand(c * v, v, v), columns.flatten(0, 1), out=grids.flatten(0, 1))
    torch.bmm(band.expand(c, v, v), grids.flatten(2), out=columns.flatten(2))
    return columns
