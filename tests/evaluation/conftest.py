from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import trimesh
from pytorch3d.structures import Meshes

from recon3d.geometry.cameras import nmr_cameras
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, ViewBatch


@pytest.fixture(scope="session")
def shapes() -> Meshes:
    """A lying box, an egg and a torus, none of them symmetric under exchange of axes."""
    solids = [
        trimesh.creation.box((0.9, 0.3, 0.5)),
        trimesh.creation.icosphere(subdivisions=2, radius=0.5).apply_scale([1.0, 0.5, 0.7]),
        trimesh.creation.torus(0.35, 0.1, major_sections=24, minor_sections=12),
    ]
    return Meshes(
        [torch.tensor(solid.vertices).float() for solid in solids], [torch.tensor(solid.faces) for solid in solids]
    )


@pytest.fixture(scope="session")
def truth(shapes: Meshes) -> ViewBatch:
    """The shapes with everything a data set may have, in 3 views each."""
    generator = torch.Generator().manual_seed(1)
    cameras = nmr_cameras()[::5][:3]
    masks, points, voxels = [], [], []
    for verts, faces in zip(shapes.verts_list(), shapes.faces_list(), strict=True):
        masks.append(render_hard(verts.expand(3, -1, -1), faces, cameras, 32).mask)
        points.append(sample_surface(verts, faces, 4000, generator)[0])
        voxels.append(voxelize(verts, faces))
    return ViewBatch(
        images=torch.stack(masks).expand(-1, -1, 3, -1, -1),
        masks=torch.stack(masks),
        sample_id=("box/0", "egg/0", "torus/0"),
        category=("box", "round", "round"),
        cameras=Camera.cat([cameras[None]] * 3),
        points=torch.stack(points),
        voxels=torch.stack(voxels),
    )


@pytest.fixture(scope="session")
def part() -> Callable[..., ViewBatch]:
    """Objects of a batch by index, with changes."""

    def take(batch: ViewBatch, *index: int, **changes: Any) -> ViewBatch:
        chosen = list(index)
        taken = replace(
            batch,
            images=batch.images[chosen],
            masks=batch.masks[chosen],
            sample_id=tuple(batch.sample_id[k] for k in chosen),
            category=tuple(batch.category[k] for k in chosen),
            cameras=None if batch.cameras is None else batch.cameras[chosen],
            points=None if batch.points is None else batch.points[chosen],
            voxels=None if batch.voxels is None else batch.voxels[chosen],
        )
        return replace(taken, **changes)

    return take
