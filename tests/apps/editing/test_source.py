from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from recon3d.apps.editing import source as module
from recon3d.apps.editing.source import read_source


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_quads_materials_and_negative_indices(tmp_path: Path) -> None:
    write(tmp_path / "m.mtl", "newmtl a\nKd 1 0 0\n")
    text = """mtllib m.mtl
v 10 0 0
v 14 0 0
v 14 2 0
v 10 2 0
v 10 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl a
f 1/1 2/2 3/3 4/4
f -5/4 -4/1 -1/2
f 2 3 5
"""
    mesh = read_source(write(tmp_path / "m.obj", text))
    places = mesh.verts[mesh.faces].tolist()
    a, b, c, d, e = [[10, 0, 0], [14, 0, 0], [14, 2, 0], [10, 2, 0], [10, 0, 1]]
    triangles = [[a, b, c], [c, d, a], [a, b, e], [b, c, e]]
    assert sorted(map(sorted, places)) == sorted(map(sorted, triangles))
    assert len(mesh.verts) == 5  # the seams of the texture are closed
    assert mesh.center.tolist() == [12, 1, 0.5] and mesh.half_side == 2
    edit = mesh.edit_verts()
    assert edit.amin(0).tolist() == [-1, -0.5, -0.25] and edit.amax(0).tolist() == [1, 0.5, 0.25]


@pytest.mark.parametrize("kind", ["obj", "ply", "glb", "off", "stl"])
def test_every_format_gives_the_same_surface(tmp_path: Path, kind: str) -> None:
    solid = trimesh.creation.icosphere(subdivisions=2)
    solid.vertices = solid.vertices * [3, 1, 2] + [5, -4, 100]
    solid.export(tmp_path / f"egg.{kind}")
    mesh = read_source(tmp_path / f"egg.{kind}")
    assert mesh.verts.shape == (162, 3)
    np.testing.assert_allclose(mesh.verts[mesh.faces], solid.vertices[solid.faces], atol=1e-4)
    np.testing.assert_allclose(mesh.edit_verts().abs().amax(0), [1, 1 / 3, 2 / 3], atol=1e-4)


def test_scenes_are_placed(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    scene.add_geometry(box)
    scene.export(tmp_path / "two.glb")
    mesh = read_source(tmp_path / "two.glb")
    assert len(mesh.faces) == 24 and len(mesh.verts) == 16
    assert mesh.center.tolist() == [5, 0, 0] and mesh.half_side == 5.5


def test_what_has_not_moved_is_exactly_where_it_was(tmp_path: Path) -> None:
    solid = trimesh.creation.icosphere(subdivisions=3)
    solid.vertices = solid.vertices * 0.37 + [1000, 0.1, -7]
    solid.export(tmp_path / "far.ply")
    mesh = read_source(tmp_path / "far.ply")
    edited = mesh.edit_verts()
    assert torch.equal(mesh.file_verts(edited), mesh.verts)
    edited[0] += torch.tensor([0.0, 0.5, 0.0])
    moved = mesh.file_verts(edited) - mesh.verts
    assert moved[0].tolist() == pytest.approx([0, 0.5 * mesh.half_side, 0], abs=1e-6)
    assert not moved[1:].any()


def test_welding_keeps_the_order_of_first_appearance(tmp_path: Path) -> None:
    text = "v 5 0 0\nv 0 0 0\nv 0 5 0\nv 0 5 0\nv 5 0 0\nv 5 5 0\nf 1 2 3\nf 4 6 5\n"
    mesh = read_source(write(tmp_path / "a.obj", text.replace("f 4 6 5", "f 5 4 6")))
    assert mesh.verts.tolist() == [[5, 0, 0], [0, 0, 0], [0, 5, 0], [5, 5, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_faces_without_area_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("recon3d").propagate = True
    text = "v 0 0 0\nv 1 0 0\nv 2 0 0\nv 0 1 0\nv 9 9 9\nf 1 2 3\nf 1 2 4\nf 5 5 1\n"
    with caplog.at_level(logging.WARNING, logger="recon3d"):
        mesh = read_source(write(tmp_path / "a.obj", text))
    assert "2 of 3 faces have no area" in caplog.text
    assert mesh.verts[mesh.faces].tolist() == [[[0, 0, 0], [1, 0, 0], [0, 1, 0]]]
    assert len(mesh.verts) == 3 and mesh.half_side == 0.5


def test_thin_faces_far_away_count(tmp_path: Path) -> None:
    solid = trimesh.Trimesh([[1000, 1000, 1000], [1000.001, 1000, 1000], [1000, 1000.001, 1000]], [[0, 1, 2]])
    solid.export(tmp_path / "a.ply")
    assert len(read_source(tmp_path / "a.ply").faces) == 1


def test_what_is_no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="OBJ, GLB or PLY"):
        read_source(tmp_path / "nowhere.obj")
    (tmp_path / "a.glb").write_bytes(b"glTF but not really")
    with pytest.raises(ValueError, match=r"a\.glb: not readable as a mesh"):
        read_source(tmp_path / "a.glb")
    with pytest.raises(ValueError, match=r"picture\.png"):
        read_source(write(tmp_path / "picture.png", "x"))
    with pytest.raises(ValueError, match="found no faces"):
        read_source(write(tmp_path / "points.obj", "v 0 0 0\nv 1 0 0\n"))
    with pytest.raises(ValueError, match="not finite"):
        read_source(write(tmp_path / "nan.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"))
    with pytest.raises(ValueError, match="none of its 1 faces has an area"):
        read_source(write(tmp_path / "flat.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"))
    monkeypatch.setattr(module, "MAX_FACES", 11)
    trimesh.creation.box().export(tmp_path / "box.obj")
    with pytest.raises(ValueError, match=r"12 faces; an edit takes up to 11.*Simplify"):
        read_source(tmp_path / "box.obj")
