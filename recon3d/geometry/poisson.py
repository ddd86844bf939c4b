"""Closed surfaces of point clouds: spectral Poisson reconstruction, differentiable and on any device.

Between the clouds that methods predict and everything that needs a surface: `recon3d.evaluation.convert` and
`recon3d predict`. Normals come from `recon3d.geometry.normals`.

The solver follows [1]: outward normals n_i with areas a_i, splatted on a periodic grid, are (minus) the gradient of the
indicator of the solid; a division by the squared frequency integrates them.

[1] Peng et al. 2021, Shape As Points: A Differentiable Poisson Solver.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pytorch3d.ops.marching_cubes import marching_cubes
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.geometry.normals import oriented_points

RESOLUTION, SIGMA, NEIGHBOURS = 96, 1.5, 16
PADDING = 1.2


def poisson_indicator(
    points: Tensor, normals: Tensor, weights: Tensor | None = None, *, resolution: int = 128, sigma: float = 2.0
) -> Tensor:
    """Indicator of the solid that oriented points enclose: negative inside (about -0.5), +0.5 at the grid's corner.

    With V the trilinear splat of ``weight * normal``, hats for Fourier transforms and ω = 2π k for integer frequencies
    k, ``Φ = -i ω . V^ g / |ω|²`` with the Gaussian ``g = exp(-(2 σ |k| / R)² / 2)``, of standard deviation σ/π cells.
    Φ is shifted so that its weighted mean over the points is 0 and scaled so that the corner [0, 0, 0], which has to
    lie outside the solid, is 0.5. Differentiable in points, normals and weights; on CUDA the sums of the splat
    run in any order, so the last bits vary.

    Args:
        points: (..., N, 3) in [0, 1); the domain is periodic, so leave a margin.
        normals: (..., N, 3), outward; a constant factor changes nothing.
        weights: (..., N), the area that each point stands for; None for points of even density. 0 leaves a point out.
        resolution: R, grid cells along each axis.
        sigma: σ, of the smoothing; 0 for none.

    Returns:
        (..., R, R, R), first index along the first coordinate; the value at index i belongs to coordinate i / R.

    Raises:
        ValueError: shapes that do not fit, points outside [0, 1) or not finite, or a resolution below 2.
    """
    weights = torch.ones_like(points[..., 0]) if weights is None else weights
    if points.ndim < 2 or points.shape[-1] != 3 or normals.shape != points.shape or weights.shape != points.shape[:-1]:
        raise ValueError(
            "poisson_indicator: expected points and normals (...,N,3) and weights (...,N), got "
            f"{tuple(points.shape)}, {tuple(normals.shape)}, {tuple(weights.shape)}."
        )
    if not bool(((points >= 0) & (points < 1)).all()):
        raise ValueError("poisson_indicator: expected points in [0, 1); scale the cloud into the unit cube first.")
    if resolution < 2:
        raise ValueError(f"poisson_indicator: resolution must be at least 2, got {resolution}.")
    lead, n, r = points.shape[:-2], points.shape[-2], resolution
    points, normals, weights = points.reshape(-1, n, 3), normals.reshape(-1, n, 3), weights.reshape(-1, n)
    cells, shares = _corners(points, r)
    b = len(points)
    vectors = shares[..., None] * (weights[..., None] * normals)[:, :, None]  # (B,N,8,3)
    field = points.new_zeros(b * r**3, 3).index_add(0, cells.flatten(), vectors.flatten(0, 2))
    spectrum = torch.fft.rfftn(field.view(b, r, r, r, 3).movedim(-1, 1), dim=(2, 3, 4))  # (B,3,R,R,R//2+1)

    full = torch.fft.fftfreq(r, 1 / r, dtype=points.dtype, device=points.device)
    half = torch.fft.rfftfreq(r, 1 / r, dtype=points.dtype, device=points.device)
    k = torch.stack(torch.meshgrid(full, full, half, indexing="ij"))
    squared = k.square().sum(dim=0)
    factor = torch.exp(-0.5 * (2 * sigma / r) ** 2 * squared) / (2 * math.pi * squared)
    factor[0, 0, 0] = 0  # the mean of the indicator: the shift below sets it
    phi = torch.fft.irfftn(-1j * (spectrum * k).sum(dim=1) * factor, s=(r, r, r), dim=(1, 2, 3))

    at_points = (phi.flatten().take(cells) * shares).sum(dim=-1)  # (B,N)
    level = (at_points * weights).sum(dim=1) / weights.sum(dim=1)
    phi = phi - level[:, None, None, None]
    phi = 0.5 * phi / phi[:, :1, :1, :1].abs()
    return phi.view(*lead, r, r, r)


def _corners(points: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Flat grid indices (B,N,8) of the nodes around each point, batch included, and trilinear shares (B,N,8)."""
    scaled = points * r
    low = scaled.detach().floor()
    beyond = scaled - low
    offsets = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], device=points.device)
    node = (low.long()[:, :, None] + offsets) % r  # (B,N,8,3)
    shares = torch.where(offsets.bool(), beyond[:, :, None], 1 - beyond[:, :, None]).prod(dim=-1)
    batch = torch.arange(len(points), device=points.device)[:, None, None]
    return ((batch * r + node[..., 0]) * r + node[..., 1]) * r + node[..., 2], shares


def poisson_surface(
    points: Tensor, *, resolution: int = RESOLUTION, sigma: float = SIGMA, k: int = NEIGHBOURS
) -> Meshes:
    """Closed, outward-wound surfaces of raw clouds, which need no normals and may be noisy or filled.

    Each cloud by itself: its outer shell with normals and areas (`recon3d.geometry.normals`), scaled so that its
    longest side takes 1 / `PADDING` of the unit cube, `poisson_indicator`, marching cubes at level 0.

    Args:
        points: (B, N, 3), any frame and unit.
        resolution: grid cells along each axis of the padded box.
        sigma: smoothing, see `poisson_indicator`.
        k: neighbours of a normal.

    Returns:
        B meshes, float32, on the device of the points. A cloud that has no surface (a coordinate that is not finite,
        no more than k points, all points all but the same) gives an empty mesh.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"poisson_surface: expected points (B,N,3), got {tuple(points.shape)}.")
    with torch.no_grad():
        pairs = [_surface(cloud.float(), resolution, sigma, k) for cloud in points]
    return Meshes([verts for verts, _ in pairs], [faces for _, faces in pairs])


def _surface(cloud: Tensor, resolution: int, sigma: float, k: int) -> tuple[Tensor, Tensor]:
    empty = cloud.new_zeros(0, 3), cloud.new_zeros(0, 3, dtype=torch.int64)
    if len(cloud) <= k or not bool(torch.isfinite(cloud).all()):
        return empty
    shell = oriented_points(cloud, k)
    if len(shell.points) == 0:
        return empty
    low, high = shell.points.amin(dim=0), shell.points.amax(dim=0)
    center, side = (low + high) / 2, PADDING * float((high - low).max())
    if not side > 0:
        return empty
    phi = poisson_indicator(
        (shell.points - center) / side + 0.5, shell.normals, shell.areas, resolution=resolution, sigma=sigma
    )
    if not bool(torch.isfinite(phi).all()):
        return empty
    verts, faces = level_set(phi)
    return (verts - 0.5) * side + center, faces


def level_set(phi: Tensor) -> tuple[Tensor, Tensor]:
    """Closed surface where a field (R, R, R) changes its sign, wound so that normals point to larger values.

    What lies beyond the grid counts as outside.

    Returns:
        verts (V, 3) in grid coordinates divided by R, that is index i at i / R; faces (F, 3) int64.
    """
    # PyTorch3D's marching cubes snaps edges whose end is within 1e-5 of the level, and then leaves cracks (on random
    # fields of 64^3 cells every mesh had some): values keep a distance of 1e-4, which moves no vertex by more than a
    # few 1e-4 cells.
    phi = torch.where(phi.abs() < 1e-4, torch.where(phi < 0, -1e-4, 1e-4), phi)
    volume = F.pad(phi, (1,) * 6, value=0.5)[None]
    (verts,), (faces,) = marching_cubes(volume, 0.0, return_local_coords=False)
    if len(faces) == 0:  # PyTorch3D answers with lists where it found nothing
        return phi.new_zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64, device=phi.device)
    # PyTorch3D orders coordinates from the last axis to the first; undoing that mirrors, hence the second flip.
    return (verts.flip(1) - 1) / len(phi), faces.flip(1)
