"""How a mesh is shown: the camera of its input view, and the same view for a 3D viewer.

The viewer (glTF axes, see `recon3d.apps.mesh_files`) turns a model by an orientation and looks at the origin from an
orbit. Here each mesh gets the orientation and the scale that make it look as in **its** input view: the predicted
camera if the method predicts one, else the data's, as in the evaluation. All viewers of a sample then share one orbit,
so that turning one turns all alike, also methods with frames of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from pytorch3d.renderer import TexturesUV
from pytorch3d.renderer.mesh.textures import TexturesBase
from scipy.spatial.transform import Rotation
from torch import Tensor

from recon3d.geometry.cameras import look_at_camera
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

TILE = 192  # pixels of a preview
ANTI_ALIAS = 2
FLAT = 6.0  # degrees: field of view for orthographic cameras, which viewers do not have
# Axes of PyTorch3D's view (+X left, +Z away) to those of glTF's camera (+X right, +Z towards the viewer).
VIEW_TO_GLTF = np.diag([-1.0, 1.0, -1.0])
OBJECT_TO_GLTF = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])

Source = Literal["predicted", "data", "none"]


class InputView(NamedTuple):
    """The camera (1,) that shows one mesh, and where it is from."""

    camera: Camera
    source: Source


class Orbit(NamedTuple):
    """Where all viewers of a sample look from at first, and how each mesh is turned; degrees.

    Attributes:
        polar: angle between the line of sight and the axis that the viewers turn about; 90 is level.
        field_of_view: vertical.
        orientations: roll, pitch and yaw of each mesh.
    """

    polar: float
    field_of_view: float
    orientations: list[tuple[float, float, float]]


def input_view(batch: ViewBatch, recon: Reconstruction | None = None) -> InputView:
    """The camera of one object's input view: of the method, else of the data, else a default one from the front left.

    A camera that is not finite or sees the origin behind itself is passed over.

    Args:
        batch: of one object.
        recon: of the same object; None for the ground truth.
    """
    candidates: list[tuple[Camera | None, Source]] = [
        (recon.camera if recon is not None else None, "predicted"),
        (batch.cameras[:, 0] if batch.cameras is not None else None, "data"),
    ]
    for camera, source in candidates:
        if camera is not None and _usable(camera):
            return InputView(camera.to("cpu"), source)
    return InputView(look_at_camera(elevation=20.0, azimuth=60.0), "none")


def view_scale(camera: Camera) -> float:
    """Length on screen, in half screen heights, of an object unit at the origin seen by a camera (1,)."""
    depth = 1.0 if camera.orthographic else float(camera.T[0, 2])
    return float(camera.focal[0, 1]) / depth


def shared_orbit(cameras: Sequence[Camera]) -> Orbit:
    """One orbit from which each mesh, turned by its orientation, shows its camera's view.

    The axis to turn about is the up axis of the first mesh, tilted as its camera sees it; of a camera with roll, as if
    it had none.

    Args:
        cameras: (1,) each, that of the ground truth first.
    """
    turns = [
        Rotation.from_matrix(VIEW_TO_GLTF @ camera.R[0].double().numpy().T @ OBJECT_TO_GLTF.T) for camera in cameras
    ]
    # Roll about the line of sight after pitch after yaw about the object's up axis; the viewer's camera does the pitch.
    _, pitch, _ = turns[0].as_euler("ZXY", degrees=True)
    untilt = Rotation.from_euler("x", -pitch, degrees=True)
    orientations = []
    for turn in turns:
        yaw, own_pitch, roll = (untilt * turn).as_euler("YXZ", degrees=True).tolist()  # the order of the viewer
        orientations.append((roll, own_pitch, yaw))
    fields = [
        FLAT if camera.orthographic else 2 * math.degrees(math.atan(1 / float(camera.focal[0, 1])))
        for camera in cameras
    ]
    return Orbit(90.0 - float(pitch), min(fields), orientations)


def preview(verts: Tensor, faces: Tensor, camera: Camera, textures: TexturesBase | None = None) -> Image.Image:
    """RGBA picture of one mesh; UV maps hold their light and get none.

    Args:
        verts: (V, 3) in the object frame.
        faces: (F, 3).
        camera: (1,).
        textures: of this mesh.
    """
    lit = not isinstance(textures, TexturesUV)
    seen = render_hard(verts[None], faces, camera, TILE, anti_alias=ANTI_ALIAS, lit=lit, textures=textures)
    return rgba_picture(torch.cat([seen.image[0], seen.mask[0]]))


def rgba_picture(values: Tensor) -> Image.Image:
    """Image of (C, H, W) values in [0, 1]; C is 1, 3 or 4."""
    pixels = (values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _usable(camera: Camera) -> bool:
    finite = all(bool(value.isfinite().all()) for value in (camera.R, camera.T, camera.focal))
    if not finite or not (camera.orthographic or float(camera.T[0, 2]) > 0):
        return False
    return math.isfinite(view_scale(camera)) and view_scale(camera) > 0 and float(torch.linalg.det(camera.R[0])) > 0
