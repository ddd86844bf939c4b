from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recon3d.data.description import read_description
from recon3d.data.synthetic import SyntheticDataModule, SyntheticPointsDataModule, make_synthetic, synthetic_sources
from recon3d.geometry.cameras import project
from recon3d.geometry.shapes import CATEGORIES, make_shape

OBJECTS = {"train": 2, "val": 1, "test": 1}
COUNTS = {"train_objects": 2, "val_objects": 1, "test_objects": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    report = make_synthetic(out, OBJECTS, workers=2)
    assert report.rendered == 12 and not report.failures
    return out


def test_one_worker_gives_the_same_files_as_two(tmp_path, root):
    make_synthetic(tmp_path, OBJECTS, workers=1)
    names = sorted(path.name for path in root.glob("*.*"))
    assert len([name for name in names if name.endswith("_images.npz")]) == 9
    for name in names:
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes(), name


def test_splits_share_no_object_and_a_larger_set_contains_the_smaller():
    small, large = (
        {source.id: source.split for source in synthetic_sources({"train": n, "val": n, "test": n})} for n in (20, 50)
    )
    assert len(large) == 3 * 50, "no id in two splits"
    assert small.items() <= large.items()
    other = {source.id for source in synthetic_sources({"train": 50, "val": 50, "test": 50}, shape_seed=1)}
    assert not other & large.keys()
    for objects, seed in (
        ({"train": -1, "val": 0, "test": 0}, 0),
        ({"train": 1, "val": 10**6 + 1, "test": 0}, 0),
        (OBJECTS, -1),
    ):
        with pytest.raises(ValueError, match="Expected"):
            synthetic_sources(objects, seed)


def test_files_show_the_shapes_they_are_named_after(root):
    for category in CATEGORIES:
        name = (root / f"{category}_val_ids.txt").read_text().strip()
        shape = make_shape(category, int(name))
        corners = np.stack([-shape.verts[:, 2], shape.verts[:, 1], shape.verts[:, 0]], 1)  # (-Z, Y, X)
        with np.load(root / f"{category}_val_points.npz") as file:
            points = file["points"][0]
        assert points.shape == (10_000, 3)
        np.testing.assert_allclose(points.min(0), corners.min(0), atol=0.03)
        np.testing.assert_allclose(points.max(0), corners.max(0), atol=0.03)
        with np.load(root / f"{category}_val_voxels.npz") as file:
            voxels = file["arr_0"][0]
        y, x, z = np.floor(31 * points[:, [1, 0, 2]].astype(np.float64) + 16).astype(int).T
        assert voxels[y, x, z].mean() > 0.99


def test_the_module_makes_its_set_once_and_loads_it(monkeypatch, tmp_path):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    module = SyntheticDataModule(**COUNTS, batch_size=4, test_views=2, workers=2)
    module.prepare_data()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    module.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == stamps
    assert [path.name for path in tmp_path.iterdir()] == [f"synthetic-{module.data_hash()}"]
    assert read_description(module.root).version == module.data_hash()
    assert set(module.categories) == set(CATEGORIES) and module.scale == "longest_side"

    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (4, 2, 3, 64, 64) and batch.voxels.shape == (4, 32, 32, 32)
    # Ground truth projected by the batch's own cameras falls on the mask, or beside it where a part is thinner than
    # a sample of the renderer; the mirror image of it does not.
    seen = project(batch.cameras.flatten(), batch.points.repeat_interleave(2, 0))
    column, row = (((1 - seen[..., i]) * 32).long().clamp(0, 63) for i in (0, 1))
    masks = torch.nn.functional.max_pool2d(batch.masks.flatten(0, 1), 3, stride=1, padding=1).flatten(1)
    on_mask, mirrored = (float((masks.gather(1, row * 64 + c) > 0).float().mean()) for c in (column, 63 - column))
    assert on_mask > 0.999 and mirrored < 0.99
    assert torch.isfinite(batch.images).all() and batch.images.amax() > 0.5


def test_settings_choose_the_folder_and_the_hash(monkeypatch, tmp_path):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    modules = [
        SyntheticDataModule(**COUNTS),
        SyntheticDataModule(**COUNTS, shape_seed=1),
        SyntheticDataModule(**COUNTS | {"val_objects": 2}),
        SyntheticDataModule(**COUNTS, image_size=32),
    ]
    assert len({module.root for module in modules}) == len({module.data_hash() for module in modules}) == 4
    assert SyntheticDataModule(**COUNTS, seed=5, batch_size=3).root == modules[0].root, "training does not make data"


def test_another_set_in_the_folder_is_refused(root):
    with pytest.raises(ValueError, match="Choose another folder"):
        SyntheticDataModule(root, train_objects=3, val_objects=1, test_objects=1).prepare_data()


def test_the_same_objects_in_the_dpc_layout(monkeypatch, tmp_path):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    counts = {"train_objects": 1, "val_objects": 0, "test_objects": 1}
    module = SyntheticPointsDataModule(**counts, image_size=32, batch_size=3, test_views=8, workers=1, n_points=500)
    module.prepare_data()
    module.prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == [f"synthetic_points-{module.data_hash()}"]
    description = read_description(module.root)
    assert (description.layout, description.name, description.image_size) == ("dpc", "synthetic_points", 32)
    assert module.scale == "diagonal" and set(module.categories) == set(CATEGORIES)
    module.setup("test")
    names = [name for batch in module.test_dataloader() for name in batch.sample_id]
    assert len(names) == 15
    batch = module.datasets["test"][0, (0, 1)]
    category, seed, _ = batch.sample_id[0].split("/")
    verts = make_shape(category, int(seed)).verts
    size = np.ptp(verts, axis=0) / np.linalg.norm(np.ptp(verts, axis=0))
    np.testing.assert_allclose(np.ptp(batch.points[0].numpy(), axis=0), size[[2, 1, 0]], atol=0.05)
    assert batch.images.shape == (1, 2, 3, 32, 32) and batch.voxels.any()
    assert SyntheticPointsDataModule(**counts, image_size=64).root != module.root
    assert SyntheticPointsDataModule(**counts, image_size=32, n_points=7).root == module.root
