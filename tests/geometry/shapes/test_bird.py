import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon3d.geometry.shapes.bird import FAMILIES, KEYPOINT_MIRROR, KEYPOINTS, make_bird, species_name

FLIP = np.array([-1.0, 1.0, 1.0])
BIRDS = [(species, 40 + species) for species in range(len(FAMILIES))]


def place(bird, name):
    return bird.keypoints[KEYPOINTS.index(name)]


def part(shape, name):
    """Vertices of a part."""
    return shape.verts[np.unique(shape.faces[shape.parts == shape.part_names.index(name)])]


@pytest.mark.parametrize(("species", "seed"), BIRDS)
def test_birds_are_closed_normalised_and_their_own_mirror_image(species, seed):
    shape = make_bird(species, seed).shape
    mesh = trimesh.Trimesh(shape.verts, shape.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    pieces = mesh.split(only_watertight=False)
    assert all(piece.volume > 0 for piece in pieces) and len(pieces) == 1 + 2 + 1 + 1 + 2 + 2 * 6
    np.testing.assert_allclose(np.ptp(shape.verts, axis=0).max(), 1.0, atol=2e-5)
    np.testing.assert_allclose(shape.verts.min(0), -shape.verts.max(0), atol=2e-5)
    assert cKDTree(shape.verts).query(shape.verts * FLIP)[0].max() < 2e-5
    assert shape.face_colors.min() >= 0 and shape.face_colors.max() <= 1
    np.testing.assert_allclose(255 * shape.face_colors, np.rint(255 * shape.face_colors), atol=1e-4)


@pytest.mark.parametrize(("species", "seed"), BIRDS)
def test_keypoints_lie_on_the_surface_and_are_exactly_symmetric(species, seed):
    bird = make_bird(species, seed)
    assert np.array_equal(bird.keypoints * FLIP, bird.keypoints[list(KEYPOINT_MIRROR)])
    mesh = trimesh.Trimesh(bird.shape.verts, bird.shape.faces, process=False)
    samples, _ = trimesh.sample.sample_surface(mesh, 40_000, seed=1)
    # Samples are about 0.004 apart; shanks, in whose middle the key point is, have a radius of 0.01.
    assert cKDTree(samples).query(bird.keypoints)[0].max() < 0.016


@pytest.mark.parametrize(("species", "seed"), BIRDS)
def test_keypoints_are_where_birds_have_them(species, seed):
    bird = make_bird(species, seed)
    verts = bird.shape.verts
    assert place(bird, "beak")[2] == pytest.approx(verts[:, 2].min(), abs=1e-4)
    assert place(bird, "tail")[2] > verts[:, 2].max() - 0.12
    assert place(bird, "crown")[1] > place(bird, "throat")[1] and place(bird, "back")[1] > place(bird, "belly")[1]
    order = ["beak", "forehead", "crown", "nape", "back", "tail"]
    assert np.all(np.diff([place(bird, name)[2] for name in order]) > 0)
    for name in ("eye", "wing", "leg"):
        assert place(bird, f"right {name}")[0] > 0.02 > place(bird, f"left {name}")[0]
        low, high = (edge(part(bird.shape, name)[:, 1:], axis=0) for edge in (np.min, np.max))
        assert np.all(place(bird, f"left {name}")[1:] >= low - 1e-4)
        assert np.all(place(bird, f"left {name}")[1:] <= high + 1e-4)
    assert part(bird.shape, "leg")[:, 1].min() < part(bird.shape, "body")[:, 1].min(), "it stands on its feet"


def test_the_same_numbers_give_the_same_bird_and_others_another():
    first, again = make_bird(3, 8), make_bird(3, 8)
    for name in ("verts", "faces", "face_colors"):
        assert np.array_equal(getattr(first.shape, name), getattr(again.shape, name))
    other, stranger = make_bird(3, 9), make_bird(13, 8)
    assert not np.array_equal(first.shape.verts, other.shape.verts)
    # Birds of one species are alike in colour, those of two species of one family are not.
    near, far = (np.abs(first.shape.face_colors - bird.shape.face_colors).mean() for bird in (other, stranger))
    assert near < 0.06 < far
    with pytest.raises(ValueError, match="non-negative"):
        make_bird(3, -1)


def test_families_differ_as_their_names_say():
    def of(name):
        return [make_bird(FAMILIES.index(name), seed) for seed in range(3)]

    def bill(bird):
        return np.ptp(part(bird.shape, "bill")[:, 2]) / np.ptp(part(bird.shape, "eye")[:, 2])

    assert min(map(bill, of("kingfisher"))) > 1.5 * max(map(bill, of("finch")))
    for bird in of("wren"):  # a cocked tail
        assert place(bird, "tail")[1] > part(bird.shape, "tail")[:, 1].min() + 0.03
    for bird in of("flycatcher"):  # upright
        assert place(bird, "tail")[1] < place(bird, "belly")[1]
    assert species_name(FAMILIES.index("jay")).endswith("_Jay")


def test_every_part_of_the_plumage_is_painted():
    for species in range(len(FAMILIES)):
        shape = make_bird(species, 0).shape
        for name, least in {"body": 50, "wing": 20, "tail": 3, "bill": 10}.items():
            colors = shape.face_colors[shape.parts == shape.part_names.index(name)]
            assert len(np.unique(colors, axis=0)) >= least, (species, name)
