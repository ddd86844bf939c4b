from __future__ import annotations

import shutil

import pytest
import trimesh

from recon3d.data.description import read_description
from recon3d.data.mesh_folder import MeshFolderDataModule, MeshFolderPointsDataModule
from recon3d.data.npz import DataFileError


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    rows = ["instance_id,category,split"]
    for category in ("car", "mug"):
        for split in ("train", "val", "test"):
            folder = tmp_path / "toys" / category / split[:2]
            folder.mkdir(parents=True)
            trimesh.creation.box((1, 2, 3)).export(folder / "model.ply")
            rows.append(f"{split[:2]},{category},{split}")
    (tmp_path / "toys/metadata.csv").write_text("\n".join(rows))
    return tmp_path


def test_meshes_are_rendered_on_first_use_and_then_not_needed(data):
    module = MeshFolderDataModule(name="toys", categories=["mug"], image_size=16, batch_size=1, workers=1)
    module.prepare_data()
    assert module.root == data / "toys-nmr24"
    assert set(read_description(module.root).categories) == {"car", "mug"}, "one rendered set serves every choice"
    shutil.rmtree(data / "toys")
    again = MeshFolderDataModule(name="toys", image_size=16, batch_size=1)
    again.prepare_data()
    again.setup("test")
    assert set(again.categories) == {"car", "mug"}
    assert again.data_hash() == module.data_hash() == read_description(module.root).version
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (1, 2, 3, 16, 16) and batch.category == ("mug",)
    with pytest.raises(DataFileError, match="24 views of 16 pixels, not 24 of 64"):
        MeshFolderDataModule(name="toys").prepare_data()


def test_nothing_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    with pytest.raises(DataFileError, match=r"recon3d data open-shapes"):
        MeshFolderDataModule(name="open_shapes").prepare_data()
    with pytest.raises(DataFileError, match=r"toys-nmr24 nor meshes in .*toys.*RECON3D_DATA"):
        MeshFolderDataModule(name="toys").prepare_data()


def test_the_same_meshes_in_the_dpc_layout(data):
    module = MeshFolderPointsDataModule(name="toys_points", image_size=16, batch_size=1, workers=1, n_points=100)
    module.prepare_data()
    assert module.root == data / "toys-dpc5-16" and module.name == "toys_points"
    description = read_description(module.root)
    assert (description.layout, description.scale, description.n_views) == ("dpc", "diagonal", 5)
    assert module.data_hash() == description.version
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (1, 4, 3, 16, 16) and batch.points.shape == (1, 100, 3)
    with pytest.raises(DataFileError, match="5 views of 16 pixels, not 5 of 64"):
        MeshFolderPointsDataModule(root=module.root, name="toys_points").prepare_data()
    with pytest.raises(DataFileError, match=r"open_shapes-dpc5-64.*recon3d data open-shapes"):
        MeshFolderPointsDataModule().prepare_data()
