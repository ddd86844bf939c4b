from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed

from recon3d.data.base import resolve_root
from recon3d.data.description import write_description
from recon3d.data.nmr_layout import CATEGORIES, write_split
from recon3d.data.npz import DataFileError
from recon3d.data.shapenet import ShapeNetDataModule
from recon3d.data.view_sampling import PlannedSampler, balanced_plan, evaluation_plan, quarter_turn, shuffled_plan
from recon3d.geometry.cameras import look_at_parameters

COUNTS = {"car": 5, "cabinet": 2}


def images_of(category: str, split: str, count: int, n_views: int = 24, size: int = 4) -> np.ndarray:
    """Pixels that tell class, object and view: a mistake in indexing shows."""
    images = np.zeros((count, n_views, 4, size, size), np.uint8)
    images[:, :, 0] = len(category) + 10 * len(split)
    images[:, :, 1] = np.arange(count)[:, None, None, None]
    images[:, :, 2] = np.arange(n_views)[None, :, None, None]
    images[:, :, 3, :2] = 255
    images[:, :, 3, 2] = 51
    return images


def voxels_of(count: int) -> np.ndarray:
    voxels = np.zeros((count, 32, 32, 32), bool)
    for i in range(count):
        voxels[i, i, 1, 2] = True
    return voxels


@pytest.fixture
def root(tmp_path) -> Path:
    """Official layout: synset names, compressed, no ids, no points."""
    for category, synset in (("car", "02958343"), ("cabinet", "02933112")):
        for split in ("train", "val", "test"):
            count = COUNTS[category]
            np.savez_compressed(tmp_path / f"{synset}_{split}_images.npz", images_of(category, split, count))
            np.savez_compressed(tmp_path / f"{synset}_{split}_voxels.npz", voxels_of(count))
    return tmp_path


def ready(root: Path, stage: str = "fit", **options) -> ShapeNetDataModule:
    module = ShapeNetDataModule(root, **{"batch_size": 4, "val_views": 2} | options)
    module.setup(stage)
    return module


def names(loader) -> list[tuple[str, ...]]:
    return [batch.sample_id for batch in loader]


def test_training_batch(root):
    batch = next(iter(ready(root).train_dataloader()))
    assert batch.images.shape == (4, 2, 3, 4, 4) and batch.images.dtype == torch.float32
    assert batch.masks[0, 0, 0, :, 0].tolist() == pytest.approx([1, 1, 0.2, 0])
    assert batch.voxels.shape == (4, 32, 32, 32) and batch.voxels.dtype == torch.bool
    assert batch.points is None and batch.normals is None
    pixel = (batch.images[:, :, :, 0, 0] * 255).round().int()  # (B,V,3): class, object, view
    azimuth = look_at_parameters(batch.cameras)["azimuth"]
    for i, (name, category) in enumerate(zip(batch.sample_id, batch.category, strict=True)):
        item = int(pixel[i, 0, 1])
        assert name == f"{category}/{item:04d}/v{int(pixel[i, 0, 2]):02d}"
        assert pixel[i, :, 0].tolist() == [len(category) + 50] * 2  # 10 * len("train")
        assert batch.voxels[i].nonzero().tolist() == [[item, 1, 2]]
        expected = -15.0 * pixel[i, :, 2]
        assert torch.allclose(torch.cos(torch.deg2rad(azimuth[i] - expected)), torch.ones(2), atol=1e-5)


def test_test_split_shows_every_object_from_every_view_with_its_quarter_turn(root):
    loader = ready(root, "test", batch_size=7).test_dataloader()
    batches = list(loader)
    seen = [name for batch in batches for name in batch.sample_id]
    assert seen == [f"{c}/{i:04d}/v{k:02d}" for c in ("cabinet", "car") for i in range(COUNTS[c]) for k in range(24)]
    views = torch.cat([(batch.images[:, :, 2, 0, 0] * 255).round().int() for batch in batches])
    assert torch.equal(views[:, 1], (views[:, 0] + 6) % 24)
    angles = look_at_parameters(batches[0].cameras)
    turn = (angles["azimuth"][:, 0] - angles["azimuth"][:, 1]) % 360
    assert torch.allclose(turn, torch.full((7,), 90.0), atol=1e-2)
    assert torch.allclose(angles["elevation"], torch.tensor(30.0), atol=1e-3)


def test_evenly_spaced_validation_views(root):
    seen = [name for batch in ready(root, "validate", val_views=4).val_dataloader() for name in batch.sample_id]
    assert seen[:4] == [f"cabinet/0000/v{k:02d}" for k in (0, 6, 12, 18)]
    assert len(seen) == 4 * sum(COUNTS.values())


def test_120_views_turn_within_their_elevation():
    plan = evaluation_plan(0, 1, 120, 120, quarter_turn)
    assert plan[23] == (0, (23, 5)) and plan[24] == (0, (24, 30)) and plan[119] == (0, (119, 101))


def test_120_view_files(tmp_path):
    write_split(tmp_path, "car", "test", ["x"], images_of("car", "test", 1, n_views=120), voxels_of(1))
    batch = next(iter(ready(tmp_path, "test", test_views=5, batch_size=5).test_dataloader()))
    assert batch.sample_id == tuple(f"car/x/v{k:02d}" for k in (0, 24, 48, 72, 96))
    elevation = look_at_parameters(batch.cameras)["elevation"]
    assert torch.allclose(elevation, torch.tensor([-60.0, -30, 0, 30, 60])[:, None].expand(5, 2), atol=1e-3)


def test_classes_are_drawn_uniformly_whatever_their_size():
    plan = balanced_plan(0, counts=(1000, 10), n_views=24, views_each=2, length=20_000, seed=0)
    objects = np.array([item for item, _ in plan])
    views = np.array([views for _, views in plan])
    assert abs((objects < 1000).mean() - 0.5) < 0.015  # 4 standard deviations
    assert set(range(1000, 1010)) <= set(objects)
    assert max(Counter(objects[objects >= 1000]).values()) < 1150  # mean 1000, sd 30
    assert set(views.ravel()) == set(range(24))
    assert abs((views[:, 0] == views[:, 1]).mean() - 1 / 24) < 0.006  # independent: they may coincide
    assert plan[:50] == balanced_plan(0, (1000, 10), 24, 2, length=50, seed=0)
    assert plan != balanced_plan(1, (1000, 10), 24, 2, length=20_000, seed=0)
    assert plan != balanced_plan(0, (1000, 10), 24, 2, length=20_000, seed=1)


def test_unbalanced_visits_every_object_once_an_epoch(root):
    loader = ready(root, balanced=False).train_dataloader()
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append([name.rsplit("/", 1)[0] for batch in loader for name in batch.sample_id])
        assert sorted(orders[-1]) == sorted(f"{c}/{i:04d}" for c in COUNTS for i in range(COUNTS[c]))
    assert orders[0] != orders[1]


def test_length_of_an_epoch(root):
    assert len(ready(root).train_dataloader()) == 2  # 7 objects in batches of 4
    assert len(ready(root, train_steps_per_epoch=9).train_dataloader()) == 9


@pytest.mark.slow  # a worker's imports take seconds
def test_order_is_the_same_for_any_number_of_workers(root):
    one, two = (ready(root, num_workers=workers, seed=3) for workers in (0, 2))
    assert names(one.train_dataloader()) == names(two.train_dataloader())
    assert names(one.train_dataloader()) != names(ready(root, seed=4).train_dataloader())


class Recorder(LightningModule):
    """Notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, ...]] = []

    def training_step(self, batch, _):
        self.seen.append(batch.sample_id)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(root: Path, folder: Path, checkpoint: Path | None = None, **options) -> list[tuple[str, ...]]:
    model = Recorder()
    saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=options.pop("max_steps", 9),
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    module = ShapeNetDataModule(root, batch_size=4, val_views=0, train_steps_per_epoch=4)
    trainer.fit(model, module, ckpt_path=checkpoint)
    return model.seen


@pytest.mark.parametrize("step", [2, 4, 7])  # within the first epoch, at its end, within the second
def test_a_resumed_run_goes_on_with_the_batch_it_would_have_shown(root, tmp_path, step):
    whole = fit(root, tmp_path / "whole")
    assert len(whole) == 9 and len(set(whole)) > 7
    resumed = fit(root, tmp_path / "again", checkpoint=tmp_path / "whole" / f"step={step}.ckpt")
    assert resumed == whole[step:]


def test_ranks_share_one_sequence(monkeypatch):
    def rank_of(rank: int, world: int, plan) -> list:
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: world)
        monkeypatch.setattr(distributed, "get_rank", lambda: rank)
        sampler = PlannedSampler(plan, batch_size=2)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    whole = balanced_plan(0, (5, 2), 24, 2, length=12, seed=0)
    ranks = [rank_of(rank, 3, lambda epoch: balanced_plan(epoch, (5, 2), 24, 2, 12, 0)) for rank in range(3)]
    assert [index for group in zip(*ranks, strict=True) for index in group] == whole
    shuffled = [rank_of(rank, 3, lambda epoch: shuffled_plan(epoch, (5, 2), 24, 2, 3, 0)) for rank in range(3)]
    assert [len(part) for part in shuffled] == [3, 3, 3]  # 7 objects and 2 again
    tested = [rank_of(rank, 4, lambda epoch: evaluation_plan(epoch, 7, 24, 1, quarter_turn)) for rank in range(4)]
    assert sorted(index for part in tested for index in part) == evaluation_plan(
        0, 7, 24, 1, quarter_turn
    )  # none twice


def test_a_shuffled_epoch_shows_every_object_once_in_different_views():
    def plan(views_each: int, epoch: int = 0, seed: int = 0) -> list[tuple[int, tuple[int, ...]]]:
        return shuffled_plan(epoch, (30, 10), 24, views_each, 1, seed)

    for views_each in (1, 2, 24):
        drawn = plan(views_each)
        assert sorted(index for index, _ in drawn) == list(range(40))
        assert all(len(set(views)) == len(views) == views_each for _, views in drawn)
        assert drawn == plan(views_each) and drawn != plan(views_each, epoch=1) and drawn != plan(views_each, seed=1)
    counts = np.bincount([view for epoch in range(50) for _, views in plan(6, epoch) for view in views], minlength=24)
    assert abs(counts - 500).max() < 4 * np.sqrt(2000 * 0.25 * 0.75)  # each view in a quarter of the 2000 draws
    assert all(len(views) == 25 and set(views) == set(range(24)) for _, views in plan(25))  # all, then again


def test_points_are_present_and_cut(tmp_path):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 10, 3)).astype(np.float32)
    write_split(tmp_path, "car", "test", ["x", "y"], images_of("car", "test", 2), voxels_of(2), points, points)
    batch = next(iter(ready(tmp_path, "test", n_points=6, test_views=1).test_dataloader()))
    np.testing.assert_array_equal(batch.points, points[:, :6])
    np.testing.assert_allclose(batch.normals, points[:, :6], atol=1e-3)
    assert batch.normals.dtype == torch.float32
    assert batch.sample_id == ("car/x/v00", "car/y/v00")
    with pytest.raises(DataFileError, match=r"n_points=11, but .* holds 10 points"):
        ready(tmp_path, "test", n_points=11)


def test_a_few_objects(root):
    module = ready(root, "test", limit_objects=1, test_views=1)
    assert names(module.test_dataloader()) == [("cabinet/0000/v00", "car/0000/v00")]


def test_categories_by_synset_and_alias(root):
    assert ready(root, categories=["02958343"]).categories == ("car",)
    assert ready(root, categories=["Dresser", "cabinet"]).categories == ("cabinet",)
    assert ready(root).categories == ("cabinet", "car")


def test_missing_files_are_named_with_what_is_there(root):
    with pytest.raises(
        DataFileError, match=r"no train files for sofa, table\. There are: cabinet: train, val, test; car"
    ):
        ready(root, categories=["sofa", "car", "table"])
    for path in root.glob("02933112_val*"):
        path.unlink()
    with pytest.raises(DataFileError, match=r"no val files for cabinet.*cabinet: train, test.*val_views=0"):
        ready(root)
    assert ready(root, val_views=0).val_dataloader() == []
    with pytest.raises(DataFileError, match="no such folder"):
        ready(root / "elsewhere")


def test_categories_that_differ_are_refused(root):
    np.savez(root / "02958343_test_images.npz", images_of("car", "test", 5, size=8))
    with pytest.raises(DataFileError, match="of one shape in all categories"):
        ready(root, "test")


@pytest.mark.parametrize("options", [{"train_views": 0}, {"limit_objects": 0}, {"batch_size": 0}, {"num_workers": -1}])
def test_impossible_options(root, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ShapeNetDataModule(root, **options)
    with pytest.raises(ValueError, match="train_steps_per_epoch"):
        ShapeNetDataModule(root, balanced=False, train_steps_per_epoch=3)
    with pytest.raises(ValueError, match="test_views=25"):
        ready(root, "test", test_views=25).test_dataloader()


def test_root(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    assert resolve_root(None, "shapenet") == tmp_path / "shapenet"
    assert resolve_root(tmp_path / "x", "shapenet") == tmp_path / "x"
    monkeypatch.delenv("RECON3D_DATA")
    assert resolve_root(None, "shapenet") == Path("datasets/shapenet")


def test_scale_and_hash(root):
    module = ShapeNetDataModule(root)
    assert module.scale == "longest_side"
    before = module.data_hash()
    write_description(root, "x", "diagonal", "made", "1")
    assert module.scale == "diagonal" and module.data_hash() == before
    np.savez(root / "02958343_val_voxels.npz", voxels_of(5)[::-1])
    assert ShapeNetDataModule(root).data_hash() != before


def test_a_dataset_that_was_read_pickles_small(root):
    dataset = ready(root).datasets["train"]
    assert isinstance(dataset._array(dataset.splits[0].images), np.memmap)
    assert len(pickle.dumps(dataset)) < 20_000  # cameras and file positions, no pixels
    assert pickle.loads(pickle.dumps(dataset))[1, (0, 1)].sample_id == dataset[1, (0, 1)].sample_id


def test_config_names_the_module_and_the_13_categories(tmp_path):
    path = Path(__file__).parents[2] / "configs/data/shapenet.yaml"
    data = yaml.safe_load(path.read_text())["data"]
    assert data["class_path"] == f"{ShapeNetDataModule.__module__}.{ShapeNetDataModule.__name__}"
    assert tuple(data["init_args"]["categories"]) == CATEGORIES
    assert ShapeNetDataModule(tmp_path, **data["init_args"]).name == "shapenet"


@pytest.mark.slow
def test_an_epoch_over_a_large_file_takes_no_memory(tmp_path):
    item = np.zeros((24, 4, 64, 64), np.uint8)
    write_split(
        tmp_path,
        "car",
        "train",
        [str(i) for i in range(1000)],
        (item for _ in range(1000)),
        voxels_of(1).repeat(1000, 0),
    )

    def anonymous() -> int:  # pages that are not the file's: the system cannot drop these
        return int(next(line for line in Path("/proc/self/status").open() if line.startswith("RssAnon")).split()[1])

    loader = ready(tmp_path, val_views=0, balanced=False, train_views=24, batch_size=16).train_dataloader()
    next(iter(loader))
    before = anonymous()
    for _ in loader:
        pass
    assert anonymous() - before < 100_000  # kB, of 393 MB read
