import sys

import numpy as np
import pytest
import trimesh

from recon3d.data.open_shapes import cleaning
from recon3d.data.open_shapes.cleaning import clean, is_watertight, orient_outwards, rotation_about_y, simplify, weld
from recon3d.data.open_shapes.polygons import Triangles


def triangles(mesh):
    return Triangles(np.array(mesh.vertices, float), np.array(mesh.faces, np.int64))


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.verts, mesh.faces, process=False)


def soup(mesh):
    """Every face with vertices of its own, as many exporters write."""
    return Triangles(np.array(mesh.triangles.reshape(-1, 3)), np.arange(3 * len(mesh.faces)).reshape(-1, 3))


def test_weld_joins_vertices_and_drops_bad_faces():
    box = soup(trimesh.creation.box())
    count = len(box.verts)
    line = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [7, 7, 7]])  # three in a row, and one unused
    faces = np.concatenate([box.faces, [[0, 1, 1], [2, 1, 0], [count, count + 1, count + 2]]])
    mesh = weld(Triangles(np.concatenate([box.verts, line]), faces))
    assert (len(mesh.verts), len(mesh.faces)) == (8, 12)
    assert as_trimesh(mesh).is_watertight and as_trimesh(mesh).volume == pytest.approx(1)


def test_weld_keeps_what_is_further_apart():
    near, far = (Triangles(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [gap, 0, 0], [0, 1, 1], [1, 0, 1]]),
                           np.array([[0, 1, 2], [3, 4, 5]])) for gap in (2e-6, 3e-5))  # fmt: skip
    assert (len(weld(near).verts), len(weld(far).verts)) == (5, 6)


@pytest.mark.parametrize(
    "mesh",
    [trimesh.creation.box(), trimesh.creation.icosphere(2), trimesh.creation.torus(1, 0.3)],
    ids=["box", "sphere", "torus"],
)
def test_watertight_agrees_with_trimesh(mesh):
    assert is_watertight(mesh.faces) is mesh.is_watertight is True
    assert is_watertight(mesh.faces[1:]) is False
    assert is_watertight(np.concatenate([mesh.faces, mesh.faces[:1]])) is False


def test_closed_components_are_wound_outwards_and_open_ones_left():
    inside_out = trimesh.creation.icosphere(1)
    inside_out.invert()
    box = trimesh.creation.box().apply_translation([5, 0, 0])  # is right already
    sheet = trimesh.Trimesh([[9, 0, 0], [9, 1, 0], [9, 0, 1]], [[0, 2, 1]], process=False)
    muddled = trimesh.creation.box().apply_translation([-5, 0, 0])
    muddled.invert()
    muddled.faces[3] = muddled.faces[3][::-1]  # closed, but not consistently wound
    mesh = triangles(trimesh.util.concatenate([inside_out, box, sheet, muddled]))
    before = mesh.faces.copy()
    result = orient_outwards(mesh)
    first, second = (result.faces[: len(inside_out.faces)], result.faces[len(inside_out.faces) :])
    assert trimesh.Trimesh(result.verts, first, process=False).volume > 0
    assert (first == before[: len(first), ::-1]).all() and (second == before[len(first) :]).all()
    assert (mesh.faces == before).all()  # the input is not written to


def test_rotation_turns_right_angles_exactly():
    assert (rotation_about_y(90) @ [1.0, 0, 0]).tolist() == [0, 0, -1]  # +X to the front
    assert (rotation_about_y(-90) @ [-1.0, 0, 0]).tolist() == [0, 0, -1]
    assert (rotation_about_y(180) @ [0.0, 2, 1]).tolist() == [0, 2, -1]
    assert np.allclose(rotation_about_y(33), trimesh.transformations.rotation_matrix(np.radians(33), [0, 1, 0])[:3, :3])


def test_clean_normalises_and_turns():
    mesh, count = clean(soup(trimesh.creation.box((4, 2, 1)).apply_translation([30, -7, 2])), yaw=90, face_cap=100)
    assert count == 12
    scale = np.linalg.norm([4, 2, 1])
    assert np.allclose(np.ptp(mesh.verts, axis=0), np.array([1, 2, 4]) / scale, atol=2e-5)
    assert np.allclose(mesh.verts.max(0), -mesh.verts.min(0))
    assert (mesh.verts == np.round(mesh.verts, 5)).all()
    assert as_trimesh(mesh).volume == pytest.approx(8 / scale**3, rel=1e-3)


def test_clean_writes_no_negative_zeros():
    box = trimesh.creation.box().subdivide()
    box.vertices -= np.where(box.vertices == 0, 1e-7, 0)
    mesh, _ = clean(triangles(box), yaw=0, face_cap=100)
    assert (mesh.verts == 0).any() and not np.signbit(mesh.verts[mesh.verts == 0]).any()


def test_clean_refuses_what_has_no_faces():
    line = Triangles(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="all are degenerate"):
        clean(line, 0, 100)
    with pytest.raises(ValueError, match=r"expected 1 to 600000 faces; got 0"):
        clean(line._replace(faces=line.faces[:0]), 0, 100)


def test_simplify_keeps_the_shape_of_a_sphere():
    pytest.importorskip("fast_simplification")
    mesh, count = clean(triangles(trimesh.creation.icosphere(5)), 0, face_cap=7500)
    radius = 0.5 / np.sqrt(3)  # the box's diagonal is 1
    assert count == 20480 and len(mesh.faces) <= 1.05 * 7500
    assert as_trimesh(mesh).volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=5e-3)
    assert np.abs(np.linalg.norm(mesh.verts, axis=1) - radius).max() < 2e-3


def test_a_mesh_that_the_simplifier_cannot_reduce_is_refused(monkeypatch):
    fast_simplification = pytest.importorskip("fast_simplification")
    tried = []
    monkeypatch.setattr(fast_simplification, "simplify", lambda v, f, **options: tried.append(options["agg"]) or (v, f))
    with pytest.raises(ValueError, match="expected about 10 faces after simplification; got 80"):
        simplify(triangles(trimesh.creation.icosphere(1)), 10)
    assert tried == [3, 5, 7, 9]


def test_missing_simplifier_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[open-shapes\]'"):
        cleaning.require_fast_simplification()
