from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass
from scipy.spatial.distance import cdist

from recon3d.losses.parts import part_chamfer_loss, part_probability_loss, sample_part_points


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(points: torch.Tensor, size: int) -> np.ndarray:
    """(..., 2) columns and rows of image coordinates."""
    return ((points.double().numpy() + 1) * size - 1) / 2


def test_points_are_pixel_centres_of_the_part_on_the_mask():
    parts = torch.zeros(1, 3, 16, 16)
    parts[0, 1, 2:10, 4:8] = 1
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :6, :] = 1  # 4 rows of 4 pixels are left
    found = sample_part_points(parts, mask, {1: 10}, generator())[1]
    columns, rows = pixels(found.points[0], 16).round(6).T
    assert found.valid.tolist() == [True] and len(set(zip(columns, rows, strict=True))) == 10
    assert set(columns) <= {4, 5, 6, 7} and set(rows) <= {2, 3, 4, 5}


def test_the_points_nearest_to_the_centroid_are_kept():
    # As many pixels as are drawn, 15, so that all of them are candidates; the maps differ in weight.
    weight = np.zeros((12, 12))
    places = np.random.default_rng(0).choice(144, 15, replace=False)
    weight.flat[places] = np.linspace(0.2, 1, 15)
    parts = torch.zeros(1, 2, 12, 12, dtype=torch.float64)
    parts[0, 1] = torch.from_numpy(weight)
    found = sample_part_points(parts, torch.ones(1, 1, 12, 12, dtype=torch.float64), {1: 10}, generator())[1]
    row, column = center_of_mass(weight)
    candidates = np.argwhere(weight > 0)
    nearest = candidates[np.argsort(np.hypot(*(candidates - [row, column]).T))[:10]]
    kept = pixels(found.points[0], 12)[:, ::-1].round(6)
    assert sorted(map(tuple, kept.tolist())) == sorted(map(tuple, nearest.astype(float).tolist()))


def test_pixels_are_drawn_in_proportion_to_their_weight():
    # Two of three pixels are drawn; the centroid is at column 1.56, so column 2 is kept, or 1 where 0 and 1 were drawn.
    parts = torch.tensor([1.0, 2.0, 6.0]).expand(20_000, 1, 1, 3)
    found = sample_part_points(parts, torch.ones(20_000, 1, 1, 3), {0: 1}, generator())[0]
    columns = pixels(found.points[:, 0], 3)[:, 0].round()
    without_replacement = 1 / 9 * 2 / 8 + 2 / 9 * 1 / 7  # 0.060; with replacement the two are drawn more often, 0.111
    assert set(columns) == {1, 2} and (columns == 1).mean() == pytest.approx(without_replacement, abs=0.006)


def test_small_parts_repeat_and_empty_ones_are_not_valid():
    parts = torch.zeros(2, 5, 8, 8)
    parts[0, 4, 1, 6] = 0.3
    parts[0, 4, 2, 6] = 0.1
    mask = torch.ones(2, 1, 8, 8)
    found = sample_part_points(parts, mask, {4: 30, 2: 10}, generator())
    assert list(found) == [4, 2] and found[4].points.shape == (2, 30, 2) and found[2].points.shape == (2, 10, 2)
    assert found[4].valid.tolist() == [True, False] and not found[2].valid.any()
    assert np.unique(pixels(found[4].points[0], 8).round(6), axis=0).tolist() == [[6, 1], [6, 2]]
    assert not found[4].points[1].any() and not found[2].points.any()
    # More points than the image has pixels.
    assert (
        sample_part_points(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), {0: 9}, generator())[0].points.shape[1] == 9
    )


def test_the_draw_depends_on_the_seed_alone():
    parts, mask = random(2, 3, 16, 16), torch.ones(2, 1, 16, 16, dtype=torch.float64)
    first, again, other = (sample_part_points(parts, mask, {1: 5}, generator(seed))[1].points for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    one = generator(3)
    sample_part_points(parts, mask, {1: 5, 2: 5}, one)
    two = generator(3)
    sample_part_points(torch.zeros_like(parts), mask, {1: 5, 2: 5}, two)
    assert torch.equal(one.get_state(), two.get_state())


@pytest.mark.parametrize("counts", [{5: 3}, {-1: 3}, {0: 0}])
def test_counts_of_no_channel_are_refused(counts):
    with pytest.raises(ValueError, match="counts >= 1 of channels 0 to 4"):
        sample_part_points(torch.ones(1, 5, 4, 4), torch.ones(1, 1, 4, 4), counts, generator())
    with pytest.raises(ValueError, match=r"got \(1, 5, 4, 4\) and \(1, 4, 4\)"):
        sample_part_points(torch.ones(1, 5, 4, 4), torch.ones(1, 4, 4), {0: 1}, generator())


def test_chamfer_is_that_of_scipy():
    projected, points = random(3, 7, 2), random(3, 5, 2, seed=1)
    valid = torch.tensor([True, False, True])
    one_sided, symmetric = [], []
    for here, there in zip(projected, points, strict=True):
        distances = cdist(here, there, "sqeuclidean")
        one_sided.append(distances.min(axis=1).mean())
        symmetric.append(one_sided[-1] + distances.min(axis=0).mean())
    one_sided[1] = symmetric[1] = 0
    assert part_chamfer_loss(projected, points, valid).tolist() == pytest.approx(one_sided)
    assert part_chamfer_loss(projected, points, valid, "symmetric").tolist() == pytest.approx(symmetric)
    with pytest.raises(ValueError, match="one_sided or symmetric, got 'both'"):
        part_chamfer_loss(projected, points, valid, "both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"valid \(B,\), got \(3, 7, 2\), \(3, 5, 2\) and \(2,\)"):
        part_chamfer_loss(projected, points, valid[:2])


def test_chamfer_has_a_gradient_to_the_projections_of_valid_images_alone():
    projected, points = random(2, 4, 2).requires_grad_(), random(2, 3, 2, seed=1)
    valid = torch.tensor([True, False])
    assert torch.autograd.gradcheck(lambda p: part_chamfer_loss(p, points, valid, "symmetric"), (projected,))
    part_chamfer_loss(projected, points, valid).sum().backward()
    assert projected.grad is not None and projected.grad[0].abs().min() > 0 and not projected.grad[1].any()


def square(row: int, column: int, value: float, channel: int) -> torch.Tensor:
    """(1, 3, 8, 8) maps with a square of 2x2 pixels."""
    maps = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    maps[0, channel, row : row + 2, column : column + 2] = value
    return maps


EVERYWHERE = torch.ones(1, 1, 8, 8, dtype=torch.float64)


def test_probability_loss_by_hand():
    # Channel 1: the same part 4 pixels (1 in image coordinates) to the right, so 8 of 64 pixels differ by 1.
    rendered, parts = square(2, 4, 0.5, 1), square(2, 0, 0.25, 1)
    # Channel 2, of the same shape and any strength: no difference.
    rendered, parts = rendered + square(0, 0, 0.9, 2), parts + square(0, 0, 0.1, 2)
    maps = 5 * 8 / 64 / 3
    loss = part_probability_loss(rendered, parts, EVERYWHERE, [0, 5, 5])
    assert loss.tolist() == pytest.approx([(maps + 1 / 2 / 2) / 4])
    assert part_probability_loss(parts, parts, EVERYWHERE, [0, 5, 5]).item() < 1e-30
    # Of no weight: neither map nor centroid.
    assert part_probability_loss(rendered, parts, EVERYWHERE, [5, 0, 5]).item() < 1e-30


def test_probability_centroids_are_those_of_scipy():
    rendered, parts, mask = random(2, 4, 9, 9), random(2, 4, 9, 9, seed=1), random(2, 1, 9, 9, seed=2)
    found = part_probability_loss(rendered, parts, mask, [1e-12, 1e-12, 1e-12, 0])
    for image in range(2):
        apart = []
        for channel in range(3):
            ours = np.array(center_of_mass(rendered[image, channel].numpy()))
            theirs = np.array(center_of_mass((parts * mask)[image, channel].numpy()))
            apart.append((((ours - theirs) * 2 / 9) ** 2).mean())
        assert found[image].item() == pytest.approx(np.mean(apart) / 4, rel=1e-6)


def test_the_mask_cuts_the_observed_parts():
    parts = square(2, 0, 1, 1) + square(4, 4, 1, 1)
    mask = EVERYWHERE.clone()
    mask[..., 4:] = 0
    assert part_probability_loss(square(2, 0, 1, 1), parts, mask, [0, 1, 0]).tolist() == [0]


def test_parts_that_are_not_seen_count_nothing_and_have_finite_gradients():
    rendered = torch.cat([square(2, 2, 0.5, 1), torch.zeros(1, 3, 8, 8, dtype=torch.float64)]).requires_grad_()
    parts = torch.cat([square(2, 2, 0.5, 2), square(2, 2, 0.5, 1)])
    losses = part_probability_loss(rendered, parts, EVERYWHERE.expand(2, 1, 8, 8), [0, 5, 0])
    # The first image does not show part 1; the second does, the render does not: 4 of 64 pixels, and no centroid.
    assert losses.tolist() == pytest.approx([0, 5 * 4 / 64 / 3 / 4])
    losses.sum().backward()
    assert rendered.grad is not None and not rendered.grad[0].any()
    assert rendered.grad[1, 1, 2, 2] < 0 and rendered.grad.abs().max() < 1e3


def test_probability_gradients_are_exact():
    rendered = (0.1 + random(1, 3, 5, 5)).requires_grad_()
    parts, mask = random(1, 3, 5, 5, seed=1), random(1, 1, 5, 5, seed=2)
    assert torch.autograd.gradcheck(lambda r: part_probability_loss(r, parts, mask, [0, 5, 1]), (rendered,))


@pytest.mark.parametrize("weights", [[1, 1], [0, 0, 0], [1, -1, 1]])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match="3 weights >= 0, not all 0"):
        part_probability_loss(square(0, 0, 1, 1), square(0, 0, 1, 1), EVERYWHERE, weights)
    with pytest.raises(ValueError, match=r"rendered \(1, 3, 8, 8\), as parts, got \(1, 2, 8, 8\)"):
        part_probability_loss(square(0, 0, 1, 1)[:, :2], square(0, 0, 1, 1), EVERYWHERE, [0, 1, 1])
