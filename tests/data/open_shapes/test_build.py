import hashlib

import numpy as np
import pandas as pd
import pytest
import trimesh

from recon3d.data.open_shapes import build, build_open_shapes
from recon3d.data.open_shapes.__main__ import main
from recon3d.data.open_shapes.polygons import Triangles

pytest.importorskip("fast_simplification")


@pytest.fixture(autouse=True)
def small_catalogue(models, monkeypatch):
    monkeypatch.setattr(build, "load_catalogue", lambda category: [m for m in models if category in (None, m.category)])


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_set_holds_what_metadata_says(tmp_path, packages, caplog):
    table = build_open_shapes(tmp_path / "out", packages, log=tmp_path / "logs/build.log")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out/metadata.csv"), table, check_dtype=False)
    assert list(table["instance_id"]) == ["a-x", "t-one", "b-chair", "b-stool"]
    assert set(table["split"]) <= {"train", "val", "test"}
    assert dict(zip(table["instance_id"], table["watertight"], strict=True)) == dict.fromkeys(table["instance_id"], 1)
    assert len(digest(tmp_path / "out")) == 1 + len(table)
    for row in table.itertuples():
        mesh = trimesh.load(tmp_path / "out" / row.category / row.instance_id / "model.obj", process=False)
        assert (len(mesh.vertices), len(mesh.faces)) == (row.n_verts, row.n_faces)
        assert np.linalg.norm(mesh.extents) == pytest.approx(1, abs=5e-5) and mesh.volume > 0
    aircraft = trimesh.load(tmp_path / "out/airplane/a-x/model.obj")
    assert aircraft.extents.argmax() == 2  # nose along the front
    log = [line.split("\t") for line in (tmp_path / "logs/build.log").read_text().splitlines()]
    events = {instance: (what, detail) for instance, what, detail in log}
    assert events["b-ugly"] == ("rejected", "not a chair")
    assert events["b-twin"] == ("duplicate of", "b-chair")
    assert events["a-x"] == ("objects left out", "PropDisc")
    assert events["b-gone"][0] == events["b-bad"][0] == "unusable"
    assert "2 of 8 models cannot be used" in caplog.text and "b-bad, b-gone" in caplog.text


def test_two_builds_are_equal_to_the_byte_and_the_second_replaces_the_first(tmp_path, packages):
    build_open_shapes(tmp_path / "sets/out", packages)
    first = digest(tmp_path / "sets/out")
    build_open_shapes(tmp_path / "sets/out", packages)
    assert digest(tmp_path / "sets/out") == first
    build_open_shapes(tmp_path / "sets/out", packages, category="car")
    assert set(digest(tmp_path / "sets/out")) == {"metadata.csv", "car/t-one/model.obj"}
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "metadata.csv", "chair/b-chair/model.obj"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, packages, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("instance_id,category\nb-chair,chair\n")
    with pytest.raises(FileExistsError, match=f"1 other files: {name}"):
        build_open_shapes(tmp_path / "out", packages)
    assert list(digest(tmp_path / "out")) == [name]


def test_a_former_build_with_anything_added_is_left_alone(tmp_path, packages):
    build_open_shapes(tmp_path / "out", packages, category="car")
    (tmp_path / "out/car/t-one/views.npz").write_text("hours of work")
    with pytest.raises(FileExistsError, match=r"views\.npz"):
        build_open_shapes(tmp_path / "out", packages, category="car")
    (tmp_path / "out/car/t-one/views.npz").rename(tmp_path / "views.npz")
    (tmp_path / "out/elsewhere").symlink_to(tmp_path)
    with pytest.raises(FileExistsError, match="elsewhere"):
        build_open_shapes(tmp_path / "out", packages, category="car")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        build_open_shapes(tmp_path / "file", packages)


def test_content_that_appears_during_the_build_is_left_alone(tmp_path, packages):
    def meddle(models, description):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/notes.txt").write_text("mine")
        return models

    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        build_open_shapes(tmp_path / "out", packages, track=meddle)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_a_failed_build_leaves_the_former_set(tmp_path, packages, monkeypatch):
    build_open_shapes(tmp_path / "sets/out", packages)
    before = digest(tmp_path / "sets")
    monkeypatch.setattr(build, "to_obj", lambda mesh: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_open_shapes(tmp_path / "sets/out", packages)
    assert digest(tmp_path / "sets") == before


def test_a_set_that_cannot_be_put_in_place_leaves_the_former_one(tmp_path, packages):
    build_open_shapes(tmp_path / "out", packages, category="car")
    before = digest(tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        build._replace(tmp_path / "out", tmp_path / "no such build", tmp_path / "former")
    assert digest(tmp_path / "out") == before


def test_packages_that_are_missing_or_empty_are_named(tmp_path, packages):
    with pytest.raises(
        FileNotFoundError, match=r"expected the unpacked package torcs-data.*apt-get download torcs-data"
    ):
        build_open_shapes(tmp_path / "out", {**packages, "torcs-data": tmp_path / "none"}, category="car")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none of 1 can be used"):
        build_open_shapes(tmp_path / "out", {**packages, "torcs-data": tmp_path / "none"}, category="car")
    assert not (tmp_path / "out").exists()


def test_obj_text_is_short_and_exact():
    mesh = Triangles(np.array([[0.0, 10, -0.5], [0.12345, 1e-5, 100.1]]), np.array([[0, 1, 0]]))
    assert build.to_obj(mesh) == "v 0 10 -0.5\nv 0.12345 0.00001 100.1\nf 1 2 1\n"


def test_command_line(tmp_path, packages, capsys):
    folder = str(packages["torcs-data"].parent)
    assert main(["--out", str(tmp_path / "out"), "--packages", folder, "--category", "car"]) == 0
    shown = capsys.readouterr().out
    assert "car" in shown and "all" in shown and (tmp_path / "out/metadata.csv").is_file()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert main(["--out", str(tmp_path / "out"), "--packages", folder, "--category", "car"]) == 1
    assert "Move them or choose another --out" in " ".join(capsys.readouterr().err.split())
