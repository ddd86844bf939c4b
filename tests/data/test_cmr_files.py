from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
import pytest
import scipy.io
from PIL import Image

from recon3d.data.cmr_files import picture_path, read_mean_shape, read_objects, read_poses
from recon3d.data.npz import DataFileError
from tests.data import cub_files

# CUB's image 2, the first of its training split. `parts`, and the box below, are those of CUB's part_locs.txt and
# bounding_boxes.txt; `S` and `camera` are those of CMR's anno_train.mat, whose first camera it is, rounded. CMR's own
# train_cub_cleaned.mat was not at hand: that it has the same numbers is taken from the code that reads it.
BIRD_2 = {
    "parts": np.array(
        [
            [228.0, 282, 0, 248, 266, 272, 0, 0, 208, 256, 270, 0, 234, 163, 260],
            [138, 154, 0, 158, 141, 144, 0, 0, 102, 141, 146, 0, 193, 155, 155],
            [1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1],
        ]
    ),
    "S": np.loadtxt(
        [
            "0 0 0 0 0 0 .019574 .2782 .36425 0 -.019574 -.2782 -.36425 0 0",
            ".13454 -.64203 .19811 -.16509 -.49102 -.59724 -.4758 .60424 .28694 -.18298 "
            "-.4758 .60424 .28694 1.3329 -.41792",
            ".26966 -.04656 -.36491 -.27358 .2694 .11551 .13329 -.46213 .11462 .24593 "
            ".13329 -.46213 .11462 .2694 -.05638",
        ]
    ),
    "camera": {
        "rot": np.array(
            [[-0.303131, -0.807023, 0.506780], [-0.910085, 0.087464, -0.405086], [0.282589, -0.584007, -0.760973]]
        ),
        "scale": np.float64(81.948),
        "trans": np.array([[234.27], [151.87]]),
    },
}


def test_objects(tmp_path):
    path = cub_files.write_cmr(tmp_path) / "data" / "train_cub_cleaned.mat"
    objects = read_objects(path, 15, "")
    assert [item.id for item in objects] == [
        "001.Alpha_Bird/Alpha_0001_10",
        "001.Alpha_Bird/Alpha_0002_20",  # had a backslash
        "002.Beta_Bird/Beta_0003_30@0",
        "002.Beta_Bird/Beta_0003_30@1",
    ]
    assert [item.number for item in objects] == [0, 1, 2, 3]
    for item, number in zip(objects, cub_files.SPLITS["train"], strict=True):
        folder, name, _ = cub_files.PICTURES[3 if number == 7 else number]
        assert item.path == PurePosixPath(folder, f"{name}.jpg")
        assert item.size == (64, 48)
        assert item.box == tuple(end - 1 for end in cub_files.BOXES[number])
        parts = cub_files.parts(number)
        seen = parts[2] > 0
        assert np.array_equal(item.keypoints[:, 2], parts[2])
        assert np.allclose(item.keypoints[seen, :2], parts[:2, seen].T - 1)
        assert not item.keypoints[~seen].any()
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(item.mask))), cub_files.mask(number) == 1)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8, np.int16, bool])
def test_masks_of_any_type(tmp_path, kind):
    expected = cub_files.mask(1)
    item = cub_files.annotation(1) | {"mask": expected.astype(kind)}
    cub_files.write_mat(tmp_path / "one.mat", "images", [item])
    (found,) = read_objects(tmp_path / "one.mat", 15, "")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.mask))), expected == 1)


def test_a_file_of_one_object(tmp_path):
    cub_files.write_mat(tmp_path / "one.mat", "images", [cub_files.annotation(3)])
    cub_files.write_mat(tmp_path / "sfm.mat", "sfm_anno", [cub_files.pose(3)])
    (item,), (pose,) = read_objects(tmp_path / "one.mat", 15, ""), read_poses(tmp_path / "sfm.mat", "")
    assert item.id == "002.Beta_Bird/Beta_0003_30"
    assert np.allclose(pose.rotation, cub_files.pose(3)["rot"])
    assert pose.scale == pytest.approx(float(cub_files.pose(3)["scale"]))
    assert np.allclose(pose.translation, cub_files.pose(3)["trans"])


def test_conventions_hold_on_a_bird_of_cub_with_its_camera_of_cmr(tmp_path):
    parts = BIRD_2["parts"]
    fields = cub_files.annotation(1) | {"parts": parts, "bbox": {"x1": 139, "y1": 30, "x2": 291, "y2": 293}}
    cub_files.write_mat(tmp_path / "data.mat", "images", [fields])
    cub_files.write_mat(tmp_path / "sfm.mat", "sfm_anno", [BIRD_2["camera"]], S=BIRD_2["S"], conv_tri=np.eye(3) + 1)
    (bird,), (pose,) = read_objects(tmp_path / "data.mat", 15, ""), read_poses(tmp_path / "sfm.mat", "")
    shape, _ = read_mean_shape(tmp_path / "sfm.mat", 15, "")
    assert bird.box == (138, 29, 290, 292)  # bounding_boxes.txt of the release: 139 30 153 264
    screen = pose.scale * shape @ pose.rotation[:2].T + pose.translation
    seen = bird.keypoints[:, 2] > 0
    offset = bird.keypoints[seen, :2] - screen[seen]
    # Structure from motion centres what is left over, in 1-based pixels; CMR shifts the key points alone.
    assert offset.mean(axis=0) == pytest.approx([-1, -1], abs=0.01)
    spread = np.ptp(bird.keypoints[seen, 0])
    assert np.abs(offset + 1).max() < 0.2 * spread
    assert np.linalg.norm(shape[:, None] - shape, axis=2).max() == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b.jpg", "a/b.jpg"), ("a\\b.jpg", "a/b.jpg"), ("a/./c d.jpg ", "a/c d.jpg"), ("b.jpg", "b.jpg")],
)
def test_paths(text, expected):
    assert picture_path(text, "") == PurePosixPath(expected)


@pytest.mark.parametrize("text", ["../b.jpg", "a\\..\\..\\b.jpg", "/etc/x.jpg", "\\x.jpg", "C:\\x.jpg", "", " ", 7])
def test_paths_out_of_the_folder(text):
    with pytest.raises(DataFileError, match="here: expected"):
        picture_path(text, "here")


BAD_OBJECTS = {
    "no parts": ({"parts": None}, "'parts'"),
    "14 parts": ({"parts": np.ones((3, 14))}, r"\(3, 14\)"),
    "an infinite part": ({"parts": np.full((3, 15), np.inf)}, "finite"),
    "a mask of text": ({"mask": "mask"}, "mask"),
    "a mask of probabilities": ({"mask": np.full((4, 4), 0.5)}, "0 and 1, got float64 .* from 0.5 to 0.5"),
    "a mask of nothing": ({"mask": np.full((4, 4), np.nan)}, "0 and 1"),
    "a mask with channels": ({"mask": np.ones((4, 4, 3), np.uint8)}, r"\(4, 4, 3\)"),
    "half a box": ({"bbox": {"x1": 1.0, "y1": 2.0}}, "'x2'"),
    "an empty box": ({"bbox": {"x1": 9.0, "y1": 2.0, "x2": 8.0, "y2": 5.0}}, "x1 <= x2"),
    "a box of text": ({"bbox": {"x1": "a", "y1": 2.0, "x2": 8.0, "y2": 5.0}}, "x1"),
    "a path out": ({"rel_path": "../x.jpg"}, "inside the folder"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_objects_that_are_wrong(tmp_path, name):
    changes, words = BAD_OBJECTS[name]
    fields = {key: value for key, value in (cub_files.annotation(1) | changes).items() if value is not None}
    cub_files.write_mat(tmp_path / "bad.mat", "images", [fields])
    with pytest.raises(DataFileError, match=words) as error:
        read_objects(tmp_path / "bad.mat", 15, "")
    assert "bad.mat, object 0" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rot": np.diag([1.0, 1, -1])}, "proper rotation"),
        ({"rot": 2 * np.eye(3)}, "proper rotation"),
        ({"rot": np.eye(2)}, "4, 1 and 2 numbers"),
        ({"scale": np.float64(0)}, "positive scale"),
        ({"trans": np.array([np.nan, 1])}, "finite trans"),
    ],
)
def test_cameras_that_are_wrong(tmp_path, changes, words):
    cub_files.write_mat(tmp_path / "sfm.mat", "sfm_anno", [cub_files.pose(1), cub_files.pose(2) | changes])
    with pytest.raises(DataFileError, match=f"object 1.*{words}"):
        read_poses(tmp_path / "sfm.mat", "")


def test_mean_shape(tmp_path):
    path = cub_files.write_cmr(tmp_path, ("train",)) / "sfm" / "anno_train.mat"
    shape, triangles = read_mean_shape(path, 15, "")
    assert np.array_equal(shape, cub_files.mean_shape().T)
    assert triangles.tolist() == [[0, 1, 14], [2, 3, 4]]
    with pytest.raises(DataFileError, match=r"S \(3, 12\)"):
        read_mean_shape(path, 12, "")
    scipy.io.savemat(path, {"S": cub_files.mean_shape(), "conv_tri": np.array([[0, 1, 2]])})
    with pytest.raises(DataFileError, match="counts from 1 to 15, got 0"):
        read_mean_shape(path, 15, "")


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataFileError, match=r"no such file. Fetch it"):
        read_objects(tmp_path / "x.mat", 15, "Fetch it.")
    (tmp_path / "x.mat").write_bytes(b"not matlab" * 20)
    with pytest.raises(DataFileError, match="not readable"):
        read_poses(tmp_path / "x.mat", "")
    cub_files.write_cmr(tmp_path, ("val",))
    with pytest.raises(DataFileError, match="'S'"):
        read_mean_shape(tmp_path / "sfm" / "anno_val.mat", 15, "")
