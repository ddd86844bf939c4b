from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from recon3d.data import cub_release
from recon3d.data.cropping import square_crop
from recon3d.data.cub import KEYPOINT_PARTS, KEYPOINTS, MIRROR, CUBDataModule
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_sampling import Draw
from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_to_object
from tests.data import cub_files

NAMES = {n: f"{folder}/{name}" for n, (folder, name, _) in cub_files.PICTURES.items()}


def ids(module: CUBDataModule, split: str) -> list[str]:
    return [photograph.id for photograph in module.photographs(split)]


@pytest.fixture(scope="module")
def cmr_root(tmp_path_factory):
    return cub_files.write_cmr(tmp_path_factory.mktemp("cmr"))


@pytest.fixture(scope="module")
def release_root(tmp_path_factory):
    return cub_files.write_release(tmp_path_factory.mktemp("release"))


def test_key_points_are_those_of_the_fact_sheet():
    assert len(KEYPOINTS) == 15 and tuple(cub_files.MIRROR) == MIRROR
    for name, partner in zip(KEYPOINTS, MIRROR, strict=True):
        other = KEYPOINTS[partner]
        assert other == name or ({name[0], other[0]} == {"L", "R"} and name[1:] == other[1:])
    assert sorted(name for members in KEYPOINT_PARTS.values() for name in members) == sorted(KEYPOINTS)


def test_official_halves_share_a_photograph_once_only(cmr_root, caplog):
    module = CUBDataModule(cmr_root)
    assert ids(module, "train") == [NAMES[1], NAMES[2], f"{NAMES[3]}@0", f"{NAMES[3]}@1"]
    assert ids(module, "test") == [NAMES[4], NAMES[5]]
    with caplog.at_level(logging.INFO):
        assert ids(module, "val") == [NAMES[6]]
    assert f"1 of the 2 photographs of val are in test too ({NAMES[5]}); left out" in caplog.text
    assert ids(CUBDataModule(cmr_root, keep_shared=True), "val") == [NAMES[5], NAMES[6]]


def test_halves_of_testval_where_there_are_no_lists(tmp_path, caplog):
    root = cub_files.write_cmr(tmp_path, ("train", "testval"))
    module = CUBDataModule(root)
    test, val = set(ids(module, "test")), set(ids(module, "val"))
    assert len(test) == 2 and len(val) == 1 and test | val == {NAMES[4], NAMES[5], NAMES[6]}
    assert "not those of CMR" in caplog.text
    kept = ids(CUBDataModule(root, keep_shared=True), "val")
    assert len(kept) == 2 and val < set(kept)  # the official count: both halves rounded up
    assert ids(CUBDataModule(root), "test") == ids(module, "test")


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_photograph_with_its_camera(cmr_root, mirrored):
    module = CUBDataModule(cmr_root, image_size=32, parts="keypoints")
    module.setup("fit")
    assert np.allclose(module.keypoint_set.shape, cub_files.mean_shape().T)
    shape = cmr_to_object(torch.from_numpy(module.keypoint_set.shape).float())
    for index, number in enumerate(cub_files.SPLITS["train"]):
        sample = module.datasets["train"][Draw(index, mirrored=mirrored)]
        assert sample.images.shape == (1, 1, 3, 32, 32) and sample.masks.shape == (1, 1, 1, 32, 32)
        assert sample.keypoints.shape == (1, 1, 15, 3) and sample.parts.shape == (1, 1, 5, 32, 32)
        assert sample.category == ("bird",) and sample.sample_id[0].startswith(NAMES[3 if number == 7 else number])
        visible = sample.keypoints[0, 0, :, 2] > 0
        hidden = 3 + number
        assert (~visible).nonzero().flatten().tolist() == [MIRROR.index(hidden) if mirrored else hidden]
        screen = project(sample.cameras[0, 0], shape)[:, :2]
        assert sample.cameras.orthographic
        # But for one pixel of the picture, see test_cropping; mirrored because S is its own mirror image.
        error = (sample.keypoints[0, 0, visible, :2] - screen[visible]).abs()
        side = square_crop(module.photographs("train")[index].box, 32).side
        assert torch.allclose(error, torch.tensor(2 / side), atol=1e-5)


def test_grey_and_transparent_pictures(cmr_root):
    module = CUBDataModule(cmr_root, image_size=16)
    module.setup("fit")
    module.setup("test")
    grey = module.datasets["train"][Draw(1)].images
    assert torch.equal(grey[:, :, 0], grey[:, :, 1]) and torch.equal(grey[:, :, 0], grey[:, :, 2])
    assert float(module.datasets["test"][Draw(0)].images.std()) > 0.1
    # The box touches the corner: 5 % beyond it are white, and no bird is there.
    assert (grey[0, 0, :, 0] > 0.9).all() and not module.datasets["train"][Draw(1)].masks[0, 0, 0, 0].any()


def test_release_alone(release_root):
    module = CUBDataModule(release_root, annotations="release", image_size=32)
    assert ids(module, "val") == [NAMES[1]] and ids(module, "train") == [NAMES[2], NAMES[3]]
    assert ids(module, "test") == [NAMES[4], NAMES[5], NAMES[6]]
    module.setup("fit")
    module.setup("test")
    sample = module.datasets["train"][Draw(1)]  # its segmentation has four channels
    assert sample.cameras is None and module.keypoint_set.shape is None
    assert sample.keypoints[0, 0, :, 2].sum() == 14
    assert len(list(module.test_dataloader())) == 1


def test_the_lists_of_the_release_are_read_once(release_root, monkeypatch):
    calls = []
    read = cub_release.read_release
    monkeypatch.setattr(cub_release, "read_release", lambda root: calls.append(root) or read(root))
    module = CUBDataModule(release_root, annotations="release")
    assert [len(ids(module, split)) for split in ("train", "val", "test")] == [2, 1, 3]
    assert len(calls) == 1


def test_release_and_annotations_give_the_same_birds(cmr_root, release_root):
    """Pixels count from 1 in both: masks at half of the votes, boxes and key points agree."""
    samples = []
    for root, source in ((cmr_root, "cmr"), (release_root, "release")):
        module = CUBDataModule(root, annotations=source, image_size=32)
        module.setup("test")
        samples.append([module.datasets["test"][Draw(i)] for i in range(2)])
    for one, other in zip(*samples, strict=True):
        assert one.sample_id == other.sample_id
        assert torch.equal(one.images, other.images) and torch.equal(one.masks, other.masks)
        assert torch.allclose(one.keypoints, other.keypoints, atol=1e-5)


def test_scops_maps(tmp_path):
    root = cub_files.write_cmr(tmp_path)
    generator = np.random.default_rng(0)
    for number in (4, 5):
        path = root / "scops" / f"{NAMES[number]}{'_1' * (number == 5)}.npy"  # number 5 is the second of its file
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, generator.random((16, 16, 5)).astype(np.float32))
    module = CUBDataModule(root, parts="scops", image_size=16)
    module.setup("test")
    generator = np.random.default_rng(0)
    for index in range(2):
        expected = generator.random((16, 16, 5)).astype(np.float32).transpose(2, 0, 1)
        assert np.allclose(module.datasets["test"][Draw(index)].parts[0, 0].numpy(), expected, atol=1e-4)
    with pytest.raises(DataFileError, match=r"4 of 4 .* no part map, such as .*Alpha_0001_10.npy. Save"):
        module.setup("fit")


@pytest.mark.parametrize("kind", ["scops", "keypoints"])
def test_part_maps_go_along_with_shifts_and_mirroring(tmp_path, kind):
    root = cub_files.write_cmr(tmp_path)
    for number in (4, 5):
        path = root / "scops" / f"{NAMES[number]}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(number).random((16, 16, 5)).astype(np.float32))
    module = CUBDataModule(root, parts=kind, image_size=32)
    module.setup("test")
    shifts = (0.9, -0.5, 0.3, -0.8)
    for index in range(2):
        still, plain, mirrored = (
            module.datasets["test"][draw]
            for draw in (Draw(index), Draw(index, shifts), Draw(index, shifts, mirrored=True))
        )
        assert (plain.parts - still.parts).abs().max() > 0.05
        assert torch.equal(mirrored.masks, plain.masks.flip(-1))
        if kind == "scops":
            assert torch.allclose(mirrored.parts, plain.parts.flip(-1), atol=1e-6)
            continue
        # Shares of the mask, a pixel further than the mask: as CMR mirrors key points, see test_cropping.
        ours, theirs = mirrored.parts[..., 1:, :, :-1], plain.parts.flip(-1)[..., 1:, :, 1:]
        assert torch.allclose(ours * plain.masks.flip(-1)[..., 1:], theirs * mirrored.masks[..., :-1], atol=1e-5)
        assert (ours - mirrored.parts.flip(-1)[..., 1:, :, :-1]).abs().max() > 0.05


def test_truth_of_synthetic_birds(tmp_path):
    root = cub_files.write_cmr(tmp_path)
    for number in (4, 5):
        path = root / "truth" / f"{NAMES[number]}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.zeros((32, 32, 32), bool)
        voxels[1, 2, 3] = True
        points = np.array([[0.1, 0.2, 0.3]], np.float32)
        np.savez(path, points=points, normals=points / np.linalg.norm(points), voxels=voxels)
    module = CUBDataModule(root, image_size=16)
    module.setup("test")
    plain, mirrored = (module.datasets["test"][Draw(0, mirrored=flip)] for flip in (False, True))
    assert torch.allclose(plain.points, torch.tensor([[[0.1, 0.2, 0.3]]]))
    assert torch.allclose(mirrored.points, torch.tensor([[[0.1, 0.2, -0.3]]]))
    assert torch.equal(mirrored.normals[..., 2], -plain.normals[..., 2])
    assert plain.voxels[0].nonzero().tolist() == [[1, 2, 3]] and mirrored.voxels[0].nonzero().tolist() == [[1, 2, 28]]


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    module = CUBDataModule()
    assert module.root == tmp_path / "cub"
    with pytest.raises(DataFileError, match=r"train_cub_cleaned.mat: no such file. CMR's annotations.*release"):
        module.setup("fit")
    with pytest.raises(DataFileError, match=r"test_cub_cleaned.mat: no such file"):
        module.setup("test")
    with pytest.raises(DataFileError, match=r"segmentations: no such folder"):
        CUBDataModule(annotations="release").setup("fit")
    root = cub_files.write_cmr(tmp_path / "cub")
    lost = root / "CUB_200_2011" / "images" / f"{NAMES[2]}.jpg"
    lost.unlink()
    with pytest.raises(DataFileError, match=r"1 files of the 4 train photographs.*Alpha_0002_20.jpg.*non-commer"):
        CUBDataModule().setup("fit")
    tested = root / "CUB_200_2011" / "images" / f"{NAMES[4]}.jpg"
    with pytest.raises(DataFileError, match=r"1 files of the 2 test photographs.*Beta_0004_40.jpg"):
        tested.rename(tested.with_suffix(".away"))
        CUBDataModule().data_hash()
    tested.with_suffix(".away").rename(tested)
    Image.new("RGB", (20, 20)).save(lost, "PNG")
    module = CUBDataModule()
    module.setup("fit")
    with pytest.raises(DataFileError, match="expected 64x48 pixels, as the annotations have, got 20x20"):
        module.datasets["train"][Draw(1)]
    cub_files.write_mat(root / "sfm" / "anno_test.mat", "sfm_anno", [cub_files.pose(4)])
    with pytest.raises(DataFileError, match=r"has 2 objects.*1 cameras; they belong together"):
        CUBDataModule().setup("test")


def test_hash_tells_annotations_apart(cmr_root, release_root, tmp_path):
    first = CUBDataModule(cmr_root).data_hash()
    assert CUBDataModule(cub_files.write_cmr(tmp_path), batch_size=3, limit_objects=1).data_hash() == first
    assert CUBDataModule(release_root, annotations="release").data_hash() != first
    masked = [cub_files.annotation(4), cub_files.annotation(5) | {"mask": cub_files.mask(6)}]
    cub_files.write_mat(tmp_path / "data" / "test_cub_cleaned.mat", "images", masked)
    second = CUBDataModule(tmp_path).data_hash()
    cub_files.write_mat(tmp_path / "sfm" / "anno_test.mat", "sfm_anno", [cub_files.pose(4), cub_files.pose(7)])
    assert len({first, second, CUBDataModule(tmp_path).data_hash()}) == 3


def test_hash_is_of_the_test_photographs_alone(cmr_root, tmp_path):
    expected = CUBDataModule(cmr_root).data_hash()
    bare = cub_files.write_cmr(tmp_path, ("test",))
    for options in ({}, {"val_views": 0}, {"parts": "keypoints"}, {"parts": "scops"}):
        assert CUBDataModule(bare, **options).data_hash() == expected  # no train, no val, no maps
    path = bare / "scops" / f"{NAMES[4]}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros((16, 16, 5), np.float32))
    assert CUBDataModule(bare, parts="scops").data_hash() == expected


def test_configuration():
    content = yaml.safe_load(open("configs/data/cub.yaml"))["data"]  # noqa: SIM115, PTH123
    assert content["class_path"] == "recon3d.data.cub.CUBDataModule"
    CUBDataModule(**content["init_args"])
