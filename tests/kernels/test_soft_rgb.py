import math

import pytest
import torch

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels import soft_rgb
from recon3d.kernels.soft_rgb import pytorch3d_backend

BACKENDS = ["reference", "numba", "pytorch3d"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
double_backend = pytest.mark.parametrize("backend", ["reference", "numba"])
ATOL = {"reference": 1e-12, "numba": 1e-12, "pytorch3d": 1e-5}  # PyTorch3D rasterises in single precision
RED, GREEN, BLUE = torch.eye(3, dtype=torch.float64)


def soup(batch, count, seed=0):
    """Faces and colours in float64, depths between 1.2 and 3."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, count, 3, 2, generator=generator, dtype=torch.float64) * 2 - 1
    z = torch.rand(batch, count, 3, 1, generator=generator, dtype=torch.float64) * 1.8 + 1.2
    colors = torch.rand(batch, count, 3, 3, generator=generator, dtype=torch.float64)
    return torch.cat([xy, z], dim=-1), colors


def wall(z, color, dtype=torch.float64):
    """A triangle that covers the screen far beyond its borders, at one depth and in one colour."""
    verts = torch.tensor([[[[0.0, 30.0, z], [-30.0, -30.0, z], [30.0, -30.0, z]]]], dtype=dtype)
    return verts, color.to(dtype).expand(1, 1, 3, 3)


def stack(*faces):
    return torch.cat([verts for verts, _ in faces], dim=1), torch.cat([colors for _, colors in faces], dim=1)


def with_gradients(verts, colors, size, backend, weight, sigma=0.01, gamma=0.1, **options):
    verts, colors = verts.clone().requires_grad_(), colors.clone().requires_grad_()
    image = soft_rgb(verts, colors, size, sigma, gamma, backend=backend, **options)
    return image.detach(), *torch.autograd.grad((image * weight).sum(), (verts, colors))


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@every_backend
def test_the_nearest_of_two_walls_gives_the_colour_when_gamma_is_small(backend):
    for faces in ((wall(2.0, RED), wall(3.0, GREEN)), (wall(3.0, GREEN), wall(2.0, RED))):
        image = soft_rgb(*stack(*faces), 4, 1e-4, 1e-4, backend=backend)
        torch.testing.assert_close(image, RED.reshape(1, 3, 1, 1).expand(1, 3, 4, 4), atol=ATOL[backend], rtol=0)


@every_backend
def test_the_blend_of_walls_and_background_is_a_softmax_over_depth(backend):
    gamma, near, far, eps = 0.4, 1.5, 5.5, 0.2
    image = soft_rgb(
        *stack(wall(2.0, RED), wall(4.0, GREEN)), 3, 1e-4, gamma,
        background=(0.1, 0.2, 0.7), near=near, far=far, eps=eps, backend=backend,
    )  # fmt: skip
    # D = 1 for both walls; scores (5.5 - z) / 4 and, behind everything, eps.
    front, back, behind = math.exp(3.5 / 4 / gamma), math.exp(1.5 / 4 / gamma), math.exp(eps / gamma)
    total = front + back + behind
    expected = [(front + 0.1 * behind) / total, (back + 0.2 * behind) / total, 0.7 * behind / total]
    torch.testing.assert_close(image[0], torch.tensor(expected).double().reshape(3, 1, 1).expand(3, 3, 3))


@every_backend
def test_a_soft_border_counts_by_its_probability(backend):
    # A half plane whose border is 0.3 from the only pixel, outside: D = sigmoid(-0.09 / sigma).
    verts = torch.tensor([[[[-0.3, 50.0, 2.0], [-0.3, -50.0, 2.0], [-50.0, 0.0, 2.0]]]], dtype=torch.float64)
    image = soft_rgb(verts, RED.expand(1, 1, 3, 3), 1, 0.05, 0.5, background=(0.0, 1.0, 0.0), backend=backend)
    weight = math.exp((98 / 99) / 0.5) / (1 + math.exp(0.09 / 0.05))
    behind = math.exp(1e-3 / 0.5)
    assert image[0, :, 0, 0].tolist() == pytest.approx([weight / (weight + behind), behind / (weight + behind), 0])


@every_backend
def test_colours_are_interpolated_on_the_screen_and_clipped_outside(backend):
    corners = torch.tensor([[0.8, -0.4], [-0.7, -0.6], [0.1, 0.9]], dtype=torch.float64)
    verts = torch.cat([corners, torch.tensor([[1.0], [2.0], [4.0]])], dim=1)[None, None]
    image = soft_rgb(verts, torch.eye(3, dtype=torch.float64)[None, None], 9, 1e-2, 1e-3, backend=backend)[0]
    system = torch.cat([corners, torch.ones(3, 1)], dim=1).T
    covered = image.sum(dim=0) > 0
    for row in range(9):
        for column in range(9):
            point = torch.tensor([1 - (2 * column + 1) / 9, 1 - (2 * row + 1) / 9, 1.0], dtype=torch.float64)
            weight = torch.linalg.solve(system, point).clamp(0, 1)
            if covered[row, column]:  # gamma is small, so one face is as good as opaque
                atol = max(1e-9, ATOL[backend])
                torch.testing.assert_close(image[:, row, column], weight / weight.sum(), atol=atol, rtol=0)
    outside = covered & (image.amin(dim=0) == 0)
    assert 20 < covered.sum() < 81 and outside.sum() > 5, "both kinds of pixels must occur"


@every_backend
def test_what_lies_outside_near_and_far_is_left_out(backend):
    background = torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)
    options = {"near": 1.0, "far": 4.0, "background": tuple(background.tolist()), "backend": backend}
    empty = background.reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    for z in (0.99, 4.01, 1e-6, 0.0, -2.0):  # gamma is large, so that a face at the far end would be seen
        assert torch.equal(soft_rgb(*wall(z, RED), 2, 1e-4, 0.5, **options), empty)
        both = soft_rgb(*stack(wall(z, RED), wall(2.0, GREEN)), 2, 1e-4, 0.5, **options)
        torch.testing.assert_close(both, soft_rgb(*wall(2.0, GREEN), 2, 1e-4, 0.5, **options), atol=1e-15, rtol=0)
    for z in (1.01, 3.99):
        assert (soft_rgb(*wall(z, RED), 2, 1e-4, 0.5, **options) - empty).abs().max() > 0.1


@every_backend
def test_a_tilted_face_is_cut_pixel_by_pixel(backend):
    # 1/z falls from 1 at the left to 0.25 at the right of the screen; near 2 keeps what lies right of 1/z = 0.5.
    verts = [[x, y, 1 / (0.625 + 0.375 * x)] for x, y in ((1.6, -30.0), (1.6, 30.0), (-1.6, 0.0))]
    image = soft_rgb(
        torch.tensor([[verts]], dtype=torch.float64), RED.expand(1, 1, 3, 3), 16, 1e-4, 1e-3, near=2.0, backend=backend
    )
    x = 1 - (2 * torch.arange(16) + 1) / 16
    assert torch.equal(image[0, 0, 8] > 0.5, 0.625 + 0.375 * x < 0.5)


@pytest.mark.parametrize("backend", ["numba", "pytorch3d"])
def test_the_other_backends_equal_the_reference_with_gradients(backend):
    cases = [(*soup(2, 12), 13, 0.01, 0.1), (*soup(1, 30, seed=1), 10, 1e-3, 1e-2), (*soup(1, 9, seed=2), 8, 0.1, 1e-4)]
    verts, faces = icosphere(1, 0.4)
    corners = project(nmr_cameras()[[0, 5]], verts.expand(2, -1, -1))[:, faces].double()
    cases.append((corners, soup(2, len(faces))[1], 16, 1e-4, 1e-4))
    share = 1e-9 if backend == "numba" else 1e-3
    for face_verts, colors, size, sigma, gamma in cases:
        weight = weights(len(face_verts), 3, size, size)
        options = {"sigma": sigma, "gamma": gamma, "background": (0.1, 0.2, 0.3), "near": 1.3}
        expected = with_gradients(face_verts, colors, size, "reference", weight, **options)
        came = with_gradients(face_verts, colors, size, backend, weight, **options)
        for a, b in zip(came, expected, strict=True):
            assert b.abs().max() > 1e-3
            torch.testing.assert_close(a, b, atol=share * max(1.0, float(b.abs().max())), rtol=0)


def test_pixels_with_more_faces_than_pytorch3d_keeps_are_exact(monkeypatch):
    monkeypatch.setattr(pytorch3d_backend, "FACES_PER_PIXEL", 3)
    monkeypatch.setattr(pytorch3d_backend, "PIXELS_AT_ONCE", 7)
    verts, colors = soup(2, 9)
    verts[1, 2:] = 0.0  # image 1 has two faces, and so no pixel with too many
    weight = weights(2, 3, 9, 9)
    came = with_gradients(verts, colors, 9, "pytorch3d", weight)
    for a, b in zip(came, with_gradients(verts, colors, 9, "reference", weight), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=0)


def test_float32_stays_float32_and_near_the_reference():
    verts, colors = soup(1, 12)
    weight = weights(1, 3, 13, 13)
    expected = with_gradients(verts, colors, 13, "reference", weight)
    for backend in BACKENDS:
        came = with_gradients(verts.float(), colors.float(), 13, backend, weight.float())
        for a, b in zip(came, expected, strict=True):
            assert a.dtype == torch.float32 and b.dtype == torch.float64
            torch.testing.assert_close(a.double(), b, atol=1e-3 * float(b.abs().max()), rtol=0)


@every_backend
def test_gradients_to_colours_and_depths_are_the_derivative_of_the_values(backend):
    verts, colors = soup(1, 3, seed=4)

    def image(z, colors):
        return soft_rgb(torch.cat([verts[..., :2], z], dim=-1), colors, 4, 0.05, 0.05, near=0.5, far=4, backend=backend)

    inputs = verts[..., 2:].clone().requires_grad_(), colors.clone().requires_grad_()
    assert torch.autograd.gradcheck(image, inputs, atol=1e-7)


@double_backend
def test_gradients_to_x_and_y_are_the_derivative_where_the_weights_do_not_matter(backend):
    # One depth and one colour per face: then x and y act through D alone, whose derivative is exact.
    verts, colors = soup(1, 4, seed=5)
    z = verts[..., :1, 2:].expand(-1, -1, 3, -1)
    colors = colors[..., :1, :].expand_as(colors)

    def image(xy):
        return soft_rgb(torch.cat([xy, z], dim=-1), colors, 4, 0.05, 0.2, near=0.5, far=4, backend=backend)

    assert torch.autograd.gradcheck(image, verts[..., :2].clone().requires_grad_(), atol=1e-7)


@every_backend
def test_the_order_of_faces_and_their_winding_do_not_matter(backend):
    verts, colors = soup(1, 15)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    image = soft_rgb(verts, colors, 9, 0.01, 0.01, backend=backend)
    changed = soft_rgb(verts[:, order].flip(2), colors[:, order].flip(2), 9, 0.01, 0.01, backend=backend)
    torch.testing.assert_close(changed, image, atol=ATOL[backend], rtol=0)


@every_backend
def test_faces_that_draw_nothing_get_finite_zero_gradients(backend):
    verts, colors = soup(1, 3)
    point, line = torch.full((1, 1, 3, 3), 2.0), torch.tensor([[[[-0.5, 0.0, 2.0], [0.0, 0.0, 2.0], [0.5, 0.0, 2.0]]]])
    nothing = torch.cat([point, line, torch.zeros(1, 1, 3, 3), torch.full((1, 1, 3, 3), 1e6), -verts[:, :1]], dim=1)
    paint = torch.ones(1, nothing.shape[1], 3, 3, dtype=torch.float64)
    weight = weights(1, 3, 7, 7)
    alone = with_gradients(verts, colors, 7, backend, weight)
    together = with_gradients(torch.cat([verts, nothing], 1), torch.cat([colors, paint], 1), 7, backend, weight)
    assert torch.equal(together[0], alone[0])
    for gradient, expected in zip(together[1:], alone[1:], strict=True):
        torch.testing.assert_close(gradient[:, :3], expected, atol=ATOL[backend], rtol=0)
        assert bool((gradient[:, 3:] == 0).all())


@every_backend
def test_no_faces_no_images_and_one_pixel(backend):
    for b, f in ((0, 4), (2, 0), (0, 0)):
        verts, colors = (torch.zeros(b, f, 3, 3, requires_grad=True) for _ in range(2))
        image = soft_rgb(verts, colors, 5, 1e-3, 1e-3, background=(0.1, 0.2, 0.3), backend=backend)
        assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1).expand(b, 3, 5, 5))
        image.sum().backward()
        assert verts.grad is not None and not verts.grad.any() and colors.grad is not None and not colors.grad.any()
    assert soft_rgb(*wall(2.0, RED), 1, 1e-4, 1e-4, backend=backend)[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0])


@every_backend
def test_a_batch_equals_its_images(backend):
    verts, colors = soup(3, 10)
    weight = weights(3, 3, 9, 9)
    together = with_gradients(verts, colors, 9, backend, weight)
    for b in range(3):
        alone = with_gradients(verts[b : b + 1], colors[b : b + 1], 9, backend, weight[b : b + 1])
        assert all(torch.equal(x[0], y[b]) for x, y in zip(alone, together, strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, count):
    verts, colors = soup(count, 20)
    weight = weights(count, 3, 13, 13)
    use_threads(1)
    expected = with_gradients(verts, colors, 13, "numba", weight)
    for threads in (2, 5, 40):
        use_threads(threads)
        came = with_gradients(verts, colors, 13, "numba", weight)
        assert all(torch.equal(a, b) for a, b in zip(came, expected, strict=True))


GOOD = torch.ones(1, 2, 3, 3)


@every_backend
@pytest.mark.parametrize(
    ("verts", "colors", "options", "message"),
    [
        (torch.ones(1, 2, 3, 2), GOOD, {}, r"expected face_verts of shape \(B, F, 3, 3\), got \(1, 2, 3, 2\)"),
        (GOOD, torch.ones(1, 2, 3), {}, r"face_colors \(1, 2, 3, 3\) of the corners or an atlas .*, got \(1, 2, 3\)"),
        (GOOD, torch.ones(1, 3, 3, 3), {}, r"expected face_colors \(1, 2, 3, 3\) .* got \(1, 3, 3, 3\)"),
        (GOOD, GOOD.double(), {}, "in torch.float32 like face_verts, got .* torch.float64"),
        (GOOD, torch.ones(1, 2, 4, 5, 3), {}, r"or an atlas \(1, 2, R, R, 3\), .* got \(1, 2, 4, 5, 3\)"),
        (GOOD, torch.ones(1, 2, 0, 0, 3), {}, r"or an atlas \(1, 2, R, R, 3\), .* got \(1, 2, 0, 0, 3\)"),
        (GOOD, torch.ones(1, 2, 4, 4, 4), {}, r"or an atlas \(1, 2, R, R, 3\), .* got \(1, 2, 4, 4, 4\)"),
        (GOOD, GOOD * torch.tensor([1.0, -math.inf, 1.0]), {}, r"face_colors holds NaN or inf in images \[0\]"),
        (GOOD, GOOD * math.nan, {}, r"face_colors holds NaN or inf in images \[0\]"),
        (GOOD * math.inf, GOOD, {}, r"face_verts holds NaN or inf in images \[0\]"),
        (GOOD, GOOD, {"sigma": 0.0}, "expected sigma, gamma > 0"),
        (GOOD, GOOD, {"gamma": -1.0}, "expected sigma, gamma > 0"),
        (GOOD, GOOD, {"near": 2.0, "far": 2.0}, "far > near"),
    ],
)
def test_bad_input_is_refused(backend, verts, colors, options, message):
    with pytest.raises(ValueError, match=message):
        soft_rgb(verts, colors, 4, **({"sigma": 1e-3, "gamma": 1e-3} | options), backend=backend)
