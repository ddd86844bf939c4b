"""Mesh health against trimesh and against meshes whose defects are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from pytorch3d.structures import Meshes

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.mesh_health import (
    Components,
    DegenerateFaces,
    Manifold,
    SelfIntersections,
    Watertight,
    count_components,
    count_degenerate_faces,
    is_manifold,
    is_watertight,
)

SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
TORUS = trimesh.creation.torus(0.3, 0.1)


def punctured() -> trimesh.Trimesh:
    return trimesh.Trimesh(SPHERE.vertices, SPHERE.faces[1:], process=False)


def three_on_an_edge() -> trimesh.Trimesh:
    verts = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, -1, 0]]
    return trimesh.Trimesh(verts, [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False)


def two_cones() -> trimesh.Trimesh:
    """Two tetrahedra that share one vertex: watertight, every edge manifold, the vertex not."""
    verts = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    faces = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3], [0, 4, 5], [0, 6, 4], [0, 5, 6], [4, 6, 5]]
    return trimesh.Trimesh(verts, faces, process=False)


def pair(first: trimesh.Trimesh, second: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.util.concatenate([first, second.copy().apply_translation([2, 0, 0])])


CASES = {
    "sphere": (SPHERE, True),
    "torus": (TORUS, True),
    "punctured": (punctured(), True),
    "three_on_an_edge": (three_on_an_edge(), False),
    "two_cones": (two_cones(), False),
    "two_spheres": (pair(SPHERE, SPHERE), True),
    "sphere_and_open": (pair(SPHERE, punctured()), True),
    "one_triangle": (trimesh.Trimesh(np.eye(3), [[0, 1, 2]], process=False), True),
}


@pytest.mark.parametrize("name", CASES)
def test_against_trimesh(name: str) -> None:
    mesh, manifold = CASES[name]
    assert is_watertight(mesh.faces) == mesh.is_watertight
    assert count_components(mesh.faces) == mesh.body_count
    assert is_manifold(mesh.faces) == manifold
    # Winding and the order of the faces do not matter.
    shuffled = np.random.default_rng(0).permutation(mesh.faces)
    shuffled[::2] = shuffled[::2, ::-1]
    assert is_manifold(shuffled) == manifold
    assert is_watertight(shuffled) == mesh.is_watertight


def test_edge_with_four_faces_is_neither_watertight_nor_manifold() -> None:
    first, second = (trimesh.creation.box().apply_translation(shift) for shift in ([0, 0, 0], [1, 1, 0]))
    both = trimesh.util.concatenate([first, second])
    both.merge_vertices()
    assert len(both.vertices) == 14
    assert not is_manifold(both.faces)
    assert not is_watertight(both.faces)
    assert count_components(both.faces) == 1


def test_unused_vertices_are_no_components() -> None:
    assert count_components(SPHERE.faces + 7) == 1


def test_sliver_and_collapsed_faces_are_degenerate() -> None:
    verts = np.array([[0, 0, 0], [1, 0, 0], [0.5, 1e-7, 0], [0.5, 1e-3, 0], [0, 1e-7, 0]])
    assert count_degenerate_faces(verts, [[0, 1, 2], [0, 1, 3], [0, 0, 3], [1, 1, 1], [0, 4, 3]]) == 4
    mesh = trimesh.Trimesh(verts, [[0, 1, 2], [0, 1, 3]], process=False)
    assert count_degenerate_faces(verts, mesh.faces) == 2 - mesh.nondegenerate_faces(height=1e-6).sum()
    assert count_degenerate_faces(SPHERE.vertices, SPHERE.faces) == 0


def meshes(*items: trimesh.Trimesh | None) -> Meshes:
    empty = (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    pairs = [
        empty if item is None else (torch.tensor(item.vertices).float(), torch.tensor(item.faces)) for item in items
    ]
    return Meshes([verts for verts, _ in pairs], [faces for _, faces in pairs])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Watertight(), [1, 0, 0]),
        (Manifold(), [1, 1, 0]),
        (Components(), [2, 1, np.nan]),
        (SelfIntersections(), [0, 0, np.nan]),
        (DegenerateFaces(), [0, 0, np.nan]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_metrics_over_a_batch_with_a_failed_mesh(metric: SampleMetric, expected: list[float]) -> None:
    key = torch.arange(3)
    metric.update(meshes(pair(SPHERE, TORUS), punctured(), None), None, key, torch.zeros_like(key))
    np.testing.assert_array_equal(metric.compute().values, expected)
    assert metric.compute().n == np.isfinite(expected).sum()


def test_no_faces_are_neither_watertight_nor_manifold() -> None:
    none = np.zeros((0, 3), int)
    assert (is_watertight(none), is_manifold(none), count_components(none)) == (False, False, 0)
