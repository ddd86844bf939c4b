import numpy as np
import pytest

from recon3d.data.open_shapes.readers import decode, read_ac3d, read_obj

from .conftest import ac3d_object, ac3d_text

TRIANGLE = [(0, 0, 0), (1, 0, 0), (0, 0, 2)]


def test_obj_triangles_polygons_and_relative_indices():
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nf 1/1/1 2//2 3\nf -4 -2 \\\n-1\nf 1 2 3 4\nf 1 2\n"
    mesh = read_obj(text)
    assert mesh.verts.shape == (4, 3)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]]  # triangles first, then polygons


@pytest.mark.parametrize("face", ["f 1 2 9", "f 1 2 3 9", "f 1 2 -9"])
def test_obj_with_a_missing_vertex_is_refused(face):
    with pytest.raises(ValueError, match="expected vertex indices from 0 to 2"):
        read_obj(f"v 0 0 0\nv 1 0 0\nv 0 1 0\n{face}\n")


def test_ac3d_applies_nested_transforms_from_the_child_up():
    # quarter turn about Y, in row vectors: x -> -z, z -> x; then the parent's
    turn = "rot 0 0 -1 0 1 0 1 0 0"
    child = ac3d_object("child", TRIANGLE, [(0, 1, 2)], transform=f"{turn}\nloc 10 0 0")
    parent = ac3d_object("parent", [], [], kids=child, kid_count=1, transform=f"loc 0 5 0\n{turn}")
    mesh, left_out = read_ac3d(ac3d_text(parent))
    # (1,0,0) -> (0,0,-1) + (10,0,0) = (10,0,-1) -> (-1,0,-10) + (0,5,0)
    assert mesh.verts.tolist() == [[0, 5, -10], [-1, 5, -10], [0, 5, -12]]
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert left_out == []


def test_ac3d_strips_alternate_and_lines_give_no_faces():
    strip = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0)]
    mesh, _ = read_ac3d(ac3d_text(ac3d_object("s", strip, [(0, 1, 2, 3, 4)], shape="0x14")))
    a, b, c = (mesh.verts[mesh.faces[:, k]] for k in range(3))
    assert np.cross(b - a, c - a)[:, 2].tolist() == [-1, -1, -1]  # one side, as a strip means
    for line in ("0x11", "0x12"):
        mesh, _ = read_ac3d(ac3d_text(ac3d_object("l", strip, [(0, 1, 2, 3)], shape=line)))
        assert mesh.faces.shape == (0, 3)


def test_ac3d_leaves_out_an_object_with_all_below_it():
    flame = ac3d_object("flame", TRIANGLE, [(0, 1, 2)], kids=ac3d_object("core", TRIANGLE, [(0, 1, 2)]), kid_count=1)
    mesh, left_out = read_ac3d(
        ac3d_text(flame, ac3d_object("wing", TRIANGLE, [(2, 1, 0)])), lambda name: name == "flame"
    )
    assert mesh.faces.tolist() == [[2, 1, 0]]
    assert left_out == ["flame"]


def test_ac3d_with_fewer_children_than_announced_is_read():
    text = ac3d_text(ac3d_object("wing", TRIANGLE, [(0, 1, 2)])).replace("OBJECT world\nkids 1", "OBJECT world\nkids 3")
    assert len(read_ac3d(text)[0].faces) == 1


@pytest.mark.parametrize("lines", [4, 8, 12, 16, 20])
def test_ac3d_that_ends_early_is_refused(lines):
    whole = ac3d_text(ac3d_object("wing", TRIANGLE, [(0, 1, 2)]))
    cut = "\n".join(whole.split("\n")[:lines])
    if lines == 4:  # header, material, world and its count of children: no object is cut in two
        assert len(read_ac3d(cut)[0].faces) == 0
    else:
        with pytest.raises(ValueError, match="ends early"):
            read_ac3d(cut)


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="begins with 'AC3D'"):
        read_ac3d("solid cube")
    with pytest.raises(ValueError, match="vertex indices"):
        read_ac3d(ac3d_text(ac3d_object("wing", TRIANGLE, [(0, 1, 7)])))


def test_text_is_utf8_or_latin1():
    assert decode("Saßnick".encode()) == decode("Saßnick".encode("latin-1")) == "Saßnick"
