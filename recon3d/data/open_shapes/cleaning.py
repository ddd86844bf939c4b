"""Triangles as the artist left them to a welded, normalised, lighter mesh that the set ships.

Lengths are in bounding-box diagonals once a mesh has been scaled.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from recon3d.data.open_shapes.polygons import Triangles

MAX_INPUT_FACES = 600_000  # no usable model of the packages has more
FACE_CAP = 7500  # keeps the set under 60 MB; shapes look the same at the sizes they are rendered
FACE_CAPS = {"airplane": 5500, "car": 10_000}  # many airplanes, and cars' bodies crack below
WELD = 1e-5  # also the step that coordinates are rounded to
DECIMALS = 5
_FLAT = 1e-12  # twice the area of a face without area


def clean(mesh: Triangles, yaw: float, face_cap: int) -> tuple[Triangles, int]:
    """The mesh turned, welded, simplified to at most about `face_cap` faces, centred, of diagonal 1, oriented.

    Args:
        mesh: +Y up; need not be connected, closed or without degenerate faces.
        yaw: turn about +Y in degrees that brings the front to -Z.
        face_cap: meshes with more faces are simplified to it by quadric error.

    Returns:
        The mesh, and its count of faces after welding and before simplification.

    Raises:
        ValueError: no face is left, more than `MAX_INPUT_FACES`, or simplification stops far above the cap.
    """
    if not 0 < len(mesh.faces) <= MAX_INPUT_FACES:
        raise ValueError(f"expected 1 to {MAX_INPUT_FACES} faces; got {len(mesh.faces)}")
    verts = mesh.verts @ rotation_about_y(yaw).T
    used = verts[np.unique(mesh.faces)]
    diagonal = np.linalg.norm(np.ptp(used, axis=0))
    mesh = weld(mesh._replace(verts=(verts - used.mean(0)) / max(diagonal, 1e-12)))
    face_count = len(mesh.faces)
    if not face_count:
        raise ValueError("expected faces with an area; all are degenerate")
    if face_count > face_cap:
        mesh = simplify(mesh, face_cap)
    mesh = weld(mesh._replace(verts=np.round(centre_and_scale(mesh.verts), DECIMALS)))
    mesh = mesh._replace(verts=np.round(mesh.verts, DECIMALS) + 0.0)  # + 0.0: no negative zeros
    return orient_outwards(mesh), face_count


def rotation_about_y(degrees: float) -> NDArray[np.float64]:
    """Rotation (3,3) about +Y, exact at right angles."""
    angle = np.deg2rad(degrees)
    cos, sin = np.round(np.cos(angle), 12), np.round(np.sin(angle), 12)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def centre_and_scale(verts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points moved and scaled so that their bounding box has centre 0 and diagonal 1."""
    low, high = verts.min(0), verts.max(0)
    return (verts - (low + high) / 2) / np.linalg.norm(high - low)


def weld(mesh: Triangles) -> Triangles:
    """The mesh with vertices of one `WELD`-sized cell merged, without degenerate and repeated faces or unused vertices.

    Of faces on the same three vertices the first is kept, whatever their winding.
    """
    cells = np.round(mesh.verts / WELD).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    verts, faces = mesh.verts[first], inverse.ravel()[mesh.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    if len(faces):
        _, first = np.unique(np.sort(faces, 1), axis=0, return_index=True)
        faces = faces[np.sort(first)]
        faces = faces[np.linalg.norm(_normals(verts, faces), axis=1) > _FLAT]
    used, inverse = np.unique(faces, return_inverse=True)
    return Triangles(verts[used], inverse.reshape(-1, 3).astype(np.int64))


def simplify(mesh: Triangles, target: int) -> Triangles:
    """The mesh reduced to about `target` faces by quadric error (Garland and Heckbert 1997).

    Raises:
        ModuleNotFoundError: fast-simplification is not installed.
        ValueError: the most aggressive setting leaves 8 times `target` or more.
    """
    fast_simplification = require_fast_simplification()
    verts, faces = mesh.verts.astype(np.float32), mesh.faces.astype(np.int32)
    for aggressiveness in (3, 5, 7, 9):  # 3 keeps shapes best, but stops early on meshes of many open sheets
        new_verts, new_faces = fast_simplification.simplify(verts, faces, target_count=target, agg=aggressiveness)
        if len(new_faces) <= target * 1.05:
            break
    if len(new_faces) >= 8 * target:
        raise ValueError(f"expected about {target} faces after simplification; got {len(new_faces)}")
    return Triangles(new_verts.astype(np.float64), new_faces.astype(np.int64))


def require_fast_simplification() -> ModuleType:
    """The module fast_simplification, imported late since only this build needs it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import fast_simplification
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "expected the package fast-simplification, which reduces large meshes; it is not installed. "
            "Run `pip install -e '.[open-shapes]'`"
        ) from error
    return fast_simplification


def orient_outwards(mesh: Triangles) -> Triangles:
    """The mesh with each closed, consistently wound component wound outwards; others stay as the artist wound them."""
    if not len(mesh.faces):
        return mesh
    verts, faces = mesh.verts, mesh.faces.copy()
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(verts), len(verts)))
    label = connected_components(graph, directed=False)[1][faces[:, 0]]
    order = np.argsort(label, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        part = faces[rows]
        _, uses = np.unique(_directed_edges(part), axis=0, return_counts=True)
        if is_watertight(part) and (uses == 1).all():
            corners = verts[part] - verts[part].reshape(-1, 3).mean(0)  # (F,3,3), near 0 for a precise volume
            if (np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() < 0:  # 6 times the signed volume
                faces[rows] = part[:, ::-1]
    return mesh._replace(faces=faces)


def is_watertight(faces: NDArray[np.int64]) -> bool:
    """Whether every edge belongs to exactly two faces (F,3)."""
    _, uses = np.unique(np.sort(_directed_edges(faces), 1), axis=0, return_counts=True)
    return bool((uses == 2).all())


def _directed_edges(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _normals(verts: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normals (F,3), twice as long as a face's area."""
    corners = verts[faces]
    return np.asarray(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), np.float64)
