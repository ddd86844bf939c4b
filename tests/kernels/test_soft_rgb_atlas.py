import math
from types import SimpleNamespace

import pytest
import torch
from pytorch3d.renderer import TexturesAtlas

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels import soft_rgb

BACKENDS = ["reference", "numba", "pytorch3d"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
ATOL = {"reference": 1e-12, "numba": 1e-12, "pytorch3d": 1e-5}  # PyTorch3D rasterises in single precision
CORNERS = torch.tensor([[0.83, -0.41], [-0.72, -0.67], [0.13, 0.91]], dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soup(batch, count, resolution, seed=0):
    """Faces with depths between 1.2 and 3, and their atlas."""
    xy, z = uniform(batch, count, 3, 2, seed=seed) * 2 - 1, uniform(batch, count, 3, 1, seed=seed + 1) * 1.8 + 1.2
    return torch.cat([xy, z], dim=-1), uniform(batch, count, resolution, resolution, 3, seed=seed + 2)


def with_gradients(verts, atlas, size, backend, weight, sigma=0.01, gamma=0.1, **options):
    verts, atlas = verts.clone().requires_grad_(), atlas.clone().requires_grad_()
    image = soft_rgb(verts, atlas, size, sigma, gamma, backend=backend, **options)
    return image.detach(), *torch.autograd.grad((image * weight).sum(), (verts, atlas))


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def barycentric(size):
    """Weights (S*S, 3) of the pixel centres in CORNERS, by solving for them."""
    axis = 1 - (2 * torch.arange(size, dtype=torch.float64) + 1) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    return torch.linalg.solve(torch.cat([CORNERS, torch.ones(3, 1)], dim=1).T.double(), points).T


@every_backend
@pytest.mark.parametrize("resolution", [1, 2, 3, 6])
def test_inside_a_face_the_texel_is_the_one_of_pytorch3d(backend, resolution):
    atlas = uniform(1, 1, resolution, resolution, 3)
    verts = torch.cat([CORNERS, torch.full((3, 1), 2.0)], dim=1)[None, None]
    size = 25
    image = soft_rgb(verts, atlas, size, 1e-7, 1e-3, backend=backend)[0].flatten(1).T
    weight = barycentric(size)
    inside = weight.amin(dim=1) > 1e-3
    fragments = SimpleNamespace(
        pix_to_face=inside.long().sub(1)[None, :, None, None], bary_coords=weight[None, :, None, None]
    )
    expected = TexturesAtlas(atlas.float()).sample_textures(fragments).reshape(-1, 3)
    assert inside.sum() > 150
    torch.testing.assert_close(image[inside].float(), expected[inside], atol=2e-5, rtol=0)
    assert len(image[inside].unique(dim=0)) >= resolution**2


@every_backend
def test_outside_a_face_the_texels_of_its_nearest_edge_go_on(backend):
    # A right angle at corner 2; one pixel centre beyond the middle of each of four stretches of its longest side,
    # between corners 0 and 1, sees the texel of that stretch: row + column = 3, from corner 1 to corner 0.
    atlas = torch.zeros(1, 1, 4, 4, 3, dtype=torch.float64)
    for column in range(4):
        atlas[0, 0, 3 - column, column] = 0.1 + 0.2 * column
    for k in range(4):
        # Corner 0 is at the left (+x); the pixel at 0 is (k + 1/2)/4 along from corner 1, and 0.1 below the edge.
        x1 = -(k + 0.5) / 4
        verts = [[x1 + 1, 0.1, 2.0], [x1, 0.1, 2.0], [x1 + 0.5, 0.9, 2.0]]
        faces = torch.tensor([[verts]], dtype=torch.float64)
        image = soft_rgb(faces, atlas, 1, 0.01, 1e-3, background=(0.0, 0.0, 0.0), backend=backend)
        assert image.flatten().tolist() == pytest.approx([0.1 + 0.2 * k] * 3, abs=1e-4)


@every_backend
def test_the_texels_of_two_faces_blend_over_depth(backend):
    big = [[0.0, 30.0], [-30.0, -30.0], [30.0, -30.0]]
    verts = torch.tensor([[[[x, y, z] for x, y in big] for z in (4.0, 2.0)]], dtype=torch.float64)
    atlas = torch.zeros(1, 2, 1, 1, 3, dtype=torch.float64)
    atlas[0, 0, ..., 1] = atlas[0, 1, ..., 0] = 1.0  # green behind red
    near = soft_rgb(verts, atlas, 2, 1e-4, 1e-4, backend=backend)
    assert near[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    gamma = 0.4
    both = soft_rgb(verts, atlas, 2, 1e-4, gamma, near=1.5, far=5.5, eps=0.2, backend=backend)
    front, back, behind = math.exp(3.5 / 4 / gamma), math.exp(1.5 / 4 / gamma), math.exp(0.2 / gamma)
    total = front + back + behind
    assert both[0, :, 1, 1].tolist() == pytest.approx([front / total, back / total, 0], abs=1e-6)


@pytest.mark.parametrize("backend", ["numba", "pytorch3d"])
@pytest.mark.parametrize("resolution", [1, 2, 5])
def test_the_other_backends_equal_the_reference_with_gradients(backend, resolution):
    cases = [(*soup(2, 12, resolution), 13, 0.01, 0.1), (*soup(1, 9, resolution, seed=2), 8, 0.1, 1e-4)]
    verts, faces = icosphere(1, 0.4)
    corners = project(nmr_cameras()[[0, 5]], verts.expand(2, -1, -1))[:, faces].double()
    corners[..., :2] += 0.0123  # off the centre, where edges and centres of pixels coincide
    cases.append((corners, soup(2, len(faces), resolution)[1], 16, 1e-4, 1e-4))
    share = 1e-9 if backend == "numba" else 1e-3
    for face_verts, atlas, size, sigma, gamma in cases:
        weight = weights(len(face_verts), 3, size, size)
        options = {"sigma": sigma, "gamma": gamma, "background": (0.1, 0.2, 0.3), "near": 1.3}
        expected = with_gradients(face_verts, atlas, size, "reference", weight, **options)
        came = with_gradients(face_verts, atlas, size, backend, weight, **options)
        for a, b in zip(came, expected, strict=True):
            assert b.abs().max() > 1e-3
            torch.testing.assert_close(a, b, atol=share * max(1.0, float(b.abs().max())), rtol=0)


@every_backend
def test_gradients_to_texels_and_depths_are_the_derivative_of_the_values(backend):
    verts, atlas = soup(1, 3, 3, seed=4)

    def image(z, atlas):
        return soft_rgb(torch.cat([verts[..., :2], z], dim=-1), atlas, 4, 0.05, 0.05, near=0.5, far=4, backend=backend)

    inputs = verts[..., 2:].clone().requires_grad_(), atlas.clone().requires_grad_()
    assert torch.autograd.gradcheck(image, inputs, atol=1e-7)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_gradients_to_x_and_y_act_through_the_border(backend):
    # One depth per face: texels are constant around a point, so x and y act through D alone.
    verts, atlas = soup(1, 4, 2, seed=5)
    z = verts[..., :1, 2:].expand(-1, -1, 3, -1)

    def image(xy):
        return soft_rgb(torch.cat([xy, z], dim=-1), atlas, 4, 0.05, 0.2, near=0.5, far=4, backend=backend)

    assert torch.autograd.gradcheck(image, verts[..., :2].clone().requires_grad_(), atol=1e-7)


@every_backend
def test_a_constant_atlas_is_a_constant_colour(backend):
    verts, _ = soup(2, 10, 1)
    colors = uniform(2, 10, 1, 3)
    corner = soft_rgb(verts, colors.expand(-1, -1, 3, -1).contiguous(), 9, 0.01, 0.01, backend=backend)
    texels = soft_rgb(verts, colors[:, :, None].expand(-1, -1, 5, 5, -1), 9, 0.01, 0.01, backend=backend)
    torch.testing.assert_close(texels, corner, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, count):
    verts, atlas = soup(count, 20, 4)
    weight = weights(count, 3, 13, 13)
    use_threads(1)
    expected = with_gradients(verts, atlas, 13, "numba", weight)
    for threads in (2, 40):
        use_threads(threads)
        came = with_gradients(verts, atlas, 13, "numba", weight)
        assert all(torch.equal(a, b) for a, b in zip(came, expected, strict=True))


@every_backend
def test_no_faces_and_faces_that_draw_nothing(backend):
    atlas = torch.zeros(2, 0, 4, 4, 3, requires_grad=True)
    image = soft_rgb(torch.zeros(2, 0, 3, 3), atlas, 5, 1e-3, 1e-3, backend=backend)
    assert image.shape == (2, 3, 5, 5) and not image.any()
    image.sum().backward()
    assert atlas.grad is not None and atlas.grad.shape == atlas.shape
    verts, atlas = soup(1, 2, 4)
    verts[:, 1] = 0.5
    _, _, gradient = with_gradients(verts, atlas, 7, backend, weights(1, 3, 7, 7))
    assert gradient[0, 0].any() and not gradient[0, 1].any() and bool(gradient.isfinite().all())
