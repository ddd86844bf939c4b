import numpy as np
import pytest
import trimesh

from recon3d.geometry.shapes.wings import Planform, aerofoil_loft, mean_chord_offset, whole_wing

PLAIN = Planform((0.0, 0.0, 0.0), 1.0, 0.4, 0.5, 30.0, 5.0, 0.12)


def test_aerofoil_has_the_section_area_of_naca_four_digit_sections():
    # The closed-form area under 5 (0.2969 sqrt x - 0.126 x - 0.3516 x^2 + 0.2843 x^3 - 0.1036 x^4), twice, is 0.6803.
    leading = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    solid = aerofoil_loft(leading, np.full(2, 2.0), np.full(2, 0.12), np.array([[0.0, 1.0, 0.0]] * 2))
    mesh = trimesh.Trimesh(solid.verts, solid.faces, process=False)
    assert abs(mesh.volume) == pytest.approx(0.6803 * 0.12 * 2.0**2, rel=0.05)
    assert mesh.extents[1] == pytest.approx(0.12 * 2.0, rel=0.02)


def test_planform_follows_span_sweep_taper_and_dihedral():
    x, y, z, chord = PLAIN.place(1.0)
    assert np.hypot(x, y) == pytest.approx(1.0)
    assert y / x == pytest.approx(np.tan(np.deg2rad(5.0)))
    assert z == pytest.approx(np.tan(np.deg2rad(30.0)))
    assert chord == pytest.approx(0.2)


def test_kink_makes_the_inner_trailing_edge_straight_across():
    plan = Planform((0.0, 0.0, 0.0), 1.0, 0.3, 0.3, 35.0, 0.0, 0.1, kink=0.35)
    share = np.array([0.0, 0.1, 0.34])
    np.testing.assert_allclose(np.diff(plan.leading_edge(share)[:, 2] + plan.chord(share)), 0.0, atol=1e-12)


@pytest.mark.parametrize(("taper", "sweep"), [(1.0, 0.0), (0.4, 25.0), (0.0, 50.0)])
def test_mean_chord_offset_is_the_area_weighted_quarter_chord(taper, sweep):
    share = (np.arange(20000) + 0.5) / 20000
    chord = 0.3 * (1 - (1 - taper) * share)
    quarter = 0.8 * share * np.tan(np.deg2rad(sweep)) + 0.25 * chord
    expected = (quarter * chord).sum() / chord.sum()
    assert mean_chord_offset(0.8, 0.3, taper, sweep) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("winglet", [0.0, 0.12])
@pytest.mark.parametrize("kink", [0.0, 0.3])
def test_whole_wing_is_one_closed_mirror_symmetric_solid(winglet, kink):
    plan = Planform((0.0, 0.1, 0.2), 1.0, 0.4, 0.5, 30.0, 5.0, 0.12, kink)
    solid = whole_wing(plan, winglet)
    mesh = trimesh.Trimesh(solid.verts, solid.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 1
    np.testing.assert_allclose(mesh.bounds[0, 0], -mesh.bounds[1, 0])
    assert mesh.extents[0] == pytest.approx(2 * np.cos(np.deg2rad(5.0)), rel=0.15)
    assert (mesh.bounds[1, 1] > 0.1 + np.sin(np.deg2rad(5.0)) + 0.08) == bool(winglet)
