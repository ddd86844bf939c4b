"""The work of the rasterising benchmarks: spheres with noise in the cameras of the NMR data."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere

RADIUS = 0.4
NOISE = 0.3  # standard deviation of radii, in lengths of an edge of a level-0 icosphere halved `level` times


def projected_spheres(count: int, level: int) -> Tensor:
    """Corners (count, 20 * 4**level, 3, 3) of spheres, each with noise and a camera of its own: NDC x, y and z."""
    verts, faces = icosphere(level, RADIUS)
    generator = torch.Generator().manual_seed(0)
    verts = verts * (1 + NOISE / 2**level * torch.randn(count, len(verts), 1, generator=generator))
    cameras = nmr_cameras()
    return project(cameras[torch.arange(count) % len(cameras.T)], verts)[:, faces]
