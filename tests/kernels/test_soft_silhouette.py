import math

import numpy as np
import pytest
import torch

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels import soft_silhouette

BACKENDS = ["reference", "numba", "pytorch3d"]
EXACT = ["reference", "numba"]  # compute in the dtype of the input or better
DOUBLE = {"reference": 1e-12, "numba": 1e-12, "pytorch3d": 2e-5}  # PyTorch3D rasterises in float32

every_backend = pytest.mark.parametrize("backend", BACKENDS)
exact_backends = pytest.mark.parametrize("backend", EXACT)


def soup(*shape, seed=0, spread=0.9, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, 3, 2, generator=generator, dtype=torch.float64) * 2 - 1).mul(spread).to(dtype)


def noisy_spheres(count, level=2, seed=0, dtype=torch.float32):
    """Icospheres with noise in the cameras of the NMR data, as a network's first guesses look."""
    verts, faces = icosphere(level, 0.4)
    generator = torch.Generator().manual_seed(seed)
    verts = verts * (1 + 0.2 * torch.randn(count, len(verts), 1, generator=generator))
    projected = project(nmr_cameras()[torch.arange(count) * 5 % 24], verts)
    return projected[:, faces, :2].to(dtype)


def with_gradient(face_xy, image_size, sigma, backend, weight):
    face_xy = face_xy.clone().requires_grad_()
    image = soft_silhouette(face_xy, image_size, sigma, backend=backend)
    (gradient,) = torch.autograd.grad((image * weight).sum(), face_xy)
    return image.detach(), gradient


def centre(row, column, size):
    return 1 - (2 * column + 1) / size, 1 - (2 * row + 1) / size


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand(triangles, size, sigma):
    """Equations 1 and 2 in scalars: the distance to a side from its angle, the side of a point from its turns."""
    image = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            p = complex(*centre(row, column, size))
            miss = 1.0
            for corners in triangles:
                a = [complex(*xy) for xy in corners]
                sides = [(a[k], a[(k + 1) % 3]) for k in range(3)]
                distances, turns = [], []
                for start, end in sides:
                    local = (p - start) * (end - start).conjugate() / abs(end - start)  # the side along the real axis
                    beyond = max(-local.real, local.real - abs(end - start), 0)
                    distances.append(math.hypot(beyond, local.imag))
                    turns.append(local.imag > 0)
                sign = 1 if len(set(turns)) == 1 else -1
                logit = sign * min(distances) ** 2 / sigma
                if logit > -math.log(1e10 - 1):
                    miss *= 1 - sigmoid(logit)
            image[row, column] = 1 - miss
    return torch.tensor(image)


@every_backend
def test_the_boundary_of_a_half_plane_at_known_distances(backend):
    # One border on x = 0.25, the triangle on the side of smaller x; its other borders lie far off screen.
    triangle = torch.tensor([[[[0.25, -50.0], [0.25, 50.0], [-50.0, 0.0]]]], dtype=torch.float64)
    size, sigma = 16, 0.01
    image = soft_silhouette(triangle, size, sigma, backend=backend)[0]
    for column in range(size):
        x, _ = centre(0, column, size)
        inside = 1 if x < 0.25 else -1
        assert image[7, column].item() == pytest.approx(sigmoid(inside * (x - 0.25) ** 2 / sigma), abs=2e-6)
    assert (image - image[:1]).abs().max() < 1e-5


@every_backend
def test_the_centre_of_a_triangle_and_its_corner(backend):
    # Equilateral, incircle of radius 0.5 around the middle pixel of 5 x 5, so distance 0.5 to all three sides.
    r = 0.5
    corners = [[2 * r * math.cos(a), 2 * r * math.sin(a)] for a in (math.pi / 2, 7 * math.pi / 6, 11 * math.pi / 6)]
    image = soft_silhouette(torch.tensor([[corners]], dtype=torch.float64), 5, 0.2, backend=backend)[0]
    assert image[2, 2].item() == pytest.approx(sigmoid(r**2 / 0.2), abs=1e-6)
    # The corner pixel (-0.8, -0.8) lies below the right foot of the triangle: nearest is the corner or the base.
    foot = math.cos(-math.pi / 6), math.sin(-math.pi / 6)
    assert foot[0] > 0.8, "so that the base is nearest"
    assert image[4, 4].item() == pytest.approx(sigmoid(-((0.8 - r) ** 2) / 0.2), abs=1e-6)
    far = torch.tensor([[corners]], dtype=torch.float64) * 0.2
    tip = soft_silhouette(far, 5, 0.2, backend=backend)[0, 0, 2].item()
    assert tip == pytest.approx(sigmoid(-((0.8 - 0.2) ** 2) / 0.2), abs=1e-6)


@every_backend
def test_rows_go_down_and_plus_x_is_left(backend):
    upper_left = torch.tensor([[[[0.9, 0.9], [0.6, 0.9], [0.9, 0.6]]]])
    image = soft_silhouette(upper_left, 8, 1e-4, backend=backend)[0]
    assert image[0, 0] > 0.99
    assert image[:, 4:].max() == 0 and image[4:].max() == 0


@every_backend
def test_the_product_over_faces_in_scalars(backend):
    triangles = soup(6, seed=3)
    image = soft_silhouette(triangles.unsqueeze(0), 9, 0.02, backend=backend)[0]
    expected = by_hand(triangles.tolist(), 9, 0.02)
    assert expected.min() < 0.3 and expected.max() > 0.99
    torch.testing.assert_close(image, expected, atol=DOUBLE[backend], rtol=0)


@every_backend
def test_a_face_twice_is_one_minus_the_square_of_the_miss(backend):
    triangle = soup(1, 1, seed=1)
    once = soft_silhouette(triangle, 12, 0.05, backend=backend)
    twice = soft_silhouette(triangle.expand(-1, 2, -1, -1), 12, 0.05, backend=backend)
    torch.testing.assert_close(twice, 1 - (1 - once) ** 2, atol=1e-6, rtol=0)


@every_backend
def test_faces_end_where_their_probability_falls_below_1e_10(backend):
    # At sigma 1e-4 the cutoff is 1.54 pixels of a 64 x 64 image: centres 0.5 and 1.5 pixels away see the face, 2.5 not.
    border = 1 - 2 * 20 / 64  # between columns 19 and 20
    triangle = torch.tensor([[[[border, -50.0], [border, 50.0], [-50.0, 0.0]]]])
    row = soft_silhouette(triangle, 64, 1e-4, backend=backend)[0, 32].double()
    assert row[19].item() == pytest.approx(sigmoid(-((0.5 / 32) ** 2) / 1e-4), rel=1e-3)
    assert 1e-10 < row[18] < 1e-9 or row[18] == 0  # 2.8e-10 is below the resolution of 1 - (1 - D) in float32
    assert row[17] == 0
    double = soft_silhouette(triangle.double(), 64, 1e-4, backend="numba")[0, 32]
    assert double[18].item() == pytest.approx(sigmoid(-((1.5 / 32) ** 2) / 1e-4), rel=1e-5)
    assert double[17] == 0


@pytest.mark.parametrize("backend", ["numba", "pytorch3d"])
@pytest.mark.parametrize("sigma", [1e-4, 3e-5])
def test_backends_agree_with_the_reference_on_noisy_spheres(backend, sigma):
    face_xy = noisy_spheres(2)
    weight = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(5))
    expected, expected_gradient = with_gradient(face_xy.double(), 32, sigma, "reference", weight)
    image, gradient = with_gradient(face_xy, 32, sigma, backend, weight)
    assert 0.1 < expected.mean() < 0.9 and expected_gradient.abs().max() > 0
    difference = (image - expected).abs()
    assert difference.mean() < (1e-7 if backend == "numba" else 1e-3)
    assert difference.max() < (1e-6 if backend == "numba" else 2e-2)
    cosine = torch.nn.functional.cosine_similarity(gradient.double().flatten(), expected_gradient.flatten(), dim=0)
    assert cosine > (1 - 1e-9 if backend == "numba" else 0.999)


@pytest.mark.parametrize("sigma", [1e-2, 1e-4])
def test_the_compiled_backend_equals_the_reference_in_float64(sigma):
    face_xy = noisy_spheres(2, level=1, dtype=torch.float64)
    weight = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected, expected_gradient = with_gradient(face_xy, 20, sigma, "reference", weight)
    image, gradient = with_gradient(face_xy, 20, sigma, "numba", weight)
    torch.testing.assert_close(image, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        gradient, expected_gradient, atol=1e-12 * float(expected_gradient.abs().max()), rtol=1e-9
    )


@exact_backends
def test_gradients_are_the_derivative_of_the_values(backend):
    face_xy = soup(2, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_silhouette(x, 6, 0.05, backend=backend), face_xy, atol=1e-7)


@exact_backends
def test_gradients_at_the_sigma_of_the_paper_are_finite_differences(backend):
    face_xy = noisy_spheres(1, level=1, dtype=torch.float64)
    weight = torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    direction = torch.randn(face_xy.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    _, gradient = with_gradient(face_xy, 24, 3e-5, backend, weight)
    step = 1e-8

    def value(move):
        return float((soft_silhouette(face_xy + move * direction, 24, 3e-5, backend=backend) * weight).sum())

    slope = (value(step) - value(-step)) / (2 * step)
    assert abs(slope) > 1
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


@every_backend
def test_the_order_of_faces_and_their_winding_do_not_matter(backend):
    face_xy = soup(1, 20, seed=4)
    weight = torch.randn(1, 10, 10, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    image, gradient = with_gradient(face_xy, 10, 0.01, backend, weight)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    changed = face_xy[:, order].flip(2)
    image_changed, gradient_changed = with_gradient(changed, 10, 0.01, backend, weight)
    torch.testing.assert_close(image_changed, image, atol=DOUBLE[backend], rtol=0)
    tolerance = 1e-9 if backend in EXACT else 1e-3
    torch.testing.assert_close(gradient_changed.flip(2), gradient[:, order], atol=tolerance, rtol=tolerance)


@every_backend
def test_faces_of_no_area_draw_nothing_and_get_no_gradient(backend):
    face = soup(1, 1, seed=1)
    point, line = torch.full((1, 1, 3, 2), 0.1), torch.tensor([[[[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0]]]])
    padding = torch.zeros(1, 1, 3, 2)
    together = torch.cat([face, point.double(), line.double(), padding.double()], dim=1)
    weight = torch.ones(1, 11, 11, dtype=torch.float64)
    image, gradient = with_gradient(together, 11, 0.01, backend, weight)
    alone, gradient_alone = with_gradient(face, 11, 0.01, backend, weight)
    torch.testing.assert_close(image, alone, atol=1e-6, rtol=0)
    assert bool((gradient[:, 1:] == 0).all())
    torch.testing.assert_close(gradient[:, :1], gradient_alone, atol=1e-4, rtol=1e-5)


@every_backend
def test_parts_off_screen_are_not_seen_and_do_not_crash(backend):
    off = torch.tensor(
        [
            [[[3.0, 3.0], [4.0, 3.0], [3.0, 4.0]], [[-9.0, 0.0], [-8.0, 0.5], [-8.0, -0.5]]],
            [[[1e6, 1e6], [1.1e6, 1e6], [1e6, 1.1e6]], [[0.0, -1e6], [1.0, -2e6], [-1.0, -2e6]]],
        ]
    )
    image, gradient = with_gradient(off, 9, 1e-3, backend, torch.ones(2, 9, 9))
    assert bool((image == 0).all()) and bool((gradient == 0).all())
    # Half a plane in view, corners a million screens away.
    wide = torch.tensor([[[[0.0, -1e6], [0.0, 1e6], [-1e6, 0.0]]]], dtype=torch.float64)
    row = soft_silhouette(wide, 8, 1e-3, backend=backend)[0, 4]
    assert bool((row[:4] < 0.01).all()) and bool((row[4:] > 0.99).all())


@exact_backends
def test_a_face_larger_than_the_range_of_integers_covers_the_screen(backend):
    huge = torch.tensor([[[[0.0, 3e30], [-3e30, -3e30], [3e30, -3e30]]]], dtype=torch.float64)
    assert bool((soft_silhouette(huge, 5, 1e-4, backend=backend) == 1).all())


@every_backend
def test_no_faces_no_images_and_one_pixel(backend):
    for shape in ((0, 4), (2, 0), (0, 0)):
        face_xy = torch.zeros(*shape, 3, 2, requires_grad=True)
        image = soft_silhouette(face_xy, 7, 1e-3, backend=backend)
        assert image.shape == (shape[0], 7, 7) and not image.any()
        image.sum().backward()
        assert face_xy.grad is not None and face_xy.grad.shape == face_xy.shape and not face_xy.grad.any()
    triangle = torch.tensor([[[[0.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]]], dtype=torch.float64)
    image = soft_silhouette(triangle, 1, 0.1, backend=backend)
    assert image.shape == (1, 1, 1)
    assert image.item() == pytest.approx(sigmoid((1 / math.sqrt(5)) ** 2 / 0.1), abs=1e-6)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_stays(backend, dtype):
    image, gradient = with_gradient(soup(1, 2, dtype=dtype), 5, 0.01, backend, torch.ones(1, 5, 5, dtype=dtype))
    assert image.dtype == dtype and gradient.dtype == dtype


@every_backend
def test_strided_input_is_read_as_it_is_indexed(backend):
    face_xyz = torch.cat([soup(2, 5), torch.full((2, 5, 3, 1), 7.0)], dim=-1)
    expected = soft_silhouette(face_xyz[..., :2].contiguous(), 8, 0.01, backend=backend)
    assert torch.equal(soft_silhouette(face_xyz[..., :2], 8, 0.01, backend=backend), expected)
    assert torch.equal(soft_silhouette(face_xyz[..., :2].flip(0), 8, 0.01, backend=backend), expected.flip(0))


@every_backend
def test_the_same_input_gives_the_same_bits_alone_and_in_a_batch(backend):
    face_xy = noisy_spheres(3, level=1)
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5))
    image, gradient = with_gradient(face_xy, 16, 1e-3, backend, weight)
    again = with_gradient(face_xy, 16, 1e-3, backend, weight)
    assert torch.equal(image, again[0]) and torch.equal(gradient, again[1])
    for b in range(3):
        alone = with_gradient(face_xy[b : b + 1], 16, 1e-3, backend, weight[b : b + 1])
        assert torch.equal(alone[0][0], image[b]) and torch.equal(alone[1][0], gradient[b])


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, count):
    face_xy = noisy_spheres(count, level=1)
    weight = torch.randn(count, 13, 13, generator=torch.Generator().manual_seed(5))
    use_threads(1)
    image, gradient = with_gradient(face_xy, 13, 1e-3, "numba", weight)
    for threads in (2, 5, 40):
        use_threads(threads)
        other = with_gradient(face_xy, 13, 1e-3, "numba", weight)
        assert torch.equal(image, other[0]) and torch.equal(gradient, other[1])


@every_backend
def test_more_faces_on_a_pixel_than_pytorch3d_keeps(backend):
    # 300 faces, each of probability D at the pixel: with the 100 nearest alone the miss would be (1 - D)^100.
    border = math.sqrt(-0.01 * math.log(0.002 / 0.998))  # distance outside for D = 0.002
    face = torch.tensor([[[[-border, -0.05], [-border, 0.05], [-border - 0.05, 0.0]]]], dtype=torch.float64)
    few = soft_silhouette(face.expand(-1, 90, -1, -1), 1, 0.01, backend=backend).item()
    assert few == pytest.approx(1 - 0.998**90, abs=1e-5)
    stack = face.expand(1, 300, -1, -1)
    both = torch.cat([stack, stack + 5.0])  # the second image is empty and needs no second pass
    image, gradient = with_gradient(both, 1, 0.01, backend, torch.ones(2, 1, 1, dtype=torch.float64))
    assert image[0].item() == pytest.approx(1 - 0.998**300, abs=1e-5)
    assert image[1].item() == 0
    # dS/dD = (1 - D)^299 of each face; d logit / dx of the border is 2 border / sigma.
    slope = 0.998**299 * 0.002 * 0.998 * 2 * border / 0.01
    assert gradient[0].sum(dim=1)[:, 0].tolist() == pytest.approx([slope] * 300, rel=1e-3)


@pytest.mark.parametrize(
    ("face_xy", "image_size", "sigma", "message"),
    [
        (torch.zeros(2, 3, 2), 8, 1e-4, r"expected face_xy of shape \(B, F, 3, 2\), got \(2, 3, 2\)"),
        (torch.zeros(1, 2, 3, 3), 8, 1e-4, r"\(B, F, 3, 2\), got \(1, 2, 3, 3\)"),
        (torch.zeros(1, 2, 3, 2).half(), 8, 1e-4, "float32 or float64, got torch.float16"),
        (torch.zeros(1, 2, 3, 2).long(), 8, 1e-4, "float32 or float64, got torch.int64"),
        (torch.zeros(1, 2, 3, 2), 0, 1e-4, "image_size must be at least 1, got 0"),
        (torch.zeros(1, 2, 3, 2), 8, 0.0, "sigma must be positive .* got 0.0"),
        (torch.zeros(1, 2, 3, 2), 8, -1e-4, "sigma must be positive .* got -0.0001"),
        (torch.zeros(1, 2, 3, 2), 8, math.nan, "sigma must be positive .* got nan"),
    ],
)
@every_backend
def test_bad_input_is_refused(face_xy, image_size, sigma, message, backend):
    with pytest.raises(ValueError, match=message):
        soft_silhouette(face_xy, image_size, sigma, backend=backend)


@every_backend
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_with_the_images_that_hold_them(backend, value):
    face_xy = soup(4, 2)
    face_xy[1, 0, 2, 1] = face_xy[3, 1, 0, 0] = value
    with pytest.raises(ValueError, match=r"face_xy holds NaN or inf in images \[1, 3\] of the batch; check the"):
        soft_silhouette(face_xy, 8, 1e-4, backend=backend)
