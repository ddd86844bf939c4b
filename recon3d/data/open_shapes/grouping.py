"""Which cleaned models are the same or nearly so, and the train, val and test split that keeps those together.

Distances are in bounding-box diagonals; the thresholds were set by looking at the closest pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d.data.open_shapes.polygons import Triangles

DUPLICATE_MEAN, DUPLICATE_TAIL = 0.0025, 0.0080  # both below: the same mesh, of which one is kept
FAMILY_MEAN = 0.0050  # below: the same family, which a split never divides
MAX_EXTENT_GAP = 0.04  # boxes that differ by more cannot hold near meshes; spares the distances
TEST_SHARE, VAL_SHARE = 0.20, 0.10
# A point is about sqrt(area / 60000) / 2 away from 60,000 samples of its own surface: 0.002 for an area of 1. So equal
# meshes with an area above 1.5, as furniture with many shelves has, count as one family but not as duplicates.
_SURFACE_POINTS, _QUERY_POINTS = 60_000, 1500


@dataclass(frozen=True)
class NearPair:
    """Two models, by index with first < second, and the distances between their surfaces, the worse way round.

    Attributes:
        mean: mean distance from points of one surface to the other.
        tail: its 99th percentile.
    """

    first: int
    second: int
    mean: float
    tail: float

    @property
    def is_duplicate(self) -> bool:
        """Whether the two are one mesh."""
        return self.mean < DUPLICATE_MEAN and self.tail < DUPLICATE_TAIL


def sample_surface(mesh: Triangles, count: int, seed: int) -> NDArray[np.float64]:
    """Points (count,3) drawn uniformly by area, the same for the same seed."""
    generator = np.random.default_rng(seed)
    a, b, c = (mesh.verts[mesh.faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = np.searchsorted(np.cumsum(area) / area.sum(), generator.random(count)).clip(0, len(area) - 1)
    root, share = np.sqrt(generator.random(count))[:, None], generator.random(count)[:, None]
    return (1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face]


def near_pairs(meshes: Sequence[Triangles]) -> list[NearPair]:
    """Pairs whose mean surface distance is below `FAMILY_MEAN`, in order of their indices.

    Args:
        meshes: of one category, normalised by `cleaning.clean`.
    """
    trees = [cKDTree(sample_surface(mesh, _SURFACE_POINTS, seed=1)) for mesh in meshes]
    queries = [sample_surface(mesh, _QUERY_POINTS, seed=2) for mesh in meshes]
    extents = [np.ptp(mesh.verts, axis=0) for mesh in meshes]
    pairs = []
    for i in range(len(meshes)):
        for j in range(i + 1, len(meshes)):
            if np.abs(extents[i] - extents[j]).max() > MAX_EXTENT_GAP:
                continue
            distances = trees[j].query(queries[i])[0], trees[i].query(queries[j])[0]
            mean = max(float(np.mean(d)) for d in distances)
            if mean < FAMILY_MEAN:
                pairs.append(NearPair(i, j, mean, max(float(np.quantile(d, 0.99)) for d in distances)))
    return pairs


def duplicates(pairs: Sequence[NearPair]) -> dict[int, int]:
    """Index of each model to drop, with the index of the one kept in its place, which is never itself dropped."""
    kept_by: dict[int, int] = {}
    for pair in pairs:
        if pair.is_duplicate and pair.first not in kept_by:
            kept_by.setdefault(pair.second, pair.first)
    return kept_by


def families(count: int, pairs: Sequence[NearPair]) -> list[int]:
    """Index of each model's family leader: the first leader near it, or itself.

    Leaders rather than chains, since near-to-near chains would join most airliners into one family.
    """
    leaders: list[int] = []
    for i in range(count):
        near = sorted(pair.first for pair in pairs if pair.second == i)
        leaders.append(next((j for j in near if leaders[j] == j), i))
    return leaders


def assign_splits(family_names: Sequence[str]) -> list[str]:
    """Split of each model of one category: "test", "val" or "train", about 20, 10 and 70 %.

    Families, in order of the SHA-256 of their names, go to test while they fit, then to val, then to train, so a
    family is never divided and the result does not hang on the order of models.

    Args:
        family_names: family of each model.
    """
    sizes = {name: family_names.count(name) for name in family_names}
    total = len(family_names)
    room = {"test": round(TEST_SHARE * total), "val": max(1, round(VAL_SHARE * total)), "train": total}
    split: dict[str, str] = {}
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        split[name] = next(part for part, left in room.items() if sizes[name] <= left)
        room[split[name]] -= sizes[name]
    return [split[name] for name in family_names]
