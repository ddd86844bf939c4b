import math

import numpy as np
import pytest
import torch
import trimesh

from recon3d.geometry.templates import edge_opposite_verts, icosphere, unique_edges


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_icosphere_is_a_closed_outward_sphere(level):
    verts, faces = icosphere(level, radius=0.5)
    mesh = trimesh.Trimesh(verts.double().numpy(), faces.numpy(), process=False)
    assert (len(verts), len(faces)) == (10 * 4**level + 2, 20 * 4**level)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert mesh.volume > 0
    torch.testing.assert_close(verts.norm(dim=1), torch.full((len(verts),), 0.5), rtol=1e-6, atol=0)
    assert (verts.dtype, faces.dtype) == (torch.float32, torch.int64)


def test_icosphere_is_the_icosahedron_of_trimesh_split_in_its_planes_then_projected():
    verts, faces = icosphere(3)
    other = trimesh.creation.icosahedron().subdivide().subdivide().subdivide()
    other.vertices /= np.linalg.norm(other.vertices, axis=1, keepdims=True)
    ours = {tuple(row) for row in np.round(verts.double().numpy(), 5) + 0.0}
    theirs = {tuple(row) for row in np.round(other.vertices, 5) + 0.0}
    assert ours == theirs
    assert trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False).volume == pytest.approx(other.volume, rel=1e-5)
    assert other.volume < 4 / 3 * math.pi


def test_level_3_is_the_template_of_the_papers():
    verts, faces = icosphere(3)
    assert (len(verts), len(faces), len(unique_edges(faces))) == (642, 1280, 1920)


def test_icosphere_is_symmetric_to_the_bit_and_exactly_zero_on_the_coordinate_planes():
    verts, _ = icosphere(3)
    rows = {tuple(row) for row in verts.tolist()}
    for axis in range(3):
        mirrored = verts.clone()
        mirrored[:, axis] *= -1
        assert {tuple(row) for row in (mirrored + 0.0).tolist()} == rows
        # 4 corners at level 0; with 4 edge midpoints 8 at level 1; the ring of edges in the plane then doubles.
        assert int((verts[:, axis] == 0).sum()) == 32
        assert float(verts[:, axis][verts[:, axis] != 0].abs().min()) > 0.01


def test_coarser_vertices_come_first():
    fine, coarse = icosphere(3)[0], icosphere(2)[0]
    torch.testing.assert_close(fine[: len(coarse)], coarse, rtol=0, atol=0)


def test_icosphere_refuses_a_negative_level():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        icosphere(-1)


def open_mesh():
    mesh = trimesh.creation.box()
    return trimesh.Trimesh(mesh.vertices, mesh.faces[2:], process=False)


MESHES = {
    "box": trimesh.creation.box(),
    "torus": trimesh.creation.torus(1, 0.3, major_sections=12, minor_sections=8),
    "open box": open_mesh(),
}


@pytest.mark.parametrize("name", MESHES)
def test_edges_and_their_triangles_equal_trimesh(name):
    mesh = MESHES[name]
    faces = torch.tensor(np.array(mesh.faces))
    edges = unique_edges(faces)
    expected = np.unique(np.sort(mesh.edges_unique, axis=1), axis=0)
    np.testing.assert_array_equal(edges.numpy(), expected)

    hinges = edge_opposite_verts(faces).tolist()
    unshared = zip(mesh.face_adjacency_edges, mesh.face_adjacency_unshared, strict=True)
    expected_hinges = {(*sorted(edge.tolist()), frozenset(opposite.tolist())) for edge, opposite in unshared}
    assert {(v0, v1, frozenset((v2, v3))) for v0, v1, v2, v3 in hinges} == expected_hinges
    assert len(hinges) == len(expected_hinges)
    assert all(v0 < v1 for v0, v1, _, _ in hinges)


def test_first_opposite_vertex_belongs_to_the_first_face():
    faces = torch.tensor([[5, 2, 9], [2, 5, 7]])
    assert edge_opposite_verts(faces).tolist() == [[2, 5, 9, 7]]


def test_edges_without_exactly_two_faces_have_no_opposite_verts():
    fan = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert edge_opposite_verts(fan).shape == (0, 4)
    assert unique_edges(fan).shape == (7, 2)
