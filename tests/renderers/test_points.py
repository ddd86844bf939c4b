import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recon3d.geometry.cameras import look_at_camera, nmr_cameras, to_pytorch3d
from recon3d.geometry.sampling import sample_surface
from recon3d.renderers.hard import render_hard
from recon3d.renderers.points import render_point_silhouettes
from recon3d.structures import Camera


def some_points(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 0.5


def ahead(dtype=torch.float64, **changes):
    """A camera that looks along +Z of the world from 2 away, with the authors' focal length; nothing is turned."""
    camera = Camera(
        R=torch.eye(3, dtype=dtype),
        T=torch.tensor([0.0, 0.0, 2.0], dtype=dtype),
        focal=torch.full((2,), 2 * 1.875, dtype=dtype),
        center=torch.zeros(2, dtype=dtype),
    )
    return replace(camera, **changes)


def by_loops(points, camera, v, sigma, scale, taps):
    """Section 3 of the paper, a cell at a time: the silhouette (V,V) of points (N,3)."""
    p3d, points = to_pytorch3d(camera[None].to(dtype=torch.float32)), points.float()  # the precision of PyTorch3D
    screen = p3d.transform_points(points)[:, :2].numpy()  # NDC
    depth = p3d.get_world_to_view_transform().transform_points(points)[:, 2].numpy()
    middle = float(camera.T[2])
    per_unit = float(camera.focal.mean()) / (1 if camera.orthographic else middle) / 2  # of the frame's width
    grid = np.zeros((v, v, v))
    for (x, y), z in zip(screen, depth, strict=True):
        where = np.array([0.5 + (z - middle) * per_unit, 0.5 - y / 2, 0.5 - x / 2])  # in the cube [0, 1]^3
        if (where < 0).any() or (where > 1).any() or (z <= 0 and not camera.orthographic):
            continue
        cell = where * v - 0.5
        low = np.floor(cell).astype(int)
        for corner in np.ndindex(2, 2, 2):
            at = low + corner
            if ((at >= 0) & (at < v)).all():
                grid[tuple(at)] += np.prod(1 - np.abs(cell - at))
    grid = np.minimum(grid, 1)
    kernel = np.array([math.exp(-(k**2) / (2 * sigma**2)) for k in range(-(taps // 2), taps // 2 + 1)])
    kernel /= kernel.sum()
    for axis in range(3):
        grid = np.apply_along_axis(lambda line: np.convolve(line, kernel)[taps // 2 : taps // 2 + v], axis, grid)
    occupancy = np.clip(np.clip(grid * scale, 0, 1), 1e-5, 1 - 1e-5)
    image = np.zeros((v, v))
    for row, column in np.ndindex(v, v):
        light = 1.0
        for o in occupancy[:, row, column]:
            image[row, column] += light * o
            light *= 1 - o
    return image


@pytest.mark.parametrize("sigma", [0.2, 0.7, 3.0])
@pytest.mark.parametrize(("v", "taps"), [(7, 5), (6, 21), (12, 11)])
def test_values_are_those_of_loops_over_cells(sigma, v, taps):
    cameras = look_at_camera(torch.tensor([2.732, 1.2]), torch.tensor([30.0, -20.0]), torch.tensor([-75.0, 130.0]))
    cameras = replace(cameras, center=cameras.center + torch.tensor([0.1, -0.2])).to(dtype=torch.float64)
    points = some_points(2, 300, dtype=torch.float64)
    scale = torch.tensor([0.9, 0.4], dtype=torch.float64)
    seen = render_point_silhouettes(points, cameras, v, sigma, scale, taps)
    assert seen.shape == (2, v, v) and seen.std() > 0.02
    for image, cloud, factor, index in zip(seen, points, scale, range(2), strict=True):
        expected = by_loops(cloud, cameras[index], v, sigma, float(factor), taps)
        torch.testing.assert_close(image, torch.tensor(expected), atol=1e-5, rtol=0)


def test_values_of_an_orthographic_camera():
    camera = ahead(orthographic=True, focal=torch.full((2,), 1.5).double(), T=torch.tensor([0.1, 0, 0.3]).double())
    points = some_points(80, dtype=torch.float64)
    expected = by_loops(points, camera, 8, 0.8, 1.0, 5)
    assert expected.max() > 0.2
    torch.testing.assert_close(
        render_point_silhouettes(points, camera, 8, 0.8, taps=5), torch.tensor(expected), atol=1e-5, rtol=0
    )


def test_a_point_on_a_pixel_centre_fills_that_pixel():
    """+X is left and +Y up: the pixel in row 2 and column 5 of 16 is at NDC (1 - 11/16, 1 - 5/16)."""
    ndc = torch.tensor([1 - 11 / 16, 1 - 5 / 16]).double()
    half_cell = 1 / 16 * 2 / 3.75  # the origin lies between two of the 16 layers
    point = torch.cat([ndc * (2 + half_cell) / 3.75, torch.tensor([half_cell]).double()])
    seen = render_point_silhouettes(point[None], ahead(), 16, 0.05)
    assert seen[2, 5] > 1 - 2e-4
    seen[2, 5] = 0
    assert seen.max() < 2e-4


@pytest.mark.parametrize("shift", [(0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.3, 0.3, 0.0)])
def test_a_point_between_pixels_is_shared_out(shift):
    """Its mass is 1, and its middle is where it projects."""
    point = torch.tensor([[0.1, -0.2, 0.0]]).double() + torch.tensor(shift).double() / 16
    seen = render_point_silhouettes(point, ahead(), 16, 0.05, scale=torch.tensor(0.01).double()) - 16e-5
    ndc = 1 - (2 * torch.arange(16).double() + 1) / 16
    middle = torch.stack([(seen.sum(dim=0) * ndc).sum(), (seen.sum(dim=1) * ndc).sum()]) / seen.sum()
    assert seen.sum() == pytest.approx(0.01, rel=0.02)  # almost nothing is hidden at this scale
    torch.testing.assert_close(middle, point[0, :2] * 3.75 / 2, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "point",
    [(0.6, 0, 0), (0, -0.6, 0), (0, 0, 0.6), (0, 0, -0.6), (0, 0, -2.0), (0, 0, -2.5), (0.1, 0.1, -4.0), (9e9, 0, 0)],
)
def test_points_outside_the_cube_are_left_out_and_have_no_gradient(point):
    outside = torch.tensor([point]).double()
    points = torch.cat([some_points(50, dtype=torch.float64) * 0.5, outside]).requires_grad_()
    seen = render_point_silhouettes(points, ahead(), 8, 1.0)
    assert torch.equal(seen, render_point_silhouettes(points[:50], ahead(), 8, 1.0))
    seen.sum().backward()
    assert points.grad[50].abs().max() == 0 and points.grad[:50].abs().min() > 0


def test_points_behind_a_wide_camera_are_left_out():
    """Where half the depth of the cube is more than the distance."""
    wide, behind = ahead(focal=torch.full((2,), 0.5).double()), torch.tensor([[0.0, 0.0, -3.0]]).double()
    points = some_points(50, dtype=torch.float64)
    seen = render_point_silhouettes(torch.cat([points, behind]), wide, 8, 1.0)
    assert torch.equal(seen, render_point_silhouettes(points, wide, 8, 1.0)) and seen.max() > 0.1


def test_no_points_give_an_almost_empty_image():
    expected = torch.full((3, 8, 8), 1 - (1 - 1e-5) ** 8)
    torch.testing.assert_close(render_point_silhouettes(torch.zeros(3, 0, 3), nmr_cameras()[:3], 8, 1.0), expected)
    assert render_point_silhouettes(torch.zeros(0, 5, 3), nmr_cameras()[:0], 8, 1.0).shape == (0, 8, 8)


def test_leading_dimensions_broadcast():
    points, cameras = some_points(2, 1, 40), nmr_cameras()[[1, 5, 9]]
    scale = torch.tensor([[0.3], [0.8]])
    seen = render_point_silhouettes(points, cameras, 8, 1.0, scale)
    assert seen.shape == (2, 3, 8, 8)
    for b in range(2):
        for k in range(3):
            alone = render_point_silhouettes(points[b, 0], cameras[k], 8, 1.0, scale[b, 0])
            torch.testing.assert_close(seen[b, k], alone)
    torch.testing.assert_close(render_point_silhouettes(points[0, 0], cameras, 8, 1.0, scale)[0], seen[0])


def test_the_order_of_points_does_not_matter():
    points = some_points(500, dtype=torch.float64)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    one, other = (render_point_silhouettes(cloud, ahead(), 16, 1.0) for cloud in (points, points[order]))
    torch.testing.assert_close(one, other)


def filled_ball(radius, count=60000):
    points = some_points(count, dtype=torch.float64) * 2 * radius
    return points[points.norm(dim=1) < radius]


def test_the_silhouette_of_a_ball_has_its_area():
    """A ball of radius r at distance d is seen as a disc whose radius has the tangent r / sqrt(d^2 - r^2)."""
    radius, v = 0.35, 64
    seen = render_point_silhouettes(filled_ball(radius), ahead(), v, 0.3)
    disc = math.pi * (1.875 * radius / math.sqrt(4 - radius**2)) ** 2  # of the frame's area
    assert float(seen.mean()) == pytest.approx(
        disc, rel=0.05
    )  # a splat widens the disc, of 21 cells, by about half a cell
    assert seen[v // 2, v // 2] > 0.99 and seen[0].max() < 1e-3


def test_dense_clouds_cover_the_masks_of_the_meshes():
    """In every camera, and in no other way: a mirrored or turned image agrees far less."""
    verts = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * 1.0
    boxes = [([-0.5, -0.3, -0.2], [1.0, 0.2, 0.3]), ([0.1, -0.1, -0.1], [0.2, 0.4, 0.1])]
    box = torch.tensor([[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5],
                        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 7, 3], [1, 5, 7]])  # fmt: skip
    verts = torch.cat([torch.tensor(corner) + verts * torch.tensor(size) for corner, size in boxes])
    faces = torch.cat([box, box + 8])
    cameras, v = nmr_cameras()[[0, 3, 10, 17]], 96
    masks = render_hard(verts.expand(4, -1, -1), faces, cameras, v, anti_alias=4).mask[:, 0]
    points = sample_surface(verts, faces, 100000, torch.Generator().manual_seed(0))[0].float()
    seen = render_point_silhouettes(points, cameras, v, 0.2)

    def agreement(images):
        return torch.minimum(images, masks).sum() / torch.maximum(images, masks).sum()

    assert agreement(seen) > 0.87, "a splat widens a shape by about half a cell"
    for wrong in (seen.flip(1), seen.flip(2), seen.transpose(1, 2), seen.roll(1, dims=0)):
        assert agreement(wrong) < 0.65
    steps, seen = torch.arange(v), seen - seen.min()  # without the light of empty rays
    for axis in (1, 2):
        middles = [(images.sum(dim=axis) * steps).sum(dim=1) / images.sum(dim=(1, 2)) for images in (seen, masks)]
        assert (middles[0] - middles[1]).abs().max() < 0.2, "off by a part of a pixel"


@pytest.mark.parametrize("orthographic", [False, True])
def test_gradients_by_finite_differences(orthographic):
    """Sparse enough for sums and occupancies to stay below where they are cut, but for one heap of points."""
    points = (0.5 * some_points(12, dtype=torch.float64)).requires_grad_()
    cameras = nmr_cameras()[[2, 9]].to(dtype=torch.float64)
    cameras = replace(cameras, orthographic=orthographic)
    scale = torch.tensor([0.6, 0.9]).double().requires_grad_()

    def render(points, translation, focal, scale):
        camera = replace(cameras, T=translation, focal=focal)
        return render_point_silhouettes(points, camera, 5, 1.1, scale, taps=5)

    inputs = (points, cameras.T.clone().requires_grad_(), cameras.focal.clone().requires_grad_(), scale)
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7)


def test_cut_values_have_no_gradient():
    """A cell with more than 1, and a ray that is opaque: gradients of points there end; those of others do not."""
    heap = torch.zeros(30, 3).double() + 1e-4 * some_points(30, dtype=torch.float64)
    points = torch.cat([heap, torch.tensor([[0.3, 0.3, 0.0]]).double()]).requires_grad_()
    render_point_silhouettes(points, ahead(), 8, 0.5).sum().backward()
    assert points.grad[:30].abs().max() == 0 and points.grad[30].abs().max() > 0
    points.grad = None
    render_point_silhouettes(points, ahead(), 8, 0.5, torch.tensor(1e-6).double()).sum().backward()
    assert points.grad.abs().max() == 0, "occupancies below the smallest"


def test_points_follow_a_silhouette():
    """From a ball beside it, by gradient descent, while the smoothing is wide."""
    there, cloud = torch.tensor([0.12, -0.1, 0.0]).double(), filled_ball(0.2, 1000)
    target = render_point_silhouettes(filled_ball(0.2, 4000) + there, ahead(), 16, 1.5)
    offset = torch.zeros(3).double().requires_grad_()
    for step in range(30):
        seen = render_point_silhouettes(cloud + offset, ahead(), 16, 1.5)
        (gradient,) = torch.autograd.grad((seen - target).square().sum(), offset)
        with torch.no_grad():
            offset -= 0.03 * 0.9**step * gradient / gradient.norm()
    torch.testing.assert_close(offset[:2].detach(), there[:2], atol=0.02, rtol=0)


def test_same_input_same_bits():
    def run():
        points = some_points(4, 1, 3000).requires_grad_()
        image = render_point_silhouettes(points, nmr_cameras()[[3, 14]], 16, 0.8)
        image.square().sum().backward()
        return image.detach(), points.grad

    assert all(map(torch.equal, run(), run()))


def test_bad_input_is_refused():
    points, cameras = some_points(2, 10), nmr_cameras()[:2]
    for wrong in (points[..., :2], some_points(3, 10), points[0, 0]):
        with pytest.raises(ValueError, match=r"expected points \(\.\.\.,N,3\)"):
            render_point_silhouettes(wrong, cameras, 8, 1.0)
    with pytest.raises(ValueError, match="broadcast"):
        render_point_silhouettes(points, cameras, 8, 1.0, scale=torch.ones(3))
    for resolution, sigma, taps in ((0, 1.0, 5), (8, 0.0, 5), (8, math.nan, 5), (8, 1.0, 4), (8, 1.0, -1)):
        with pytest.raises(ValueError, match=rf"got {resolution}, {sigma} and {taps}"):
            render_point_silhouettes(points, cameras, resolution, sigma, taps=taps)
    with pytest.raises(ValueError, match="finite points"):
        render_point_silhouettes(points / 0, cameras, 8, 1.0)
    with pytest.raises(ValueError, match=r"at depth -2\.73"):
        render_point_silhouettes(points, replace(cameras, T=-cameras.T), 8, 1.0)
