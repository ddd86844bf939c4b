"""One mesh to everything the NMR layout keeps of an object: views, voxels, surface points.

The step between `recon3d.data.meshes` (files) or `recon3d.geometry.shapes` (procedural objects) and
`recon3d.data.building` (whole data sets), the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon3d.data.meshes import Scale, to_object_frame
from recon3d.geometry.cameras import nmr_cameras
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard

VERSION = 1  # raise when the same mesh and settings give other views, voxels or points
ANTI_ALIAS = 2  # as the renderers of NMR: twice the size, then averaged
VOXEL_RESOLUTION = 32
_FACES_AT_ONCE = 500_000  # views x faces rendered in one call; bounds the memory of meshes with very many faces


@dataclass(frozen=True)
class RenderSettings:
    """What is made of every mesh.

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

    def __post_init__(self) -> None:
        nmr_cameras(self.views)  # refuses other numbers of views
        if self.image_size < 1 or self.n_points < 1:
            raise ValueError(f"Expected positive image_size and n_points, got {self.image_size} and {self.n_points}.")
        if self.scale not in ("longest_side", "diagonal"):
            raise ValueError(f"Expected scale longest_side or diagonal, got {self.scale!r}.")


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


def object_to_views(
    verts: Tensor, faces: Tensor, face_colors: Tensor | None, settings: RenderSettings, generator: torch.Generator
) -> ObjectViews:
    """Renders, voxelises and samples one mesh.

    Args:
        verts: (V, 3) float32 in the frame of a ShapeNet .obj file, any position and scale.
        faces: (F, 3).
        face_colors: (F, 3) in [0, 1]; None is grey.
        settings: of the data set.
        generator: of the surface samples.
    """
    verts = to_object_frame(verts, settings.scale)
    points, normals, _ = sample_surface(verts, faces, settings.n_points, generator)
    return ObjectViews(
        images=_render_views(verts, faces, face_colors, settings),
        voxels=voxelize(verts, faces, VOXEL_RESOLUTION).numpy(),
        points=points.numpy().astype(np.float32),
        normals=normals.numpy().astype(np.float16),
    )


def _render_views(verts: Tensor, faces: Tensor, face_colors: Tensor | None, settings: RenderSettings) -> np.ndarray:
    cameras = nmr_cameras(settings.views)
    images = []
    for view in torch.arange(settings.views).split(max(1, _FACES_AT_ONCE // len(faces))):
        render = render_hard(
            verts.expand(len(view), -1, -1), faces, cameras[view], settings.image_size, face_colors, ANTI_ALIAS
        )
        rgba = torch.cat([render.image, render.mask], dim=1)
        images.append((255.0 * rgba).round().to(torch.uint8))
    return torch.cat(images).numpy()
