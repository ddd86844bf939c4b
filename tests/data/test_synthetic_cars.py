import numpy as np
import pytest
import torch

from recon3d.data.synthetic_cars import CADS, cad_models, car_picture, cmr_size, fit_weak_perspective, mean_keypoints
from recon3d.geometry.shapes.car_keypoints import KEYPOINT_MIRROR, KEYPOINTS
from recon3d.geometry.viewpoints import Viewpoint

SEEDS = range(16)


@pytest.fixture(scope="module")
def pictures():
    return [car_picture(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def objects(pictures):
    return [item for picture in pictures for item in picture.objects]


def in_cad(points):
    """From the object frame to the axes of CAD models, whose longest side is 1."""
    return np.stack([-points[:, 2], -points[:, 0], points[:, 1]], 1).astype(np.float64) * 2 / cmr_size()


def seen_from(view, points):
    """The projection of Pascal3D+, as Xiang et al. define it, written out."""
    a, e, theta = (np.deg2rad(float(angle)) for angle in (view.azimuth, view.elevation, view.theta))
    d = float(view.distance)
    center = d * np.array([np.cos(e) * np.sin(a), -np.cos(e) * np.cos(a), np.sin(e)])
    c, s = np.cos(-a), np.sin(-a)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    c, s = np.cos(e - np.pi / 2), np.sin(e - np.pi / 2)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    x = (points - center) @ (about_x @ about_z).T
    p = float(view.viewport) * float(view.focal) * x[:, :2] / -x[:, 2:]
    c, s = np.cos(theta), np.sin(theta)
    p = p @ np.array([[c, -s], [s, c]]).T
    return np.stack([float(view.px) + p[:, 0], float(view.py) - p[:, 1]], 1)


def test_viewpoints_see_keypoints_and_true_shapes_where_the_picture_has_them(objects):
    for item in objects:
        points = seen_from(item.viewpoint, in_cad(item.truth["keypoints"]))
        np.testing.assert_allclose(points, item.keypoints[:, :2], atol=1e-3)
        surface = seen_from(item.viewpoint, in_cad(item.truth["points"]))
        height, width = item.coverage.shape
        inside = ((surface > -0.4) & (surface < [width - 0.6, height - 0.6])).all(1)
        assert inside.all() == (not item.truncated)
        column, row = np.rint(surface[inside]).astype(int).T
        grown = np.max([np.roll(item.coverage, s, (0, 1)) for s in np.ndindex(2, 2)], axis=0)
        assert (grown[row, column] > 0.1).mean() > 0.97 or item.occluded


def test_visible_keypoints_are_on_the_side_that_is_seen(objects):
    counts = []
    for item in objects:
        azimuth = float(item.viewpoint.azimuth) % 360
        names = {name for name, (_, _, visible) in zip(KEYPOINTS, item.keypoints, strict=True) if visible}
        counts.append(len(names))
        if item.truncated or item.occluded:
            continue
        # 0 sees the front, 90 the left side.
        if 30 < azimuth < 150:
            assert {"left_front_wheel", "left_back_wheel"} <= names and "right_front_wheel" not in names
        if 210 < azimuth < 330:
            assert {"right_front_wheel", "right_back_wheel"} <= names and "left_back_wheel" not in names
        if azimuth < 40 or azimuth > 320:
            assert {"left_front_light", "right_front_light"} <= names
        if 140 < azimuth < 220:
            assert not {"left_front_light", "right_front_light"} & names
    assert np.mean(counts) > 5


def test_the_fitted_camera_is_the_nearest_to_the_perspective_one(objects):
    for item in objects:
        np.testing.assert_allclose(item.rotation @ item.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(item.rotation) == pytest.approx(1)
        points = in_cad(item.truth["keypoints"]) * cmr_size()

        def error(rotation, scale, shift, item=item, points=points):
            return ((scale * points @ rotation[:2].T + shift - item.keypoints[:, :2]) ** 2).sum()

        best = error(item.rotation, item.scale, item.shift)
        longer = max(item.box[2] - item.box[0] + 1, item.box[3] - item.box[1] + 1)
        assert item.error == pytest.approx(np.sqrt(best / len(points)) / longer, rel=0.01)
        assert item.error < 0.05
        for axis in range(3):
            for angle in (-0.02, 0.02):
                turn = np.eye(3)
                i, j = [(1, 2), (2, 0), (0, 1)][axis]
                turn[[i, j], [i, j]] = np.cos(angle)
                turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
                assert error(turn @ item.rotation, item.scale, item.shift) > best
        assert error(item.rotation, 1.01 * item.scale, item.shift) > best
        assert error(item.rotation, item.scale, item.shift + 0.2) > best


def test_the_fit_finds_a_camera_that_is_orthographic():
    far = {"azimuth": 50.0, "elevation": 20.0, "theta": 10.0, "distance": 1e5, "px": 40.0, "py": 30.0, "focal": 1.0}
    view = Viewpoint(**{name: torch.tensor(v, dtype=torch.float64) for name, v in (far | {"viewport": 5e6}).items()})
    points = mean_keypoints()
    rotation, scale, shift = fit_weak_perspective(points, seen_from(view, points / cmr_size()), view)
    assert scale == pytest.approx(50 / cmr_size(), rel=1e-4)
    np.testing.assert_allclose(shift, [40, 30], atol=1e-3)
    np.testing.assert_allclose(scale * points @ rotation[:2].T + shift, seen_from(view, points / cmr_size()), atol=1e-3)


def test_mean_and_true_shapes_fit_their_frames(objects):
    mean = mean_keypoints()
    assert np.array_equal(mean * np.array([-1.0, 1.0, 1.0]), mean[list(KEYPOINT_MIRROR)])
    assert np.linalg.norm(mean[:, None] - mean[None], axis=-1).max() == pytest.approx(2, abs=1e-12)
    assert mean[KEYPOINTS.index("left_front_light")][1] < -0.8 and mean[KEYPOINTS.index("left_front_light")][0] > 0
    for item in objects:
        low, high = item.truth["points"].min(0), item.truth["points"].max(0)
        assert low.min() > -0.5 and high.max() < 0.5 and (high - low).max() > 0.94


def test_pictures_vary_and_are_repeatable(pictures, objects):
    assert len({picture.picture.shape for picture in pictures}) > 10
    assert {len(picture.objects) for picture in pictures} == {1, 2}
    assert len(cad_models()) == CADS and len({item.cad for item in objects}) > 3
    again = car_picture(5)
    assert np.array_equal(again.picture, pictures[5].picture)
    for one, other in zip(again.objects, pictures[5].objects, strict=True):
        assert np.array_equal(one.keypoints, other.keypoints) and one.scale == other.scale
