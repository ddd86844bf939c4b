import math

import pytest
import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels import ZBuffer, zbuffer

BACKENDS = ["reference", "numba"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def soup(batch, count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, count, 3, 2, generator=generator) * 3 - 1.5
    z = torch.rand(batch, count, 3, 1, generator=generator) * 4 + 0.5
    return torch.cat([xy, z], dim=-1).to(dtype)


def spheres(count, level=2):
    verts, faces = icosphere(level, 0.4)
    generator = torch.Generator().manual_seed(1)
    verts = verts * (1 + 0.2 * torch.randn(count, len(verts), 1, generator=generator))
    return project(nmr_cameras()[torch.arange(count) * 5 % 24], verts)[:, faces]


def by_pytorch3d(face_verts, size):
    """PyTorch3D as its own manual has it: no blur, so centres on edges are not covered."""
    b, f = face_verts.shape[:2]
    faces = torch.arange(3 * f).reshape(1, f, 3).expand(b, f, 3)
    index, depth, weights, _ = rasterize_meshes(
        Meshes(face_verts.reshape(b, 3 * f, 3), faces), size, faces_per_pixel=1, bin_size=0, perspective_correct=True
    )
    index = index[..., 0]
    return torch.where(index < 0, -1, index % f), weights[..., 0, :], depth[..., 0]


def face(*corners, dtype=torch.float64):
    return torch.tensor([[corners]], dtype=dtype)


def assert_same(a: ZBuffer, b: ZBuffer):
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_backend
@pytest.mark.parametrize(
    ("face_verts", "size"),
    [(soup(2, 40), 32), (soup(2, 40, seed=1), 31), (soup(1, 3, seed=2), 9), (spheres(2), 32)],
    ids=["soup", "odd size", "few faces", "spheres"],
)
def test_equals_pytorch3d(backend, face_verts, size):
    index, weights, depth = by_pytorch3d(face_verts, size)
    seen = zbuffer(face_verts, size, backend=backend)
    assert (index >= 0).float().mean() > 0.1, "the case must draw something"
    assert torch.equal(seen.face_index, index)
    hit = index >= 0
    torch.testing.assert_close(seen.barycentric[hit], weights[hit], atol=2e-4, rtol=0)
    torch.testing.assert_close(seen.depth[hit], depth[hit], atol=1e-4, rtol=1e-4)
    assert bool((seen.depth[~hit] == math.inf).all()) and bool((seen.barycentric[~hit] == 0).all())


@every_backend
def test_depth_and_weights_of_a_plane_are_those_of_the_ray(backend):
    # Plane n . p = 1 in view space, seen with focal length 2: the ray of NDC (x, y) is z (x/2, y/2, 1).
    normal, focal, size = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), 2.0, 16
    corners_xy = torch.tensor([[1.9, 1.5], [-1.8, 1.2], [0.1, -1.9]], dtype=torch.float64)

    def hit(xy):
        ray = torch.cat([xy / focal, torch.ones_like(xy[..., :1])], dim=-1)
        return ray / (ray @ normal).unsqueeze(-1)

    corners = hit(corners_xy)
    assert bool((corners[:, 2] > 0.5).all())
    axis = 1 - (2 * torch.arange(size, dtype=torch.float64) + 1) / size
    pixels = torch.stack([axis.expand(size, size), axis.unsqueeze(1).expand(size, size)], dim=-1)
    points = hit(pixels)
    seen = zbuffer(torch.cat([corners_xy, corners[:, 2:]], dim=1)[None, None], size, backend=backend)
    drawn = seen.face_index[0] == 0
    assert 0.4 < drawn.double().mean() < 1
    torch.testing.assert_close(seen.depth[0][drawn], points[..., 2][drawn], atol=1e-5, rtol=0)
    # The weights are those of the point in space, not on the screen.
    torch.testing.assert_close((seen.barycentric[0] @ corners)[drawn], points[drawn], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.barycentric[0].sum(dim=-1), drawn.double(), atol=1e-6, rtol=0)


@every_backend
def test_the_pixels_inside_a_triangle_and_their_orientation(backend):
    # Legs on the left (+x) and top, hypotenuse x + y = 0.3: row and column from the top left.
    seen = zbuffer(face([1.5, 1.5, 1.0], [1.5, -1.2, 1.0], [-1.2, 1.5, 1.0]), 10, backend=backend)
    for row in range(10):
        for column in range(10):
            x, y = 1 - (2 * column + 1) / 10, 1 - (2 * row + 1) / 10
            assert (seen.face_index[0, row, column] == 0) == (x + y > 0.3 - 1e-9), (row, column)
    assert seen.face_index[0, 0, 0] == 0 and seen.face_index[0, 9, 9] == -1


@every_backend
@pytest.mark.parametrize("size", [8, 64])
def test_a_quad_has_no_crack_along_a_diagonal_through_pixel_centres(backend, size):
    a, b, c, d = [0.5, 0.5, 2.0], [0.5, -0.5, 2.0], [-0.5, -0.5, 2.0], [-0.5, 0.5, 2.0]
    for triangles in ([a, b, c, a, c, d], [a, b, d, b, c, d], [c, b, a, a, c, d]):
        quad = torch.tensor(triangles).reshape(1, 2, 3, 3)
        hit = zbuffer(quad, size, backend=backend).face_index[0] >= 0
        expected = torch.zeros(size, size, dtype=torch.bool)
        expected[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = True
        assert torch.equal(hit, expected)


@every_backend
def test_centres_exactly_on_an_edge_or_corner_are_covered(backend):
    # Centres of 4 x 4 pixels are at +-0.25 and +-0.75: all four sides of the square pass through centres.
    square = torch.tensor([[0.75, 0.75], [0.75, -0.25], [-0.25, -0.25], [-0.25, 0.75]])
    quad = torch.nn.functional.pad(square[torch.tensor([[0, 1, 2], [0, 2, 3]])], (0, 1), value=1.0)
    hit = zbuffer(quad.unsqueeze(0), 4, backend=backend).face_index[0] >= 0
    assert torch.equal(hit, torch.tensor([[1, 1, 1, 0]] * 3 + [[0] * 4], dtype=torch.bool))


@pytest.mark.parametrize("size", [3, 7, 10, 48, 49, 100])
def test_centres_on_an_upright_edge_are_covered_at_sizes_whose_centres_are_rounded(size):
    for row in range(size):
        edge, middle = 1 - (2 * row + 1) / size, size // 2
        for end in (edge + 3, edge - 3):
            across = face([1.5, edge, 2.0], [-1.5, edge, 2.0], [0.0, end, 2.0])
            upright = face([edge, 1.5, 2.0], [edge, -1.5, 2.0], [end, 0.0, 2.0])
            assert zbuffer(across, size, backend="numba").face_index[0, row, middle] == 0
            assert zbuffer(upright, size, backend="numba").face_index[0, middle, row] == 0


@every_backend
def test_equal_depths_go_to_the_lowest_index(backend):
    twice = face([1.5, 1.5, 2.0], [-1.5, 1.5, 2.0], [0.0, -1.5, 2.0])
    far = twice + torch.tensor([0.0, 0.0, 1.0])
    order = torch.cat([far, twice, twice, far, twice], dim=1)
    index = zbuffer(order, 8, backend=backend).face_index
    assert set(index.unique().tolist()) == {-1, 1}


@every_backend
def test_the_nearest_face_wins_also_where_faces_cross(backend):
    # Two planes that cross at x = 0: 1/z is linear on the screen, 1/z = 0.5 + 0.1 x and 0.5 - 0.1 x.
    corners = [(-2.0, -2.0), (-2.0, 6.0), (6.0, -2.0)]
    one, other = ([[x, y, 1 / (0.8 + s * 0.1 * x)] for x, y in corners] for s in (1, -1))
    index = zbuffer(torch.tensor([[one, other]], dtype=torch.float64), 6, backend=backend).face_index[0]
    assert torch.equal(index, torch.tensor([[0, 0, 0, 1, 1, 1]] * 6)), "the first plane is nearer at +x, on the left"


@every_backend
def test_faces_at_or_behind_the_camera_are_dropped(backend):
    front = face([1.5, 1.5, 2.0], [-1.5, 1.5, 2.0], [0.0, -1.5, 2.0], dtype=torch.float32)
    for z in (1e-6, 0.0, -1e-6, -3.0):
        behind = front.clone()
        behind[0, 0, 1, 2] = z
        assert bool((zbuffer(behind, 8, backend=backend).face_index == -1).all())
        seen = zbuffer(torch.cat([behind, front], dim=1), 8, backend=backend)
        assert set(seen.face_index.unique().tolist()) == {-1, 1}
        assert bool(((seen.depth[seen.face_index == 1] - 2).abs() < 1e-5).all())
    near = front.clone()
    near[..., 2] = 0.01
    assert bool((zbuffer(near, 8, backend=backend).face_index == 0).any())


@every_backend
def test_padding_and_faces_of_no_area_are_not_drawn(backend):
    visible = soup(1, 5)
    nothing = torch.zeros(1, 2, 3, 3)
    line = torch.tensor([[[[0.9, 0.9, 0.1], [0.0, 0.0, 0.1], [-0.9, -0.9, 0.1]]]])
    seen = zbuffer(torch.cat([visible, nothing, line, line[:, :, [0, 0, 0]]], dim=1), 16, backend=backend)
    assert_same(seen, zbuffer(visible, 16, backend=backend))


@every_backend
def test_both_windings_are_drawn_alike(backend):
    face_verts = soup(1, 10)
    there, back = (zbuffer(value, 16, backend=backend) for value in (face_verts, face_verts.flip(2)))
    assert torch.equal(there.face_index, back.face_index)
    torch.testing.assert_close(there.barycentric, back.barycentric.flip(-1), atol=1e-4, rtol=0)


@every_backend
def test_a_batch_equals_its_images(backend):
    face_verts = torch.cat([soup(3, 12), soup(1, 12, seed=9) + 10])
    together = zbuffer(face_verts, 17, backend=backend)
    for b in range(4):
        assert_same(
            ZBuffer(*(value[b : b + 1] for value in together)), zbuffer(face_verts[b : b + 1], 17, backend=backend)
        )
    assert bool((together.face_index[3] == -1).all())


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, count):
    face_verts = soup(count, 30)
    use_threads(1)
    expected = zbuffer(face_verts, 13, backend="numba")
    for threads in (2, 5, 40):
        use_threads(threads)
        assert_same(zbuffer(face_verts, 13, backend="numba"), expected)


@every_backend
def test_coordinates_far_off_screen_do_not_crash(backend):
    off = torch.tensor([[[1e6, 1e6, 2.0], [1.1e6, 1e6, 2.0], [1e6, 1.1e6, 2.0]]])
    wide = torch.tensor([[[0.0, -1e6, 2.0], [0.0, 1e6, 2.0], [-1e6, 0.0, 2.0]]])
    index = zbuffer(torch.stack([off, wide]), 8, backend=backend).face_index
    assert bool((index[0] == -1).all())
    assert torch.equal(index[1], torch.tensor([[-1] * 4 + [0] * 4] * 8))


def test_a_face_larger_than_the_range_of_integers_covers_the_screen():
    huge = face([0.0, 3e30, 1.0], [-3e30, -3e30, 1.0], [3e30, -3e30, 1.0])
    assert bool((zbuffer(huge, 5, backend="numba").face_index == 0).all())


@every_backend
def test_no_faces_no_images(backend):
    for b, f in ((0, 4), (2, 0), (0, 0)):
        seen = zbuffer(torch.zeros(b, f, 3, 3), 5, backend=backend)
        assert seen.face_index.shape == seen.depth.shape == (b, 5, 5) and seen.barycentric.shape == (b, 5, 5, 3)
        assert bool((seen.face_index == -1).all()) and bool((seen.depth == math.inf).all())
        assert not seen.barycentric.any()


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_and_no_gradient(backend, dtype):
    seen = zbuffer(soup(1, 5, dtype=dtype).requires_grad_(), 8, backend=backend)
    assert seen.face_index.dtype == torch.int64 and seen.barycentric.dtype == seen.depth.dtype == dtype
    assert not seen.depth.requires_grad and not seen.barycentric.requires_grad


@every_backend
@pytest.mark.parametrize(
    ("face_verts", "size", "message"),
    [
        (torch.ones(1, 2, 3, 2), 8, r"expected face_verts of shape \(B, F, 3, 3\), got \(1, 2, 3, 2\)"),
        (torch.ones(1, 2, 3, 3).int(), 8, "float32 or float64, got torch.int32"),
        (torch.ones(1, 2, 3, 3), -1, "image_size must be at least 1, got -1"),
        (torch.full((2, 2, 3, 3), math.nan), 8, r"holds NaN or inf in images \[0, 1\]"),
    ],
)
def test_bad_input_is_refused(backend, face_verts, size, message):
    with pytest.raises(ValueError, match=message):
        zbuffer(face_verts, size, backend=backend)


def _count_in_worker(seed):
    torch.set_num_threads(1)  # as the workers of DataLoader do
    return int((zbuffer(soup(1, 9, seed=seed), 16, backend="numba").face_index >= 0).sum())


def test_a_single_image_on_one_thread_runs_in_a_forked_worker_after_a_parallel_batch(use_threads):
    # Fork after OpenMP threads ran kills or hangs workers that enter a parallel region.
    use_threads(2)
    zbuffer(soup(2, 9), 16, backend="numba")
    use_threads(1)
    expected = _count_in_worker(0)
    with torch.multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(_count_in_worker, [0]).get(timeout=60) == [expected]
