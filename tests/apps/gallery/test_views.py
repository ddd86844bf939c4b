from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch3d.transforms import euler_angles_to_matrix
from scipy.spatial.transform import Rotation

from recon3d.apps.gallery.views import input_view, shared_orbit, view_scale
from recon3d.apps.mesh_files import object_to_gltf
from recon3d.geometry.cameras import look_at_camera, nmr_cameras, project
from recon3d.structures import Camera, Reconstruction

POINTS = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [-0.2, 0.3, 0.1]])


def seen_in_viewer(points, orbit, index, scale) -> np.ndarray:
    """Screen coordinates (x right, y up, half heights): model-viewer's documented transforms, by SciPy."""
    roll, pitch, yaw = orbit.orientations[index]
    turned = Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).apply(scale * object_to_gltf(points).numpy())
    polar, half = np.radians(orbit.polar), np.radians(orbit.field_of_view / 2)
    eye = np.array([0.0, np.cos(polar), np.sin(polar)]) / np.tan(half)
    back = eye / np.linalg.norm(eye)
    up = np.cross(back, [1.0, 0.0, 0.0])
    away = turned - eye
    return np.stack([away[:, 0], away @ up], axis=1) / (-(away @ back) * np.tan(half))[:, None]


def rolled(seed: int, orthographic: bool = False) -> Camera:
    angles = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    camera = look_at_camera()
    focal = camera.focal * 0 + 1.4 if orthographic else camera.focal
    return replace(camera, R=euler_angles_to_matrix(angles, "XYZ"), focal=focal, orthographic=orthographic)


@pytest.mark.parametrize("first", [0, 5])
def test_each_mesh_starts_as_its_camera_sees_it(first):
    cameras = [nmr_cameras()[first : first + 1], nmr_cameras()[13:14], rolled(0), rolled(1)]
    orbit = shared_orbit(cameras)
    assert orbit.polar == pytest.approx(60.0, abs=1e-3) and orbit.field_of_view == pytest.approx(30.0, abs=1e-3)
    for index, camera in enumerate(cameras):
        expected = project(camera, POINTS[None])[0, :, :2].numpy() * [-1, 1]
        np.testing.assert_allclose(seen_in_viewer(POINTS, orbit, index, view_scale(camera)), expected, atol=1e-4)


def test_upright_cameras_turn_about_the_up_axis_of_the_object():
    orbit = shared_orbit([nmr_cameras()[3:4], nmr_cameras()[20:21]])
    for roll, pitch, _ in orbit.orientations:
        assert roll == pytest.approx(0, abs=1e-3) and pitch == pytest.approx(0, abs=1e-3)


def test_an_orthographic_camera_is_nearly_kept():
    camera = rolled(2, orthographic=True)
    orbit = shared_orbit([camera])
    expected = project(camera, POINTS[None])[0, :, :2].numpy() * [-1, 1]
    np.testing.assert_allclose(seen_in_viewer(POINTS, orbit, 0, view_scale(camera)), expected, atol=0.06)


def test_the_input_view_is_the_methods_then_the_datas_then_a_default(full_batch):
    batch = full_batch(objects=1)
    points = torch.zeros(1, 4, 3)
    own = look_at_camera(azimuth=77.0)
    assert input_view(batch, Reconstruction(points=points, camera=own)).source == "predicted"
    assert input_view(batch, Reconstruction(points=points)).source == "data"
    broken = replace(own, T=own.T * torch.nan)
    behind = replace(own, T=-own.T)
    for camera in (broken, behind):
        assert input_view(batch, Reconstruction(points=points, camera=camera)).source == "data"
    assert input_view(replace(batch, cameras=None)).source == "none"
