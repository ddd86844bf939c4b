import numpy as np
import pytest
import trimesh

from recon3d.geometry.shapes import solids


def as_trimesh(solid):
    mesh = trimesh.Trimesh(solid.verts, solid.faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


SAMPLES = {
    "lathe": solids.lathe([(0.0, 0.0), (1.0, 0.1), (0.5, 2.0), (0.0, 2.2)], 12),
    "tube": solids.tube([(0, 0, 0), (0, 1, 0), (0.5, 1.5, 0.2)], [0.1, 0.1, 0.05], 9),
    "flat bar": solids.tube([(0, 0, 0), (0, 0, 2)], [[0.2, 0.05]] * 2, 8, 1.0),
    "torus": solids.torus(1.0, 0.2),
    "box": solids.rounded_box((2.0, 1.0, 3.0), 0.4, 0.3),
    "disc": solids.rounded_box((1.0, 0.2, 1.0), 1.0, (0.95, 0.95)),
    "ellipsoid": solids.ellipsoid((1, 2, 3), (1.0, 0.5, 2.0)),
    "bent sheet": solids.sheet_loft(
        np.stack(np.broadcast_arrays([-1.0, 0.0, 1.0], [[0.0], [1.0]], [0.5, 0.0, 0.5]), -1),
        np.stack(np.broadcast_arrays([-1.0, 0.0, 1.0], [[0.0], [1.0]], [0.4, -0.1, 0.4]), -1),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_solids_are_closed_and_wound_one_way(name):
    mesh = as_trimesh(SAMPLES[name])
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.area_faces.min() > 0
    assert len(SAMPLES[name].span) == len(SAMPLES[name].column) == len(mesh.faces)


def test_tube_has_the_volume_of_its_polygon_prism():
    sides, radius, length = 9, 0.3, 2.0
    prism = 0.5 * sides * radius**2 * np.sin(2 * np.pi / sides) * length
    assert as_trimesh(solids.tube([(0, 0, 0), (0, length, 0)], radius, sides)).volume == pytest.approx(prism, rel=1e-9)


def test_torus_and_ellipsoid_approach_their_closed_forms():
    assert as_trimesh(solids.torus(1.0, 0.2, 200, 100)).volume == pytest.approx(2 * np.pi**2 * 0.04, rel=2e-3)
    ball = solids.ellipsoid((0, 0, 0), (1.0, 0.5, 2.0), 120, 80)
    assert as_trimesh(ball).volume == pytest.approx(4 / 3 * np.pi, rel=2e-3)


def test_bent_sheet_keeps_the_volume_that_a_fan_cap_would_lose():
    assert as_trimesh(SAMPLES["bent sheet"]).volume == pytest.approx(2 * 0.1 * 1.0, rel=1e-9)


def test_box_fills_its_size_and_nearly_its_cuboid():
    mesh = as_trimesh(solids.rounded_box((2.0, 1.0, 3.0), 0.05, 0.02, top_scale=(0.5, 1.0)))
    np.testing.assert_allclose(mesh.extents, [2.0, 1.0, 3.0], rtol=0.02)
    assert mesh.volume == pytest.approx(0.75 * 6.0, rel=0.02)


def test_squareness_runs_from_circle_to_superellipse():
    np.testing.assert_allclose((solids.unit_ring(16) ** 2).sum(1), 1.0)
    np.testing.assert_allclose((solids.unit_ring(16, 1.0) ** 8).sum(1), 1.0)


def test_turned_is_the_right_handed_rotation():
    points = np.random.default_rng(0).normal(size=(5, 3))
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0]), ("z", [0, 0, 1])):
        matrix = trimesh.transformations.rotation_matrix(np.deg2rad(25.0), direction)
        np.testing.assert_allclose(
            solids.turned(points, axis, 25.0), trimesh.transform_points(points, matrix), atol=1e-12
        )


def test_mirrored_keeps_the_winding():
    solid = SAMPLES["lathe"].moved(x=3.0)
    volumes = [trimesh.Trimesh(s.verts, s.faces, process=False).volume for s in (solid, solid.mirrored())]
    assert volumes[0] == pytest.approx(volumes[1])


def test_open_lathe_profile_is_refused():
    with pytest.raises(ValueError, match="start and end on the axis"):
        solids.lathe([(0.1, 0.0), (1.0, 0.5), (0.0, 1.0)], 8)
