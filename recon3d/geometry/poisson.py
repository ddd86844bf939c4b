"""Closed surfaces of point clouds: spectral Poisson reconstruction, differentiable and on any device.

Between the clouds that methods predict and everything that needs a surface: `recon3d.evaluation.convert` and
`recon3d predict`. Normals come from `recon3d.geometry.normals`.

[1] Peng et al. 2021, Shape As Points: A Differentiable Poisson Solver.
[2] Kazhdan and Hoppe 2013, Screened Poisson Surface Reconstruction.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pytorch3d.ops.marching_cubes import marching_cubes
from pytorch3d.structures import Meshes
from scipy.fft import next_fast_len
from torch import Tensor

from recon3d.geometry.normals import NEIGHBOURS, OrientedPoints, oriented_points

RESOLUTION, SIGMA = 96, 1.5
MARGIN = 0.1  # around the cloud, in units of its longest side
GAP = 1e-4  # of the field from the level, see `level_set`


def poisson_indicator(
    points: Tensor, normals: Tensor, weights: Tensor | None = None, *, shape: tuple[int, int, int], sigma: float = 2.0
) -> Tensor:
    """Indicator of the solid that oriented points enclose: negative inside (about -0.5), +0.5 at the grid's corner [1].

    With V the trilinear splat of ``weight * normal`` on a periodic grid, hats for Fourier transforms and ω = 2π f for
    frequencies f in cycles per cell, ``Φ = -i ω . V^ g / |ω|²``, whose gradient is V smoothed by the Gaussian
    ``g = exp(-(2 σ |f|)² / 2)``, of standard deviation σ/π cells. Φ is shifted so that its weighted mean over the
    points is 0, and scaled so that the corner [0, 0, 0], which has to lie outside the solid, is 0.5.
    Differentiable in points, normals and weights. On CUDA the splat adds in any order: last bits vary.

    Deviation from [1]: weights. Without them a side with more points pushes the surface out, or in on the other side.

    Args:
        points: (..., N, 3) in grid coordinates, in [0, shape): x in the unit cube of [1] is x * R here.
        normals: (..., N, 3), outward; a constant factor changes nothing.
        weights: (..., N), the area that each point stands for; None for points of even density. 0 leaves a point out.
        shape: of the grid. It is periodic: leave a margin around the points.
        sigma: σ, of the smoothing; 0 for none.

    Returns:
        (..., *shape), first index along the first coordinate; the value at index i belongs to coordinate i.

    Raises:
        ValueError: shapes that do not fit, or points outside the grid or not finite.
    """
    weights = torch.ones_like(points[..., 0]) if weights is None else weights
    if points.ndim < 2 or points.shape[-1] != 3 or normals.shape != points.shape or weights.shape != points.shape[:-1]:
        raise ValueError(
            "poisson_indicator: expected points and normals (...,N,3) and weights (...,N), got "
            f"{tuple(points.shape)}, {tuple(normals.shape)}, {tuple(weights.shape)}."
        )
    if not bool(((points >= 0) & (points < points.new_tensor(shape))).all()):
        raise ValueError(
            f"poisson_indicator: expected points in [0, {shape}); scale and shift the cloud into the grid."
        )
    lead, n = points.shape[:-2], points.shape[-2]
    weights, vectors = weights.reshape(-1, n), (weights[..., None] * normals).reshape(-1, n, 3)
    cells, shares = _corners(points.reshape(-1, n, 3), shape)  # (B,N,8)
    b = len(cells)
    field = points.new_zeros(b * math.prod(shape), 3)
    field = field.index_add(0, cells.flatten(), (shares[..., None] * vectors[:, :, None]).flatten(0, 2))
    spectrum = torch.fft.rfftn(field.view(b, *shape, 3).movedim(-1, 1), dim=(2, 3, 4))

    like = {"dtype": points.dtype, "device": points.device}
    axes = (
        torch.fft.fftfreq(shape[0], **like),
        torch.fft.fftfreq(shape[1], **like),
        torch.fft.rfftfreq(shape[2], **like),
    )
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    squared = frequency.square().sum(dim=0)
    # The Nyquist bin of an even axis is its own mirror image, so that a derivative along that axis, odd in frequency,
    # has no sign to take there: with one, mirrored clouds would have fields that are not mirrored.
    for axis, side in enumerate(shape):
        if side % 2 == 0:
            frequency[axis].select(axis, side // 2).zero_()
    factor = torch.exp(-2 * sigma**2 * squared) / (2 * math.pi * squared)
    factor[0, 0, 0] = 0  # the mean of the indicator, which the shift below sets
    phi = torch.fft.irfftn(-1j * factor * (spectrum * frequency).sum(dim=1), s=shape, dim=(1, 2, 3))

    at_points = (phi.flatten().take(cells) * shares).sum(dim=-1)
    level = (at_points * weights).sum(dim=1) / weights.sum(dim=1)
    phi = phi - level[:, None, None, None]
    phi = 0.5 * phi / phi[:, :1, :1, :1].abs()
    return phi.view(*lead, *shape)


def poisson_surface(
    points: Tensor,
    *,
    resolution: int = RESOLUTION,
    sigma: float = SIGMA,
    k: int = NEIGHBOURS,
    backend: Literal["spectral", "open3d"] = "spectral",
) -> Meshes:
    """Closed, outward-wound surfaces of raw clouds, which need no normals and may be noisy or filled.

    Each cloud by itself: its outer shell with normals and areas (`recon3d.geometry.normals`), `poisson_indicator` on a
    grid around it, marching cubes at level 0. Deterministic on the CPU.

    Args:
        points: (B, N, 3), any frame and unit.
        resolution: cells along the longest side of the grid, margin included; the other sides are as long as needed.
        sigma: smoothing, see `poisson_indicator`.
        k: neighbours of a normal.
        backend: ``spectral`` is `poisson_indicator`, on any device. ``open3d`` is the screened Poisson reconstruction
            of [2] in Open3D (the extra ``poisson``), on the CPU, in an octree as fine as `resolution`; it
            keeps thinner parts, takes 2 to 9 times as long, knows neither sigma nor areas, and does not promise a
            closed surface.

    Returns:
        B meshes, float32, on the device of the points. A cloud that has no surface (a coordinate that is not finite,
        no more than k points, all points all but the same) gives an empty mesh.

    Raises:
        ValueError: another shape, or an unknown backend.
        ImportError: the backend ``open3d`` cannot be imported.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"poisson_surface: expected points (B,N,3), got {tuple(points.shape)}.")
    if backend not in ("spectral", "open3d"):
        raise ValueError(f"poisson_surface: expected the backend spectral or open3d, got {backend!r}.")
    pairs = []
    with torch.no_grad():
        for cloud in points.float():
            shell = oriented_points(cloud, k) if len(cloud) > k and bool(torch.isfinite(cloud).all()) else None
            if shell is None or len(shell.points) == 0:
                pairs.append(_empty(cloud))
            elif backend == "open3d":
                pairs.append(_screened(shell, resolution))
            else:
                pairs.append(_spectral(shell, resolution, sigma))
    return Meshes([verts for verts, _ in pairs], [faces for _, faces in pairs])


def level_set(phi: Tensor) -> tuple[Tensor, Tensor]:
    """Closed surface where a field changes its sign, wound so that normals point to larger values.

    What lies beyond the grid counts as larger.

    Args:
        phi: three axes, of about unit range.

    Returns:
        verts (V, 3) in grid coordinates, the value at index i at coordinate i; faces (F, 3) int64.
    """
    # PyTorch3D's marching cubes moves vertices that are within 1e-5 of a grid point to it, and cracks open there (every
    # one of our random fields of 64^3 cells had some). At a distance of 1e-4 there are none, and no vertex has moved by
    # more than some 1e-4 cells.
    phi = torch.where(phi.abs() < GAP, torch.where(phi < 0, -GAP, GAP), phi)
    volume = F.pad(phi, (1,) * 6, value=0.5)[None]
    (verts,), (faces,) = marching_cubes(volume, 0.0, return_local_coords=False)
    if len(faces) == 0:  # PyTorch3D answers with lists where it found nothing
        return _empty(phi)
    # PyTorch3D orders coordinates from the last axis to the first; undoing that mirrors, hence the second flip.
    return verts.flip(1) - 1, faces.flip(1)


def _spectral(shell: OrientedPoints, resolution: int, sigma: float) -> tuple[Tensor, Tensor]:
    points, normals, areas = shell
    low, sides = points.amin(dim=0), points.amax(dim=0) - points.amin(dim=0)
    margin = MARGIN * sides.max()
    cell = (sides.max() + 2 * margin) / resolution
    nx, ny, nz = (next_fast_len(math.ceil(n), real=True) for n in ((sides + 2 * margin) / cell).tolist())
    phi = poisson_indicator((points - low + margin) / cell, normals, areas, shape=(nx, ny, nz), sigma=sigma)
    if not bool(torch.isfinite(phi).all()):  # all areas are 0: the points coincide in groups
        return _empty(points)
    verts, faces = level_set(phi)
    return verts * cell + low - margin, faces


def _screened(shell: OrientedPoints, resolution: int) -> tuple[Tensor, Tensor]:
    try:
        import open3d
    except (ImportError, OSError) as error:  # OSError: a system library is missing
        raise ImportError(
            f"poisson_surface: the backend open3d cannot be imported ({error}). Install it with "
            "`.venv/bin/pip install -e '.[poisson]'` in the clone; on Debian and Ubuntu it also needs `apt install "
            "libusb-1.0-0 libgl1 libegl1 libx11-6`. The backend spectral needs nothing."
        ) from error
    cloud = open3d.geometry.PointCloud()
    cloud.points, cloud.normals = (
        open3d.utility.Vector3dVector(value.double().cpu().numpy()) for value in (shell.points, shell.normals)
    )
    # One thread: with more, the same cloud does not always give the same mesh.
    mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=math.ceil(math.log2(resolution)), scale=1 + 2 * MARGIN, n_threads=1
    )
    like = shell.points
    verts, faces = (torch.from_numpy(np.asarray(value).copy()) for value in (mesh.vertices, mesh.triangles))
    return verts.to(like), faces.to(like.device, torch.int64)


def _empty(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64, device=like.device)


def _corners(points: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Flat indices, batch included, of the nodes around each point (B,N,3), and trilinear shares: (B,N,8) both."""
    low = points.detach().floor()
    beyond = (points - low)[:, :, None]
    offsets = torch.cartesian_prod(*[torch.arange(2, device=points.device)] * 3)  # (8,3)
    node = (low.long()[:, :, None] + offsets) % torch.tensor(shape, device=points.device)  # (B,N,8,3)
    shares = torch.where(offsets.bool(), beyond, 1 - beyond).prod(dim=-1)
    batch = torch.arange(len(points), device=points.device)[:, None, None]
    return ((batch * shape[0] + node[..., 0]) * shape[1] + node[..., 1]) * shape[2] + node[..., 2], shares
