"""Folders of one's own pictures, as `recon3d.data.image_folder` reads them: procedural shapes, rendered to files.

Written with PIL and the csv module, none of our readers or writers.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recon3d.data.meshes import to_object_frame
from recon3d.geometry.cameras import look_at_camera
from recon3d.geometry.shapes import make_shape
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera

WIDTH, HEIGHT = 96, 72
FOV = 45.0  # of the longer side, degrees
DISTANCE = 2.4
CATEGORIES = ("chair", "car")


def shape(category: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices in the object frame, faces, face colours."""
    made = make_shape(category, seed)
    verts = to_object_frame(torch.as_tensor(made.verts).float())
    return verts, torch.as_tensor(made.faces).long(), torch.as_tensor(made.face_colors).float()


def render(category: str, seed: int, cameras: Camera) -> np.ndarray:
    """RGBA pictures (V, HEIGHT, WIDTH, 4) uint8; the cameras' NDC spans the width."""
    verts, faces, colors = shape(category, seed)
    seen = render_hard(verts.expand(len(cameras.T), -1, -1), faces, cameras, WIDTH, colors, anti_alias=2)
    rgba = torch.cat([seen.image, seen.mask], dim=1).permute(0, 2, 3, 1)
    top = (WIDTH - HEIGHT) // 2
    return (rgba[:, top : top + HEIGHT] * 255).round().byte().numpy()


def save(root: Path, name: str, rgba: np.ndarray, background: int) -> None:
    """A JPEG on a grey background, and its mask."""
    image, mask = root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    alpha = rgba[..., 3:] / 255
    Image.fromarray((rgba[..., :3] * alpha + background * (1 - alpha)).round().astype(np.uint8)).save(image, quality=95)
    Image.fromarray(rgba[..., 3]).save(mask)


def view_angles(views: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Azimuths and elevations of the views of an object, in degrees."""
    return 10 + torch.arange(views) * 360.0 / views, 10 + 30.0 * torch.arange(views) / views


def write_folder(root: Path, cameras: bool, objects: int = 4, views: int = 6) -> None:
    """Write a small valid folder of procedural chairs and cars.

    Args:
        root: becomes ``images/``, ``masks/`` and, with cameras, ``cameras.csv``.
        cameras: several views of each object from known places; else one photograph of each.
        objects: of each category.
        views: of each object, with cameras.
    """
    rows = []
    for category in CATEGORIES:
        for number in range(objects):
            if not cameras:
                angle = torch.tensor([float(37 * number)])
                seen = look_at_camera(DISTANCE, 20.0, angle, FOV / 2)
                save(root, f"{category}/{number:02d}", render(category, number, seen)[0], background=120)
                continue
            azimuth, elevation = view_angles(views)
            pictures = render(category, number, look_at_camera(DISTANCE, elevation, azimuth, FOV / 2))
            for view, rgba in enumerate(pictures):
                name = f"{category}/{number:02d}/{view:03d}"
                save(root, name, rgba, background=120)
                rows.append((f"{name}.jpg", "look_at", float(azimuth[view]), float(elevation[view]), DISTANCE, FOV))
    if cameras:
        with (root / "cameras.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "convention", "azimuth", "elevation", "distance", "fov"), *rows])
