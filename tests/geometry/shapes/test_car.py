import numpy as np
import pytest

from recon3d.geometry.shapes import make_shape

OPTIONS = {
    "family": {"sedan", "hatchback", "estate", "suv", "van", "pickup", "sports"},
    "side_windows": {"1", "2", "3"},
    "bumpers": {"painted", "dark"},
    "headlights": {"round", "wide"},
    "taillights": {"upright", "wide"},
    "spoiler": {"none", "lip", "wing"},
    **{
        name: {True, False} for name in ("open_top", "roof_rack", "mirrors", "two_tone_roof", "spare_wheel", "roll_bar")
    },
}


def test_each_discrete_option_appears(options):
    found = options("car")
    for name, values in OPTIONS.items():
        assert found[name] == values, name


def wheels(shape, part_points):
    """Centres z of the front and rear wheels, and the wheel diameter."""
    tyre = part_points(shape, "tyre")
    front, rear = tyre[tyre[:, 2] < 0], tyre[tyre[:, 2] > 0]
    return front[:, 2].mean(), rear[:, 2].mean(), np.ptp(front[:, 1])


@pytest.mark.parametrize("family", ["sedan", "van", "sports"])
def test_wheels_stand_where_the_parameters_say(build, part_points, family):
    shape = build("car", 3, family=family, spare_wheel=False, spoiler="none", open_top=False)
    p = shape.parameters
    front, rear, diameter = wheels(shape, part_points)
    assert (rear - front) / diameter == pytest.approx(p["wheelbase"] * p["length"] / (2 * p["wheel_radius"]), rel=0.01)
    tyre = part_points(shape, "tyre")
    assert tyre[:, 1].min() == shape.verts[:, 1].min()


def test_height_over_length_follows_the_parameters(build):
    ratios = []
    for height in (1.2, 1.45, 1.8):
        shape = build("car", 5, family="sedan", height=height, spoiler="none", mirrors=False)
        sides = np.ptp(shape.verts, axis=0)
        assert sides[1] / sides[2] == pytest.approx(height / shape.parameters["length"], rel=0.03)
        ratios.append(sides[1] / sides[2])
    assert ratios == sorted(ratios)


def test_arches_leave_the_wheels_free(build, part_points):
    shape = build("car", 2, family="sedan", mirrors=False, spoiler="none")
    front, _, diameter = wheels(shape, part_points)
    body = part_points(shape, "body")
    side = body[np.abs(body[:, 0]) > 0.85 * np.abs(body[:, 0]).max()]
    above = side[np.abs(side[:, 2] - front) < 0.1 * diameter]
    between = side[np.abs(side[:, 2]) < 0.18]
    assert above[:, 1].min() - shape.verts[:, 1].min() > diameter
    assert between[:, 1].min() - shape.verts[:, 1].min() < 0.5 * diameter


def test_lights_tell_front_from_rear(part_points):
    for seed in range(40):
        shape = make_shape("car", seed)
        assert part_points(shape, "headlight")[:, 2].max() < -0.35
        assert part_points(shape, "taillight")[:, 2].min() > 0.35


def test_vans_have_longer_cabins_than_sedans_and_pickups_a_bed(build, part_points):
    def cabin(family):
        return np.ptp(part_points(build("car", 7, family=family, side_windows="3"), "window")[:, 2])

    assert cabin("van") > 1.2 * cabin("sedan")
    pickup = build("car", 7, family="pickup", roll_bar=False)
    bed = part_points(pickup, "bed")
    assert bed[:, 2].min() > part_points(pickup, "window")[:, 2].max() - 0.02
    assert bed[:, 1].max() < part_points(pickup, "window")[:, 1].min() + 0.05


def test_open_top_replaces_the_cabin_by_seats(build):
    closed = build("car", 1, family="sports", open_top=False)
    opened = build("car", 1, family="sports", open_top=True)
    assert "seat" not in closed.part_names
    assert "seat" in opened.part_names
