"""Pascal3D+ as a data module, from small files of CMR's annotations and of the release."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import scipy.io
import torch

from recon3d.data.cropping import square_crop
from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d import CAR_PARTS, Pascal3DDataModule
from recon3d.data.photograph_sampling import Draw
from recon3d.data.photographs import PhotographDataset
from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_to_object
from recon3d.renderers.hard import render_hard
from tests.data import pascal3d_files as files

PICTURES = {
    "train": [
        "car_imagenet\\n01_1.JPEG",
        "car_imagenet/n01_2.JPEG",
        "car_imagenet\\n01_3.JPEG",
        "car_imagenet\\n01_3.JPEG",
    ],
    "val": ["car_pascal\\2008_2.jpg"],
}
SIZE = 64


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("pascal3d")
    folder = root / "PASCAL3D+_release1.1"
    folder.mkdir()
    files.write_release(folder)
    return root


@pytest.fixture
def root(official, tmp_path):
    return shutil.copytree(official, tmp_path / "pascal3d")


@pytest.fixture
def annotated(root):
    """With CMR's files."""
    for split, pictures in PICTURES.items():
        files.write_cmr(root, split, pictures)
    return root


def module(root, **options):
    return Pascal3DDataModule(root, image_size=SIZE, **options)


def opened(data, split="train", **options):
    return PhotographDataset(data.photographs(split), data.keypoint_set, SIZE, **options)


def mirror(points):
    return points * torch.tensor([1.0, 1.0, -1.0])


def test_objects_of_the_release_and_those_left_out(root, caplog):
    data = module(root)
    with caplog.at_level(logging.INFO, logger="recon3d.data.pascal3d_objects"):
        train = data.photographs("train")
    assert [item.id for item in train] == [
        "car_imagenet/n01_1",
        "car_imagenet/n01_2",
        "car_imagenet/n01_3@0",
        "car_imagenet/n01_3@2",
        "car_pascal/2008_1",
    ]
    assert [item.id for item in data.photographs("val")] == ["car_pascal/2008_2"]
    assert data.photographs("test") == data.photographs("val")
    assert data.objects.left_out["train"] == {"without a fine viewpoint": 2, "truncated": 1, "difficult": 1}
    assert "car train: 5 objects, left out 1 difficult, 1 truncated, 2 without a fine viewpoint" in caplog.text
    assert (data.annotations, data.scale, data.categories) == ("release", "longest_side", ("car",))


def test_flawed_objects_on_request_and_imagenet_alone(root):
    ids = [item.id for item in module(root, include=["difficult"]).photographs("train")]
    assert "car_imagenet/n01_4" in ids and "car_imagenet/n01_3@5" not in ids
    ids = [item.id for item in module(root, include=["truncated", "occluded"]).photographs("train")]
    assert "car_imagenet/n01_3@5" in ids
    data = module(root, split_by="imagenet")
    assert [len(data.photographs(split)) for split in ("train", "val")] == [3, 1]


@pytest.mark.parametrize("mirrored", [False, True])
def test_cameras_of_the_release_see_key_points_and_shape_in_the_crop(root, mirrored):
    data = module(root)
    dataset = opened(data)
    anchors = [files.cad_anchors(model) for model in range(2)]
    for number, item in enumerate(dataset.photographs):
        batch = dataset[Draw(number, (0.3, -0.5, 0.9, 0.1), mirrored)]
        assert not batch.cameras.orthographic
        view = files.VIEWS[item.id.split("/")[1].replace("@", "_")]
        model = 1 if item.id in ("car_imagenet/n01_2", "car_imagenet/n01_3@2") else 0
        verts = data.objects.cads[model].object_verts()
        places = torch.tensor(np.stack([anchors[model][name] for name in files.NAMES])).float()
        places = data.objects.cads[model].frame.to_object(places.double()).float()
        if mirrored:
            verts, places = mirror(verts), mirror(places)[list(data.keypoint_set.mirror)]
        seen = project(batch.cameras[0, 0], places)[:, :2]
        visible = batch.keypoints[0, 0, :, 2] > 0
        assert visible.sum() == 3 and not visible[2 if mirrored else 3]
        # CMR's rule of mirroring is a pixel wide of the camera's for neither: both move by size - 1 - k.
        torch.testing.assert_close(batch.keypoints[0, 0, visible, :2], seen[visible], atol=2e-4, rtol=0)
        rendered = render_hard(verts[None], torch.from_numpy(files.FACES), batch.cameras[0], SIZE).mask[0]
        overlap = (rendered * batch.masks[0, 0]).sum() / torch.maximum(rendered, batch.masks[0, 0]).sum()
        # Masks end at the picture's border, and crops of some 45 pixels are enlarged to 64.
        assert overlap > (0.7 if view["px"] == 15.0 else 0.9), item.id
        inside = (batch.points[0].abs().max(), verts.abs().max())
        assert inside[0] <= 0.5 + 1e-6 and inside[1] == pytest.approx(0.5, abs=1e-6)
        # The true points of this object, seen by this camera, fall on its mask.
        spots = project(batch.cameras[0, 0], batch.points[0])[:, :2]
        grid = -spots[None, None]
        hit = torch.nn.functional.grid_sample(rendered[None], grid, align_corners=False)
        assert hit.mean() > 0.95


def test_batches_have_all_fields_and_grey_pictures_three_channels(root):
    data = module(root, batch_size=5, seed=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (5, 1, 3, SIZE, SIZE) and batch.masks.shape == (5, 1, 1, SIZE, SIZE)
    assert batch.cameras.shape == (5, 1) and batch.keypoints.shape == (5, 1, 4, 3)
    assert batch.points.shape == (5, 10_000, 3) and batch.voxels.shape == (5, 32, 32, 32)
    grey = batch.images[batch.sample_id.index("car_imagenet/n01_2/v00"), 0]
    assert torch.equal(grey[0], grey[1]) and grey.std() > 0.1
    data.setup("test")
    (only,) = data.test_dataloader()
    assert only.sample_id == ("car_pascal/2008_2/v00",)
    # A crop over the border is white beyond the picture, and its mask empty there.
    border = opened(data)[Draw(2)]
    assert (border.images[0, 0, :, SIZE // 2, 0] == 1).all() and border.masks[0, 0, 0, :, 0].sum() == 0


def test_what_is_rendered_is_kept_until_the_annotation_changes(root):
    first = module(root).photographs("train")
    assert first[0].mask.is_relative_to(root / "derived/masks") and first[0].truth.is_relative_to(
        root / "derived/truth"
    )
    first[1].mask.write_bytes(b"kept")
    again = module(root).photographs("train")
    assert again[1].mask.read_bytes() == b"kept"
    changed = files.car(files.viewpoint(201.0), 1)
    files.write_record(root / "PASCAL3D+_release1.1", "imagenet", "n01_2", [changed], mode="L")
    after = module(root).photographs("train")
    assert after[1].mask != first[1].mask and after[1].mask.read_bytes() != b"kept"
    assert [item.mask for item in after[2:]] == [item.mask for item in first[2:]]
    elsewhere = module(root, cache=root / "other").photographs("val")
    assert elsewhere[0].mask.is_relative_to(root / "other")


def test_what_is_rendered_is_made_before_the_processes_part(root, annotated, monkeypatch):
    data = module(annotated, annotations="cmr")
    data.prepare_data()
    assert not (annotated / "derived").exists()  # there is nothing to render
    module(root, annotations="release").prepare_data()

    def refuse(*_, **__):
        raise AssertionError("rendered again")

    monkeypatch.setattr("recon3d.data.pascal3d_objects.silhouette", refuse)
    monkeypatch.setattr("recon3d.data.pascal3d_objects.write_truth", refuse)
    other = module(root, annotations="release")  # another process
    for stage in ("fit", "test"):
        other.setup(stage)
    assert len(other.datasets["train"]) == 5 and len(other.datasets["test"]) == 1


def test_a_cache_that_cannot_be_written(root):
    (root / "file").write_text("")
    with pytest.raises(DataFileError, match=r"cannot be kept there .* Name a folder that can be written: cache="):
        module(root, cache=root / "file").photographs("val")


def test_hash_follows_annotations_models_and_pictures_but_not_the_cache(root):
    before = module(root).data_hash()
    module(root).photographs("train")
    shutil.rmtree(root / "derived")
    assert module(root).data_hash() == before and not (root / "derived").exists()
    assert module(root, include=["difficult"]).data_hash() == before  # the only such object is one of train
    folder = root / "PASCAL3D+_release1.1"
    files.write_record(folder, "pascal", "2008_2", [files.car(files.VIEWS["2008_2"] | {"px": 33.0}, 1)])
    moved = module(root).data_hash()
    assert moved != before
    (folder / "Images/car_pascal/2008_2.jpg").write_bytes(b"")
    assert module(root).data_hash() != moved
    difficult = files.car(files.VIEWS["2008_2"], 1, difficult=1)
    files.write_record(folder, "pascal", "2008_2", [files.car(files.VIEWS["2008_2"], 1), difficult])
    assert module(root, include=["difficult"]).data_hash() != module(root).data_hash()


def test_cad_index_beyond_the_models(root):
    folder = root / "PASCAL3D+_release1.1"
    files.write_record(folder, "pascal", "2008_2", [files.car(files.VIEWS["2008_2"], cad_index=3)])
    with pytest.raises(DataFileError, match=r"2008_2.mat, object 1: cad_index 3, but car has 2 CAD models"):
        module(root).photographs("val")


def test_without_anchors_there_are_no_key_points(root):
    (root / "PASCAL3D+_release1.1/CAD/car.mat").unlink()
    data = module(root)
    assert data.keypoint_set is None
    assert opened(data)[Draw(0)].keypoints is None


def test_cmr_annotations_come_first(annotated):
    data = module(annotated)
    assert (data.annotations, data.scale) == ("cmr", "keypoints")
    assert module(annotated, annotations="release").annotations == "release"
    train = data.photographs("train")
    assert [item.id for item in train] == [
        "car_imagenet/n01_1",
        "car_imagenet/n01_2",
        "car_imagenet/n01_3@0",
        "car_imagenet/n01_3@1",
    ]
    assert all(item.image.is_file() for item in train)
    assert data.photographs("test") == data.photographs("val") and len(data.photographs("val")) == 1
    keypoints = data.keypoint_set
    assert (keypoints.names, keypoints.mirror) == (files.KEYPOINTS, (1, 0, 3, 2, 4))
    np.testing.assert_allclose(keypoints.shape, files.mean_shape().T)
    assert keypoints.triangles.tolist() == [[0, 1, 4], [2, 3, 4]]


def test_a_test_split_of_cmr_files_is_used(annotated):
    assert module(annotated).test_split == "val"
    files.write_cmr(annotated, "test", ["car_pascal\\2008_1.jpg"])
    assert module(annotated).test_split == "test"
    assert module(annotated, annotations="release").test_split == "val"
    assert [item.id for item in module(annotated).photographs("test")] == ["car_pascal/2008_1"]
    assert module(annotated).photographs("val")[0].id == "car_pascal/2008_2"
    assert module(annotated, annotations="release").photographs("test")[0].id == "car_pascal/2008_2"


@pytest.mark.parametrize("mirrored", [False, True])
def test_cmr_cameras_see_the_key_points_a_pixel_off(annotated, mirrored):
    data = module(annotated)
    dataset = opened(data)
    shape = cmr_to_object(torch.tensor(data.keypoint_set.shape)).float()
    shape = mirror(shape)[list(data.keypoint_set.mirror)] if mirrored else shape
    for number in range(len(dataset)):
        batch = dataset[Draw(number, (0.0,) * 4, mirrored)]
        points = batch.keypoints[0, 0]
        seen = project(batch.cameras[0, 0], shape)[:, :2]
        visible = points[:, 2] > 0
        assert visible.sum() == 4
        off = (seen - points[:, :2])[visible]
        # Key points count from 0, translations from 1: one pixel of the picture, to the right (-x) and down (-y).
        side = square_crop(dataset.photographs[number].box, SIZE).side
        sign = torch.tensor([1.0 if mirrored else -1.0, -1.0])
        torch.testing.assert_close(off, (sign * 2 / side).expand_as(off), atol=1e-4, rtol=0)
        assert batch.points is None and batch.cameras.orthographic


def test_cmr_truth_where_there_is_a_folder_of_it(annotated):
    data = module(annotated)
    truth = module(annotated, annotations="release").photographs("val")[0].truth
    for split in ("train", "val"):
        for item in data.photographs(split):
            target = annotated / "truth" / f"{item.id}.npz"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(truth, target)
    assert opened(module(annotated))[Draw(3)].points.shape == (1, 10_000, 3)


def test_cmr_files_that_do_not_go_together(annotated):
    files.write_cmr(annotated, "val", PICTURES["val"] * 2)
    shutil.copy(annotated / "sfm/car_train.mat", annotated / "sfm/car_val.mat")
    with pytest.raises(DataFileError, match=r"car_val.mat has 2 objects, .*sfm/car_val.mat 4 cameras"):
        module(annotated).photographs("val")
    scipy.io.savemat(annotated / "data/car_kps.mat", {"kp_names": ["a", "b"], "kp_perm_inds": np.array([1, 1])})
    with pytest.raises(DataFileError, match=r"kp_perm_inds to be a permutation of 1 to 2, .* got \[1, 1\]"):
        _ = module(annotated).keypoint_set
    (annotated / "data/car_kps.mat").unlink()
    with pytest.raises(DataFileError, match=r"car_kps.mat: no such file. CMR's annotations of Pascal3D\+ are"):
        _ = module(annotated).keypoint_set


def test_parts_of_cars_from_key_points(annotated):
    names = [name for members in CAR_PARTS.values() for name in members]
    assert len(set(names)) == len(names) == 12
    with pytest.raises(ValueError, match="SCOPS's maps are read for birds only"):
        module(annotated, parts="scops")
    with pytest.raises(DataFileError, match="key points that are grouped into parts"):
        opened(module(annotated), parts="keypoints")  # these boxes have five key points of their own
    path = annotated / "data/car_kps.mat"
    scipy.io.savemat(path, {"kp_names": np.array(names, dtype=object), "kp_perm_inds": np.arange(1, 13)})
    shape = {"S": np.random.default_rng(0).normal(size=(3, 12)), "conv_tri": np.array([[1, 2, 3]])}
    scipy.io.savemat(annotated / "sfm/car_train.mat", shape)
    assert list(module(annotated).keypoint_set.parts) == ["front", "back", "roof", "wheels"]


def test_refusals(root, tmp_path):
    with pytest.raises(ValueError, match=r"category: expected one of aeroplane, .*, got 'bird'"):
        module(root, category="bird")
    with pytest.raises(ValueError, match="include: expected some of truncated, occluded, difficult, got hidden"):
        module(root, include=["hidden"])
    with pytest.raises(
        DataFileError, match=r"no cmr annotations of car; there are release\. CMR's are data/car_train.mat"
    ):
        module(root, annotations="cmr").photographs("train")
    with pytest.raises(DataFileError, match=r"no annotations of bus; there are none\."):
        module(root, category="bus").photographs("train")
