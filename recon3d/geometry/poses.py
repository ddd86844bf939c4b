"""Cameras that look at the origin, as quaternions: what networks that predict cameras answer with.

A unit quaternion q, w first, is the rotation from world to view: ``q (0, p) conj(q)`` is p in view coordinates before
the shift, so that ``Camera.R`` (row vectors) is the transposed matrix of q.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pytorch3d.transforms import matrix_to_quaternion, quaternion_to_matrix
from torch import Tensor

from recon3d.structures import Camera


def posed_camera(quaternion: Tensor, distance: float, focal: float) -> Camera:
    """Perspective camera(s) that see the world turned by a quaternion, at a distance on the viewing axis.

    Differentiable. DPC's camera (Insafutdinov and Dosovitskiy 2018) has distance 2 and focal 2 * 1.875.

    Args:
        quaternion: (..., 4), w first, of any length but 0.
        distance: from the camera to the origin, in object units; T is (0, 0, distance).
        focal: in NDC units, ``1 / tan(half field of view)``, the same in x and y.

    Returns:
        Camera of leading shape (...).

    Raises:
        ValueError: another shape, a quaternion of zeros, or a distance or focal length that is not positive.
    """
    if quaternion.shape[-1:] != (4,) or bool((quaternion.detach() == 0).all(dim=-1).any()):
        raise ValueError(
            f"posed_camera: expected quaternions (..., 4) other than 0, got {tuple(quaternion.shape)} with "
            f"{int((quaternion == 0).all(dim=-1).sum())} of zeros."
        )
    if not (distance > 0 and focal > 0):
        raise ValueError(f"posed_camera: distance and focal must be positive, got {distance} and {focal}.")
    lead = quaternion.shape[:-1]
    return Camera(
        R=quaternion_to_matrix(quaternion).transpose(-1, -2),
        T=quaternion.new_tensor([0.0, 0.0, distance]).expand(*lead, 3),
        focal=quaternion.new_tensor([focal, focal]).expand(*lead, 2),
        center=quaternion.new_zeros(2).expand(*lead, 2),
    )


def camera_quaternion(camera: Camera) -> Tensor:
    """Unit quaternions (..., 4) of cameras, w first and not negative: the inverse of `posed_camera`."""
    return matrix_to_quaternion(camera.R.transpose(-1, -2))


def turn_world(camera: Camera, rotation: Tensor) -> Camera:
    """Camera(s) that see ``points @ rotation`` where `camera` sees ``points``.

    Args:
        camera: leading shape (...).
        rotation: (3, 3) or (..., 3, 3), for row vectors.
    """
    return replace(camera, R=rotation.transpose(-1, -2) @ camera.R)


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle in degrees, in [0, 180], between the rotations of quaternions (..., 4); leading shapes broadcast.

    ``2 acos |Re(conj(p) q)|`` for unit quaternions p and q, by arctangents, which keep small angles. NaN where a
    quaternion is 0 or not finite.
    """
    first, second = (value / value.norm(dim=-1, keepdim=True) for value in torch.broadcast_tensors(first, second))
    # |p - q| and |p + q| are 2 sin and 2 cos of half the angle between p and q as vectors of R^4.
    half = 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1))
    return torch.rad2deg(2 * torch.minimum(half, torch.pi - half))
