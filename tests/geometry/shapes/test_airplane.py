import numpy as np
import pytest

from recon3d.geometry.shapes import make_shape

OPTIONS = {
    "family": {"airliner", "transport", "business_jet", "fighter", "light", "biplane", "glider"},
    "wing_position": {"low", "mid", "high"},
    "tail": {"conventional", "t_tail", "v_tail", "twin_fin", "cruciform", "tailless"},
    "engines": {
        "none", "two_under_wing", "four_under_wing", "two_rear", "two_propellers", "four_propellers",
        "nose_propeller", "nose_intake", "side_intakes",
    },
    **{name: {True, False} for name in ("delta_wing", "winglets", "fixed_gear", "tip_tanks", "radial_engine")},
}  # fmt: skip
JET = {"family": "airliner", "engines": "two_under_wing", "tail": "conventional", "winglets": False, "dihedral": 0.0}


def test_each_discrete_option_appears(options):
    found = options("airplane")
    for name, values in OPTIONS.items():
        assert found[name] == values, name


def test_span_over_length_follows_its_parameter(build, part_points):
    for span in (0.8, 1.0, 1.3):
        shape = build("airplane", **JET, span=span)
        wing, hull = part_points(shape, "wing"), part_points(shape, "fuselage")
        # The rounded tip adds 1 % of the half span.
        assert np.ptp(wing[:, 0]) / np.ptp(hull[:, 2]) == pytest.approx(1.01 * span, rel=0.01)


@pytest.mark.parametrize("sweep", [0.0, 15.0, 35.0])
def test_leading_edge_follows_the_sweep(build, part_points, sweep):
    wing = part_points(build("airplane", **JET, sweep=sweep), "wing")
    half = wing[:, 0].max() / 1.01
    lead = [wing[np.abs(wing[:, 0] - share * half) < 1e-3][:, 2].min() for share in (0.5, 5 / 6)]
    assert np.rad2deg(np.arctan2(lead[1] - lead[0], half / 3)) == pytest.approx(sweep, abs=1.0)


def test_fineness_is_length_over_width(build, part_points):
    for fineness in (6.0, 11.0):
        hull = part_points(build("airplane", **JET, fineness=fineness, squareness=0.0), "fuselage")
        assert np.ptp(hull[:, 2]) / np.ptp(hull[:, 0]) == pytest.approx(fineness, rel=0.03)


def test_wing_position_orders_the_wing_height(build, part_points):
    heights = []
    for position in ("low", "mid", "high"):
        shape = build("airplane", family="fighter", wing_position=position, dihedral=0.0, tip_tanks=False)
        wing, hull = part_points(shape, "wing"), part_points(shape, "fuselage")
        heights.append(wing[:, 1].mean() - hull[:, 1].mean())
    assert heights == sorted(heights)


def test_engine_count(build):
    def nacelles(engines):
        shape = build("airplane", **{**JET, "engines": engines})
        intakes = shape.faces[shape.parts == shape.part_names.index("intake")]
        # 14 sides: the dark faces of one nacelle are its cap of 14 triangles and one band of 28.
        return len(intakes) / 42

    assert nacelles("two_under_wing") == 2
    assert nacelles("four_under_wing") == 4


def test_t_tail_carries_the_tailplane_on_the_fin(build, part_points):
    widest = {}
    for tail in ("conventional", "t_tail"):
        points = part_points(build("airplane", **{**JET, "tail": tail}, tail_dihedral=0.0), "tail")
        tip = points[np.argmax(points[:, 0])]
        widest[tail] = (tip[1] - points[:, 1].min()) / np.ptp(points[:, 1])
    assert widest["conventional"] < 0.3
    assert widest["t_tail"] > 0.85


def test_noses_point_to_minus_z_and_tails_up(part_points):
    for seed in range(40):
        shape = make_shape("airplane", seed)
        tail, hull = part_points(shape, "tail"), part_points(shape, "fuselage")
        assert tail[:, 2].mean() > hull[:, 2].mean() + 0.15
        assert tail[:, 1].max() > hull[:, 1].max()
        middle = 0.5 * (hull[:, 2].min() + hull[:, 2].max())
        fronts = [name for name in ("window", "canopy", "spinner") if name in shape.part_names]
        assert fronts
        assert all(part_points(shape, name)[:, 2].min() < middle for name in fronts)


def test_biplanes_have_two_wings_one_above_the_other(build, part_points):
    shape = build("airplane", 1, family="biplane", wing_gap=2.4, dihedral=0.0)
    wing, hull = part_points(shape, "wing"), part_points(shape, "fuselage")
    middle = 0.5 * (wing[:, 1].max() + wing[:, 1].min())
    assert np.ptp(wing[:, 1]) > np.ptp(hull[:, 1]) * 0.8
    assert (np.abs(wing[:, 1] - middle) > 0.3 * np.ptp(wing[:, 1])).all()
