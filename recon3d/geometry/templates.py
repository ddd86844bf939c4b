"""Template meshes that methods deform, and the connectivity that mesh losses read."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN_RATIO = (1 + 5**0.5) / 2
# fmt: off
ICOSAHEDRON_VERTS = (
    (-1, GOLDEN_RATIO, 0), (1, GOLDEN_RATIO, 0), (-1, -GOLDEN_RATIO, 0), (1, -GOLDEN_RATIO, 0),
    (0, -1, GOLDEN_RATIO), (0, 1, GOLDEN_RATIO), (0, -1, -GOLDEN_RATIO), (0, 1, -GOLDEN_RATIO),
    (GOLDEN_RATIO, 0, -1), (GOLDEN_RATIO, 0, 1), (-GOLDEN_RATIO, 0, -1), (-GOLDEN_RATIO, 0, 1),
)
ICOSAHEDRON_FACES = (
    (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
    (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7),
    (9, 8, 1),
)
# fmt: on


def icosphere(level: int, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Sphere from an icosahedron whose every face is split into four, `level` times, and then projected to the sphere.

    Level 3 is the template of NMR and SoftRas: 642 vertices, 1,280 faces, 1,920 edges; projecting once, at the end, is
    what gives their published Laplacian and flattening values (projecting at every level does not). The vertices of
    level k are the first vertices of level k + 1; a vertex that lies on a coordinate plane has an exact 0 there; the
    three coordinate planes are planes of symmetry.

    Args:
        level: number of subdivisions, at least 0; 10 * 4**level + 2 vertices, 20 * 4**level faces.
        radius: distance of every vertex from the origin.

    Returns:
        verts (V, 3) float32 and faces (F, 3) int64, wound counter-clockwise seen from outside.
    """
    if level < 0:
        raise ValueError(f"icosphere: level must be at least 0, got {level}.")
    # float64 until the end: midpoints of mirrored vertices cancel exactly, and rounding stays below float32.
    verts = torch.tensor(ICOSAHEDRON_VERTS, dtype=torch.float64)
    faces = torch.tensor(ICOSAHEDRON_FACES)
    for _ in range(level):
        verts, faces = _subdivide(verts, faces)
    return (verts * (radius / verts.norm(dim=1, keepdim=True))).float(), faces


def _subdivide(verts: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Split each face into four at the midpoints of its edges, in its plane."""
    edges, edge_of_side = _edges_and_sides(faces)
    midpoints = verts[edges].mean(dim=1)
    a, b, c = faces.unbind(1)
    ab, bc, ca = (edge_of_side + len(verts)).unbind(1)
    corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return torch.cat([verts, midpoints]), torch.stack([torch.stack(face, 1) for face in corners], 1).reshape(-1, 3)


def unique_edges(faces: Tensor) -> Tensor:
    """Undirected edges (E, 2) of faces (F, 3), smaller index first, in lexicographic order."""
    return _edges_and_sides(faces)[0]


def edge_opposite_verts(faces: Tensor) -> Tensor:
    """The two triangles at each interior edge, for dihedral angles (flattening loss of SoftRas, eq. 5).

    Edges of one face (border) or of more than two (not manifold) have no dihedral angle and are left out.

    Args:
        faces: (F, 3) vertex indices.

    Returns:
        (E, 4) indices (v0, v1, v2, v3): edge v0 < v1 in the order of `unique_edges`; v2 is opposite to it in the first
        of its two faces, v3 in the second.
    """
    edges, edge_of_side = _edges_and_sides(faces)
    side_to_edge = edge_of_side.flatten()
    opposite = faces[:, [2, 0, 1]].flatten()  # of sides ab, bc, ca
    interior = torch.bincount(side_to_edge, minlength=len(edges)) == 2
    by_edge = side_to_edge.argsort(stable=True)
    pairs = opposite[by_edge[interior[side_to_edge[by_edge]]]].reshape(-1, 2)
    return torch.cat([edges[interior], pairs], dim=1)


def _edges_and_sides(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Unique edges (E, 2), and for the sides ab, bc, ca of each face the edge each one is (F, 3)."""
    sides = torch.stack([faces, faces.roll(-1, dims=1)], dim=2).reshape(-1, 2).sort(dim=1).values
    edges, edge_of_side = sides.unique(dim=0, return_inverse=True)
    return edges, edge_of_side.reshape(-1, 3)
