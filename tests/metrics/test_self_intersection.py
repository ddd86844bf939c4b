"""Counts of intersecting face pairs against linear programming and cases that can be counted by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.optimize import linprog

from recon3d.metrics.self_intersection import count_self_intersections

Floats = NDArray[np.float64]


def hulls_meet(p: Floats, q: Floats) -> bool:
    """Two triangles meet when some convex combinations of their corners are equal."""
    system = np.zeros((5, 6))
    system[:3, :3], system[:3, 3:] = p.T, -q.T
    system[3, :3] = system[4, 3:] = 1.0
    return linprog(np.zeros(6), A_eq=system, b_eq=[0, 0, 0, 1, 1], bounds=(0, None)).status == 0


def brute_force(verts: Floats, faces: NDArray[np.int64]) -> int:
    pairs = [(a, b) for a, b in combinations(faces, 2) if not set(a) & set(b)]
    return sum(hulls_meet(verts[a], verts[b]) for a, b in pairs)


def soup(*triangles: list[list[float]]) -> tuple[Floats, NDArray[np.int64]]:
    return np.array(triangles, float).reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3)


FLAT = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_random_triangles_agree_with_linear_programming(size: float) -> None:
    rng = np.random.default_rng(4)
    verts = (rng.random((30, 1, 3)) - 0.5 + size * (rng.random((30, 3, 3)) - 0.5)).reshape(-1, 3)
    faces = np.arange(90).reshape(-1, 3)
    expected = brute_force(verts, faces)
    assert 0 < expected < 435
    assert count_self_intersections(verts, faces) == expected


def test_crumpled_sphere_agrees_with_linear_programming() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=1, radius=0.5)
    verts = mesh.vertices + np.random.default_rng(0).normal(scale=0.2, size=mesh.vertices.shape)
    # The shared vertices make most pairs trivial: only the pairs whose boxes overlap go to the solver.
    low, high = verts[mesh.faces].min(axis=1), verts[mesh.faces].max(axis=1)
    near = [
        (a, b)
        for a, b in combinations(range(80), 2)
        if (low[a] <= high[b]).all() and (low[b] <= high[a]).all() and not set(mesh.faces[a]) & set(mesh.faces[b])
    ]
    expected = sum(hulls_meet(verts[mesh.faces[a]], verts[mesh.faces[b]]) for a, b in near)
    assert expected > 10
    assert count_self_intersections(verts, mesh.faces) == expected


@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.icosphere(subdivisions=3, radius=0.5),
        trimesh.creation.box((1, 0.5, 0.3)).subdivide().subdivide(),
        trimesh.creation.torus(0.35, 0.1),
        trimesh.creation.icosphere(subdivisions=0),
    ],
    ids=["sphere", "box", "torus", "icosahedron"],
)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_embedded_surfaces_have_none(mesh: trimesh.Trimesh, angle: float) -> None:
    turned = mesh.copy().apply_transform(trimesh.transformations.rotation_matrix(angle, [1, 2, 3]))
    # As float32, the precision in which predictions come: coplanar neighbours are then coplanar only up to rounding.
    assert count_self_intersections(turned.vertices.astype(np.float32), turned.faces) == 0


def test_interpenetrating_spheres_are_found_and_distant_ones_are_not() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    for shift, crossing in ((0.3, True), (0.7, False), (0.0, False)):
        inner = sphere.copy().apply_scale(0.5 if shift == 0 else 1.0).apply_translation([shift, 0.01, 0.02])
        both = trimesh.util.concatenate([sphere, inner])
        count = count_self_intersections(both.vertices, both.faces)
        assert (count > 0) == crossing, shift
    # The crossing curve, a circle of radius sqrt(0.3^2 - 0.15^2), passes through at least as many pairs as it is long
    # in edge lengths.
    both = trimesh.util.concatenate([sphere, sphere.copy().apply_translation([0.3, 0.01, 0.02])])
    length = 2 * np.pi * np.sqrt(0.3**2 - 0.15**2)
    assert count_self_intersections(both.vertices, both.faces) > length / sphere.edges_unique_length.max()


def test_a_spike_through_a_plate() -> None:
    # A tetrahedron whose tip goes through one large triangle: the three faces at the tip cross it.
    tip, base = [0.0, 0, -0.2], [[-0.1, -0.1, 0.2], [0.1, -0.1, 0.2], [0.0, 0.1, 0.2]]
    plate = [[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]
    verts = np.array([tip, *base, *plate])
    faces = np.array([[1, 2, 3], [0, 1, 2], [0, 2, 3], [0, 3, 1], [4, 5, 6]])
    assert count_self_intersections(verts, faces) == 3
    assert count_self_intersections(verts[:4], faces[:4]) == 0
    assert count_self_intersections(verts + [0, 0, 0.2001] * (np.arange(7) < 4)[:, None], faces) == 0


def test_folded_strip_goes_through_itself() -> None:
    # A strip of four triangles whose last one is folded back through the first.
    verts = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0.5, 0.5, 0.6], [0.2, 0.3, -0.4]], float)
    faces = np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5]])
    assert count_self_intersections(verts, faces) == brute_force(verts, faces) == 1
    assert count_self_intersections(verts, faces[:3]) == 0


TWO_TRIANGLES = pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([[0.1, 0.1, 0.0], [0.9, 0.05, 0], [0.1, 0.8, 0]], 1),  # coplanar, inside
        ([[1.0, 1, 0], [1, 0, 0], [0, 1, 0]], 0),  # coplanar, along the long edge
        ([[2.0, 2, 0], [3, 2, 0], [2, 3, 0]], 0),  # coplanar, apart
        ([[0.5, 0.9, 0.0], [0.9, 0.5, 0], [1, 1, 0]], 0),  # coplanar, apart, boxes overlap
        ([[0.2, 0.2, 0], [0.5, 0.2, 1], [0.2, 0.5, 1]], 0),  # a corner rests on the face
        ([[0.2, 0.2, 0], [0.4, 0.2, 0], [0.3, 0.3, 1]], 0),  # an edge rests on the face
        ([[0.2, 0.2, 0], [0.5, 0.2, 1], [0.2, 0.5, -1]], 1),  # a corner on the face, the others on both sides
        ([[0.2, 0.2, -1e-3], [0.5, 0.2, 1], [0.2, 0.5, 1]], 1),  # a corner through the face
        ([[0.2, 0.2, 1e-3], [0.5, 0.2, 1], [0.2, 0.5, 1]], 0),  # a corner above the face
        ([[0.2, 0.2, -1.0], [0.2, 0.2, 1], [0.2, 0.2, 0.5]], 0),  # degenerate: counted elsewhere
        ([[5.0, 0.2, -1], [6, 0.2, 1], [5, 0.2, 1]], 0),  # crosses the plane away from the face
    ],
)


@TWO_TRIANGLES
def test_two_triangles(other: list[list[float]], expected: int) -> None:
    verts, faces = soup(FLAT, other)
    for order in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        assert count_self_intersections(verts, faces[:, order]) == expected
        assert count_self_intersections(verts, faces[::-1][:, order]) == expected
        assert count_self_intersections(verts[:, order], faces) == expected


@TWO_TRIANGLES
def test_float32_rounding_of_tilted_triangles_changes_nothing(other: list[list[float]], expected: int) -> None:
    verts, faces = soup(FLAT, other)
    for seed in range(50):
        turn = trimesh.transformations.random_rotation_matrix(np.random.default_rng(seed).random(3))[:3, :3]
        assert count_self_intersections((0.5 * verts @ turn).astype(np.float32), faces) == expected, seed


def test_faces_that_share_a_vertex_are_not_compared() -> None:
    verts = np.array([*FLAT, [0.2, 0.2, -1.0], [0.2, 0.2, 1.0]])
    assert count_self_intersections(verts, [[0, 1, 2], [0, 3, 4]]) == 0
    assert count_self_intersections(np.vstack([verts, verts[:1]]), [[0, 1, 2], [5, 3, 4]]) == 1


def test_no_faces() -> None:
    assert count_self_intersections(np.zeros((0, 3)), np.zeros((0, 3), int)) == 0
