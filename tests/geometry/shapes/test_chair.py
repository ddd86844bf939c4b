import numpy as np
import pytest

from recon3d.geometry.shapes import make_shape

OPTIONS = {
    "family": {"dining", "office", "stool", "cantilever", "easy", "block"},
    "seat": {"square", "round"},
    "base": {"four_legs", "three_legs", "star", "disc", "sled", "cantilever"},
    "back": {"solid", "slats", "ladder", "spindles", "frame", "hoop", "padded"},
    "arms": {"none", "open", "t_shaped", "closed", "rolled"},
    "leg_section": {"square", "round"},
    "stretchers": {"none", "h", "box", "sides"},
    **{name: {True, False} for name in ("wooden", "seat_cushion", "casters", "backless", "back_cushion")},
}


def test_each_discrete_option_appears(options):
    found = options("chair")
    for name, values in OPTIONS.items():
        assert found[name] == values, name


def floor_clusters(shape, gap=0.06):
    """Count the groups of vertices that touch the floor, a group being what no gap in the plane divides."""
    low = shape.verts[shape.verts[:, 1] < shape.verts[:, 1].min() + 0.02][:, [0, 2]].astype(float)
    groups = 0
    while len(low):
        groups += 1
        reached = np.zeros(len(low), bool)
        reached[0] = True
        while True:
            near = (np.linalg.norm(low[:, None] - low[None, reached], axis=-1) < gap).any(1)
            if (near == reached).all():
                break
            reached = near
        low = low[~reached]
    return groups


@pytest.mark.parametrize(("base", "feet", "gap"), [("four_legs", 4, 0.1), ("three_legs", 3, 0.1), ("disc", 1, 0.6)])
def test_bases_stand_on_as_many_feet_as_they_should(build, base, feet, gap):
    for seed in range(5):
        assert floor_clusters(build("chair", seed, family="stool", base=base), gap) == feet


@pytest.mark.parametrize("arms", [4, 5])
def test_star_feet_have_their_casters(build, arms):
    assert floor_clusters(build("chair", 0, family="office", star_arms=arms, casters=True)) == arms


def test_arm_rests_are_there_when_the_parameter_says_so():
    for seed in range(120):
        shape = make_shape("chair", seed)
        assert ("arm" in shape.part_names) == (shape.parameters.get("arms", "none") != "none")
        assert ("back" in shape.part_names) == (not shape.parameters.get("backless", False))


def test_backs_stand_behind_and_above_the_seat(part_points):
    for seed in range(60):
        shape = make_shape("chair", seed)
        if "back" in shape.part_names:
            seat = part_points(shape, "seat" if "seat" in shape.part_names else "cushion")
            back = part_points(shape, "back")
            assert back[:, 2].mean() > seat[:, 2].mean() + 0.1
            assert back[:, 1].max() > seat[:, 1].mean() + 0.1


def test_seat_height_over_width_follows_the_parameters(build, part_points):
    for height in (0.4, 0.7):
        shape = build("chair", 2, family="stool", backless=True, seat="square", seat_dish=0.0, seat_height=height)
        seat = part_points(shape, "seat")
        rise = seat[:, 1].max() - shape.verts[:, 1].min()
        assert rise / np.ptp(seat[:, 0]) == pytest.approx(height / shape.parameters["seat_width"], rel=0.05)


@pytest.mark.parametrize("rake", [0.0, 10.0, 25.0])
def test_back_leans_by_its_rake(build, part_points, rake):
    shape = build("chair", 4, family="dining", back="ladder", back_rake=rake, back_hollow=0.0, back_curl=0.0)
    back = part_points(shape, "back")
    low, high = (back[np.abs(back[:, 1] - level) < 0.02].mean(0) for level in (back[:, 1].min(), back[:, 1].max()))
    assert np.rad2deg(np.arctan2(high[2] - low[2], high[1] - low[1])) == pytest.approx(rake, abs=2.0)


def test_more_spindles_make_more_parts(build):
    faces = [len(build("chair", 4, family="dining", back="spindles", uprights=n).faces) for n in (3, 6)]
    single = len(build("chair", 4, family="dining", back="spindles", uprights=4).faces) - faces[0]
    assert faces[1] - faces[0] == 3 * single > 0


def test_taper_thins_the_feet(build, part_points):
    shape = build("chair", 4, family="dining", base="four_legs", leg_taper=0.5, leg_splay=0.0, leg_section="square")
    leg = part_points(shape, "leg")
    leg = leg[(leg[:, 0] > 0) & (leg[:, 2] < 0)]
    top, foot = (leg[np.abs(leg[:, 1] - level) < 1e-3] for level in (leg[:, 1].max(), leg[:, 1].min()))
    assert np.ptp(foot[:, 0]) / np.ptp(top[:, 0]) == pytest.approx(0.5, rel=0.02)
