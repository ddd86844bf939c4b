from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from recon3d.data.cub import CUBDataModule
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_annotations import mask_png, read_mask, read_picture, read_truth
from recon3d.data.photograph_sampling import Draw
from recon3d.data.photographs import PhotographDataModule, PhotographDataset
from tests.data import cub_files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return cub_files.write_cmr(tmp_path_factory.mktemp("cub"))


def ready(root, stage="fit", **options) -> CUBDataModule:
    module = CUBDataModule(root, **{"batch_size": 2, "image_size": 16} | options)
    module.setup(stage)
    return module


def names(loader) -> list[str]:
    return [name for batch in loader for name in batch.sample_id]


def test_every_photograph_once_in_an_evaluation(root):
    module = ready(root, "test", test_views=8)
    assert names(module.test_dataloader()) == [f"{photo.id}/v00" for photo in module.photographs("test")]
    first, second = (torch.cat([b.images for b in module.test_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)  # no jitter, no mirror
    plain = PhotographDataset(module.photographs("test"), module.keypoint_set, 16)
    assert torch.equal(first[:1], plain[Draw(0)].images)


def test_an_epoch_of_all_photographs_or_of_so_many_steps(root):
    expected = sorted(f"{photo.id}/v00" for photo in CUBDataModule(root).photographs("train"))
    assert sorted(names(ready(root).train_dataloader())) == expected
    loader = ready(root, train_steps_per_epoch=5).train_dataloader()
    assert len(loader) == 5 and len(names(loader)) == 10
    assert len(names(ready(root, balanced=True, batch_size=3).train_dataloader())) == 6
    assert len(names(ready(root, limit_objects=3, batch_size=4).train_dataloader())) == 3


def test_a_last_batch_that_is_not_full_is_left_out_of_training(root):
    loader = ready(root, batch_size=3).train_dataloader()
    shown = set()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        assert len(batch) == 3 and len(loader) == 1
        shown |= set(batch.sample_id)
    assert len(shown) == 4  # the one left out changes
    assert [len(batch) for batch in ready(root, "test", batch_size=3).test_dataloader()] == [2]


def test_a_pass_over_the_training_set_shows_all_as_it_is_in_every_process(root, monkeypatch):
    module = ready(root, batch_size=3, num_workers=0)
    alone = [list(module.training_pass()) for _ in range(2)]
    assert [len(batch) for batch in alone[0]] == [3, 1]
    plain = module.datasets["train"]
    for batches in alone:
        assert [name for batch in batches for name in batch.sample_id] == [f"{p.id}/v00" for p in plain.photographs]
        images = torch.cat([batch.images for batch in batches])
        assert torch.equal(images, torch.cat([plain[Draw(number)].images for number in range(4)]))
    monkeypatch.setattr("recon3d.data.base.world_size", lambda: 3)
    monkeypatch.setattr("recon3d.data.photographs.world_size", lambda: 3)
    monkeypatch.setattr("recon3d.data.view_sampling.world_size", lambda: 3)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    assert names(module.training_pass()) == names(alone[0]) and len(list(module.training_pass())) == 4
    assert len(names(module.train_dataloader())) == 2  # its share: 4 photographs, and 2 again for 3 processes


def test_training_draws_are_jittered_and_mirrored_anew_in_every_epoch(root):
    loader = ready(root, seed=3, train_steps_per_epoch=20).train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([batch.images for batch in loader]))
    assert not torch.equal(*epochs)
    again = ready(root, seed=3, train_steps_per_epoch=20).train_dataloader()
    assert torch.equal(torch.cat([batch.images for batch in again]), epochs[0])
    assert len({image.numpy().tobytes() for image in epochs[0]}) > 30  # of 4 photographs
    still = ready(root, jitter=0.0, mirror=False, train_steps_per_epoch=20).train_dataloader()
    assert len({image.numpy().tobytes() for batch in still for image in batch.images}) == 4


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.evaluated = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch.sample_id, batch.images))
        return self.weight * batch.images.sum()

    def validation_step(self, batch):
        self.evaluated.append(batch.images)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train(module, folder) -> Recorder:
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
    )
    trainer.fit(recorder, datamodule=module)
    return recorder


def test_colours_change_in_training_only_and_by_seed_epoch_and_sample(root, tmp_path):
    options = {"jitter": 0.0, "mirror": False, "batch_size": 2}
    plain = train(CUBDataModule(root, image_size=16, **options), tmp_path)
    changed = train(CUBDataModule(root, image_size=16, color_jitter=0.3, **options), tmp_path)
    larger = train(CUBDataModule(root, image_size=16, color_jitter=0.3, **options | {"batch_size": 4}), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.evaluated, changed.evaluated, strict=True))

    def by_sample(recorder):
        return {
            (epoch, name): image
            for epoch, sample_ids, images in recorder.seen
            for name, image in zip(sample_ids, images, strict=True)
        }

    one, two, three = map(by_sample, (plain, changed, larger))
    assert one.keys() == two.keys() == three.keys() and len(one) == 8
    for key, image in one.items():
        assert not torch.allclose(image, two[key], atol=1e-3)
        assert torch.allclose(two[key], three[key], atol=1e-6)  # whatever batch it is in
        assert two[key].min() >= 0 and two[key].max() <= 1
    assert not torch.allclose(two[0, key[1]], two[1, key[1]], atol=1e-3)


def test_a_resumed_epoch_goes_on_where_it_was(root):
    loader = ready(root, train_steps_per_epoch=4).train_dataloader()
    batches = list(loader)
    state = {"epoch": 0, "batches": 2}
    resumed = ready(root, train_steps_per_epoch=4).train_dataloader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert [b.sample_id for b in rest] == [b.sample_id for b in batches[2:]]
    assert all(torch.equal(a.images, b.images) for a, b in zip(rest, batches[2:], strict=True))


@pytest.mark.slow  # a worker's imports take seconds
def test_the_same_for_any_number_of_workers(root):
    one, two = (ready(root, num_workers=workers, train_steps_per_epoch=4) for workers in (0, 2))
    for a, b in zip(one.train_dataloader(), two.train_dataloader(), strict=True):
        assert a.sample_id == b.sample_id and torch.equal(a.images, b.images)


def test_no_validation(root):
    module = ready(root, val_views=0)
    assert module.val_dataloader() == [] and "val" not in module.datasets


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_views": 2}, "a photograph shows its object from one view, got 2"),
        ({"test_views": 0}, "test_views"),
        ({"padding": -0.1}, "padding"),
        ({"limit_objects": 0}, "limit_objects"),
        ({"color_jitter": -1.0}, "color_jitter"),
    ],
)
def test_options_that_are_wrong(root, options, words):
    with pytest.raises(ValueError, match=words):
        CUBDataModule(root, **options)


def test_fields_must_be_there_for_all(root):
    module = CUBDataModule(root)
    photographs = list(module.photographs("train"))
    for name in ("pose", "keypoints"):
        with pytest.raises(DataFileError, match=f"1 of 4 photographs have no {name}: 001.Alpha_Bird/Alpha_0002_20"):
            PhotographDataset(
                [*photographs[:1], replace(photographs[1], **{name: None}), *photographs[2:]], module.keypoint_set
            )
    with pytest.raises(
        DataFileError, match=r"4 of 4 photographs have no part map, such as 001.Alpha_Bird/Alpha_0001_10"
    ):
        PhotographDataset(photographs, module.keypoint_set, parts="scops")
    with pytest.raises(DataFileError, match="grouped into parts"):
        PhotographDataset(photographs, None, parts="keypoints")


def test_a_split_without_photographs(root):
    class Empty(CUBDataModule):
        def photographs(self, split):
            return []

    with pytest.raises(DataFileError, match=r"no val photographs.*Or set val_views=0"):
        Empty(root).setup("validate")


def test_two_categories_are_balanced(root):
    class Two(CUBDataModule):
        def photographs(self, split):
            photographs = super().photographs(split)
            return [replace(photographs[0], category="rare"), *photographs[1:]]

    module = Two(root, balanced=True, train_steps_per_epoch=50, batch_size=4)
    module.setup("fit")
    plan = module.train_dataloader().sampler.plan(0)
    rare = np.mean([draw.photograph == 0 for draw in plan])
    assert abs(rare - 0.5) < 0.14  # 4 standard deviations; unbalanced: 0.25
    limited = Two(root, limit_objects=1)
    limited.setup("fit")
    assert [photo.category for photo in limited.datasets["train"].photographs] == ["rare", "bird"]


def test_masks_take_little_room_and_read_back():
    mask = cub_files.mask(3)
    png = mask_png(mask)
    assert len(png) < mask.size / 5
    assert np.array_equal(read_mask(png, (64, 48), "x")[..., 0], mask * 255)
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(stream, "PNG")
    assert read_mask(stream.getvalue(), (4, 1), "x")[0, :, 0].tolist() == [0, 0, 255, 255]
    with pytest.raises(DataFileError, match="mask of x: expected 3x1"):
        read_mask(png, (3, 1), "x")


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(DataFileError, match="not readable as an image"):
        read_picture(tmp_path / "none.jpg", (4, 4))
    with pytest.raises(DataFileError, match="points, normals and voxels"):
        read_truth(tmp_path / "none.npz", mirrored=False)
    np.savez(tmp_path / "a.npz", points=np.zeros((3, 3)), normals=np.zeros((2, 3)), voxels=np.zeros((32,) * 3, bool))
    with pytest.raises(DataFileError, match=r"normals \(P, 3\)"):
        read_truth(tmp_path / "a.npz", mirrored=False)


def test_the_dataset_goes_to_workers(root):
    dataset = ready(root).datasets["train"]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[Draw(2)].images, dataset[Draw(2)].images)
    assert issubclass(CUBDataModule, PhotographDataModule)
