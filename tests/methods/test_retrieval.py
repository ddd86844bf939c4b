from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torchvision
from lightning import LightningModule, Trainer
from scipy.spatial import KDTree
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.data.shapenet import ShapeNetDataModule
from recon3d.methods.loading import load_method
from recon3d.methods.retrieval import Retrieval
from recon3d.networks.imagenet import vgg16_features
from recon3d.structures import ViewBatch

VIEWS, SIZE = 3, 32
SMALL: dict[str, Any] = {"layer": "conv2_2", "image_size": SIZE, "views": VIEWS}


def trainer(**options: Any) -> Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "logger": False} | quiet | options)


def objects(count: int, seed: int = 0) -> list[tuple[str, Tensor, Tensor]]:
    """Names, images (VIEWS, 3, H, W) and voxels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            f"car/{index:02d}",
            torch.rand(VIEWS, 3, SIZE, SIZE, generator=generator),
            torch.rand(9, 9, 9, generator=generator) < 0.3,  # 729 bits are no whole number of bytes
        )
        for index in range(count)
    ]


def batch_of(items: list[tuple[str, Tensor, Tensor]]) -> ViewBatch:
    names, images, voxels = zip(*items, strict=True)
    return ViewBatch(
        images=torch.stack(images),
        masks=torch.ones(len(items), len(images[0]), 1, *images[0].shape[-2:]),
        sample_id=tuple(f"{name}/v00" for name in names),
        category=("car",) * len(items),
        voxels=torch.stack(voxels),
    )


def fitted(items: list[tuple[str, Tensor, Tensor]], batch_size: int = 4, **options: Any) -> Retrieval:
    method = Retrieval(**SMALL | options)
    batches = [batch_of(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]
    trainer().fit(method, DataLoader(batches, batch_size=None))
    return method.eval()


def save(method: LightningModule, path: Path) -> Path:
    saver = trainer()
    saver.strategy.connect(method)
    saver.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def items() -> list[tuple[str, Tensor, Tensor]]:
    return objects(7)


@pytest.fixture(scope="module")
def method(items) -> Retrieval:
    return fitted(items)


@pytest.fixture(scope="module")
def queries(items) -> Tensor:
    """Images that mix two of the training set, one more than the other."""
    generator = np.random.default_rng(1)
    images = torch.cat([images for _, images, _ in items])
    first, second = (torch.tensor(generator.integers(len(images), size=40)) for _ in range(2))
    share = torch.tensor(generator.uniform(0.1, 0.9, (40, 1, 1, 1))).float()
    return share * images[first] + (1 - share) * images[second]


def test_nearest_is_that_of_a_kd_tree(method, items, queries):
    def describe(images: Tensor) -> np.ndarray:
        features = vgg16_features(["conv2_2"])(images)["conv2_2"].flatten(1).double()
        return (features / features.norm(dim=1, keepdim=True)).numpy()

    tree = KDTree(describe(torch.cat([images for _, images, _ in items])))
    distances, rows = tree.query(describe(queries), k=1)
    found, ours = method.nearest(queries)
    assert [method.names[index] for index in found] == [items[row // VIEWS][0] for row in rows]
    assert len(set(found.tolist())) == len(items)
    # Half precision changes a feature of length 1 by no more than 2^-11.
    np.testing.assert_allclose(ours, distances, atol=2 * 2**-11)
    voxels = method(queries).voxels
    assert torch.equal(voxels, torch.stack([items[row // VIEWS][2] for row in rows]))


def test_the_search_is_exact_for_any_vectors(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    method = Retrieval(**SMALL)
    method.features = torch.randn(300, 4, generator=generator).half()
    method.owners = torch.arange(300).flip(0)
    monkeypatch.setattr(method, "_describe", lambda image: image)
    queries = torch.randn(50, 4, generator=generator).half()
    distances, rows = KDTree(method.features.double().numpy()).query(queries.double().numpy())
    found, ours = method.nearest(queries)
    assert found.tolist() == (299 - rows).tolist()
    np.testing.assert_allclose(ours, distances, rtol=1e-5)


def test_images_that_differ_by_a_pixel_are_told_apart(items):
    almost = []
    for name, images, voxels in items:
        changed = images.clone()
        changed[:, 0, 8, 8] += 0.002
        almost.append((f"{name}-first", changed, ~voxels))
    method = fitted([*items, *almost])
    for name, images, _ in (*items, *almost):
        found, distances = method.nearest(images)
        assert [method.names[index] for index in found] == [name] * VIEWS
        assert not distances.any()
    others = method.nearest(items[0][1] + torch.tensor([0.002, 0, 0])[:, None, None])[1]
    assert (others > 0).all()


def test_rows_searched_in_parts_are_the_same_rows(method, queries, monkeypatch):
    whole = method.nearest(queries)
    monkeypatch.setattr("recon3d.methods.retrieval.ROWS", 4)
    assert all(map(torch.equal, method.nearest(queries), whole))


def test_a_training_image_returns_its_own_voxels(method, items):
    for name, images, voxels in items:
        found, distances = method.nearest(images)
        assert [method.names[index] for index in found] == [name] * VIEWS
        assert not distances.any()
        assert torch.equal(method(images).voxels, voxels.expand(VIEWS, -1, -1, -1))


def test_neither_order_nor_batch_size_matters_and_the_first_name_wins_ties(method, items, queries):
    twins = [("car/99", items[2][1], ~items[2][2]), ("car/00a", items[5][1].flip(0), ~items[5][2])]
    both = [*items, *twins]
    orders = [fitted(both), fitted(both[::-1], batch_size=1), fitted(both[4:] + both[:4] + both[:2], batch_size=9)]
    answers = [one.nearest(torch.cat([queries, items[2][1], items[5][1]])) for one in orders]
    assert all(torch.equal(found, answers[0][0]) for found, _ in answers)
    assert [orders[0].names[index] for index in answers[0][0][-2 * VIEWS :]] == ["car/02"] * 3 + ["car/00a"] * 3
    assert [len(one.features) for one in orders] == [len(both) * VIEWS] * 3  # those that came twice are kept once


def test_another_view_of_a_known_object_is_added(items):
    name, images, voxels = items[0]
    turned = [(name, images.flip(-1), voxels)]
    method = fitted([*items, *turned, *turned], batch_size=1)
    assert len(method.features) == (len(items) + 1) * VIEWS
    assert not method.nearest(torch.cat([images, images.flip(-1)]))[1].any()


def test_images_are_resized_to_the_size_of_the_network(items):
    method = fitted([(name, images[..., ::2, ::2], voxels) for name, images, voxels in items[:2]])
    expected = torch.nn.functional.interpolate(items[1][1][..., ::2, ::2], (SIZE, SIZE), mode="bilinear")
    assert (method.nearest(expected)[1] < 1e-3).all()


def test_checkpoint_holds_no_network_and_refuses_another(method, items, queries, tmp_path):
    path = save(method, tmp_path / "retrieval.ckpt")
    content = torch.load(path, weights_only=True)
    assert not content["state_dict"] and content["retrieval"]["features"].dtype == torch.half
    assert content["retrieval"]["shapes"].shape == (len(items), 92)  # 729 bits
    assert torch.equal(load_method(path)(queries).voxels, method(queries).voxels)
    torch.save(content | {"hyper_parameters": content["hyper_parameters"] | {"seed": 1}}, path)
    with pytest.raises(ValueError, match="made with another network than the one from a seed"):
        load_method(path)


def test_weights_are_read_from_the_file_that_the_checkpoint_names(items, tmp_path):
    weights = tmp_path / "vgg16.pth"
    with torch.random.fork_rng():
        features = torchvision.models.vgg16(weights=None, num_classes=2).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, weights)
    method = fitted(items, weights=weights)
    path = save(method, tmp_path / "retrieval.ckpt")
    assert torch.equal(load_method(path).features, method.features)
    assert not torch.equal(fitted(items).features, method.features)
    torch.save({f"features.{name}": value.flip(0) for name, value in features.items()}, weights)
    with pytest.raises(ValueError, match=r"another network than the one from .*vgg16\.pth"):
        load_method(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"vgg16\.pth; expected torchvision's vgg16-397923af\.pth"):
        load_method(path)


class Stopping(Retrieval):
    """Stops as a kill would, after it kept a checkpoint."""

    path: Path

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def test_a_run_resumed_within_its_epoch_has_seen_all(nmr_root, tmp_path):
    def data() -> ShapeNetDataModule:
        return ShapeNetDataModule(nmr_root, batch_size=1, train_views=VIEWS, balanced=False, val_views=0)

    path = tmp_path / "middle.ckpt"
    stopping = Stopping(**SMALL)
    stopping.path = path
    with pytest.raises(SystemExit):  # which Lightning makes of it
        trainer().fit(stopping, datamodule=data())
    assert len(torch.load(path, weights_only=True)["retrieval"]["names"]) == 2
    resumed, whole = Retrieval(**SMALL), Retrieval(**SMALL)
    trainer().fit(resumed, datamodule=data(), ckpt_path=path, weights_only=True)
    trainer().fit(whole, datamodule=data())
    assert whole.names == ["car/a", "car/b", "lamp/a", "lamp/b"]
    assert resumed.names == whole.names and torch.equal(resumed.features, whole.features)


def share(rank: int, folder: Path) -> None:
    """What one of two processes does: it sees every other object, and the first one too."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    seen = objects(5)
    method = Retrieval(**SMALL)
    for item in [seen[0], *seen[rank::2]]:
        method.training_step(batch_of([item]), 0)
    method.on_validation_start()
    method.on_train_epoch_end()
    checkpoint: dict[str, Any] = {}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint["retrieval"], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_what_they_saw(tmp_path):
    both = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    alone = fitted(objects(5))
    for rank in range(2):
        memory = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert memory["names"] == alone.names
        assert torch.equal(memory["features"], alone.features) and torch.equal(memory["owners"], alone.owners)


def test_what_is_not_fitted_says_so():
    with pytest.raises(RuntimeError, match="fit it, or load a checkpoint"):
        Retrieval(**SMALL)(torch.zeros(1, 3, SIZE, SIZE))


@pytest.mark.parametrize("options", [{"image_size": 0}, {"views": 0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="image_size and views of at least 1"):
        Retrieval(**SMALL | options)


if __name__ == "__main__":  # a process of `test_processes_share_what_they_saw`
    share(int(sys.argv[1]), Path(sys.argv[2]))
