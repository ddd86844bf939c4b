import numpy as np
import pytest

from recon3d.data.open_shapes.polygons import Triangles, join, triangulate

SHAPES = {  # counter-clockwise outlines with their area in closed form
    "triangle": ([(0, 0), (2, 0), (0, 2)], 2.0),
    "square": ([(0, 0), (1, 0), (1, 1), (0, 1)], 1.0),
    "L": ([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)], 5.0),
    "U": ([(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)], 7.0),
    "arrow": ([(0, 0), (2, 1), (0, 2), (1, 1)], 1.0),
    "a corner on a diagonal": ([(0, 0), (2, 0), (2, 2), (1, 1), (0, 2)], 3.0),
    "ring with a bridge": (
        [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1)],
        8.0,
    ),
}


def areas_towards(points, triangles, normal):
    a, b, c = (points[np.array(triangles)[:, k]] for k in range(3))
    return np.cross(b - a, c - a) @ normal / 2


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_triangles_cover_the_polygon_once_with_its_winding(name, flip, axis):
    outline, area = SHAPES[name]
    plane = np.roll(np.column_stack([np.array(outline, float), np.zeros(len(outline))]), axis, axis=1)
    normal = np.roll([0.0, 0.0, 1.0], axis) * (-1 if flip else 1)
    points = np.concatenate([[[9.0, 9.0, 9.0]], plane])  # indices need not begin at 0
    loop = list(range(1, len(points)))
    triangles = triangulate(points, loop[::-1] if flip else loop)
    areas = areas_towards(points, triangles, normal)
    assert len(triangles) == len(outline) - 2
    assert areas.min() >= -1e-12  # none turned over, so their sum is the area only if none overlap
    assert areas.sum() == pytest.approx(area)
    assert "ring" in name or areas.min() > 0.1  # no sliver through a corner that lies on another ear's edge


def test_a_fan_would_not_do_for_a_concave_polygon():
    points = np.column_stack([np.array(SHAPES["U"][0], float), np.zeros(8)])
    fan = [(0, i, i + 1) for i in range(1, 7)]
    assert areas_towards(points, fan, np.array([0.0, 0, 1])).min() < 0


def test_polygons_without_area_or_that_cross_themselves_still_give_triangles():
    line = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    assert len(triangulate(line, [0, 1, 2, 3])) == 2
    bow_tie = np.array([[0.0, 0, 0], [1, 1, 0], [2, 0, 0], [2, 1.5, 0], [0, 1, 0]])
    assert len(triangulate(bow_tie, [0, 1, 2, 3, 4])) == 3


def test_join_moves_indices():
    part = Triangles(np.eye(3), np.array([[0, 1, 2]]))
    assert join([part, part, part]).faces.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert join([]).faces.shape == (0, 3)
