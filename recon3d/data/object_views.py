"""One mesh to everything that the layouts keep of an object: views, voxels, surface points.

The step between `recon3d.data.meshes` (files) or `recon3d.geometry.shapes` (procedural objects) and
`recon3d.data.building` (whole data sets), the same for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from recon3d.data.meshes import Scale, to_object_frame
from recon3d.geometry.cameras import DPC_DISTANCE, dpc_cameras, dpc_positions, nmr_cameras
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import HardRender, render_hard
from recon3d.structures import Camera

Layout = Literal["nmr", "dpc"]

VERSION = 1  # raise when the same mesh and settings give other views, voxels or points
ANTI_ALIAS = 2  # as the renderers of NMR: twice the size, then averaged
VOXEL_RESOLUTION = 32
DPC_ELEVATIONS = (-20.0, 40.0)  # degrees; the range of DRC's renders (Tulsiani et al. 2017), whose split DPC uses
_FACES_AT_ONCE = 500_000  # views x faces rendered in one call; bounds the memory of meshes with very many faces


@dataclass(frozen=True)
class RenderSettings:
    """What is made of every mesh, in the NMR layout.

    Attributes:
        views: 24 or 120, see `recon3d.geometry.cameras.nmr_cameras`.
        image_size: pixels.
        n_points: surface samples.
        scale: what becomes 1 in the object frame.
        seed: of the surface samples.
    """

    views: int = 24
    image_size: int = 64
    n_points: int = 10_000
    scale: Scale = "longest_side"
    seed: int = 0
    layout: ClassVar[Layout] = "nmr"

    def __post_init__(self) -> None:
        self.cameras(torch.Generator())  # refuses wrong numbers of views
        if self.image_size < 1 or self.n_points < 1:
            raise ValueError(f"Expected positive image_size and n_points, got {self.image_size} and {self.n_points}.")
        if self.scale not in ("longest_side", "diagonal"):
            raise ValueError(f"Expected scale longest_side or diagonal, got {self.scale!r}.")

    def cameras(self, generator: torch.Generator) -> Camera:
        """Cameras of one object, leading shape (views,)."""
        return nmr_cameras(self.views)


@dataclass(frozen=True)
class DPCRenderSettings(RenderSettings):
    """What is made of every mesh, in the DPC layout: views from directions of its own for every object.

    Attributes:
        views: 5 in the official files; azimuth uniform, elevation uniform in `DPC_ELEVATIONS`.
        seed: of the surface samples and directions.
    """

    views: int = 5
    image_size: int = 128
    scale: Scale = "diagonal"
    layout: ClassVar[Layout] = "dpc"

    def cameras(self, generator: torch.Generator) -> Camera:
        """Cameras of one object in random directions, leading shape (views,), in float64."""
        if self.views < 1:
            raise ValueError(f"Expected at least 1 view, got {self.views}.")
        low, high = (math.radians(angle) for angle in DPC_ELEVATIONS)
        u, v = torch.rand(2, self.views, generator=generator, dtype=torch.float64)
        azimuth, elevation = 2 * math.pi * u, low + (high - low) * v
        level = elevation.cos()
        direction = torch.stack([level * azimuth.cos(), level * azimuth.sin(), elevation.sin()], dim=-1)
        return dpc_cameras(DPC_DISTANCE * direction)


SETTINGS: dict[Layout, type[RenderSettings]] = {"nmr": RenderSettings, "dpc": DPCRenderSettings}


@dataclass(frozen=True)
class ObjectViews:
    """One object in the NMR layout.

    Attributes:
        images: (V, 4, S, S) uint8 RGBA, straight alpha, background 0.
        voxels: (32, 32, 32) bool, index [y, x, z] of the object frame.
        points: (P, 3) float32 in the object frame.
        normals: (P, 3) float16, unit, of `points`.
    """

    images: np.ndarray
    voxels: np.ndarray
    points: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class PosedViews(ObjectViews):
    """One object in the DPC layout.

    Attributes:
        positions: (V, 3) float64, of the cameras in Blender's world.
        depths: (V, S, S) float32 along the viewing axis, of the nearest surface in a pixel, inf in the background.
    """

    positions: np.ndarray
    depths: np.ndarray


def object_to_views(
    verts: Tensor, faces: Tensor, face_colors: Tensor | None, settings: RenderSettings, generator: torch.Generator
) -> ObjectViews:
    """Renders, voxelises and samples one mesh.

    Args:
        verts: (V, 3) float32 in the frame of a ShapeNet .obj file, any position and scale.
        faces: (F, 3).
        face_colors: (F, 3) in [0, 1]; None is grey.
        settings: of the data set; `DPCRenderSettings` give `PosedViews`.
        generator: of the surface samples, and of directions that are random.
    """
    verts = to_object_frame(verts, settings.scale)
    points, normals, _ = sample_surface(verts, faces, settings.n_points, generator)
    cameras = settings.cameras(generator)
    render = _render_views(verts, faces, face_colors, cameras.to(dtype=torch.float32), settings.image_size)
    rgba = torch.cat([render.image, render.mask], dim=1)
    arrays = {
        "images": (255.0 * rgba).round().to(torch.uint8).numpy(),
        "voxels": voxelize(verts, faces, VOXEL_RESOLUTION).numpy(),
        "points": points.numpy().astype(np.float32),
        "normals": normals.numpy().astype(np.float16),
    }
    if settings.layout == "nmr":
        return ObjectViews(**arrays)
    return PosedViews(**arrays, positions=dpc_positions(cameras).numpy(), depths=render.depth[:, 0].numpy())


def _render_views(
    verts: Tensor, faces: Tensor, face_colors: Tensor | None, cameras: Camera, image_size: int
) -> HardRender:
    renders = []
    for view in torch.arange(len(cameras.T)).split(max(1, _FACES_AT_ONCE // len(faces))):
        some = verts.expand(len(view), -1, -1)
        renders.append(render_hard(some, faces, cameras[view], image_size, face_colors, ANTI_ALIAS))
    return HardRender(*map(torch.cat, zip(*renders, strict=True)))
