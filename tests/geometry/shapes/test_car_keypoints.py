import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon3d.geometry.shapes.car_keypoints import KEYPOINT_MIRROR, KEYPOINTS, make_car

SEEDS = range(20)


def place(car, name):
    return car.keypoints[KEYPOINTS.index(name)]


@pytest.mark.parametrize("seed", SEEDS)
def test_keypoints_lie_on_the_car_and_are_exactly_symmetric(seed):
    car = make_car(seed)
    assert np.array_equal(car.keypoints * np.array([-1.0, 1.0, 1.0]), car.keypoints[list(KEYPOINT_MIRROR)])
    mesh = trimesh.Trimesh(car.shape.verts, car.shape.faces, process=False)
    samples, _ = trimesh.sample.sample_surface(mesh, 60_000, seed=1)
    assert cKDTree(np.concatenate([samples, car.shape.verts])).query(car.keypoints)[0].max() < 0.025


@pytest.mark.parametrize("seed", SEEDS)
def test_keypoints_are_where_cars_have_them(seed, part_points):
    car = make_car(seed)
    glass = part_points(car.shape, "window")
    for side, sign in (("left", -1.0), ("right", 1.0)):
        for end in ("windshield", "rearwindow"):
            corner = place(car, f"upper_{side}_{end}")
            assert corner[0] * sign > 0.03 and corner[1] > np.quantile(glass[:, 1], 0.4)
        assert place(car, f"upper_{side}_windshield")[2] < place(car, f"upper_{side}_rearwindow")[2]
        assert place(car, f"{side}_front_light")[2] < -0.4 and place(car, f"{side}_back_trunk")[2] > 0.35
        for end in ("front", "back"):
            hub = place(car, f"{side}_{end}_wheel")
            tyres = part_points(car.shape, "tyre")
            near = tyres[(np.abs(tyres - hub)[:, 2] < 0.12) & (tyres[:, 0] * sign > 0)]
            near = near[near[:, 1] < hub[1] + 0.1]
            # The middle of its wheel, between ground and top of the tyre, on the outside.
            assert hub[1] == pytest.approx(0.5 * (near[:, 1].min() + near[:, 1].max()), abs=0.012)
            assert abs(hub[0]) >= np.abs(near[:, 0]).max() - 1e-6
    trunk = place(car, "left_back_trunk")[1]
    assert place(car, "left_back_wheel")[1] < trunk < place(car, "upper_left_rearwindow")[1]


def test_every_car_has_a_roof_and_a_rear_window():
    families = {make_car(seed).shape.parameters["family"] for seed in range(60)}
    assert families == {"sedan", "hatchback", "estate", "suv", "van", "pickup", "sports"}
    assert all("seat" not in make_car(seed).shape.part_names for seed in range(60))
