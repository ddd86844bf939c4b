import numpy as np
import pytest
import trimesh

from recon3d.geometry.shapes.assembly import GLASS, METAL, Assembly, normalised
from recon3d.geometry.shapes.draws import Draws
from recon3d.geometry.shapes.solids import rounded_box


def test_parts_are_turned_outward_painted_and_centred():
    assembly = Assembly(Draws(0, 0), {"left": METAL, "pane": GLASS})
    box = rounded_box((1.0, 1.0, 1.0)).moved(x=2.0)
    flipped = box.mirrored()
    inward = type(box)(flipped.verts, flipped.faces[:, ::-1], flipped.span, flipped.column)
    assembly.add("left", box, {"pane": box.span == 0})
    assembly.add("left", inward)
    shape = assembly.finish()
    mesh = trimesh.Trimesh(shape.verts, shape.faces, process=False)
    assert [part.volume > 0 for part in mesh.split()] == [True, True]
    assert shape.part_names == ("left", "pane")
    assert (shape.parts == 1).sum() == (box.span == 0).sum()
    np.testing.assert_allclose(mesh.extents, [1.0, 0.2, 0.2], atol=1e-6)
    np.testing.assert_array_equal(shape.verts.min(0), -shape.verts.max(0))


def test_part_colours_stay_apart_even_in_one_narrow_range():
    names = [f"part{k}" for k in range(12)]
    assembly = Assembly(Draws(0, 1), dict.fromkeys(names, ((0.5, 0.5), (0.0, 0.0), (0.5, 0.5))))
    for name in names:
        assembly.add(name, rounded_box((1.0, 1.0, 1.0)))
    shape = assembly.finish()
    colours = np.array([shape.face_colors[shape.parts == k][0] for k in range(12)])
    gaps = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(12)
    assert gaps.min() >= 0.1 - 1e-6
    assert 0 <= colours.min() <= colours.max() <= 1


def test_unknown_part_names_have_no_colour():
    with pytest.raises(KeyError, match="wing"):
        Assembly(Draws(0, 0), {"leg": METAL}).add("wing", rounded_box((1, 1, 1)))


def test_normalised_rounds_to_its_grid_and_has_no_negative_zero():
    verts = normalised(np.random.default_rng(0).normal(size=(100, 3)) * 7 + 3)
    steps = verts.astype(float) * 1e5
    np.testing.assert_allclose(steps, np.rint(steps), atol=4e-3)
    flat = normalised(np.array([[-1.0, -1e-9, 0.0], [1.0, 1e-9, 0.0]]))
    assert not np.signbit(flat[:, 1:]).any()
