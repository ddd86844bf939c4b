"""Viewpoints of Pascal3D+ as cameras, and the frame of its CAD models, converted to ours in one place.

The CAD frame has its front at -y, +x on the left, +z up, like CMR's (`weak_perspective`), in units of each model. A
viewpoint puts the camera on a sphere around the origin of the CAD frame, looking at it (Xiang et al. 2014)::

    C   = d (cos e sin a, -cos e cos a, sin e)
    x_c = Rx(e - pi/2) Rz(-a) (X - C)                       x to the right, y up, looking along -z
    p   = Rz(theta) viewport focal (x_c.x, x_c.y) / -x_c.z
    u, v = px + p.x, py - p.y                               pixels, u to the right, v down

Cameras of whole pictures see **pixels**: `project` gives (-u, -v), so that +X is left and +Y up as everywhere.
`recon3d.data.cropping` turns them into cameras of a crop, in NDC.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from recon3d.geometry.cameras import camera_centers
from recon3d.geometry.weak_perspective import OBJECT_SCALE, cmr_to_object, object_to_cmr
from recon3d.structures import Camera

VIEWPORT = 3000.0  # pixels per unit of the image plane, in every file of the release


@dataclass(frozen=True)
class Viewpoint:
    """Viewpoints of any shape (...), each field a tensor of that shape; angles in degrees.

    Attributes:
        azimuth: 0 sees the front, 90 the left side.
        elevation: above the ground.
        distance: from the origin of the CAD frame, in units of the CAD model.
        theta: turn of the image about the principal point, counter-clockwise.
        px: column of the principal point, where the origin of the CAD frame is seen.
        py: row of it.
        focal: 1 in the release; only its product with `viewport` counts.
        viewport: 3000 in the release.
    """

    azimuth: Tensor
    elevation: Tensor
    distance: Tensor
    theta: Tensor
    px: Tensor
    py: Tensor
    focal: Tensor
    viewport: Tensor

    def __post_init__(self) -> None:
        shapes = {field.name: tuple(getattr(self, field.name).shape) for field in fields(self)}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"Viewpoint: expected fields of one shape, got {shapes}.")


def viewpoint_camera(viewpoint: Viewpoint) -> Camera:
    """Perspective cameras of the whole picture (pixels, see the module) for points in the CAD frame.

    Raises:
        ValueError: a distance, focal length or viewport that is not positive, or a number that is not finite.
    """
    for field in fields(viewpoint):
        value = getattr(viewpoint, field.name)
        if not bool(value.isfinite().all()):
            raise ValueError(f"viewpoint_camera: {field.name} is not finite: {value.tolist()}.")
        if field.name in ("distance", "focal", "viewport") and not bool((value > 0).all()):
            raise ValueError(f"viewpoint_camera: {field.name} must be positive, got {value.tolist()}.")
    azimuth, elevation, theta = (
        torch.deg2rad(value) for value in (viewpoint.azimuth, viewpoint.elevation, viewpoint.theta)
    )
    zero = torch.zeros_like(azimuth)
    length = viewpoint.viewport * viewpoint.focal
    # Row vectors: the transposes of the rotations above, in their order. Then the axes of the camera, x right, y up and
    # -z into the scene, are turned to +x left, +y up, +z into the scene.
    turned = _about_z(-azimuth).mT @ _about_x(elevation - torch.pi / 2).mT @ _about_z(theta).mT
    return Camera(
        R=turned * turned.new_tensor([-1.0, 1.0, -1.0]),
        T=torch.stack([zero, zero, viewpoint.distance], dim=-1),  # the camera looks at the origin
        focal=torch.stack([length, length], dim=-1),
        center=-torch.stack([viewpoint.px, viewpoint.py], dim=-1),
    )


def camera_viewpoint(camera: Camera) -> Viewpoint:
    """Viewpoints of cameras of the CAD frame, the inverse of `viewpoint_camera`; focal length 1, azimuth in [0, 360).

    Seen from straight above or below, azimuth and theta turn about the same axis: theta is 0 then.

    Raises:
        ValueError: cameras that are orthographic, do not look at the origin, or have two different focal lengths.
    """
    if camera.orthographic:
        raise ValueError("camera_viewpoint: expected perspective cameras, got orthographic ones.")
    if bool((camera.T[..., :2].abs() > 1e-4 * camera.T[..., 2:]).any()):
        raise ValueError(f"camera_viewpoint: the camera does not look at the origin; T = {camera.T.tolist()}.")
    if not torch.allclose(camera.focal[..., 0], camera.focal[..., 1], rtol=1e-4):
        raise ValueError("camera_viewpoint: expected one focal length per camera, got two different ones.")
    center = camera_centers(camera)
    level = torch.hypot(center[..., 0], center[..., 1])
    turned = camera.R * camera.R.new_tensor([-1.0, 1.0, -1.0])  # columns: right, up and back in the CAD frame
    pole = level < 1e-6 * camera.T[..., 2]
    # At the poles theta is free; with theta = 0 the picture's right is (cos a, sin a, 0).
    azimuth = torch.where(
        pole, torch.atan2(turned[..., 1, 0], turned[..., 0, 0]), torch.atan2(center[..., 0], -center[..., 1])
    )
    elevation = torch.atan2(center[..., 2], level)
    # With theta = 0 the picture's right is level; theta is the angle from there, seen with z up.
    level_right = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
    right, up = ((turned[..., axis] * level_right).sum(-1) for axis in (0, 1))
    theta = torch.where(pole, torch.zeros_like(azimuth), torch.atan2(up, right))
    return Viewpoint(
        azimuth=torch.rad2deg(azimuth) % 360,
        elevation=torch.rad2deg(elevation),
        distance=camera.T[..., 2],
        theta=torch.rad2deg(theta),
        px=-camera.center[..., 0],
        py=-camera.center[..., 1],
        focal=torch.ones_like(azimuth),
        viewport=camera.focal[..., 0],
    )


@dataclass(frozen=True)
class CadFrame:
    """The frame of one CAD model: what becomes the origin and the unit of the object frame.

    Attributes:
        center: (3,) of the bounding box, in the CAD frame.
        size: (), its longest side.
    """

    center: Tensor
    size: Tensor

    @classmethod
    def of(cls, verts: Tensor) -> CadFrame:
        """That of a model with vertices (V, 3).

        Raises:
            ValueError: no vertices, or all of them coincide.
        """
        if not len(verts) or not bool((size := (verts.amax(0) - verts.amin(0)).amax()) > 0):
            raise ValueError(f"CadFrame: the model has no extent; it has {len(verts)} vertices.")
        return cls((verts.amax(0) + verts.amin(0)) / 2, size)

    def to_object(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the CAD frame to the object frame, in which the model's longest side is 1."""
        return cmr_to_object((points - self.center) / self.size) / OBJECT_SCALE

    def to_cad(self, points: Tensor) -> Tensor:
        """Inverse of `to_object`."""
        return object_to_cmr(points) * OBJECT_SCALE * self.size + self.center

    def object_camera(self, camera: Camera) -> Camera:
        """The perspective camera that sees of `to_object(X)` what `camera` sees of X."""
        axes = self._axes
        return replace(camera, R=axes @ camera.R, T=(camera.T + self.center @ camera.R) / self.size)

    def cad_camera(self, camera: Camera) -> Camera:
        """Inverse of `object_camera`."""
        rotation = self._axes.mT @ camera.R
        return replace(camera, R=rotation, T=camera.T * self.size - self.center @ rotation)

    @property
    def _axes(self) -> Tensor:
        """(3, 3) of the rotation from the object frame to the CAD frame, for row vectors."""
        return object_to_cmr(torch.eye(3).to(self.center)) * OBJECT_SCALE


def _about_x(angle: Tensor) -> Tensor:
    """Matrices (..., 3, 3) that turn column vectors about x."""
    one, zero, cos, sin = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    return torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1).unflatten(-1, (3, 3))


def _about_z(angle: Tensor) -> Tensor:
    """Matrices (..., 3, 3) that turn column vectors about z."""
    one, zero, cos, sin = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
