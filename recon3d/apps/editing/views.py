"""What an edit is seen with: cameras around the mesh, lights, backgrounds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon3d.geometry.cameras import look_at_camera
from recon3d.renderers.neural import Lights
from recon3d.structures import Camera

VIEWING_ANGLE = 30.0  # degrees, half the field of view: the renderer's default in the authors' code
DISTANCE_SPREAD = 0.1  # standard deviation, in the authors' code; the paper says nothing of the distance


class Views(NamedTuple):
    """Of one batch: camera (B,), lights, background (3,) or (B, 3)."""

    camera: Camera
    lights: Lights
    background: Tensor


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws (count,) from [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def random_cameras(count: int, distance: float, elevations: tuple[float, float], generator: torch.Generator) -> Camera:
    """Cameras (count,) around the mesh: azimuth over the whole circle, elevation over a range, distance normal.

    Args:
        count: how many.
        distance: mean, in the editing frame.
        elevations: lowest and highest, degrees.
        generator: on the CPU.
    """
    azimuth = uniform(0, 360, count, generator)
    elevation = uniform(*elevations, count, generator)
    far = distance + DISTANCE_SPREAD * torch.randn(count, generator=generator)
    return look_at_camera(far, elevation, azimuth, VIEWING_ANGLE)
