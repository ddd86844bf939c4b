"""Lists and annotations of Pascal3D+'s release, read from small files of its layout."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d_release import is_release, list_annotations, read_record
from tests.data import pascal3d_files as files


@pytest.fixture
def folder(tmp_path):
    files.write_release(tmp_path)
    return tmp_path


def names(annotations):
    return [file.name for file in annotations]


def test_splits_as_cmr_and_as_imagenet(folder):
    imagenet = [f"car_imagenet/n01_{number}" for number in range(1, 5)]
    assert names(list_annotations(folder, "car", "train", "pascal")) == [*imagenet, "car_pascal/2008_1"]
    assert names(list_annotations(folder, "car", "val", "pascal")) == ["car_pascal/2008_2"]
    assert names(list_annotations(folder, "car", "train", "imagenet")) == [imagenet[0], imagenet[2], imagenet[3]]
    assert names(list_annotations(folder, "car", "val", "imagenet")) == [imagenet[1]]
    assert is_release(folder, "car") and not is_release(folder, "bus")


def test_pictures_of_both_suffixes_and_their_absence(folder):
    train = list_annotations(folder, "car", "train", "pascal")
    assert train[0].image == folder / "Images/car_imagenet/n01_1.JPEG"
    assert train[-1].image == folder / "Images/car_pascal/2008_1.jpg"
    train[0].image.unlink()
    with pytest.raises(DataFileError, match=r"n01_1.JPEG: no such picture"):
        _ = train[0].image


def test_pixels_and_models_count_from_0(folder):
    record = read_record(folder / "Annotations/car_imagenet/n01_3.mat", "car")
    assert record.size == (files.WIDTH, files.HEIGHT) and record.count == 6
    first, second, unseen, flat, cut = record.objects
    assert [item.number for item in record.objects] == [0, 2, 3, 4, 5]  # number 1 is a person
    assert (first.cad_index, second.cad_index) == (0, 1)
    view = files.VIEWS["n01_3_0"]
    corners = files.pixels(view, files.cad_verts(0)) - 1
    assert first.box == pytest.approx([*corners.min(axis=0), *corners.max(axis=0)])
    assert first.box[0] < 0  # over the border
    assert list(first.anchors) == list(files.NAMES[:-1])  # the last has status 2 and no location
    for name, place in first.anchors.items():
        assert place == pytest.approx(files.pixels(view, files.cad_anchors(0)[name][None])[0] - 1)
    assert (first.viewpoint.px.item(), first.viewpoint.py.item()) == (view["px"] - 1, view["py"] - 1)
    assert second.viewpoint.theta.item() == -8.0
    assert unseen.viewpoint is None and flat.viewpoint is None
    assert (cut.truncated, cut.occluded, cut.difficult) == (True, True, False)
    assert not first.truncated


def rewrite(folder, **changes):
    path = folder / "Annotations/car_imagenet/n01_1.mat"
    objects = [files.car(files.VIEWS["n01_1"], **changes.pop("car", {}))]
    record = {"filename": "x", "imgsize": np.array([64, 48, 3]), "objects": files.struct_array(objects)}
    scipy.io.savemat(path, {"record": record | changes})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgsize": np.array([0, 48, 3])}, r"imgsize \(width, height, channels\), got \[0.0, 48.0, 3.0\]"),
        ({"objects": 3}, "object 1: expected a struct with a field 'class'"),
        ({"car": {"bbox": np.array([5.0, 5, 4, 9])}}, r"object 1: expected bbox .* got \[5.0, 5.0, 4.0, 9.0\]"),
        ({"car": {"bbox": np.array([5.0, 5, np.nan, 9])}}, "expected bbox"),
        ({"car": {"bbox": "none"}}, "expected numbers in bbox"),
        ({"car": {"cad_index": np.array([1, 2])}}, r"one number in cad_index, got \[1.0, 2.0\]"),
        ({"car": {"anchors": {"a": {"location": files.EMPTY, "status": 1}}}}, "anchor a: status 1 needs a location"),
        ({"car": {"viewpoint": files.viewpoint(np.nan)}}, "viewpoint: expected finite numbers"),
        ({"car": {"viewpoint": files.viewpoint(0.0, distance=-2.0)}}, "distance, focal and viewport positive"),
        ({"car": {"viewpoint": {"distance": 5.0}}}, "viewpoint: expected finite numbers"),
    ],
)
def test_bad_records_are_named(folder, changes, message):
    with pytest.raises(DataFileError, match=message) as caught:
        read_record(rewrite(folder, **changes), "car")
    assert "n01_1.mat" in str(caught.value)


def test_objects_of_other_categories_are_not_read(folder):
    person = files.car(None) | {"class": "person", "bbox": files.EMPTY, "cad_index": np.array([1.0, 2.0])}
    car = files.car(files.VIEWS["n01_1"])
    files.write_record(folder, "imagenet", "n01_1", [person, car])
    path = folder / "Annotations/car_imagenet/n01_1.mat"
    record = read_record(path, "car")
    assert record.count == 2 and [item.number for item in record.objects] == [1]
    assert read_record(path, "bus").objects == ()
    with pytest.raises(DataFileError, match="object 1: expected bbox"):
        read_record(path, "person")


def test_damaged_and_missing_files_are_named(folder):
    path = folder / "Annotations/car_imagenet/n01_1.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataFileError, match=r"n01_1.mat: not readable as a .mat file"):
        read_record(path, "car")
    scipy.io.savemat(path, {"other": 1})
    with pytest.raises(DataFileError, match="expected a variable 'record'"):
        read_record(path, "car")
    path.unlink()
    with pytest.raises(DataFileError, match=r"n01_1.mat: no such file. Release 1.1 is one archive"):
        read_record(path, "car")
    with pytest.raises(DataFileError, match=r"car_imagenet_train.txt: 1 of 3 ids have no file .* such as n01_1"):
        list_annotations(folder, "car", "train", "imagenet")


def test_lists_that_lead_elsewhere_or_nowhere(folder):
    lists = folder / "Image_sets/car_imagenet_val.txt"
    for escape in ("../car_pascal/2008_1", "..\\2008_1", "/etc/passwd"):
        lists.write_text(f"n01_2\n{escape}\n")
        with pytest.raises(DataFileError, match=r"car_imagenet_val.txt: expected ids, one a line, got"):
            list_annotations(folder, "car", "val", "imagenet")
    lists.unlink()
    with pytest.raises(DataFileError, match=r"car_imagenet_val.txt: no such list"):
        list_annotations(folder, "car", "val", "imagenet")
    (folder / "PASCAL/VOCdevkit/VOC2012/ImageSets/Main/val.txt").write_text("2009_9\n")
    with pytest.raises(DataFileError, match=r"val.txt: not one of its 1 ids has a file"):
        list_annotations(folder, "car", "val", "pascal")
    with pytest.raises(DataFileError, match=r"Annotations/bus_pascal: no such folder"):
        list_annotations(folder, "bus", "val", "pascal")
