import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from recon3d.geometry.templates import icosphere
from recon3d.kernels import voxelize

BACKENDS = ["reference", "numba"]


def tensors(mesh):
    return torch.tensor(np.array(mesh.vertices)), torch.tensor(np.array(mesh.faces))


def box(low, high):
    return tensors(trimesh.creation.box(bounds=[low, high]))


def official(verts, faces, resolution=32):
    """The published rule, line by line and cell by cell, from the text of specification and paper.

    Returns surface and solid, P[i, j, k] = V[x=j, y=i, z=R-1-k] of the mesh in the NMR frame.
    """
    r = resolution
    nmr = np.asarray(verts, dtype=np.float64) * (1, 1, -1)
    t = (nmr * (r - 1) / r + 0.5) * r
    grid = np.zeros((r + 1, r + 1, r + 1), dtype=bool)  # index -1 of a column that does not exist lands on the spare
    for a, b, c in t[np.asarray(faces)]:
        for corner in (a, b, c):
            cell = np.floor(corner).astype(int)
            if (cell >= 0).all() and (cell < r).all():
                grid[tuple(cell)] = True
        for axis in range(3):
            other = [k for k in range(3) if k != axis]
            matrix = np.stack([(b - a)[other], (c - a)[other]], axis=1)
            if abs(np.linalg.det(matrix)) < 1e-12:
                continue
            inverse = np.linalg.inv(matrix)
            for p, q in itertools.product(range(r), repeat=2):
                t1, t2 = inverse @ (np.array([p, q]) - a[other])
                if min(t1, t2) < -1e-9 or t1 + t2 > 1 + 1e-9:
                    continue
                h = math.floor(a[axis] + t1 * (b - a)[axis] + t2 * (c - a)[axis])
                if 0 <= h < r:
                    for i, j in ((p, q), (p - 1, q), (p, q - 1), (p - 1, q - 1)):
                        index = [i, j]
                        index.insert(axis, h)
                        grid[tuple(index)] = True
    surface = grid[:r, :r, :r]
    outside, front = set(), []
    for cell in itertools.product(range(r), repeat=3):
        if (min(cell) == 0 or max(cell) == r - 1) and not surface[cell]:
            outside.add(cell)
            front.append(cell)
    while front:
        x, y, z = front.pop()
        for near in ((x + 1, y, z), (x - 1, y, z), (x, y + 1, z), (x, y - 1, z), (x, y, z + 1), (x, y, z - 1)):
            if min(near) >= 0 and max(near) < r and near not in outside and not surface[near]:
                outside.add(near)
                front.append(near)
    solid = np.ones_like(surface)
    solid[tuple(np.array(sorted(outside)).T)] = False
    return tuple(torch.tensor(v.transpose(1, 0, 2)[:, :, ::-1].copy()) for v in (surface, solid))


def irregular_mesh():
    """Nothing symmetric, nothing on a lattice plane, an open and a degenerate face among them."""
    generator = np.random.default_rng(0)
    body = trimesh.creation.cone(0.17, 0.41, sections=9)
    body.apply_transform(trimesh.transformations.random_rotation_matrix(generator.random(3)))
    fin = trimesh.Trimesh(generator.uniform(-0.45, 0.45, (6, 3)), [[0, 1, 2], [3, 4, 5], [0, 0, 4]], process=False)
    return tensors(trimesh.util.concatenate([body.apply_translation((0.13, -0.08, 0.21)), fin]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sphere_has_the_published_counts(backend):
    verts, faces = icosphere(3, radius=0.25)
    surface = voxelize(verts, faces, solid=False, backend=backend)
    solid = voxelize(verts, faces, backend=backend)
    assert (int(surface.sum()), int(solid.sum())) == (1112, 2536)
    for axis in range(3):
        occupied = solid.sum(dim=[k for k in range(3) if k != axis]).nonzero()
        assert (int(occupied.min()), int(occupied.max())) == (8, 23)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("resolution", [9, 24])
def test_equals_the_official_rule_written_cell_by_cell(backend, resolution):
    verts, faces = irregular_mesh()
    surface, solid = official(verts, faces, resolution)
    assert torch.equal(voxelize(verts, faces, resolution, solid=False, backend=backend), surface)
    assert torch.equal(voxelize(verts, faces, resolution, backend=backend), solid)
    assert resolution == 9 or surface.sum() < solid.sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_fall_as_in_the_mirrored_frame_of_the_official_code(backend):
    # With R = 9 grid coordinates are 8 v + 4.5: these faces lie exactly on cell borders, where z rounds the other way.
    verts, faces = box((0.0625, -0.1875, 0.1875), (0.3125, 0.0625, 0.4375))
    surface, solid = official(verts, faces, 9)
    assert torch.equal(voxelize(verts, faces, 9, solid=False, backend=backend), surface)
    assert torch.equal(voxelize(verts, faces, 9, backend=backend), solid)


@pytest.mark.parametrize("backend", BACKENDS)
def test_index_order_is_y_x_z(backend):
    # A box at +x, another at +y and +z: cells floor(31 v + 16), lattice planes inside the box mark one more each side.
    near, far = (0.30, -0.05, -0.05), (0.40, 0.05, 0.05)
    grid = voxelize(*box(near, far), backend=backend)
    expected = torch.zeros(32, 32, 32, dtype=torch.bool)
    expected[14:18, 25:29, 14:18] = True
    assert torch.equal(grid, expected)
    y, x, z = voxelize(*box((-0.05, 0.1, 0.3), (0.05, 0.2, 0.4)), backend=backend).nonzero().float().mean(0)
    assert (x, y, z) == (15.5, 31 * 0.15 + 15.85, 31 * 0.35 + 15.65)


@pytest.mark.parametrize("backend", BACKENDS)
def test_axis_aligned_cube_fills_the_cells_it_touches(backend):
    # Faces at 31 * 0.3 + 16 = 25.3 and 6.7: cells 6..25 on each axis, walls one cell thick.
    cube = box((-0.3,) * 3, (0.3,) * 3)
    assert int(voxelize(*cube, backend=backend).sum()) == 20**3
    assert int(voxelize(*cube, solid=False, backend=backend).sum()) == 20**3 - 18**3


def test_sphere_tends_to_its_volume_plus_a_shell_of_half_a_cell_and_more():
    radius = 0.4
    excess = []
    for resolution in (16, 32, 64, 128):
        cells = int(voxelize(*icosphere(5, radius), resolution).sum())
        r = radius * (resolution - 1)
        volume, area = 4 / 3 * math.pi * r**3, 4 * math.pi * r**2
        assert volume < cells < volume + 2 * area
        excess.append(cells / volume - 1)
    ratios = [a / b for a, b in itertools.pairwise(excess)]
    assert all(1.7 < ratio < 2.5 for ratio in ratios), "the excess is a shell, so it halves with the cell"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_box_without_a_lid_is_hollow_and_with_it_is_solid(backend):
    verts, faces = box((-0.3,) * 3, (0.3,) * 3)
    lid = verts[faces][..., 1].min(dim=1).values > 0.29
    assert int(lid.sum()) == 2
    open_surface = voxelize(verts, faces[~lid], solid=False, backend=backend)
    assert torch.equal(voxelize(verts, faces[~lid], backend=backend), open_surface)
    assert not open_surface[16, 16, 16]
    assert voxelize(verts, faces, backend=backend)[16, 16, 16]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sealed_inner_room_is_solid(backend):
    outer, inner = trimesh.creation.box((0.9,) * 3), trimesh.creation.box((0.3,) * 3)
    both = voxelize(*tensors(trimesh.util.concatenate([outer, inner])), backend=backend)
    assert torch.equal(both, voxelize(*tensors(outer), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_winding_does_not_matter(backend):
    verts, faces = irregular_mesh()
    faces_flipped = faces.clone()
    faces_flipped[::2] = faces[::2].flip(1)
    assert torch.equal(voxelize(verts, faces, backend=backend), voxelize(verts, faces_flipped, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_equal_singles_and_padding_is_ignored(backend):
    (verts_a, faces_a), (verts_b, faces_b) = icosphere(2, 0.3), irregular_mesh()
    verts = torch.nn.utils.rnn.pad_sequence([verts_a.double(), verts_b], batch_first=True)
    faces = torch.nn.utils.rnn.pad_sequence([faces_a, faces_b], batch_first=True, padding_value=-1)
    together = voxelize(verts, faces, 20, backend=backend)
    assert together.shape == (2, 20, 20, 20) and together.dtype == torch.bool
    assert torch.equal(together[0], voxelize(verts_a, faces_a, 20, backend=backend))
    assert torch.equal(together[1], voxelize(verts_b, faces_b, 20, backend=backend))
    shared = voxelize(torch.stack([verts_a, verts_a * 0.5]), faces_a, backend=backend)
    assert torch.equal(shared[1], voxelize(verts_a * 0.5, faces_a, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_outside_the_grid_is_cut(backend):
    bar = voxelize(*box((0.2, -0.1, -0.1), (0.9, 0.1, 0.1)), solid=False, backend=backend)
    inside = voxelize(*box((0.2, -0.1, -0.1), (0.49, 0.1, 0.1)), solid=False, backend=backend)
    assert torch.equal(bar[:, :30], inside[:, :30])
    # The cut is open: from the border the flood reaches the room of the bar.
    assert torch.equal(voxelize(*box((0.2, -0.1, -0.1), (0.9, 0.1, 0.1)), backend=backend), bar)
    verts, faces = icosphere(1)
    for offset in (5.0, 1e30):
        assert not voxelize(verts + offset, faces, backend=backend).any()
    assert not voxelize(verts * 1e30, faces, backend=backend).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_faces_no_cells(backend):
    verts = torch.zeros(3, 3)
    for faces in (torch.zeros(0, 3, dtype=torch.int64), torch.full((2, 3), -1)):
        assert not voxelize(verts, faces, backend=backend).any()
    assert voxelize(torch.zeros(2, 0, 3), torch.zeros(0, 3, dtype=torch.int64), 8, backend=backend).shape == (
        2,
        8,
        8,
        8,
    )


def random_solids(count):
    generator = np.random.default_rng(7)
    makers = [
        lambda: trimesh.creation.box(generator.uniform(0.05, 0.5, 3)),
        lambda: trimesh.creation.cylinder(*generator.uniform(0.03, 0.3, 2), sections=17),
        lambda: trimesh.creation.torus(0.25, generator.uniform(0.02, 0.1), major_sections=20, minor_sections=8),
        lambda: trimesh.creation.capsule(generator.uniform(0.1, 0.4), 0.08, count=[8, 8]),
    ]
    for k in range(count):
        parts = [makers[(k + m) % 4]() for m in range(3)]
        for part in parts[:-1]:  # the last stays aligned with the axes
            part.apply_transform(trimesh.transformations.random_rotation_matrix(generator.random(3)))
        for part in parts:
            # Shifts by quarters of a cell put faces on lattice planes.
            part.apply_translation(generator.integers(-20, 20, 3) / 124)
        yield tensors(trimesh.util.concatenate(parts))


def test_backends_agree_to_the_cell_on_overlapping_solids():
    for verts, faces in random_solids(12):
        for solid in (False, True):
            reference, compiled = (voxelize(verts, faces, solid=solid, backend=backend) for backend in BACKENDS)
            assert torch.equal(reference, compiled)


def test_backends_agree_to_the_cell_on_real_cad_meshes():
    root = os.environ.get("RECON3D_DATA")
    files = sorted(Path(root).rglob("model.obj"))[::40] if root else []
    if not files:
        pytest.skip("RECON3D_DATA names no folder with meshes")
    for file in files:
        verts, faces = tensors(trimesh.load_mesh(file, process=False))
        verts = verts - (verts.amin(0) + verts.amax(0)) / 2
        verts = verts / (verts.amax(0) - verts.amin(0)).amax()
        reference, compiled = (voxelize(verts, faces, backend=backend) for backend in BACKENDS)
        assert torch.equal(reference, compiled), file


@pytest.mark.parametrize(
    ("verts", "faces", "resolution", "message"),
    [
        (torch.zeros(4), torch.zeros(1, 3).long(), 32, r"expected verts \(V,3\) or \(B,V,3\) of floats, got \(4,\)"),
        (torch.zeros(4, 3).long(), torch.zeros(1, 3).long(), 32, "floats, got .* torch.int64"),
        (torch.zeros(4, 3), torch.zeros(1, 4).long(), 32, r"expected faces \(F,3\) or \(B,F,3\) .* got \(1, 4\)"),
        (torch.zeros(4, 3), torch.zeros(1, 3), 32, "integers, got .* torch.float32"),
        (torch.zeros(4, 3), torch.tensor([[0, 1, 4]]), 32, r"face \[0, 1, 4\] does not index the 4 verts"),
        (torch.zeros(4, 3), torch.tensor([[0, 1, -2]]), 32, r"\[0, 1, -2\] does not index"),
        (torch.zeros(4, 3), torch.tensor([[-1, 1, 0]]), 32, r"\[-1, 1, 0\] does not index"),
        (torch.zeros(4, 3), torch.tensor([[0, 1, -1]]), 32, r"\[0, 1, -1\] does not index .* whole rows of -1"),
        (torch.zeros(2, 4, 3), torch.zeros(3, 1, 3).long(), 32, "2 sets of verts and 3 of faces"),
        (torch.tensor([[0, 0, float("nan")]]), torch.zeros(1, 3).long(), 32, "NaN"),
        (torch.tensor([[0, 0, float("inf")]]), torch.zeros(1, 3).long(), 32, "infinity"),
        (torch.zeros(4, 3), torch.zeros(1, 3).long(), 1, "resolution must be at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(verts, faces, resolution, message):
    with pytest.raises(ValueError, match=message):
        voxelize(verts, faces, resolution)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="available on cpu: numba, reference"):
        voxelize(*icosphere(0, 0.2), backend="triton")


def _voxelize_in_worker(radius):
    torch.set_num_threads(1)  # as the workers of DataLoader do
    return int(voxelize(*icosphere(3, radius), backend="numba").sum())


def test_a_single_mesh_runs_in_a_forked_worker_after_a_parallel_batch():
    # Fork after OpenMP threads ran kills or hangs workers that enter a parallel region; a single mesh enters none.
    verts, faces = icosphere(3, 0.25)
    voxelize(torch.stack([verts, verts]), faces, backend="numba")
    with torch.multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(_voxelize_in_worker, [0.25]).get(timeout=60) == [2536]
