import zipfile

import numpy as np
import pytest
import trimesh

from recon3d.data.open_shapes import sources
from recon3d.data.open_shapes.sources import FurnitureArchive, ModelReader, torcs_wheels

from .conftest import FURNITURE, car_setup


@pytest.fixture
def archive_path(packages):
    return packages["sweethome3d-furniture"] / FURNITURE / "BlendSwap-CC-0.sh3f"


def test_furniture_is_turned_as_the_catalogue_says(packages, models, extent):
    by_id = {model.instance_id: model for model in models}
    with ModelReader(packages) as reader:
        stool, left_out = reader.read(by_id["b-stool"])
        chair, _ = reader.read(by_id["b-chair"])
    assert stool.verts[stool.verts[:, 1] > 0.1].round(9).tolist() == [[0, 0.6, 0]] and left_out == []  # its tip
    assert np.allclose(extent(chair), [0.5, 0.9, 0.5])  # no rotation given


def test_missing_files_are_told_from_damaged_ones(packages, models):
    by_id = {model.instance_id: model for model in models}
    with ModelReader(packages) as reader:
        with pytest.raises(FileNotFoundError, match=r"no member free/gone/gone\.obj"):
            reader.read(by_id["b-gone"])
        with pytest.raises(ValueError, match="vertex indices"):
            reader.read(by_id["b-bad"])


@pytest.mark.parametrize("name", ["../outside.obj", "a/../../b.obj", "/etc/x.obj", "..\\b.obj", "C:/x.obj"])
def test_names_that_lead_out_of_the_archive_are_refused(archive_path, name):
    with zipfile.ZipFile(archive_path, "a") as file:
        file.writestr(zipfile.ZipInfo(name), "v 0 0 0")
    with pytest.raises(ValueError, match="expected names inside the archive"):
        FurnitureArchive(archive_path)


def test_members_above_the_size_limit_are_refused(archive_path, monkeypatch):
    archive = FurnitureArchive(archive_path)
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100 bytes"):
        archive.read("free/chair/chair.obj")
    archive.close()


def test_damaged_archives_are_refused(archive_path, tmp_path):
    raw = bytearray(archive_path.read_bytes())
    start = raw.index(b"free/chair/chair.obj") + len("free/chair/chair.obj")
    raw[start + 20 : start + 40] = bytes(20)
    archive_path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"chair\.obj is damaged"):
        FurnitureArchive(archive_path).read("free/chair/chair.obj")
    (tmp_path / "text.sh3f").write_text("not a zip")
    with pytest.raises(ValueError, match="expected a zip archive"):
        FurnitureArchive(tmp_path / "text.sh3f")
    with zipfile.ZipFile(tmp_path / "empty.sh3f", "w"):
        pass
    with pytest.raises(ValueError, match="is this a catalogue"):
        FurnitureArchive(tmp_path / "empty.sh3f")


def test_parts_that_are_not_the_aircraft_are_left_out(packages, models, extent):
    with ModelReader(packages) as reader:
        mesh, left_out = reader.read(models[0])
    assert left_out == ["PropDisc"]
    assert extent(mesh).tolist() == [8, 1, 1]


@pytest.mark.parametrize(
    "name", ["PropDisc", "propdisk.1", "Halo_left", "shadow", "copilot", "FastProp", "flame2", "landing-light-beam"]
)
def test_names_of_what_is_not_the_object(name):
    assert sources._NOT_THE_OBJECT.search(name)


@pytest.mark.parametrize("name", ["Propeller", "wing", "pilothouse", "noshadow", "pilotseat", "fuselage", "whose"])
def test_names_of_parts_that_stay(name):
    assert not sources._NOT_THE_OBJECT.search(name)


def test_a_car_stands_on_four_closed_wheels(packages, models):
    with ModelReader(packages) as reader:
        mesh, _ = reader.read(models[1])
    body, *parts = np.split(mesh.faces, np.cumsum([12, 96, 96, 96]))
    assert len(body) == 12 and len(parts) == 4
    wheels = [trimesh.Trimesh(mesh.verts, part, process=False) for part in parts]
    radius, width = 18 * 0.0254 / 2 + 0.2 * 0.5, 0.2
    for wheel in wheels:
        wheel.remove_unreferenced_vertices()
        assert wheel.is_watertight and wheel.is_winding_consistent
        assert wheel.volume == pytest.approx(12 * radius**2 * np.sin(2 * np.pi / 24) * width)  # a 24-gon's prism
        assert wheel.bounds[0][1] == pytest.approx(-0.1, abs=1e-6)  # on the ground, `ride height` below the origin
    assert sorted((round(w.centroid[0], 6), round(w.centroid[2], 6)) for w in wheels) == [
        (-1.25, -0.75),
        (-1.25, 0.75),
        (1.5, -0.75),
        (1.5, 0.75),
    ]


@pytest.mark.parametrize("gap", ["tire width", "Rear Axle", "Front Left Wheel", "ride height"])
def test_a_setup_without_wheels_is_refused(gap):
    with pytest.raises(ValueError, match=f"(?s)expected a number.*{gap}"):
        torcs_wheels(car_setup().replace(f'name="{gap}"', 'name="other"'))
