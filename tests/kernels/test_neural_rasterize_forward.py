"""Masks, colours and depth of `neural_rasterize`; oracles: PyTorch3D, SciPy, rays in closed form, scalar loops."""

import numpy as np
import pytest
import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from scipy.ndimage import map_coordinates

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels.neural_rasterize import neural_rasterize
from tests.kernels import nmr_oracle

BACKENDS = ["reference", "numba"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
CLOSE = {"numba": 1e-9, "reference": 1e-5}  # PyTorch3D rasterises in float32, whatever it is given
RED, GREEN, BLUE = np.eye(3).tolist()


def soup(batch, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, count, 3, 2, generator=generator, dtype=torch.float64) * 3 - 1.5
    z = torch.rand(batch, count, 3, 1, generator=generator, dtype=torch.float64) * 4 + 0.5
    return torch.cat([xy, z], dim=-1)


def spheres(count, level=2):
    verts, faces = icosphere(level, 0.4)
    generator = torch.Generator().manual_seed(1)
    verts = verts * (1 + 0.1 * torch.randn(count, len(verts), 1, generator=generator))
    return project(nmr_cameras()[torch.arange(count) * 5 % 24], verts)[:, faces]


def cubes(face_verts, t, seed=3):
    shape = (*face_verts.shape[:2], t, t, t, 3)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(face_verts.dtype)


def wall(z, shift=0.0):
    """A face that covers the image far beyond its borders."""
    return torch.tensor([[[shift, 30.0, z], [-30.0, -30.0, z], [30.0, -30.0, z]]], dtype=torch.float64)


def plain(*colors):
    return torch.tensor(colors, dtype=torch.float64)[None, :, None, None, None].expand(1, -1, 2, 2, 2, 3)


def far_from_edges(face_verts, size):
    """Pixels (B,S,S) whose centre is more than 1e-5 from every edge of every face of its image."""
    axis = 1 - (2 * np.arange(size) + 1) / size
    centre = np.stack(np.meshgrid(axis, axis), axis=-1)[None, :, :, None]  # x, y
    nearest = np.full((len(face_verts), size, size), np.inf)
    corners = face_verts[..., :2].double().numpy()
    for k in range(3):
        start, end = corners[:, None, None, :, k], corners[:, None, None, :, k - 1]
        along = ((centre - start) * (end - start)).sum(-1) / ((end - start) ** 2).sum(-1)
        off = centre - start - along.clip(0, 1)[..., None] * (end - start)
        nearest = np.minimum(nearest, np.linalg.norm(off, axis=-1).min(axis=-1))
    return torch.tensor(nearest > 1e-5)


@every_backend
@pytest.mark.parametrize(
    ("face_verts", "size"),
    [(soup(2, 12).float(), 33), (soup(2, 14, seed=1).float() * 0.9, 20), (spheres(4), 64)],
    ids=["soup", "many", "spheres"],
)
def test_masks_equal_pytorch3d_away_from_edges(backend, face_verts, size):
    b, f = face_verts.shape[:2]
    meshes = Meshes(face_verts.reshape(b, 3 * f, 3), torch.arange(3 * f).reshape(1, f, 3).expand(b, f, 3))
    index = rasterize_meshes(meshes, size, blur_radius=0, faces_per_pixel=1, bin_size=0, cull_backfaces=False)[0]
    expected = (index[..., 0] >= 0).float()
    sure = far_from_edges(face_verts, size)
    assert sure.double().mean() > 0.99 and 0.1 < expected.mean() < 0.99
    mask = neural_rasterize(face_verts, size, backend=backend).mask
    assert torch.equal(mask[sure], expected[sure])


@every_backend
@pytest.mark.parametrize("t", [2, 3, 5])
def test_colours_are_scipys_linear_interpolation_of_the_cube(backend, t):
    face_verts, size, eps = soup(1, 9, seed=4), 24, 1e-3
    textures = cubes(face_verts, t)
    background = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    seen = nmr_oracle.rasterize(face_verts[0].numpy() * [-1, 1, 1], size)
    assert seen.edge_margin > 1e-4 and seen.depth_margin > 1e-4, "the case must be clear"
    expected = np.broadcast_to(background.numpy()[:, None, None], (3, size, size)).copy()
    for y, x in np.argwhere(seen.owner >= 0):
        f = seen.owner[y, x]
        position = seen.weights[y, x] * seen.depth[y, x] / face_verts[0, f, :, 2].numpy() * (t - 1)
        position = position.clip(0, t - 1 - eps).reshape(3, 1)
        for channel in range(3):
            cube = textures[0, f, ..., channel].numpy()
            expected[channel, size - 1 - y, x] = map_coordinates(cube, position, order=1)[0]
    image = neural_rasterize(face_verts, size, textures, background, eps=eps, backend=backend).image
    assert 100 < (seen.owner >= 0).sum() < size**2
    np.testing.assert_allclose(image[0].numpy(), expected, atol=CLOSE[backend], rtol=0)


@every_backend
def test_the_coordinates_stay_below_the_last_texel_by_eps(backend):
    # The pixel centre is on the first corner, so its coordinates are (T-1, 0, 0).
    face = torch.tensor([[[[0.0, 0.0, 2.0], [0.9, -5.0, 3.0], [-0.9, -5.0, 4.0]]]], dtype=torch.float64)
    textures = torch.zeros(1, 1, 3, 3, 3, 3, dtype=torch.float64)
    textures[0, 0, 2, 0, 0] = 1
    for eps in (0.25, 1e-3):
        image = neural_rasterize(face, 1, textures, eps=eps, backend=backend).image
        assert image.flatten().tolist() == pytest.approx([1 - eps] * 3, abs=CLOSE[backend])


@every_backend
def test_all_outputs_equal_the_scalar_loops(backend):
    for face_verts, size, options in (
        (soup(2, 10), 16, {}),
        (soup(1, 20, seed=6), 9, {"anti_alias": 2}),
        (soup(1, 6, seed=2), 5, {"anti_alias": 3}),
        (spheres(1, level=1).double(), 12, {"anti_alias": 2, "eps": 1e-3}),
    ):
        textures = cubes(face_verts, 3)
        background = torch.rand(len(face_verts), 3, generator=torch.Generator().manual_seed(0)).double()
        seen = neural_rasterize(face_verts, size, textures, background, True, backend=backend, **options)
        for b in range(len(face_verts)):
            expected = nmr_oracle.render(
                face_verts[b].numpy(), size, textures[b].numpy(), background[b].numpy(),
                far=100, clip=options.get("eps", 1e-4), **options,
            )  # fmt: skip
            assert expected.edge_margin > 2e-5 and expected.depth_margin > 1e-5, "the case must be clear"
            assert np.array_equal(seen.mask[b], expected.mask)
            np.testing.assert_allclose(seen.image[b], expected.image, atol=CLOSE[backend], rtol=0)
            np.testing.assert_allclose(seen.depth[b], expected.depth, atol=10 * CLOSE[backend], rtol=0)


@every_backend
def test_anti_aliasing_averages_a_finer_image(backend):
    face_verts = spheres(2, level=1)
    textures, background = cubes(face_verts, 2), torch.tensor([0.2, 0.4, 0.6])
    for times in (2, 3):
        fine = neural_rasterize(face_verts, 10 * times, textures, background, True, backend=backend)
        coarse = neural_rasterize(face_verts, 10, textures, background, True, anti_alias=times, backend=backend)
        assert coarse.mask.unique().numel() > 3
        for name in ("mask", "image", "depth"):
            full, half = getattr(fine, name), getattr(coarse, name)
            if full.ndim == 3:
                full, half = full[:, None], half[:, None]
            torch.testing.assert_close(half, torch.nn.functional.avg_pool2d(full, times))


@every_backend
def test_depth_is_that_of_the_ray_on_the_plane(backend):
    # Plane n . p = 1 in view space, seen with focal length 2: the ray of NDC (x, y) is z (x/2, y/2, 1).
    normal, size = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), 16
    xy = torch.tensor([[1.9, 1.5], [-1.8, 1.2], [0.1, -1.9]], dtype=torch.float64)

    def depth_at(points):
        return 1 / (points @ normal[:2] / 2 + normal[2])

    corners = torch.cat([xy, depth_at(xy)[:, None]], dim=1)[None, None]
    axis = 1 - (2 * torch.arange(size, dtype=torch.float64) + 1) / size
    expected = depth_at(torch.stack([axis.expand(size, size), axis.unsqueeze(1).expand(size, size)], dim=-1))
    seen = neural_rasterize(corners, size, with_depth=True, backend=backend)
    hit = seen.mask > 0
    assert 60 < hit.sum() < size**2
    torch.testing.assert_close(seen.depth[hit], expected.expand_as(hit)[hit], rtol=CLOSE[backend], atol=0)
    assert bool((seen.depth[~hit] == 100).all())


@every_backend
def test_plus_x_is_left_and_rows_go_down(backend):
    upper_left = torch.tensor([[[[0.9, 0.9, 2.0], [0.5, 0.9, 2.0], [0.9, 0.5, 2.0]]]])
    mask = neural_rasterize(upper_left, 8, backend=backend).mask[0]
    assert mask[0, 0] == 1 and not mask[:, 4:].any() and not mask[4:].any()


@every_backend
def test_each_corner_has_the_texel_of_its_axis(backend):
    corners = [[0.8, 0.8, 1.5], [-0.8, 0.7, 2.0], [0.1, -0.9, 3.0]]
    textures = torch.zeros(1, 1, 2, 2, 2, 3, dtype=torch.float64)
    for axis in range(3):
        texel = [0, 0, 0]
        texel[axis] = 1
        textures[(0, 0, *texel, axis)] = 1  # red at the first corner, green at the second, blue at the third
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):  # both windings
        face = torch.tensor([[[corners[k] for k in order]]], dtype=torch.float64)
        image = neural_rasterize(face, 64, textures, backend=backend).image[0]
        for channel, corner in enumerate(order):
            x, y, _ = corners[corner]
            inside_x, inside_y = 0.9 * x, 0.9 * y + 0.02
            row, column = int((1 - inside_y) * 32), int((1 - inside_x) * 32)
            assert int(image[:, row, column].argmax()) == channel and image[channel, row, column] > 0.5


@every_backend
def test_the_nearest_face_is_seen_and_ties_go_to_the_first(backend):
    for depths, expected in (((2.0, 3.0), RED), ((3.0, 2.0), GREEN), ((2.0, 2.0), RED)):
        faces = torch.cat([wall(z) for z in depths])[None]
        image = neural_rasterize(faces, 3, plain(RED, GREEN), backend=backend).image
        torch.testing.assert_close(image, torch.tensor(expected).double()[:, None, None].expand(1, 3, 3, 3))


@every_backend
def test_centres_on_an_edge_are_covered(backend):
    # The edges of this face run through the centres at -0.25 and 0.25.
    face = torch.tensor([[[[0.25, 0.25, 2.0], [-0.25, 0.25, 2.0], [0.25, -0.25, 2.0]]]], dtype=torch.float64)
    for corners in (face, face.flip(2)):
        mask = neural_rasterize(corners, 4, backend=backend).mask[0]
        assert mask.nonzero().tolist() == [[1, 1], [1, 2], [2, 1]]


@every_backend
def test_what_is_behind_the_camera_or_has_no_area_is_not_drawn(backend):
    nothing = torch.cat(
        [
            -wall(2.0),
            wall(0.0),
            torch.zeros(1, 3, 3, dtype=torch.float64),
            torch.tensor([[[-0.75, 0.0, 2.0], [0.0, 0.0, 2.0], [0.75, 0.0, 2.0]]], dtype=torch.float64),
        ]
    )[None]
    background = torch.tensor(BLUE, dtype=torch.float64)
    seen = neural_rasterize(nothing, 5, plain(RED, RED, RED, RED), background, True, backend=backend)
    assert not seen.mask.any() and bool((seen.depth == 100).all())
    assert torch.equal(seen.image, background[:, None, None].expand(1, 3, 5, 5))


@every_backend
def test_only_what_is_asked_for_comes_and_backgrounds_may_differ(backend):
    faces = torch.tensor([[[[0.9, 0.9, 2.0], [0.1, 0.9, 2.0], [0.9, 0.1, 2.0]]]], dtype=torch.float64).expand(
        2, 1, 3, 3
    )
    seen = neural_rasterize(faces, 6, backend=backend)
    assert seen.image is None and seen.depth is None and seen.mask.shape == (2, 6, 6)
    textures = plain(RED).expand(2, 1, 2, 2, 2, 3)
    black = neural_rasterize(faces, 6, textures, backend=backend)
    assert black.depth is None and black.image[..., -1].abs().max() == 0 and torch.equal(black.mask, seen.mask)
    background = torch.tensor([GREEN, BLUE], dtype=torch.float64)
    image = neural_rasterize(faces, 6, textures, background, backend=backend).image
    assert torch.equal(image[:, :, 5, 5], background)
    torch.testing.assert_close(image[:, :, 0, 0], torch.tensor([RED, RED], dtype=torch.float64))
