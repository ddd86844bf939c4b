import json

import pytest
import torch

from recon3d.data.synthetic_photographs import SyntheticBirdsDataModule, SyntheticCarsDataModule
from recon3d.geometry.cameras import project
from recon3d.structures import ViewBatch

COUNTS = {"train_photographs": 4, "val_photographs": 2, "test_photographs": 2, "workers": 1}


@pytest.fixture(scope="module", params=[SyntheticBirdsDataModule, SyntheticCarsDataModule])
def module(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON3D_DATA", str(folder))
        made = request.param(**COUNTS, batch_size=2, image_size=64, parts="keypoints")
        made.prepare_data()
    made.setup("fit")
    made.setup("test")
    return made


def test_the_set_is_made_once_in_a_folder_of_its_version(module):
    assert module.root.name == f"{module.name}-{module.version}"
    assert json.loads((module.root / "dataset.json").read_text())["version"] == module.version
    stamps = {path: path.stat().st_mtime_ns for path in module.root.rglob("*")}
    module.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in module.root.rglob("*")} == stamps


def test_batches_have_every_field(module):
    keypoints = len(module.keypoint_set.names)
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        batch = next(iter(loader))
        b = len(batch)  # CMR's files leave some cars out
        assert isinstance(batch, ViewBatch) and 1 <= b <= 2
        assert batch.images.shape == (b, 1, 3, 64, 64) and batch.masks.shape == (b, 1, 1, 64, 64)
        assert batch.keypoints.shape == (b, 1, keypoints, 3) and batch.parts.shape[:2] == (b, 1)
        assert batch.points.shape == batch.normals.shape == (b, 2000, 3)
        assert batch.voxels.shape == (b, 32, 32, 32) and batch.voxels.any()
        assert batch.cameras.orthographic and batch.cameras.shape == (b, 1)
        assert all(torch.isfinite(value).all() for value in (batch.images, batch.keypoints, batch.points))
        seen = project(batch.cameras.flatten(), batch.points)
        column, row = (((1 - seen[..., i]) * 32).long().clamp(0, 63) for i in (0, 1))
        on_mask = (batch.masks.flatten(1).gather(1, row * 64 + column) > 0.3).float().mean()
        flipped = (batch.masks.flatten(1).gather(1, row * 64 + 63 - column) > 0.3).float().mean()
        assert on_mask > 0.8 and on_mask > flipped, "up to a seventh of a bird may lie beyond the border"
    assert module.scale == "keypoints"


def test_splits_share_no_photograph(module):
    names = [{item.id for item in module.photographs(split)} for split in ("train", "val", "test")]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert all(names)


def test_settings_choose_folder_and_hash(module, monkeypatch, tmp_path):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    kind = type(module)
    modules = [kind(**COUNTS), kind(**COUNTS, shape_seed=1), kind(**COUNTS | {"val_photographs": 3})]
    assert len({made.root for made in modules}) == len({made.version for made in modules}) == 3
    assert modules[0].version == module.version and modules[0].data_hash
    assert kind(**COUNTS, seed=5, image_size=32).root == modules[0].root, "training does not make data"
    with pytest.raises(ValueError, match="Choose another folder"):
        kind(module.root, **COUNTS | {"val_photographs": 3}).prepare_data()


def test_the_hash_knows_the_annotations(module):
    other = type(module)(module.root, **COUNTS, annotations="release")
    assert other.data_hash() != module.data_hash() and other.version == module.version
    other.setup("test")
    assert len(next(iter(other.test_dataloader()))) > 0
