"""Grids of points against NumPy's histogram, SciPy's hole filling and counted cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from recon3d.metrics.base import stable_key
from recon3d.metrics.point_iou import FilledIoU, SurfaceIoU, filled, occupied_cells


def scores(metric: SurfaceIoU | FilledIoU, pred: Tensor, target: Tensor) -> list[float]:
    keys = torch.tensor([stable_key(str(k)) for k in range(len(pred))])
    metric.update(pred, target, keys, keys)
    return metric.values[0].tolist()


def cube_surface(side: int, corner: int) -> Tensor:
    """Centres of the outer cells of a cube of `side` cells that starts at cell `corner` along each axis."""
    inside = range(1, side - 1)
    cells = [
        cell for cell in itertools.product(range(side), repeat=3) if not all(position in inside for position in cell)
    ]
    return (torch.tensor(cells) + corner + 0.5) / 32 - 0.5


def test_cells_are_those_of_a_histogram_in_the_order_y_x_z() -> None:
    points = torch.rand(2, 3000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5, 0.25]) - 0.5
    grids = occupied_cells(points)
    for grid, cloud in zip(grids, points, strict=True):
        counts, _ = np.histogramdd(cloud.double().numpy(), bins=32, range=[(-0.5, 0.5)] * 3)
        np.testing.assert_array_equal(grid.numpy(), counts.transpose(1, 0, 2) > 0)


def test_the_border_and_what_lies_outside_count_for_the_nearest_cell() -> None:
    points = torch.tensor([[[0.5, -0.5, 0.0], [9.0, -0.6, 0.0]], [[-0.51, 1e6, 0.499], [-0.5, 0.5, 0.5]]])
    found = [grid.nonzero().tolist() for grid in occupied_cells(points)]
    assert found == [[[0, 31, 16]], [[31, 0, 31]]]


def test_a_prediction_that_is_not_finite_has_no_cell_and_scores_zero() -> None:
    target = torch.rand(3, 100, 3) - 0.5
    pred = target.clone()
    pred[0, 5, 1], pred[1, 5, 1] = torch.nan, torch.inf
    assert occupied_cells(pred).flatten(1).any(dim=1).tolist() == [False, False, True]
    assert scores(SurfaceIoU(), pred, target) == [0.0, 0.0, 1.0]
    assert scores(FilledIoU(), pred, target) == [0.0, 0.0, 1.0]


def walked(grid: np.ndarray) -> np.ndarray:
    """What a walk of the 2 x 2 x 2 cube from outside leaves, step by step."""
    n = len(grid)

    def free(at: tuple[int, ...]) -> bool:
        return not any(
            all(0 <= k < n for k in cell) and grid[cell]
            for cell in (tuple(np.add(at, step)) for step in itertools.product((0, 1), repeat=3))
        )

    waiting, seen = [(-2, -2, -2)], {(-2, -2, -2)}
    while waiting:
        at = waiting.pop()
        for axis, step in itertools.product(range(3), (-1, 1)):
            to = tuple(k + step * (a == axis) for a, k in enumerate(at))
            if to not in seen and all(-2 <= k <= n for k in to) and free(to):
                seen.add(to)
                waiting.append(to)
    solid = np.ones_like(grid)
    for at in seen:
        low, high = np.clip(at, 0, n), np.clip(np.add(at, 2), 0, n)
        solid[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = False
    return solid


def test_filling_agrees_with_a_walk_of_the_cube() -> None:
    generator = torch.Generator().manual_seed(0)
    # From empty over noise with cavities of every kind to full.
    grids = torch.stack([torch.rand(7, 7, 7, generator=generator) < share for share in (0.0, 0.05, 0.1, 0.2, 0.4, 1.1)])
    solids = filled(grids).numpy()
    for grid, solid in zip(grids.numpy(), solids, strict=True):
        np.testing.assert_array_equal(solid, walked(grid))
    assert not solids[0].any() and solids[-1].all()
    for grid, solid in zip(grids[2:4].numpy(), solids[2:4], strict=True):
        assert grid.sum() < solid.sum() < solid.size


def test_closed_shells_are_filled_as_scipy_fills_them() -> None:
    shells = torch.stack([occupied_cells(cube_surface(side, 5)[None])[0] for side in (3, 4, 9, 20)])
    for shell, solid in zip(shells.numpy(), filled(shells).numpy(), strict=True):
        np.testing.assert_array_equal(solid, binary_fill_holes(shell))


def test_a_gap_opens_the_inside_where_two_by_two_cells_are_missing() -> None:
    closed = occupied_cells(cube_surface(10, 3)[None])
    cell, slit, hole = closed.clone(), closed.clone(), closed.clone()
    cell[0, 3, 8, 8] = False
    slit[0, 3, 8, 5:11] = False
    hole[0, 3, 7:9, 7:9] = False
    assert [int(filled(grid).sum()) for grid in (closed, cell, slit)] == [10**3] * 3
    assert torch.equal(filled(hole), hole)


@pytest.mark.parametrize("shift", [0, 1, 4, 12])
def test_iou_of_shifted_cubes(shift: int) -> None:
    side = 10
    pred, target = cube_surface(side, 3)[None], cube_surface(side, 3 + shift)[None]
    common = max(side - shift, 0) ** 3
    assert scores(FilledIoU(), pred, target)[0] == pytest.approx(common / (2 * side**3 - common))
    # Shell cells of both: on the surface of the common box seen from one cube, but not inside the other.
    ours, theirs = ({tuple(p) for p in (32 * (c[0] + 0.5)).floor().int().tolist()} for c in (pred, target))
    assert len(ours) == side**3 - (side - 2) ** 3
    assert scores(SurfaceIoU(), pred, target)[0] == pytest.approx(len(ours & theirs) / len(ours | theirs))


def test_filled_spheres_have_the_iou_of_their_volumes_and_few_points_do_not() -> None:
    def sphere(n: int, radius: float) -> Tensor:
        points = torch.randn(1, n, 3, generator=torch.Generator().manual_seed(n))
        return radius * points / points.norm(dim=2, keepdim=True)

    # A filled shell has the cells that the surface passes through, too: about half a cell on the radius.
    expected = ((0.3 + 0.5 / 32) / (0.45 + 0.5 / 32)) ** 3
    assert scores(FilledIoU(), sphere(30_000, 0.3), sphere(30_000, 0.45))[0] == pytest.approx(expected, rel=0.05)
    # The documented dependence on N: 1,000 points leave gaps, and the inside stays open.
    sparse = sphere(1000, 0.45)
    assert scores(FilledIoU(), sparse, sphere(30_000, 0.45))[0] < 0.15
    assert scores(SurfaceIoU(), sparse, sphere(30_000, 0.45))[0] < 0.4
    assert scores(FilledIoU(), sparse, sparse)[0] == scores(SurfaceIoU(), sparse, sparse)[0] == 1.0
