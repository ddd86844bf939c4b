"""Cameras: every foreign camera becomes a `structures.Camera` here, once; projection; and the way to PyTorch3D.

The frame conventions are those of `recon3d.structures`. The NMR / SoftRas camera looks at the origin from
``distance * (cos e sin a, sin e, cos e cos a)``; its *viewing angle* is HALF the field of view (15 degrees in the
reconstruction data, 30 degrees in the renderers' examples) and view k of 24 has azimuth -15 k degrees.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pytorch3d.renderer import FoVPerspectiveCameras, OrthographicCameras, PerspectiveCameras, look_at_view_transform
from torch import Tensor

from recon3d.structures import Camera

NMR_DISTANCE = 2.732  # 1 / tan(30 degrees) + 1, Kato et al. 2018
NMR_ELEVATION = 30.0  # degrees
NMR_VIEWING_ANGLE = 15.0  # degrees, half the field of view
NMR_VIEWS = 24
NMR_ELEVATIONS_120 = (-60.0, -30.0, 0.0, 30.0, 60.0)  # degrees; the 120-view layout of SoftRas, elevation-major
DPC_DISTANCE = 2.0  # Insafutdinov and Dosovitskiy 2018, their code; so is the focal length
DPC_FOCAL = 1.875  # in image widths: 60 mm before a sensor of 32 mm


def look_at_camera(
    distance: float | Tensor = NMR_DISTANCE,
    elevation: float | Tensor = NMR_ELEVATION,
    azimuth: float | Tensor = 0.0,
    viewing_angle: float | Tensor = NMR_VIEWING_ANGLE,
) -> Camera:
    """Camera(s) looking at the origin with +Y up, as in NMR and SoftRas.

    Args:
        distance: from the origin, in object units.
        elevation: degrees above the XZ plane, in (-90, 90).
        azimuth: degrees about +Y; 0 puts the camera on +Z. NMR's view k is -15 k.
        viewing_angle: HALF the field of view, degrees.

    Returns:
        Camera of leading shape (N,), N the broadcast length of the arguments (1 for four numbers).

    Raises:
        ValueError: a distance that is not positive, an elevation at a pole (the up direction is undefined), or a
            viewing angle outside (0, 90).
    """
    values = [torch.as_tensor(value, dtype=torch.float32) for value in (distance, elevation, azimuth, viewing_angle)]
    distance_, elevation_, azimuth_, angle_ = torch.broadcast_tensors(*(value.reshape(-1) for value in values))
    if bool((distance_ <= 0).any()):
        raise ValueError(f"look_at_camera: distance must be positive, got {distance_.tolist()}.")
    if bool((elevation_.abs() >= 90).any()):
        raise ValueError(f"look_at_camera: elevation must lie in (-90, 90) degrees, got {elevation_.tolist()}.")
    if bool(((angle_ <= 0) | (angle_ >= 90)).any()):
        raise ValueError(f"look_at_camera: viewing_angle (half the field of view) in (0, 90), got {angle_.tolist()}.")
    return _towards_origin(look_at_view_transform(dist=distance_, elev=elevation_, azim=azimuth_), angle_)


def eye_camera(eye: Tensor, viewing_angle: float = NMR_VIEWING_ANGLE) -> Camera:
    """Camera(s) at `eye` looking at the origin with +Y up; differentiable, so that a camera can be fitted.

    Args:
        eye: (N, 3) in the world, not on the Y axis (the up direction is undefined there).
        viewing_angle: HALF the field of view, degrees.

    Returns:
        Camera of leading shape (N,), in float32.

    Raises:
        ValueError: another shape, or an eye on the Y axis.
    """
    if eye.ndim != 2 or eye.shape[1] != 3 or bool((eye[:, ::2] == 0).all(dim=1).any()):
        raise ValueError(f"eye_camera: expected eyes (N, 3) off the Y axis, got {eye.tolist()}.")
    eye = eye.float()  # the only precision of PyTorch3D's look-at
    angle = torch.full_like(eye[:, 0].detach(), viewing_angle)
    return _towards_origin(look_at_view_transform(eye=eye, device=eye.device), angle)


def _towards_origin(transform: tuple[Tensor, Tensor], viewing_angle: Tensor) -> Camera:
    rotation, translation = transform
    focal = 1.0 / torch.tan(torch.deg2rad(viewing_angle))
    center = torch.zeros_like(translation[:, :2])
    return Camera(R=rotation, T=translation, focal=torch.stack([focal, focal], dim=-1), center=center)


def look_at_parameters(camera: Camera) -> dict[str, Tensor]:
    """Distance, elevation, azimuth in (-180, 180] and viewing angle of cameras made by `look_at_camera`, its inverse.

    Raises:
        ValueError: the camera does not look at the origin, or is orthographic.
    """
    if camera.orthographic:
        raise ValueError("look_at_parameters: expected a perspective camera, got an orthographic one.")
    if bool((camera.T[..., :2].abs() > 1e-3 * camera.T[..., 2:].abs()).any()):
        raise ValueError(f"look_at_parameters: the camera does not look at the origin; T = {camera.T.tolist()}.")
    eye = camera_centers(camera)
    distance = eye.norm(dim=-1)
    return {
        "distance": distance,
        "elevation": torch.rad2deg(torch.asin((eye[..., 1] / distance).clamp(-1, 1))),
        "azimuth": torch.rad2deg(torch.atan2(eye[..., 0], eye[..., 2])),
        "viewing_angle": torch.rad2deg(torch.atan(1.0 / camera.focal[..., 0])),
    }


def nmr_cameras(n_views: int = NMR_VIEWS) -> Camera:
    """The cameras of the NMR data set, leading shape (n_views,).

    24: elevation 30, azimuth -15 k. 120: elevations -60, -30, 0, 30, 60 in five blocks of those 24 azimuths (the
    layout of the SoftRas demo data; Liu et al. 2019, section 5.4).

    Raises:
        ValueError: n_views is neither 24 nor 120.
    """
    azimuths = -15.0 * torch.arange(NMR_VIEWS, dtype=torch.float32)
    if n_views == NMR_VIEWS:
        return look_at_camera(azimuth=azimuths)
    if n_views == NMR_VIEWS * len(NMR_ELEVATIONS_120):
        elevations = torch.tensor(NMR_ELEVATIONS_120).repeat_interleave(NMR_VIEWS)
        return look_at_camera(elevation=elevations, azimuth=azimuths.repeat(len(NMR_ELEVATIONS_120)))
    raise ValueError(f"nmr_cameras: the layouts have 24 or 120 views, not {n_views}.")


def dpc_cameras(position: Tensor) -> Camera:
    """Cameras of the DPC data set at Blender positions, looking at the origin from distance 2 with the object upright.

    Blender's world (x, y, z), z up, is (X, -Z, Y) of a ShapeNet .obj file, so (y, z, x) in the object frame. The pose
    is that of the quaternion that DPC's code makes of the position (yaw + pi, then pitch); like there, only the
    direction of the position counts. On the up axis, where that code divides by zero, the heading is that of +x.

    Pixels are the renderer's: the image is 2 wide in NDC, from edge to edge, and its centre of column j is at
    1 - (2j+1)/W. DPC's own projection spreads the V cells of its grid so that the outer *centres* lie on the edges:
    its cell i is at NDC 1 - 2i/(V-1), and a point lands up to half a pixel nearer to the centre there.

    Args:
        position: (..., 3) of the camera in Blender's world, not 0.

    Returns:
        Camera of leading shape (...), in the type of `position`.

    Raises:
        ValueError: another shape, or positions that are zero or not finite.
    """
    if position.shape[-1:] != (3,) or not bool((position.isfinite() & (position != 0).any(-1, keepdim=True)).all()):
        raise ValueError(f"dpc_cameras: expected finite positions (..., 3) other than 0, got {position.tolist()}.")
    x, y, z = F.normalize(position, dim=-1).unbind(-1)
    level = torch.hypot(x, y)
    pole = level == 0
    heading = torch.where(pole, 1.0, x / level), torch.where(pole, 0.0, y / level)
    zero = torch.zeros_like(x)
    # The view axes in the object frame.
    left = torch.stack([-heading[0], zero, heading[1]], dim=-1)
    up = torch.stack([-z * heading[1], level, -z * heading[0]], dim=-1)
    forward = torch.stack([-y, -z, -x], dim=-1)
    return Camera(
        R=torch.stack([left, up, forward], dim=-1),
        T=torch.stack([zero, zero, zero + DPC_DISTANCE], dim=-1),
        focal=torch.full_like(position[..., :2], 2 * DPC_FOCAL),  # NDC is 2 wide, DPC's image 1
        center=torch.zeros_like(position[..., :2]),
    )


def dpc_positions(camera: Camera) -> Tensor:
    """Blender positions (..., 3) of cameras, the inverse of `dpc_cameras`."""
    return camera_centers(camera)[..., [2, 0, 1]]


def dpc_extrinsics(camera: Camera) -> Tensor:
    """The 4x4 matrices (..., 4, 4) that DPC's files hold beside the positions.

    World to camera with +x right, +y down, +z into the scene. The world is (-X, Z, Y) of the .obj file, not Blender's
    (X, -Z, Y): the reading that gives what the position gives when permuted as in DPC's code.
    """
    to_object = camera.R.new_tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    flip = camera.R.new_tensor([-1.0, -1.0, 1.0])
    extrinsic = torch.zeros(*camera.shape, 4, 4, dtype=camera.R.dtype, device=camera.R.device)
    extrinsic[..., :3, :3] = flip.unsqueeze(-1) * camera.R.transpose(-1, -2) @ to_object
    extrinsic[..., :3, 3] = flip * camera.T
    extrinsic[..., 3, 3] = 1.0
    return extrinsic


def camera_centers(camera: Camera) -> Tensor:
    """Optical centres in the world, (..., 3): ``-T @ R^T``."""
    return -(camera.T.unsqueeze(-2) @ camera.R.transpose(-1, -2)).squeeze(-2)


def project(camera: Camera, points: Tensor) -> Tensor:
    """Points (..., P, 3) of the world to (..., P, 3): NDC x, NDC y, and depth along the viewing axis.

    Leading dimensions broadcast against the camera's. Depth is kept as z (not divided), as rasterisers need it.
    """
    view = points @ camera.R + camera.T.unsqueeze(-2)
    scaled = view[..., :2] * camera.focal.unsqueeze(-2)
    if not camera.orthographic:
        # Perspective division of points at or behind the camera is meaningless; the clamp keeps it finite and the
        # rasterisers drop such faces by their z.
        scaled = scaled / view[..., 2:].clamp(min=1e-6)
    return torch.cat([scaled + camera.center.unsqueeze(-2), view[..., 2:]], dim=-1)


def to_pytorch3d(camera: Camera) -> PerspectiveCameras | OrthographicCameras:
    """PyTorch3D cameras (N,) in NDC, from any leading shape."""
    flat = camera.flatten()
    kind = OrthographicCameras if camera.orthographic else PerspectiveCameras
    return kind(
        R=flat.R, T=flat.T, focal_length=flat.focal, principal_point=flat.center, in_ndc=True, device=flat.T.device
    )


def from_pytorch3d(cameras: FoVPerspectiveCameras | PerspectiveCameras | OrthographicCameras) -> Camera:
    """Camera (N,) from PyTorch3D cameras in NDC.

    Raises:
        ValueError: cameras in screen space, skewed ones, FoV cameras whose aspect ratio is not 1, or another class.
    """
    n = len(cameras.R)
    if isinstance(cameras, FoVPerspectiveCameras):
        if bool((torch.as_tensor(cameras.aspect_ratio) != 1).any()):
            raise ValueError(f"from_pytorch3d: expected aspect_ratio 1, got {cameras.aspect_ratio}.")
        half = cameras.fov.to(cameras.R) / 2 * (math.pi / 180 if cameras.degrees else 1.0)
        focal = (1.0 / torch.tan(half)).reshape(-1, 1).expand(n, 2)
        center = torch.zeros_like(focal)
    elif isinstance(cameras, PerspectiveCameras | OrthographicCameras):
        if not cameras.in_ndc():
            raise ValueError("from_pytorch3d: expected cameras in NDC, got screen space; build them with in_ndc=True.")
        focal = cameras.focal_length.to(cameras.R)
        focal = focal.reshape(-1, 1).expand(-1, 2) if focal.ndim < 2 else focal
        focal, center = focal.expand(n, 2), cameras.principal_point.to(cameras.R).expand(n, 2)
    else:
        raise ValueError(f"from_pytorch3d: no rule for {type(cameras).__name__}.")
    return Camera(cameras.R, cameras.T, focal, center, orthographic=isinstance(cameras, OrthographicCameras))


def nmr_to_object(points: Tensor) -> Tensor:
    """Points of NMR's left-handed frame to the object frame, and back: z is negated."""
    return points * points.new_tensor([1.0, 1.0, -1.0])


def shapenet_to_object(points: Tensor) -> Tensor:
    """Points (X, Y, Z) of a ShapeNet .obj file to the object frame: (-Z, Y, X)."""
    return torch.stack([-points[..., 2], points[..., 1], points[..., 0]], dim=-1)


def object_to_shapenet(points: Tensor) -> Tensor:
    """Inverse of `shapenet_to_object`."""
    return torch.stack([points[..., 2], points[..., 1], -points[..., 0]], dim=-1)
