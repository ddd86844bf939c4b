from __future__ import annotations

import numpy as np
import pytest

from recon3d.data.cub_release import find_segmentations, read_release
from recon3d.data.npz import DataFileError
from tests.data import cub_files


@pytest.fixture
def release(tmp_path):
    return cub_files.write_release(tmp_path) / "CUB_200_2011"


def test_pictures_of_the_release(release):
    images = read_release(release)
    assert [str(image.path) for image in images] == [f"{c}/{n}.jpg" for c, n, _ in cub_files.PICTURES.values()]
    assert [image.training for image in images] == [True] * 3 + [False] * 3
    for number, image in enumerate(images, 1):
        assert image.box == tuple(end - 1 for end in cub_files.BOXES[number])
        parts = cub_files.parts(number)
        expected = ((parts - [[1], [1], [0]]) * parts[2]).T
        assert np.allclose(image.keypoints, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("images.txt", ("1 001.Alpha", "1 /001.Alpha"), "inside the folder"),
        ("images.txt", ("2 001", "1 001"), "each another one"),
        ("images.txt", ("1 001.Alpha", "1 002.Beta"), "not of one release"),
        ("classes.txt", ("2 002.Beta_Bird\n", ""), "class is None"),
        ("image_class_labels.txt", ("3 2\n", ""), "ids of images.txt.*such as 3"),
        ("train_test_split.txt", ("2 1", "2 2"), "expected 0 or 1, got 2"),
        ("bounding_boxes.txt", ("32.0 30.0", "0.0 30.0"), "width and height above 0"),
        ("bounding_boxes.txt", ("32.0 30.0", "wide 30.0"), "expected a number, got 'wide'"),
        ("bounding_boxes.txt", (" 32.0 30.0", " 32.0"), "4 words"),
        ("parts/parts.txt", ("1 back", "1 front"), "15 parts"),
        ("parts/part_locs.txt", ("1 1 ", "1 16 "), "part_locs.txt"),
        ("parts/part_locs.txt", ("1 1 ", "1 2 "), "1 has 14"),
    ],
)
def test_files_that_are_wrong(release, file, change, words):
    text = (release / file).read_text()
    assert change[0] in text
    (release / file).write_text(text.replace(*change, 1))
    with pytest.raises(DataFileError, match=words):
        read_release(release)


FILES = [
    "images.txt",
    "classes.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "bounding_boxes.txt",
    "parts/parts.txt",
    "parts/part_locs.txt",
]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_empty_file_is_named(release, file):
    (release / file).write_text("")
    with pytest.raises(DataFileError, match=f"{file}: the file is empty.*non-commercial"):
        read_release(release)
    (release / file).unlink()
    with pytest.raises(DataFileError, match=f"{file}: no such file.*CUB_200_2011.tgz"):
        read_release(release)


def test_segmentations_in_either_place(release):
    root = release.parent
    assert find_segmentations(root) == root / "segmentations"
    (root / "segmentations").rename(release / "segmentations")
    assert find_segmentations(root) == release / "segmentations"
    (release / "segmentations").rename(root / "elsewhere")
    with pytest.raises(DataFileError, match=r"segmentations.tgz"):
        find_segmentations(root)
