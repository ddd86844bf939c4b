"""Scaled orthographic cameras and the frame of CMR, UMR and the CUB annotations, converted to ours in one place.

CMR's object frame has +x left of the animal or car, -y its front, +z up; structure from motion scales it so that the
largest distance of two mean key points is 2. Its camera is a 7-vector (s, tx, ty, qw, qx, qy, qz)::

    X' = s R(q) X,   u = X'_x + tx,   v = X'_y + ty,   depth = X'_z

in image coordinates of [-1, 1], u to the right, v **down** (Kanazawa et al. 2018). Everything else of the project uses
`recon3d.structures`: there u is -NDC x and v is -NDC y, and the object frame is (-y, z, -x) / 2 of CMR's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pytorch3d.transforms import matrix_to_quaternion, quaternion_to_matrix
from torch import Tensor

from recon3d.structures import Camera

OBJECT_SCALE = 0.5  # object units per unit of CMR's frame: the mean key points then span 1
DEPTH = 5.0  # CMR units that the renderer stands off, as in the code of Li et al. 2020 (UMR); no effect on x and y


def weak_perspective_camera(pose: Tensor, depth: float = DEPTH) -> Camera:
    """Cameras of CMR's 7-vectors, for points in CMR's frame.

    Args:
        pose: (..., 7): s, tx, ty and a quaternion that need not be of length 1.
        depth: added to the depth; only renderers feel it.

    Returns:
        Orthographic Camera of leading shape (...), differentiable.

    Raises:
        ValueError: another shape.
    """
    if pose.shape[-1:] != (7,):
        raise ValueError(f"weak_perspective_camera: expected poses (..., 7), got {tuple(pose.shape)}.")
    scale, shift, quaternion = pose.split((1, 2, 4), dim=-1)
    rotation = quaternion_to_matrix(quaternion)  # normalises
    flip = pose.new_tensor([-1.0, -1.0, 1.0])  # u = -x, v = -y of NDC: a half turn about the viewing axis
    offset = torch.zeros_like(quaternion[..., :3])
    offset[..., 2] = depth
    return Camera(
        R=rotation.transpose(-1, -2) * flip,
        T=offset,
        focal=scale.expand(*scale.shape[:-1], 2),
        center=-shift,
        orthographic=True,
    )


def weak_perspective_pose(camera: Camera) -> Tensor:
    """The 7-vectors (..., 7) of orthographic cameras, the inverse of `weak_perspective_camera`; qw >= 0.

    Raises:
        ValueError: perspective cameras, or ones whose two focal lengths differ.
    """
    if not camera.orthographic:
        raise ValueError("weak_perspective_pose: expected orthographic cameras, got perspective ones.")
    if not torch.allclose(camera.focal[..., 0], camera.focal[..., 1], rtol=1e-4):
        raise ValueError("weak_perspective_pose: expected one scale per camera, got two different focal lengths.")
    flip = camera.R.new_tensor([-1.0, -1.0, 1.0])
    quaternion = matrix_to_quaternion((camera.R * flip).transpose(-1, -2))
    # T moves what is seen across the image; CMR has that in its translation.
    shift = -(camera.center + camera.focal * camera.T[..., :2])
    return torch.cat([camera.focal[..., :1], shift, quaternion], dim=-1)


def cmr_to_object(points: Tensor) -> Tensor:
    """Points (..., 3) of CMR's frame to the object frame: (-y, z, -x) / 2."""
    return OBJECT_SCALE * torch.stack([-points[..., 1], points[..., 2], -points[..., 0]], dim=-1)


def object_to_cmr(points: Tensor) -> Tensor:
    """Inverse of `cmr_to_object`."""
    return torch.stack([-points[..., 2], -points[..., 0], points[..., 1]], dim=-1) / OBJECT_SCALE


def object_camera(camera: Camera) -> Camera:
    """The orthographic camera that sees of `cmr_to_object(X)` what `camera` sees of X."""
    return replace(camera, R=_axes(camera.R) @ camera.R, T=camera.T * OBJECT_SCALE, focal=camera.focal / OBJECT_SCALE)


def cmr_camera(camera: Camera) -> Camera:
    """Inverse of `object_camera`."""
    turned = _axes(camera.R).transpose(-1, -2) @ camera.R
    return replace(camera, R=turned, T=camera.T / OBJECT_SCALE, focal=camera.focal * OBJECT_SCALE)


def mirrored_pose(pose: Tensor) -> Tensor:
    """Poses (..., 7) of the mirrored image, of an object that is symmetric about CMR's plane x = 0.

    R becomes diag(-1, 1, 1) R diag(-1, 1, 1) and tx changes its sign.
    """
    return pose * pose.new_tensor([1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0])


def _axes(like: Tensor) -> Tensor:
    """(3, 3) of the rotation from the object frame to CMR's, for row vectors."""
    return like.new_tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
