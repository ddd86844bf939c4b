from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from recon3d.data.cropping import Crop, crop_pixels, square_crop
from recon3d.data.npz import DataFileError
from recon3d.data.part_maps import KEYPOINT_SPREAD, crop_part_map, keypoint_parts, read_part_map

PICTURE = (64, 48)
BOX = (5.0, 6.0, 44.0, 35.0)


def save(path, shape, seed=0, **others):
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    if path.suffix == ".npz":
        np.savez(path, parts=values, **others)
    else:
        np.save(path, values)
    return values


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_map_of_the_picture_is_cropped_as_the_picture(tmp_path, mirrored):
    values = save(tmp_path / "map.npy", (48, 64, 5))
    parts, covered = read_part_map(tmp_path / "map.npy", PICTURE, BOX)
    assert covered == (0, 0, 63, 47) and np.array_equal(parts.numpy(), values.transpose(2, 0, 1))
    crop = Crop(4, 5, 40, 20, mirrored)  # inside, so that filling does not matter
    ours = crop_part_map(parts, covered, crop)
    assert torch.allclose(ours, crop_pixels(255 * values, crop, 0.0), atol=1e-5)


def test_beyond_the_map_all_is_background(tmp_path):
    save(tmp_path / "map.npy", (48, 64, 5))
    parts, covered = read_part_map(tmp_path / "map.npy", PICTURE, BOX)
    ours = crop_part_map(parts, covered, Crop(-20, -20, 40, 40))
    assert torch.equal(ours[:, :19, :19], torch.tensor([1.0, 0, 0, 0, 0])[:, None, None].expand(5, 19, 19))
    assert torch.allclose(ours[:, 20:, 20:], parts[:, :20, :20], atol=1e-5)


def test_a_square_map_is_of_the_padded_crop(tmp_path):
    values = save(tmp_path / "map.npy", (32, 32, 5))
    parts, covered = read_part_map(tmp_path / "map.npy", PICTURE, BOX)
    crop = square_crop(BOX, 32)
    assert covered == (crop.left, crop.top, crop.left + crop.side - 1, crop.top + crop.side - 1)
    assert np.allclose(crop_part_map(parts, covered, crop).numpy(), values.transpose(2, 0, 1), atol=1e-5)


def test_another_crop_of_a_crop(tmp_path):
    """Against SciPy: where the centre of each pixel lies in the map."""
    values = save(tmp_path / "map.npz", (25, 30, 3), box=np.array([10.0, 4.0, 39.0, 53.0]))
    parts, covered = read_part_map(tmp_path / "map.npz", PICTURE, BOX)
    crop = Crop(15, 12, 20, 16)
    picture = np.arange(16)[:, None] * [20 / 16] + [12, 15] + (20 / 16 - 1) / 2  # pixel centres: y, x
    row, column = (picture[:, 0] - 4 + 0.5) * 25 / 50 - 0.5, (picture[:, 1] - 10 + 0.5) * 30 / 30 - 0.5
    grid = np.meshgrid(row, column, indexing="ij")
    expected = np.stack([map_coordinates(values[..., c], grid, order=1) for c in range(3)])
    assert np.allclose(crop_part_map(parts, covered, crop).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((48, 64), "expected floats"), ((20, 30, 5), "Save others as .npz"), ((32, 32, 1), "C at least 2")],
)
def test_maps_that_are_wrong(tmp_path, shape, words):
    save(tmp_path / "map.npy", shape)
    with pytest.raises(DataFileError, match=words):
        read_part_map(tmp_path / "map.npy", PICTURE, BOX)


def test_more_maps_that_are_wrong(tmp_path):
    path = tmp_path / "map.npy"
    with pytest.raises(DataFileError, match="no such part map"):
        read_part_map(path, PICTURE, BOX)
    np.save(path, np.full((32, 32, 5), -3, np.float32))
    with pytest.raises(DataFileError, match="Logits"):
        read_part_map(path, PICTURE, BOX)
    np.save(path, np.full((32, 32, 5), np.nan, np.float32))
    with pytest.raises(DataFileError, match="Logits"):
        read_part_map(path, PICTURE, BOX)
    save(path, (32, 32, 5))
    with pytest.raises(DataFileError, match="of it or of the crop"):
        read_part_map(path, (32, 32), BOX)
    path.write_bytes(b"damaged")
    with pytest.raises(DataFileError, match=r"expected an .npy"):
        read_part_map(path, PICTURE, BOX)
    save(tmp_path / "map.npz", (32, 32, 5))
    with pytest.raises(DataFileError, match="'box'"):
        read_part_map(tmp_path / "map.npz", PICTURE, BOX)
    save(tmp_path / "box.npz", (32, 32, 5), box=np.array([3, 4, 2, 5]))
    with pytest.raises(DataFileError, match="expected a box"):
        read_part_map(tmp_path / "box.npz", PICTURE, BOX)


def test_parts_of_key_points():
    names, groups = ("nose", "ear", "foot", "hat"), {"head": ("nose", "ear"), "leg": ("foot",)}
    keypoints = torch.tensor([[0.5, 0.5, 1], [0.1, 0.6, 0], [-0.5, -0.25, 1], [0.0, 0.0, 1]])
    mask = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0))
    parts = keypoint_parts(keypoints, names, groups, mask)
    assert torch.allclose(parts.sum(dim=0), torch.ones(12, 12), atol=1e-6)
    assert torch.allclose(parts[0], 1 - mask[0])
    for row, column in ((0, 0), (3, 8), (11, 11), (6, 5)):
        x, y = 1 - (2 * column + 1) / 12, 1 - (2 * row + 1) / 12
        # The ear is hidden, and no part has the hat.
        nose, foot = (
            np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * KEYPOINT_SPREAD**2)) for u, v in ((0.5, 0.5), (-0.5, -0.25))
        )
        share = nose / (nose + foot)
        assert parts[1:, row, column].tolist() == pytest.approx(
            [float(share * mask[0, row, column]), float((1 - share) * mask[0, row, column])], abs=1e-5
        )
    assert parts[1, 0, 0] > 0.9 * mask[0, 0, 0] and parts[2, 11, 11] > 0.9 * mask[0, 11, 11]  # +x is left, +y is up
    hidden = keypoint_parts(keypoints * torch.tensor([1.0, 1, 0]), names, groups, mask)
    assert (hidden[0] == 1).all() and not hidden[1:].any()
