import numpy as np
import pytest
import torch
import trimesh
from scipy import stats

from recon3d.geometry.sampling import sample_surface


def tensors(mesh):
    return torch.tensor(np.array(mesh.vertices)).float(), torch.tensor(np.array(mesh.faces))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def uneven():
    # Faces whose areas differ by a factor of more than a hundred.
    return trimesh.util.concatenate(
        [trimesh.creation.box((1, 0.2, 0.05)), trimesh.creation.icosphere(1, 0.1).apply_translation((2, 0, 0))]
    )


def test_faces_are_chosen_by_area(uneven):
    verts, faces = tensors(uneven)
    n = 40_000
    _, _, face = sample_surface(verts, faces, n, generator())
    counts = np.bincount(face.numpy(), minlength=len(faces))
    assert stats.chisquare(counts, uneven.area_faces / uneven.area * n).pvalue > 0.01


def test_places_within_a_face_are_uniform():
    # Barycentric coordinates of uniform points: each is Beta(1, 2), and they are exchangeable.
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points, _, _ = sample_surface(verts, torch.tensor([[0, 1, 2]]), 20_000, generator())
    u, v = points[:, 0].numpy(), points[:, 1].numpy()
    for coordinate in (u, v, 1 - u - v):
        assert stats.kstest(coordinate, stats.beta(1, 2).cdf).pvalue > 0.01


def test_points_lie_in_their_faces_with_the_face_normals(uneven):
    verts, faces = tensors(uneven)
    points, normals, face = sample_surface(verts, faces, 2000, generator())
    triangles = uneven.triangles[face.numpy()]
    on_face = trimesh.triangles.closest_point(triangles, points.numpy())
    np.testing.assert_allclose(points, on_face, atol=1e-6)
    np.testing.assert_allclose(normals, uneven.face_normals[face.numpy()], atol=1e-5)
    assert points.dtype == normals.dtype == torch.float32


def test_the_generator_decides_everything(uneven):
    verts, faces = tensors(uneven)
    first, again, other = (sample_surface(verts, faces, 50, generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_faces_without_area_are_never_chosen():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 0, 1], [0, 1, 2], [1, 1, 1], [2, 2, 0]])
    _, normals, face = sample_surface(verts, faces, 500, generator())
    assert face.unique().tolist() == [1]
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, 1]).expand(500, 3))


def test_points_carry_gradients_to_the_vertices():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], requires_grad=True)
    points, _, _ = sample_surface(verts, torch.tensor([[0, 1, 2]]), 10, generator())
    points.sum().backward()
    # The weights of each point add to 1 in each coordinate.
    torch.testing.assert_close(verts.grad.sum(dim=0), torch.full((3,), 10.0))


@pytest.mark.parametrize("faces", [[[0, 1, 1]], []])
def test_a_mesh_without_area_is_refused(faces):
    faces = torch.tensor(faces, dtype=torch.int64).reshape(-1, 3)
    with pytest.raises(ValueError, match="positive, finite area"):
        sample_surface(torch.eye(3), faces, 10, generator())


def test_nan_is_refused():
    with pytest.raises(ValueError, match="area nan"):
        sample_surface(torch.full((3, 3), float("nan")), torch.tensor([[0, 1, 2]]), 10, generator())
