"""Properties that every procedural object has, whatever its category."""

import hashlib

import numpy as np
import pytest
import trimesh

from recon3d.geometry import shapes
from recon3d.geometry.shapes import CATEGORIES, assembly, make_shape
from recon3d.geometry.shapes.draws import Draws

# SHA-256 of vertices in steps of 1e-5, faces, 8-bit colours and parts: the data set must not change unnoticed.
PINNED = {
    "airplane": {
        0: "de09c84fc292f899",
        1: "a20160aa25af1b24",
        2: "fef8ec0958b45fea",
        1000: "3ab5ef6458a4cd75",
        123456789: "a96a0d9f23db041f",
    },
    "car": {
        0: "2c2f007d7081ff72",
        1: "45f492f16573bed8",
        2: "0401d046af3a40bc",
        1000: "d5ec2bd760ec1024",
        123456789: "5b75ed36717c96fc",
    },
    "chair": {
        0: "6f0fb40f469cbfa3",
        1: "f574e1840b6df230",
        2: "041983255bfbb7fc",
        1000: "e2c7151ae4244024",
        123456789: "f5995c056cd9dd94",
    },
}

# 10th and 90th percentile of the bounding-box sides (x, y, z) over the longest, of 60 airplanes, 32 cars and 60 chairs
# made by CAD artists under open licences.
REAL_PROPORTIONS = {
    "airplane": ((0.76, 0.23, 0.82), (1.0, 0.34, 1.0)),
    "car": ((0.40, 0.27, 1.0), (0.49, 0.43, 1.0)),
    "chair": ((0.42, 0.71, 0.49), (0.94, 1.0, 1.0)),
}


def digest(shape):
    steps = np.rint(shape.verts.astype(np.float64) * 1e5).astype("<i4")
    colours = np.rint(shape.face_colors * 255).astype(np.uint8)
    parts = [steps, shape.faces.astype("<i4"), colours, shape.parts.astype("<i2")]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def components(shape):
    mesh = trimesh.Trimesh(shape.verts, shape.faces, process=False)
    groups = trimesh.graph.connected_components(mesh.face_adjacency, nodes=np.arange(len(shape.faces)))
    return [trimesh.Trimesh(shape.verts, shape.faces[group], process=False) for group in groups]


@pytest.fixture(scope="module", params=CATEGORIES)
def sample(request):
    """The category and its first 200 objects."""
    return request.param, [make_shape(request.param, seed) for seed in range(200)]


def test_every_component_is_closed_and_wound_outward(sample):
    for seed, shape in enumerate(sample[1][:20]):
        for mesh in components(shape):
            assert mesh.is_watertight, f"seed {seed}"
            assert mesh.is_winding_consistent, f"seed {seed}"
            assert mesh.volume > 0, f"seed {seed}"


def test_faces_are_edge_to_edge_and_not_degenerate(sample):
    for seed, shape in enumerate(sample[1][:80]):
        corners = np.rint(shape.verts.astype(np.float64) * 1e5)[shape.faces]
        doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert np.abs(doubled).max(1).min() > 0, f"seed {seed}"
        edges = shape.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        # Closed and consistently wound: every directed edge has exactly one partner in the other direction.
        keys = edges[:, 0].astype(np.int64) * len(shape.verts) + edges[:, 1]
        partners = edges[:, 1].astype(np.int64) * len(shape.verts) + edges[:, 0]
        assert len(np.unique(keys)) == len(keys), f"seed {seed}"
        assert np.array_equal(np.sort(keys), np.sort(partners)), f"seed {seed}"


def test_frame_types_and_counts(sample):
    for shape in sample[1]:
        assert (shape.verts.dtype, shape.faces.dtype, shape.parts.dtype) == (np.float32, np.int32, np.int16)
        assert shape.face_colors.dtype == np.float32
        assert 600 <= len(shape.faces) <= 6000
        assert np.array_equal(np.unique(shape.faces), np.arange(len(shape.verts)))
        sides = np.ptp(shape.verts, axis=0)
        assert sides.max() == 1.0
        np.testing.assert_allclose(shape.verts.min(0) + shape.verts.max(0), 0.0, atol=2.1e-5)


def test_colours_are_one_per_part_and_differ(sample):
    for shape in sample[1][:50]:
        assert 0 <= shape.face_colors.min() <= shape.face_colors.max() <= 1
        assert np.array_equal(np.unique(shape.parts), np.arange(len(shape.part_names)))
        assert len(shape.part_names) >= 2
        colours = [np.unique(shape.face_colors[shape.parts == k], axis=0) for k in range(len(shape.part_names))]
        assert all(len(colour) == 1 for colour in colours)
        assert len(np.unique(np.concatenate(colours), axis=0)) == len(shape.part_names)


def test_same_seed_same_object_other_seed_other_object(sample):
    category, objects = sample
    assert digest(make_shape(category, 5)) == digest(objects[5])
    assert make_shape(category, 5).parameters == objects[5].parameters
    assert len({digest(shape) for shape in objects}) == len(objects)


@pytest.mark.parametrize("category", CATEGORIES)
def test_objects_are_pinned(category):
    assert {seed: digest(make_shape(category, seed)) for seed in PINNED[category]} == PINNED[category]


@pytest.mark.parametrize("category", CATEGORIES)
def test_rounding_hides_differences_in_the_last_bits(category, monkeypatch):
    exact = [digest(make_shape(category, seed)) for seed in range(40)]
    noise, normalised = np.random.default_rng(0), assembly.normalised
    monkeypatch.setattr(
        assembly, "normalised", lambda verts: normalised(verts * (1 + 1e-14 * noise.uniform(-1, 1, verts.shape)))
    )
    assert [digest(make_shape(category, seed)) for seed in range(40)] == exact


def test_continuous_parameters_spread_over_their_range(sample):
    values = {}
    for shape in sample[1]:
        for name, value in shape.parameters.items():
            if isinstance(value, float):
                values.setdefault(name, []).append(value)
    common = [name for name, found in values.items() if len(found) >= 100]
    assert len(common) >= 8
    for name, found in values.items():
        assert len(found) < 8 or np.std(found) > 0.02 * np.abs(found).mean(), name


def test_every_recorded_parameter_acts(sample):
    category, objects = sample
    tried = set()
    for seed, shape in enumerate(objects):
        for name, value in shape.parameters.items():
            if name in tried or isinstance(value, str):
                continue
            tried.add(name)
            if isinstance(value, bool):
                other = not value
            else:
                other = value + 1 if isinstance(value, int) else 1.1 * value + 0.004
            draws = Draws(CATEGORIES.index(category), seed, {name: other})
            changed = shapes._BUILDERS[category](draws).finish()
            assert digest(changed) != digest(shape), f"{name} does nothing to {category} {seed}"
            assert changed.parameters[name] == other
    assert len(tried) > 30


def test_proportions_are_those_of_real_models(sample):
    category, objects = sample
    median = np.median([np.ptp(shape.verts, axis=0) for shape in objects], axis=0)
    low, high = REAL_PROPORTIONS[category]
    assert (median >= np.array(low) - 1e-6).all(), median
    assert (median <= np.array(high) + 1e-6).all(), median


def test_unknown_category_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown category 'sofa'.*airplane, car, chair"):
        make_shape("sofa", 0)
