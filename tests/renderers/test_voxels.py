from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import map_coordinates

from recon3d.geometry.cameras import look_at_camera, nmr_cameras, project, to_pytorch3d
from recon3d.renderers.hard import render_hard
from recon3d.renderers.voxels import render_voxel_silhouettes

# Cells [y, x, z] of three boxes that no mirroring and no exchange of axes maps onto themselves.
BOXES = (((5, 26), (3, 13), (9, 18)), ((5, 13), (3, 27), (9, 18)), ((5, 13), (19, 27), (12, 30)))


def boxes_as_voxels(r=32):
    grid = torch.zeros(r, r, r)
    for (y0, y1), (x0, x1), (z0, z1) in BOXES:
        grid[y0:y1, x0:x1, z0:z1] = 1
    return grid


def boxes_as_mesh(r=32):
    """The same boxes with faces on the borders of the cells."""
    solids = []
    for y, x, z in BOXES:
        bounds = (np.array([x, y, z]).T - r / 2) / (r - 1)
        solids.append(trimesh.creation.box(bounds=bounds))
    mesh = trimesh.util.concatenate(solids)
    return torch.tensor(mesh.vertices).float(), torch.tensor(np.array(mesh.faces))


def some_grids(*shape, r=8, dtype=torch.float32):
    return torch.rand(*shape, r, r, r, generator=torch.Generator().manual_seed(0), dtype=dtype)


def iou(a, b):
    return (a & b).sum(dim=(-2, -1)) / (a | b).sum(dim=(-2, -1))


def test_boxes_of_cells_cover_the_pixels_of_the_same_boxes_as_a_mesh():
    cameras = nmr_cameras()[[0, 8, 13, 22]]
    verts, faces = boxes_as_mesh()
    expected = render_hard(verts.expand(4, -1, -1), faces, cameras, 64).mask[:, 0] > 0.5

    def agreement(grid):
        return iou(render_voxel_silhouettes(grid[None, None], cameras[None], 64, 64)[0, 0] > 0.5, expected)

    grid = boxes_as_voxels()
    assert agreement(grid).min() > 0.92, "trilinear sampling rounds the edges off"
    wrong = [grid.flip(axis) for axis in range(3)] + [
        grid.permute(order) for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1))
    ]
    assert max(agreement(other).mean() for other in wrong) < 0.7
    assert agreement(grid.roll(1, dims=0)).mean() < agreement(grid).mean() - 0.05, "off by one cell"


@pytest.mark.parametrize("r", [9, 32])
def test_a_single_cell_is_seen_where_its_centre_projects(r):
    cell = torch.tensor([r - 3, 2, r // 2 + 1])  # y, x, z
    grid = torch.zeros(1, 1, r, r, r)
    grid[0, 0, *cell] = 1
    center = ((cell + 0.5 - r / 2) / (r - 1))[[1, 0, 2]]
    cameras = nmr_cameras()[[1, 6, 11, 20]]
    size = 96
    image = render_voxel_silhouettes(grid, cameras[None], size, 256)[0, 0]
    ndc = 1 - (2 * torch.arange(size) + 1) / size
    mass = image.sum(dim=(1, 2))
    seen = torch.stack([(image.sum(dim=1) * ndc).sum(1), (image.sum(dim=2) * ndc).sum(1)], dim=1) / mass[:, None]
    expected = project(cameras, center.expand(4, 1, 3))[:, 0, :2]
    assert (seen - expected).abs().max() < 0.5 * 2 / size  # half a pixel


def by_scipy(grid, camera, size, planes):
    """The silhouette by PyTorch3D's unprojection and SciPy's interpolation."""
    r = len(grid)
    corners = torch.tensor(np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]), -1).reshape(1, 8, 3)).float()
    depths = project(camera, corners)[0, :, 2]
    edges = torch.linspace(float(depths.min()), float(depths.max()), planes + 1)
    z = (edges[1:] + edges[:-1]) / 2
    ndc = 1 - (2 * torch.arange(size) + 1) / size
    zz, yy, xx = torch.meshgrid(z, ndc, ndc, indexing="ij")
    points = to_pytorch3d(camera).unproject_points(
        torch.stack([xx, yy, zz], dim=-1).reshape(1, -1, 3), world_coordinates=True
    )
    where = ((r - 1) * points[0] + r / 2 - 0.5).numpy().T[[1, 0, 2]]
    values = map_coordinates(grid.numpy(), where, order=1, mode="grid-constant", cval=0.0)
    return torch.tensor(values).reshape(planes, size, size).amax(dim=0)


@pytest.mark.parametrize(("r", "size", "planes"), [(8, 12, 5), (32, 32, 32)])
def test_values_are_those_of_scipy_at_the_points_of_pytorch3d(r, size, planes):
    grids = some_grids(2, 2, r=r)
    cameras = look_at_camera(torch.tensor([2.732, 1.6]), torch.tensor([30.0, -20.0]), torch.tensor([-75.0, 130.0]))
    cameras = replace(cameras, focal=cameras.focal * torch.tensor([1.0, 1.2]), center=cameras.center + 0.1)
    seen = render_voxel_silhouettes(grids, cameras[torch.tensor([[0, 1], [1, 0]])], size, planes)
    assert seen.shape == (2, 2, 2, size, size)
    for b in range(2):
        for c in range(2):
            for v in range(2):
                expected = by_scipy(grids[b, c], cameras[[(b + v) % 2]], size, planes)
                torch.testing.assert_close(seen[b, c, v], expected, atol=2e-4, rtol=0)


def test_gradients_by_finite_differences():
    grids = some_grids(1, 2, r=4, dtype=torch.float64).requires_grad_()
    camera = nmr_cameras()[[2, 9]][None].to(dtype=torch.float64)

    def render(occupancy, translation):
        return render_voxel_silhouettes(occupancy, replace(camera, T=translation), 5, 6)

    assert torch.autograd.gradcheck(render, (grids, camera.T.clone().requires_grad_()), eps=1e-7, fast_mode=True)


def test_only_the_largest_sample_of_a_ray_has_a_gradient():
    """Of a grid that is denser in front, only the front is held responsible."""
    grid = torch.full((1, 1, 8, 8, 8), 0.2)
    grid[..., 5] = 0.9
    grid.requires_grad_()
    render_voxel_silhouettes(grid, look_at_camera(3.0, 0.0, 0.0)[None], 4, 40).sum().backward()
    by_layer = grid.grad.sum(dim=(0, 1, 2, 3))
    assert by_layer[5] > 0 and by_layer[:4].abs().max() == 0 and by_layer[7] == 0


def test_same_input_same_bits():
    def run():
        grids = some_grids(4, 2, r=16).requires_grad_()
        image = render_voxel_silhouettes(grids, nmr_cameras()[[3, 14]][None][[0] * 4], 16)
        image.square().sum().backward()
        return image.detach(), grids.grad

    assert all(map(torch.equal, run(), run()))


def test_bad_input_is_refused():
    grids, cameras = some_grids(2, 1), nmr_cameras()[[[0, 1], [2, 3]]]
    for wrong in (grids[0], grids[..., :4]):
        with pytest.raises(ValueError, match=r"expected occupancy \(B,C,R,R,R\)"):
            render_voxel_silhouettes(wrong, cameras, 8)
    for wrong in (cameras[0], cameras[:1]):
        with pytest.raises(ValueError, match=r"cameras \(B,V\), got"):
            render_voxel_silhouettes(grids, wrong, 8)
    with pytest.raises(ValueError, match="got orthographic ones"):
        render_voxel_silhouettes(grids, replace(cameras, orthographic=True), 8)
    inside = look_at_camera(0.3, 30.0, 45.0)[None][[0, 0]]
    with pytest.raises(ValueError, match="begins at depth -"):
        render_voxel_silhouettes(grids, inside, 8)
    away = replace(cameras, T=-cameras.T)
    with pytest.raises(ValueError, match="outside the cube"):
        render_voxel_silhouettes(grids, away, 8)
