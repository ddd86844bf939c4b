import numpy as np
import pytest
import trimesh

from recon3d.data.open_shapes.grouping import (
    NearPair,
    assign_splits,
    duplicates,
    families,
    near_pairs,
    sample_surface,
)
from recon3d.data.open_shapes.polygons import Triangles


def sphere(radius, subdivisions=4):
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return Triangles(np.array(mesh.vertices), np.array(mesh.faces))


def test_samples_lie_on_the_surface_in_proportion_to_area():
    box = trimesh.creation.box((4, 2, 1))
    points = sample_surface(Triangles(np.array(box.vertices), np.array(box.faces)), 60_000, seed=0)
    offset = np.abs(points) - [2, 1, 0.5]
    assert np.abs(offset.max(1)).max() < 1e-12
    share = np.bincount(offset.argmax(1), minlength=3) / 60_000
    assert np.allclose(share, np.array([2, 4, 8]) / 14, atol=0.01)  # sides of area 2 x 1, 4 x 1 and 4 x 2
    assert np.allclose(points.mean(0), 0, atol=0.03)


def test_concentric_spheres_are_as_far_apart_as_their_radii():
    meshes = [sphere(0.2), sphere(0.2, 5), sphere(0.2036), sphere(0.207), sphere(0.26)]
    pairs = {(pair.first, pair.second): pair for pair in near_pairs(meshes)}
    assert set(pairs) == {(0, 1), (0, 2), (1, 2), (2, 3)}  # 0 and 3 are 0.007 apart
    assert pairs[0, 1].is_duplicate and not pairs[1, 2].is_duplicate
    assert pairs[2, 3].mean == pytest.approx(0.0034, rel=0.15)  # the samples' spacing adds to it


def test_a_part_that_only_one_has_keeps_two_models_apart():
    whole = trimesh.creation.icosphere(4, 0.2)
    fin = trimesh.creation.box((0.04, 0.04, 0.04)).apply_translation([0, 0, 0.2])
    both = trimesh.util.concatenate([whole, fin])
    (pair,) = near_pairs([Triangles(np.array(m.vertices), np.array(m.faces)) for m in (whole, both)])
    assert pair.mean < 0.0025 and not pair.is_duplicate  # the tail, and only one way round


def test_a_model_inside_another_is_not_near_it():
    outer, inner = trimesh.creation.icosphere(4, 0.2), trimesh.creation.icosphere(4, 0.1)
    both = trimesh.util.concatenate([outer, inner])  # every point of the outer is on it, but not the reverse
    assert near_pairs([Triangles(np.array(m.vertices), np.array(m.faces)) for m in (outer, both)]) == []


def pair(first, second, mean=0.001, tail=0.001):
    return NearPair(first, second, mean, tail)


def test_the_model_kept_for_a_duplicate_is_never_dropped():
    assert duplicates([pair(0, 1), pair(1, 2)]) == {1: 0}  # 2 is near 1 only, which is gone
    assert duplicates([pair(0, 2), pair(1, 2)]) == {2: 0}
    assert duplicates([pair(0, 1, mean=0.003), pair(0, 2, tail=0.009)]) == {}


def test_families_follow_leaders_without_chains():
    assert families(4, [pair(0, 1), pair(1, 2)]) == [0, 0, 2, 3]
    assert families(4, [pair(0, 2), pair(1, 2), pair(2, 3), pair(1, 3)]) == [0, 1, 0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_families_are_never_divided_and_shares_are_right(seed):
    generator = np.random.default_rng(seed)
    names = [f"family-{k}" for k in generator.integers(0, 80, size=int(generator.integers(60, 200)))]
    splits = assign_splits(names)
    by_family = {name: {split for n, split in zip(names, splits, strict=True) if n == name} for name in names}
    assert all(len(found) == 1 for found in by_family.values())
    assert splits.count("test") == pytest.approx(0.2 * len(names), abs=2)
    assert splits.count("val") == pytest.approx(0.1 * len(names), abs=2)
    order = generator.permutation(len(names))
    assert assign_splits([names[i] for i in order]) == [splits[i] for i in order]


def test_small_categories_and_large_families_have_a_split():
    assert sorted(assign_splits(["a", "b", "c", "d", "e", "f", "g"])) == ["test", "train", "train", "train", "train",
                                                                          "train", "val"]  # fmt: skip
    assert assign_splits(["a"] * 9 + ["b"]).count("train") >= 9  # a family larger than test and val
    assert assign_splits(["alone"]) == ["val"]
