from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from recon3d.data.cropping import Crop, crop_camera, crop_keypoints, crop_pixels, mirror_points, square_crop
from recon3d.data.photograph_annotations import SfMPose, sfm_cameras
from recon3d.geometry.cameras import look_at_camera, project
from recon3d.geometry.weak_perspective import cmr_camera, cmr_to_object, mirrored_pose, weak_perspective_pose
from tests.data import cub_files

BOXES = [(9.0, 7.0, 40.0, 36.0), (0.0, 0.0, 39.0, 29.0), (29.0, 19.0, 69.0, 54.0), (-5.0, 30.0, 20.0, 60.0)]
SHIFTS = [(0.0,) * 4, (0.04, -0.03, 0.02, 0.05)]


def half_away(value: float) -> int:
    return int(value + 0.5) if value >= 0 else -int(-value + 0.5)


def reference_box(box, shifts, padding=0.05) -> tuple[int, int, int]:
    """Steps 2 and 3 of the fact sheet, written out."""
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    x1, y1 = half_away(box[0] - padding * w - shifts[0] * w), half_away(box[1] - padding * h - shifts[1] * h)
    x2, y2 = half_away(box[2] + padding * w + shifts[2] * w), half_away(box[3] + padding * h + shifts[3] * h)
    w, h = x2 - x1 + 1, y2 - y1 + 1
    side = max(w, h)
    return x1 - half_away((side - w) / 2), y1 - half_away((side - h) / 2), side


def reference_pixels(pixels, left, top, side, size, fill, mirrored) -> np.ndarray:
    """Steps 4, 5 and 7: fill, SciPy's linear interpolation at the centres of the pixels, flip."""
    canvas = np.full((side, side, pixels.shape[2]), fill)
    for row in range(side):
        for column in range(side):
            if 0 <= top + row < pixels.shape[0] and 0 <= left + column < pixels.shape[1]:
                canvas[row, column] = pixels[top + row, left + column] / 255
    centers = (np.arange(size) + 0.5) * side / size - 0.5
    grid = np.meshgrid(centers, centers, indexing="ij")
    result = np.stack([map_coordinates(canvas[..., c], grid, order=1, mode="nearest") for c in range(canvas.shape[2])])
    return result[..., ::-1] if mirrored else result


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("shifts", SHIFTS)
def test_square_of_a_box(box, shifts):
    crop = square_crop(box, 32, 0.05, shifts)
    assert (crop.left, crop.top, crop.side) == reference_box(box, shifts)


def test_square_by_hand():
    # 31 x 21 pixels, 5 % are 1.55 and 1.05: 35 x 23 from (8, 19); the height grows by 12, 6 of them above.
    assert square_crop((10, 20, 40, 40), 64) == Crop(left=8, top=13, side=35, size=64)
    # 5 % of 10 are a half, which rounds away from zero on both sides of it.
    assert square_crop((0, 0, 9, 9), 64) == Crop(left=-1, top=-1, side=12, size=64)
    assert square_crop((3, 4, 7, 8), 10, padding=0, mirrored=True) == Crop(3, 4, 5, 10, True)


@pytest.mark.parametrize(
    ("box", "shifts"), [((5, 5, 3, 9), (0,) * 4), ((0, 0, math.nan, 9), (0,) * 4), ((0, 0, 9, 9), (-0.6, 0, -0.6, 0))]
)
def test_nothing_to_crop(box, shifts):
    with pytest.raises(ValueError, match="box"):
        square_crop(box, 32, 0.05, shifts)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [16, 57])
def test_pixels(box, mirrored, size):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    crop = square_crop(box, size, mirrored=mirrored)
    for fill in (0.0, 1.0):
        expected = reference_pixels(pixels, *reference_box(box, (0,) * 4), size, fill, mirrored)
        assert np.allclose(crop_pixels(pixels, crop, fill).numpy(), expected, atol=2e-5)


def test_beyond_the_picture_is_filled():
    pixels = np.full((48, 64, 3), 128, np.uint8)
    for left, top in ((-40, 0), (80, 0), (0, -40), (0, 70), (200, 200)):
        assert (crop_pixels(pixels, Crop(left, top, 20, 8), fill=1.0) == 1).all()


def test_mirroring_keeps_the_area_of_a_mask():
    mask = cub_files.mask(3)[..., None] * np.uint8(255)
    crops = [square_crop(BOXES[2], 32, mirrored=flip) for flip in (False, True)]
    plain, mirrored = (crop_pixels(mask, crop, 0.0) for crop in crops)
    assert plain.sum() == pytest.approx(float(mirrored.sum()), rel=1e-6) and 100 < plain.sum() < 900
    assert torch.equal(plain, mirrored.flip(-1)) and not torch.equal(plain, mirrored)


def reference_keypoints(keypoints, left, top, side, mirrored, size=256) -> np.ndarray:
    """Steps 6 to 8, point by point; CMR's coordinates."""
    result = np.zeros((15, 3))
    for i in range(15):
        source = cub_files.MIRROR[i] if mirrored else i
        x, y, visible = keypoints[source]
        x, y = (x - left) * size / side, (y - top) * size / side
        if mirrored:
            x = size - x - 1
        result[i] = (2 * x / size - 1) * visible, (2 * y / size - 1) * visible, visible
    return result


def reference_pose(camera, left, top, side, mirrored, size=256) -> np.ndarray:
    """Steps 6 to 9: the 7-vector (s, tx, ty, q)."""
    s = camera["scale"] * size / side
    tx, ty = (camera["trans"] - (left, top)) * size / side
    rotation = camera["rot"]
    if mirrored:
        tx = size - tx - 1
        flip = np.diag([-1, 1, 1])
        rotation = flip @ rotation @ flip
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([s * 2 / size, 2 * tx / size - 1, 2 * ty / size - 1, w, x, y, z]) * ([1] * 3 + [np.sign(w)] * 4)


@pytest.mark.parametrize("number", cub_files.BOXES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_keypoints_and_camera(number, mirrored):
    box = tuple(np.array(cub_files.BOXES[number]) - 1.0)
    keypoints = (cub_files.parts(number) - [[1], [1], [0]]).T * cub_files.parts(number)[2][:, None]
    camera = cub_files.pose(number)
    crop = square_crop(box, 256, shifts=SHIFTS[1], mirrored=mirrored)
    square = reference_box(box, SHIFTS[1])

    points = crop_keypoints(keypoints, crop, cub_files.MIRROR)
    expected = reference_keypoints(keypoints, *square, mirrored)
    assert np.allclose(points.numpy(), expected * (-1, -1, 1), atol=1e-6)

    seen = crop_camera(sfm_cameras([SfMPose(camera["rot"], float(camera["scale"]), camera["trans"])]), crop)
    pose = weak_perspective_pose(cmr_camera(seen))[0].numpy()
    assert np.allclose(pose, reference_pose(camera, *square, mirrored), atol=1e-9)

    # The camera sees the mean shape where the key points are, but for the pixel by which CMR shifts only these.
    shape = cmr_to_object(torch.from_numpy(cub_files.mean_shape().T))[None]
    screen = project(seen, shape)[0, :, :2].numpy()
    pixel = 2 * crop.scale / 256
    visible = points[:, 2].numpy() > 0
    offset = points.numpy()[visible, :2] - screen[visible]
    assert np.allclose(offset, (-pixel if mirrored else pixel, pixel), atol=1e-6) and visible.sum() == 14


def test_mirrored_pose_differs_by_the_pixel_of_the_flip():
    camera = cub_files.pose(1)
    full = sfm_cameras([SfMPose(camera["rot"], float(camera["scale"]), camera["trans"])])
    plain, flipped = (
        weak_perspective_pose(cmr_camera(crop_camera(full, Crop(3, 4, 40, 64, mirrored)))) for mirrored in (False, True)
    )
    assert torch.allclose(flipped - mirrored_pose(plain), torch.tensor([[0, -2 / 64, 0, 0, 0, 0, 0]]).double())


def test_a_pinhole_camera_mirrors_with_its_object():
    look = look_at_camera(torch.tensor([2.0]), torch.tensor([20.0]), torch.tensor([40.0]), 60.0)
    full = replace(look, focal=look.focal * 50, center=look.center - 30)  # 50 pixels, centre (30, 30)
    points = torch.rand(1, 9, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    screens = []
    for mirrored in (False, True):
        crop = Crop(-10, 5, 60, 32, mirrored)
        shape = mirror_points(points) if mirrored else points
        screens.append(project(crop_camera(full, crop), shape)[0, :, :2])
    direct = project(full, points)[0, :, :2]
    assert torch.allclose(screens[0], 1 + (direct + torch.tensor([-10.0, 5.0])) * 2 / 60, atol=1e-5)
    assert torch.allclose(screens[1], screens[0] * torch.tensor([-1.0, 1.0]) + torch.tensor([2 / 32, 0]), atol=1e-5)
