"""Is a predicted mesh usable: watertight, manifold, in one piece, free of self-intersections and of degenerate faces.

No ground truth is needed. Connectivity is taken as it is: vertices at one place with two indices are two vertices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pytorch3d.structures import Meshes
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from recon3d.metrics.base import SampleMetric
from recon3d.metrics.self_intersection import DEGENERATE_HEIGHT, count_self_intersections, face_heights


def _faces(faces: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(faces, dtype=np.int64).reshape(-1, 3)


def _edge_uses(faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Undirected edge (index into the distinct edges) of every face side, in the order of `_sides`; uses per edge."""
    low, high = _sides(faces).min(axis=1), _sides(faces).max(axis=1)
    _, edge, uses = np.unique(low * (faces.max(initial=0) + 1) + high, return_inverse=True, return_counts=True)
    return edge, uses


def _sides(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Vertex pairs (3F, 2) of all sides: the F sides 0-1, then 1-2, then 2-0."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def is_watertight(faces: ArrayLike) -> bool:
    """Tell whether every edge of faces (F,3) is shared by exactly two of them; False for no faces."""
    _, uses = _edge_uses(_faces(faces))
    return len(uses) > 0 and bool((uses == 2).all())


def is_manifold(faces: ArrayLike) -> bool:
    """Tell whether faces (F,3) form a manifold, with or without boundary; False for no faces.

    Edges: none has more than two faces. Vertices: the faces around each form one fan, so two cones that meet at their
    tips are not manifold.
    """
    index = _faces(faces)
    edge, uses = _edge_uses(index)
    if len(uses) == 0 or uses.max() > 2:
        return False
    # Link the corners of two faces at both ends of every shared edge: the groups are the fans, and a manifold has one
    # fan per vertex. Corner c of face f is c F + f; side s runs from corner s to corner s + 1.
    f = len(index)
    side = np.argsort(edge, kind="stable")
    side = side[uses[edge[side]] == 2].reshape(-1, 2)
    verts = index.T.reshape(-1)
    start, end = side, (side + f) % (3 * f)
    swapped = verts[start[:, 0]] != verts[start[:, 1]]
    other_start = np.where(swapped, end[:, 1], start[:, 1])
    other_end = np.where(swapped, start[:, 1], end[:, 1])
    fans = _count_groups(
        np.concatenate([start[:, 0], end[:, 0]]), np.concatenate([other_start, other_end]), np.arange(3 * f)
    )
    return fans == len(np.unique(index))


def _count_groups(first: NDArray[np.int64], second: NDArray[np.int64], nodes: NDArray[np.int64]) -> int:
    """Count the connected groups among `nodes` (distinct, ascending) linked by the pairs (first, second)."""
    size = int(nodes[-1]) + 1
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return len(np.unique(labels[nodes]))


def count_components(faces: ArrayLike) -> int:
    """Count the pieces of a mesh (F,3): groups of faces connected through shared vertices."""
    index = _faces(faces)
    if len(index) == 0:
        return 0
    sides = _sides(index)
    return _count_groups(sides[:, 0], sides[:, 1], np.unique(index))


def count_degenerate_faces(verts: ArrayLike, faces: ArrayLike) -> int:
    """Count the faces (F,3) whose smallest height is below 1e-6 object units, repeated vertices included."""
    corners = np.asarray(verts, dtype=np.float64)[_faces(faces)]
    return int((face_heights(corners) < DEGENERATE_HEIGHT).sum())


def _each(meshes: Meshes, function: Callable[[NDArray[np.float32], NDArray[np.int64]], float]) -> Tensor:
    """Apply `function` (verts, faces) to every mesh; NaN for a mesh without faces, which is a failed prediction."""
    pairs = zip(meshes.verts_list(), meshes.faces_list(), strict=True)
    return torch.tensor(
        [
            float(function(verts.detach().cpu().numpy(), faces.cpu().numpy())) if len(faces) else torch.nan
            for verts, faces in pairs
        ],
        dtype=torch.float64,
    )


class Watertight(SampleMetric):
    """Fraction of the samples whose mesh `is_watertight`; an empty mesh is not."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Meshes, target: None) -> Tensor:
        """Return 1 or 0 for each mesh, (B,)."""
        return _each(pred, lambda verts, faces: is_watertight(faces))


class Manifold(SampleMetric):
    """Fraction of the samples whose mesh `is_manifold`; an empty mesh is not."""

    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Meshes, target: None) -> Tensor:
        """Return 1 or 0 for each mesh, (B,)."""
        return _each(pred, lambda verts, faces: is_manifold(faces))


class Components(SampleMetric):
    """Mean of `count_components`; undefined for an empty mesh, which `Watertight` counts as a failure."""

    higher_is_better = False
    worst = None

    def measure(self, pred: Meshes, target: None) -> Tensor:
        """Return the number of components of each mesh, (B,)."""
        return _each(pred, lambda verts, faces: count_components(faces))


class SelfIntersections(SampleMetric):
    """Mean of `count_self_intersections`; undefined for an empty mesh."""

    higher_is_better = False
    worst = None

    def measure(self, pred: Meshes, target: None) -> Tensor:
        """Return the number of intersecting pairs of faces of each mesh, (B,)."""
        return _each(pred, count_self_intersections)


class DegenerateFaces(SampleMetric):
    """Mean of `count_degenerate_faces`; undefined for an empty mesh."""

    higher_is_better = False
    worst = None

    def measure(self, pred: Meshes, target: None) -> Tensor:
        """Return the number of degenerate faces of each mesh, (B,)."""
        return _each(pred, count_degenerate_faces)
