from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from recon3d.data import dpc_layout, shapenet_points
from recon3d.data.npz import DataFileError
from recon3d.data.shapenet_points import ShapeNetPointsDataModule, resample, resize
from recon3d.data.view_sampling import balanced_plan
from recon3d.geometry.cameras import camera_centers, object_to_shapenet, project, shapenet_to_object
from tests.data import dpc_files


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dpc")
    dpc_files.write_set(root)
    return root


@pytest.fixture
def copy(official, tmp_path) -> Path:
    return shutil.copytree(official, tmp_path / "copy")


def ready(root: Path, stage: str = "fit", **options) -> ShapeNetPointsDataModule:
    module = ShapeNetPointsDataModule(root, **{"batch_size": 2, "n_points": 4000} | options)
    module.setup(stage)
    return module


def on_masks(batch, mirrored: bool = False) -> float:
    """Fraction of the projected ground truth that lands on the masks."""
    views, size = batch.images.shape[1], batch.images.shape[-1]
    seen = project(batch.cameras.flatten(), batch.points.repeat_interleave(views, 0))
    column, row = (((1 - seen[..., i]) * size / 2).long().clamp(0, size - 1) for i in (0, 1))
    column = size - 1 - column if mirrored else column
    return float((batch.masks.flatten(0, 1).flatten(1).gather(1, row * size + column) > 0).float().mean())


def test_a_training_batch_shows_the_files(official):
    module = ready(official, categories=["airplane"], train_views=3)
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (2, 3, 3, 128, 128) and batch.masks.shape == (2, 3, 1, 128, 128)
    assert batch.points.shape == (2, 4000, 3) and batch.normals is None and batch.voxels is None
    assert module.scale == "diagonal" and module.categories == ("airplane",)
    assert on_masks(batch) > 0.999 and on_masks(batch, mirrored=True) < 0.9
    for index, name in enumerate(batch.sample_id):
        category, model, view = name.split("/")
        seed, number = {"a0": 0, "a1": 1}[model], int(view[1:])
        assert category == batch.category[index] == "airplane"
        rgba = np.asarray(Image.open(official / f"renders/02691156/{model}/render_{number}.png")) / 255
        np.testing.assert_allclose(batch.images[index, 0], rgba[..., :3].transpose(2, 0, 1), atol=1e-6)
        np.testing.assert_allclose(batch.masks[index, 0, 0], rgba[..., 3], atol=1e-6)
        # Blender's (x, y, z) is (X, -Z, Y) of the .obj file.
        position = (
            torch.tensor(dpc_files.positions(seed)[number])
            @ torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).double()
        )
        torch.testing.assert_close(camera_centers(batch.cameras)[index, 0], shapenet_to_object(position).float())
        cloud = {tuple(point) for point in dpc_files.corner(seed).astype(np.float32)}
        drawn = {tuple(point) for point in object_to_shapenet(batch.points[index]).numpy()}
        assert drawn <= cloud and len(drawn) == 4000


def test_views_of_a_draw_differ(official):
    for options in ({"train_steps_per_epoch": 20}, {"balanced": False}):
        loader = ready(official, train_views=5, categories=["car"], **options).train_dataloader()
        for batch in loader:
            centers = camera_centers(batch.cameras)
            assert all(len(torch.unique(c.round(decimals=3), dim=0)) == 5 for c in centers)


def test_distinct_draws_are_uniform_and_do_not_depend_on_the_length():
    plan = balanced_plan(0, (30, 10), 5, 4, length=4000, seed=0, distinct=True)
    views = np.array([views for _, views in plan])
    assert all(len(set(row)) == 4 for row in views)
    counts = np.stack([np.bincount(column, minlength=5) for column in views.T])
    assert abs(counts - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)
    assert plan[:50] == balanced_plan(0, (30, 10), 5, 4, length=50, seed=0, distinct=True)
    assert all(sorted(row[:5]) == list(range(5)) for _, row in balanced_plan(0, (3,), 5, 7, 9, 0, distinct=True))


def test_the_test_shows_every_object_from_every_view_with_the_next_one(official):
    batches = list(ready(official, "test", test_views=8).test_dataloader())  # more than there are: all
    names = [name for batch in batches for name in batch.sample_id]
    assert names == [f"{name}/v{view:02d}" for name in ("airplane/a3", "car/c2") for view in range(5)]
    centers = torch.cat([camera_centers(batch.cameras) for batch in batches])
    torch.testing.assert_close(centers[:5, 1], centers[[1, 2, 3, 4, 0], 0])
    few = [n for batch in ready(official, "test", test_views=2).test_dataloader() for n in batch.sample_id]
    assert few == ["airplane/a3/v00", "airplane/a3/v02", "car/c2/v00", "car/c2/v02"]
    assert ready(official, val_views=0).val_dataloader() == []


@pytest.mark.parametrize("size", [32, 64, 128])
def test_images_are_resized(official, size):
    batch = next(iter(ready(official, image_size=size, categories=["car"]).train_dataloader()))
    assert batch.images.shape[-2:] == batch.masks.shape[-2:] == (size, size)
    assert on_masks(batch) > 0.999
    assert ((batch.masks > 0) & (batch.masks < 1)).any() == (size < 128)
    inside = (batch.masks > 0).expand_as(batch.images)
    colour = batch.images.movedim(2, -1)[batch.masks[:, :, 0] > 1e-3]
    torch.testing.assert_close(colour, torch.tensor([200.0, 120, 80]).expand_as(colour) / 255, atol=1e-4, rtol=0)
    assert not batch.images[~inside].any(), "black where nothing is"


def test_resizing_is_pillows_and_leaves_out_what_lies_behind():
    generator = torch.Generator().manual_seed(0)
    rgba = torch.rand(2, 4, 32, 32, generator=generator)
    rgba[:, 3:] = (rgba[:, 3:] > 0.5).float()
    rgba[:, 3:, :8] = 0
    small = resize(rgba, 8)
    for view in range(2):
        expected = Image.fromarray(rgba[view, 3].numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(small[view, 3], np.asarray(expected), atol=1e-5)
        red = Image.fromarray((rgba[view, 0] * rgba[view, 3]).numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(small[view, 0] * small[view, 3], np.asarray(red), atol=1e-5)
    changed = torch.where(rgba[:, 3:] == 0, torch.cat([1 - rgba[:, :3], rgba[:, 3:]], 1), rgba)
    assert torch.equal(resize(changed, 8), small)


def test_clouds_are_drawn_alike_for_a_name():
    cloud = np.random.default_rng(0).random((100, 3)).astype(np.float32)
    few, many = resample(cloud, 60, "car/a"), resample(cloud, 250, "car/a")
    assert len(np.unique(few, axis=0)) == 60
    assert sorted(np.unique(many, axis=0, return_counts=True)[1].tolist()) == [2] * 50 + [3] * 50
    np.testing.assert_array_equal(few, resample(cloud, 60, "car/a"))
    assert not np.array_equal(few, resample(cloud, 60, "car/b"))


def test_missing_clouds(copy, caplog):
    (copy / "gt/downsampled/02691156/a0.mat").unlink()
    module = ready(copy)
    assert "1 of 3 objects have no ground-truth cloud, such as airplane/a0: all go without points" in caplog.text
    assert next(iter(module.train_dataloader())).points is None
    assert next(iter(ready(copy, "test").test_dataloader())).points is not None
    shutil.rmtree(copy / "gt")
    caplog.clear()
    assert next(iter(ready(copy, "test").test_dataloader())).points is None and not caplog.text


def test_voxels_where_all_objects_have_them(copy):
    voxels = np.zeros((32, 32, 32), bool)
    voxels[1, 2, 3] = True
    np.savez(copy / "renders/02958343/c0/voxels.npz", voxels=voxels)
    batch = next(iter(ready(copy, categories=["car"]).train_dataloader()))
    assert batch.voxels[0].nonzero().tolist() == [[1, 2, 3]]
    assert next(iter(ready(copy).train_dataloader())).voxels is None


def test_damage_is_named_when_it_is_met(copy):
    Image.new("RGBA", (64, 64)).save(copy / "renders/02958343/c0/render_2.png")
    with pytest.raises(DataFileError, match=r"c0: expected views of one size, got \["):
        next(iter(ready(copy, categories=["car"], train_views=5).train_dataloader()))
    (copy / "renders/02958343/c0/camera_1.mat").unlink()
    with pytest.raises(DataFileError, match=r"c0: camera_1\.mat is missing"):
        next(iter(ready(copy, categories=["car"]).train_dataloader()))
    with pytest.raises(DataFileError, match=r"no train files for chair\. There are: airplane: train, val, test; car"):
        ready(copy, categories=["chair"])
    with pytest.raises(ValueError, match="image_size: expected at least 1"):
        ready(copy, image_size=0)


def test_ground_truth_is_read_once_as_long_as_there_is_room(official, monkeypatch):
    read, n_points = [], 4000
    original = dpc_layout.read_cloud
    monkeypatch.setattr(dpc_layout, "read_cloud", lambda path: read.append(path.stem) or original(path))
    dataset = ready(official).datasets["train"]
    first = [dataset[index, (0, 1)] for index in range(3)]
    again = [dataset[index, (2,)] for index in range(3)]
    assert read == ["a0", "a1", "c0"]
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.points, other.points, atol=0, rtol=0)
    monkeypatch.setattr(shapenet_points, "KEPT_BYTES", 2 * n_points * 12)  # two objects
    read.clear()
    small = ready(official).datasets["train"]
    for index in (0, 1, 0, 2, 0, 1):  # the one used longest ago goes
        small[index, (0,)]
    assert read == ["a0", "a1", "c0", "a1"]


def test_a_batch_is_no_window_on_what_is_kept(official):
    module = ready(official, categories=["car"], batch_size=1)
    batch = next(iter(module.train_dataloader()))
    kept = batch.points.clone()
    batch.points.zero_()
    torch.testing.assert_close(next(iter(module.train_dataloader())).points, kept, atol=0, rtol=0)


def test_it_pickles_small_after_reading(official):
    dataset = ready(official).datasets["train"]
    batch = dataset[2, (3, 1)]
    assert dataset._views and not pickle.loads(pickle.dumps(dataset))._views
    assert dataset._truths and not pickle.loads(pickle.dumps(dataset))._truths
    assert pickle.loads(pickle.dumps(dataset))[2, (3, 1)].sample_id == batch.sample_id == ("car/c0/v03",)


def test_hash_and_limit(official):
    module = ready(official, "test", limit_objects=1)
    assert len(module.datasets["test"]) == 2 and len(module.data_hash()) == 16


def test_config_names_the_module(tmp_path):
    path = Path(__file__).parents[2] / "configs/data/shapenet_points.yaml"
    data = yaml.safe_load(path.read_text())["data"]
    assert data["class_path"] == f"{ShapeNetPointsDataModule.__module__}.{ShapeNetPointsDataModule.__name__}"
    assert ShapeNetPointsDataModule(tmp_path, **data["init_args"]).name == "shapenet_points"
