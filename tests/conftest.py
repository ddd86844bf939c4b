from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import yaml

from recon3d.data.nmr_layout import write_split
from recon3d.geometry.cameras import nmr_cameras
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, ViewBatch

TINY_SIZE = 32  # pixels of the views of `nmr_root`
# Small networks for the tests; a method that is not here is tested with the sizes of its yaml.
TINY_MESH = {"width": 4, "hidden": 16, "code": 8, "image_size": TINY_SIZE}
TINY_POINTS = {"width": 4, "hidden": 16, "n_points": 50, "image_size": TINY_SIZE}
TINY_CLOUD = TINY_POINTS | {"resolution": 16}
TINY_TEXTURE = {"width": 8, "code": 8, "image_size": 64, "texture_size": 8, "texels": 2}
TINY_UMR = TINY_TEXTURE | {"latent": 8, "hypotheses": 2}
TINY_NETWORKS: dict[str, dict[str, Any]] = {
    "adaptive_texture": TINY_UMR | {"frechet_layer": 64, "frechet_size": 75, "frechet_bank": 8},
    "cmr": TINY_TEXTURE | {"keypoints": 5},
    "umr": TINY_UMR,
    "dpc": TINY_POINTS | {"resolution": 16},
    "effective_loss": TINY_CLOUD,
    "effective_loss_supervised": TINY_POINTS,
    "effective_loss_voxels": TINY_CLOUD | {"channels": [16, 8, 8]},
    "neural_renderer": TINY_MESH,
    "retrieval": {"layer": "conv2_2", "image_size": TINY_SIZE, "views": 3},
    "softras": TINY_MESH,
    "voxel": TINY_MESH | {"channels": [16, 8, 8]},
}


@pytest.fixture(scope="session")
def nmr_root(tmp_path_factory) -> Path:
    """A data set in the NMR layout: boxes as cars, tall cones as lamps; 2 objects a category and split, 32x32."""
    root = tmp_path_factory.mktemp("nmr")
    generator = torch.Generator().manual_seed(0)
    cameras = nmr_cameras()
    for category in ("car", "lamp"):
        for number, split in enumerate(("train", "val", "test")):
            images, voxels, points, normals = [], [], [], []
            for item in range(2):
                thickness = 0.3 + 0.05 * number + 0.1 * item
                if category == "car":
                    solid = trimesh.creation.box((1.0, thickness, 0.5))
                else:
                    solid = trimesh.creation.cone(thickness, 1.0, sections=12)
                    solid.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
                    solid.apply_translation(-solid.bounds.mean(axis=0))
                verts, faces = torch.tensor(solid.vertices).float(), torch.tensor(np.array(solid.faces))
                seen = render_hard(verts.expand(len(cameras.T), -1, -1), faces, cameras, TINY_SIZE)
                rgba = torch.cat([seen.image, seen.mask], dim=1)
                images.append((rgba * 255).round().byte().numpy())
                voxels.append(voxelize(verts, faces).numpy())
                surface = sample_surface(verts, faces, 300, generator)
                points.append(surface[0].float().numpy())
                normals.append(surface[1].float().numpy())
            write_split(root, category, split, ["a", "b"], images, voxels, points, normals)
    return root


@pytest.fixture(scope="session")
def full_batch() -> Callable[..., ViewBatch]:
    """Batches of ellipsoids with every field that a data set may have; photographs have orthographic cameras."""

    def make(objects: int = 2, views: int = 2, size: int = 32, photographs: bool = False, **changes: Any) -> ViewBatch:
        generator = torch.Generator().manual_seed(7)
        sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
        faces = torch.tensor(np.array(sphere.faces))
        cameras = nmr_cameras()[::5][:views]
        if photographs:
            cameras = replace(cameras, focal=torch.full_like(cameras.focal, 1.5), orthographic=True)
        images, masks, points, normals, voxels = [], [], [], [], []
        for index in range(objects):
            axes = torch.tensor([1.0, 0.5, 0.3 + 0.1 * index])
            verts = torch.tensor(sphere.vertices).float() * axes
            colors = torch.rand(len(faces), 3, generator=generator)
            seen = render_hard(verts.expand(views, -1, -1), faces, cameras, size, colors)
            images.append(seen.image)
            masks.append(seen.mask)
            surface = sample_surface(verts, faces, 200, generator)
            points.append(surface[0].float())
            normals.append(surface[1].float())
            voxels.append(voxelize(verts, faces))
        keypoints = torch.cat(
            [torch.rand(objects, views, 5, 2, generator=generator), torch.ones(objects, views, 5, 1)], -1
        )
        fields: dict[str, Any] = {
            "images": torch.stack(images),
            "masks": torch.stack(masks),
            "sample_id": tuple(f"egg/{index:04d}/v00" for index in range(objects)),
            "category": ("egg",) * objects,
            "cameras": Camera.cat([cameras[None]] * objects),
            "points": torch.stack(points),
            "normals": torch.stack(normals),
            "voxels": torch.stack(voxels),
            "keypoints": keypoints,
            "parts": torch.rand(objects, views, 5, size, size, generator=generator).softmax(dim=2),
        }
        return ViewBatch(**fields | changes)

    return make


@pytest.fixture(scope="session")
def tiny_configs(tmp_path_factory, nmr_root) -> Path:
    """The project's configs with a data set `tiny` (nmr_root) and a preset `tiny` (2 epochs of 3 small steps)."""
    folder = tmp_path_factory.mktemp("tiny") / "configs"
    shutil.copytree(Path(__file__).parents[1] / "configs", folder)
    data = {"class_path": "recon3d.data.shapenet.ShapeNetDataModule", "init_args": {"root": str(nmr_root)}}
    loader = {"batch_size": 4, "train_steps_per_epoch": 3, "test_views": 1, "val_views": 1}
    trainer = {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1}
    one_pass = yaml.safe_load((folder / "presets/smoke/mean_shape.yaml").read_text())
    texts: dict[str, Any] = {
        "data/tiny": {"data": data},
        "presets/tiny": {"trainer": trainer, "data": {"init_args": loader}},
        "presets/tiny/mean_shape": one_pass,
    }
    for method, sizes in TINY_NETWORKS.items():
        texts[f"presets/tiny/{method}"] = {"model": {"init_args": sizes}}
    texts["presets/tiny/retrieval"] |= one_pass
    for name, content in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    return folder
