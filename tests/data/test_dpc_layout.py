from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from recon3d.data import dpc_layout, split_lists
from recon3d.data.npz import DataFileError
from recon3d.geometry.cameras import object_to_shapenet
from tests.data import dpc_files
from tests.geometry.dpc_oracle import dpc_permuted, dpc_screen


@pytest.fixture
def root(tmp_path):
    dpc_files.write_set(tmp_path, size=16)
    return tmp_path


def written(root, name: str = "m", seed: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    arrays = {
        "images": generator.integers(0, 256, (5, 4, 8, 8), dtype=np.uint8),
        "positions": dpc_files.positions(seed),
        "depths": np.where(generator.random((5, 8, 8)) < 0.5, np.inf, generator.uniform(1.5, 2.5, (5, 8, 8))),
        "points": generator.uniform(-0.5, 0.5, (70, 3)).astype(np.float32),
        "voxels": generator.random((32, 32, 32)) < 0.3,
    }
    dpc_layout.write_model(root, "chair", name, **arrays)
    return arrays


def test_what_is_written_is_read(tmp_path):
    arrays = written(tmp_path)
    split_lists.write_split_list(tmp_path, "chair", "test", ["m"])
    (model,) = dpc_layout.scan(tmp_path).splits["chair", "test"]
    assert model.folder == tmp_path / "renders/03001627/m" and model.id == "m"
    files = dpc_layout.view_files(model.folder, 5)
    np.testing.assert_array_equal(np.stack([dpc_layout.read_image(image) for image, _ in files]), arrays["images"])
    read = np.stack([dpc_layout.read_position(camera) for _, camera in files])
    np.testing.assert_allclose(read, arrays["positions"], rtol=1e-6)
    np.testing.assert_array_equal(dpc_layout.read_cloud(model.cloud), arrays["points"])
    np.testing.assert_array_equal(dpc_layout.read_voxels(model.folder), arrays["voxels"])
    assert dpc_layout.count_views(model.folder) == 5


def test_files_are_those_that_dpc_reads(tmp_path):
    arrays = written(tmp_path)
    folder = tmp_path / "renders/03001627/m"
    points = scipy.io.loadmat(tmp_path / "gt/downsampled/03001627/m.mat")["points"]
    np.testing.assert_allclose(points, object_to_shapenet(torch.tensor(arrays["points"])).numpy())
    for view in range(5):
        camera = scipy.io.loadmat(folder / f"camera_{view}.mat")
        expected = dpc_screen(points, camera["pos"].reshape(-1))
        depth, up, right = dpc_permuted(camera["extrinsic"]) @ np.column_stack([points, np.ones(70)]).T
        np.testing.assert_allclose(np.column_stack([1.875 * right / depth, 1.875 * up / depth, depth]), expected)
        depths = np.asarray(Image.open(folder / f"depth_{view}.png"))
        assert depths.dtype == np.uint16
        np.testing.assert_allclose(depths / 65535 * 10, arrays["depths"][view].clip(max=10), atol=1e-4)


def test_the_same_object_gives_the_same_bytes(tmp_path, monkeypatch):
    written(tmp_path / "one")
    monkeypatch.setattr("time.asctime", lambda: "another day")
    written(tmp_path / "two")
    files = [path for path in sorted((tmp_path / "one").rglob("*.*")) if path.suffix != ".npz"]
    assert len(files) == 16
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_a_cut_off_write_leaves_what_was_there(tmp_path, monkeypatch):
    written(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    for name in ("m", "new"):
        with pytest.raises(OSError, match="No space left"):
            written(tmp_path, name, seed=4)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_the_official_lists(root):
    catalogue = dpc_layout.scan(root)
    assert catalogue.categories == ("airplane", "car")
    ids = {key: [model.id for model in models] for key, models in catalogue.splits.items()}
    assert ids["airplane", "train"] == ["a0", "a1"] and ids["car", "test"] == ["c2"]
    assert catalogue.describe() == "airplane: train, val, test; car: train, val, test"
    # Both kinds side by side, as in the official folder; lists by name and with folders before the ids.
    (root / "splits/02691156.file").write_text(
        dpc_files.joint_list({"train": ["a0", "a1"], "val": ["a2"], "test": ["a3"]})
    )
    (root / "splits/02958343.file").unlink()
    for split, name in (("train", "c0"), ("val", "c1"), ("test", "c2")):
        (root / f"splits/car_{split}.txt").write_text(f"02958343/{name}\n")
    again = dpc_layout.scan(root)
    assert again == catalogue and dpc_layout.fingerprint(again) == dpc_layout.fingerprint(catalogue)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "splits/02691156_train.txt").write_text("a0\na9\n"),
            "1 of the 2 models on the train.*a9",
        ),
        (lambda root: (root / "splits/02691156_val.txt").write_text("a0\n"), "lists a0 twice"),
        (lambda root: (root / "splits/02958343.file").unlink(), "no 02958343_train.txt, nor 02958343.file"),
        (
            lambda root: (root / "splits/02958343.file").write_text(dpc_files.joint_list({"train": ["c0"]})[:-9]),
            "02958343.file, line 6: expected a split",
        ),
        (lambda root: (root / "splits/02958343.file").write_text("4\n"), "the file has 1 lines"),
        (
            lambda root: (root / "splits/02691156.file").write_text(dpc_files.joint_list({"train": ["a0"]})),
            "list different models",
        ),
        (lambda root: (root / "renders/car").mkdir(), "two folders are the category car|different models|not there"),
    ],
)
def test_bad_lists_are_named(root, change, message):
    change(root)
    with pytest.raises(DataFileError, match=message):
        dpc_layout.scan(root)


def test_no_data_set_says_where_from(tmp_path):
    with pytest.raises(DataFileError, match=r"there is no .*renders.*<synset>-renders.tar.gz.*--layout dpc"):
        dpc_layout.scan(tmp_path)
    (tmp_path / "renders").mkdir()
    with pytest.raises(DataFileError, match="no <class>/<id> folders here"):
        dpc_layout.scan(tmp_path)


def test_leading_zeros_and_other_files_do_not_matter(root):
    dpc_files.write_model(root, "car", "zeros", 1, size=8, image="render_{:02d}.png")
    folder = root / "renders/02958343/zeros"
    (folder / "render_0.png.bak").touch()
    assert [image.name for image, _ in dpc_layout.view_files(folder, 5)] == [f"render_{i:02d}.png" for i in range(5)]


@pytest.mark.parametrize("name", ["render_3.png", "camera_4.mat"])
def test_a_missing_view_is_named(root, name):
    folder = root / "renders/02691156/a0"
    (folder / name).unlink()
    with pytest.raises(DataFileError, match=f"a0: {name} is missing, expected 5 views"):
        dpc_layout.view_files(folder, 5)


def test_damaged_files_are_named(root):
    folder = root / "renders/02691156/a0"
    content = (folder / "render_0.png").read_bytes()
    (folder / "render_0.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (8, 8)).save(folder / "render_1.png")
    (folder / "camera_0.mat").write_bytes(b"no matrix")
    scipy.io.savemat(folder / "camera_1.mat", {"position": np.ones(3)})
    scipy.io.savemat(folder / "camera_2.mat", {"pos": np.zeros(3)})
    scipy.io.savemat(folder / "cloud.mat", {"points": np.ones((5, 2))})
    (folder / "voxels.npz").write_bytes(b"PK")
    for read, name, message in (
        (dpc_layout.read_image, "render_0.png", "not readable as an image"),
        (dpc_layout.read_image, "render_1.png", r"expected RGBA of 8 bits.*\(8, 8, 3\)"),
        (dpc_layout.read_position, "camera_0.mat", "not readable as a .mat file"),
        (
            dpc_layout.read_position,
            "camera_1.mat",
            r"expected an array of numbers 'pos', the file holds \['position'\]",
        ),
        (dpc_layout.read_position, "camera_2.mat", "3 finite numbers, not all 0"),
        (dpc_layout.read_position, "camera_9.mat", "no such file"),
        (dpc_layout.read_cloud, "cloud.mat", r"expected finite points \(M,3\)"),
    ):
        with pytest.raises(DataFileError, match=f"{name}: .*{message}"):
            read(folder / name)
    with pytest.raises(DataFileError, match=r"voxels\.npz: expected an array 'voxels'"):
        dpc_layout.read_voxels(folder)


def test_the_hash_knows_the_files(root):
    before = dpc_layout.fingerprint(dpc_layout.scan(root))
    cloud = root / "gt/downsampled/02691156/a0.mat"
    cloud.rename(cloud.with_name("a0.bak"))
    assert dpc_layout.scan(root).splits["airplane", "train"][0].cloud is None
    assert dpc_layout.fingerprint(dpc_layout.scan(root)) != before
    (root / "gt/downsampled/02691156").rename(root / "gt/02691156")  # without the folder `downsampled`
    (root / "gt/downsampled/02958343").rename(root / "gt/02958343")
    (root / "gt/downsampled").rmdir()
    (root / "gt/02691156/a0.bak").rename(root / "gt/02691156/a0.mat")
    assert dpc_layout.fingerprint(dpc_layout.scan(root)) == before
