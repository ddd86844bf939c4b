"""Nearest neighbours, Chamfer distance and F-score, against SciPy's full distance matrix and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from torch import Tensor

from recon3d.metrics import nearest
from recon3d.metrics.base import stable_key
from recon3d.metrics.chamfer import ChamferDiagonal, ChamferDistance, chamfer_diagonal, chamfer_distance
from recon3d.metrics.fscore import FScore, f_score
from recon3d.metrics.nearest import nearest_distances


def cloud(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def fibonacci_sphere(n: int, radius: float) -> Tensor:
    k = torch.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = math.pi * (1 + 5**0.5) * k
    ring = (1 - z**2).sqrt()
    return radius * torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)


def keys(n: int) -> Tensor:
    return torch.tensor([stable_key(str(k)) for k in range(n)])


def test_distances_equal_those_of_the_full_matrix() -> None:
    pred, target = cloud(3, 200), cloud(3, 150, seed=1)
    found = nearest_distances(pred, target)
    for b in range(3):
        matrix = cdist(pred[b].double().numpy(), target[b].double().numpy())
        np.testing.assert_allclose(found.to_target[b], matrix.min(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found.to_pred[b], matrix.min(axis=0), rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    pred, target = cloud(2, 500), cloud(2, 400, seed=1)
    pred[1, 7, 2] = torch.nan
    ours, theirs = nearest_distances(pred.cuda(), target.cuda()), nearest_distances(pred, target)
    for gpu, cpu in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(gpu.cpu().numpy(), cpu.numpy(), atol=1e-6)


def test_chamfer_is_a_sum_of_two_unsquared_means() -> None:
    pred, target = cloud(2, 120), cloud(2, 80, seed=1)
    for value, ours, theirs in zip(chamfer_distance(pred, target), pred, target, strict=True):
        matrix = cdist(ours.double().numpy(), theirs.double().numpy())
        assert float(value) == pytest.approx(matrix.min(axis=1).mean() + matrix.min(axis=0).mean(), rel=1e-6)


def test_chamfer_of_concentric_spheres() -> None:
    # Every point of one sphere is |r1 - r2| from the other, each way.
    value = chamfer_distance(fibonacci_sphere(20_000, 0.5)[None], fibonacci_sphere(20_000, 0.4)[None])
    assert float(value) == pytest.approx(0.2, rel=2e-3)


def test_chamfer_of_independent_samples_has_the_stated_floor() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.nn.functional.pad(torch.rand(1, 4000, 2, generator=generator), (0, 1)) for _ in range(2))
    # Poisson process of density n / A: mean distance to the nearest point 0.5 sqrt(A / n), both ways.
    assert float(chamfer_distance(pred, target)) == pytest.approx(2 * 0.5 / math.sqrt(4000), rel=0.05)
    expected = 1 - math.exp(-math.pi * 0.01**2 * 4000)
    assert float(f_score(pred, target).f_score) == pytest.approx(expected, rel=0.03)


def test_chamfer_diagonal_of_concentric_spheres_does_not_see_their_size() -> None:
    # The box of a sphere of radius r has the diagonal 2 sqrt(3) r.
    near, far = fibonacci_sphere(8000, 0.5)[None], fibonacci_sphere(8000, 0.1)[None]
    assert float(chamfer_diagonal(near, far)) == pytest.approx(0.0, abs=1e-6)
    # An egg of half the height has the box (2, 2, 1) r: scaled, its points (x, y, z/2) / 3r.
    egg = far * torch.tensor([1.0, 1.0, 0.5])
    sphere, flat = near[0] / 0.5 / (2 * math.sqrt(3)), egg[0] / 0.1 / 3
    expected = cKDTree(flat).query(sphere)[0].mean() + cKDTree(sphere).query(flat)[0].mean()
    assert float(chamfer_diagonal(near, egg)) == pytest.approx(expected, rel=1e-3)


def test_chamfer_diagonal_scales_about_the_origin_and_does_not_centre() -> None:
    box = torch.tensor([[[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]])
    shift = torch.tensor([0.1, 0.0, 0.0])
    # Scaled by 1 / sqrt(3), the shift is the distance of every corner, both ways.
    assert float(chamfer_diagonal(box + shift, box)) == pytest.approx(2 * 0.1 / math.sqrt(3), rel=1e-5)
    assert float(chamfer_diagonal(0.01 * (box + shift), 7 * box)) == pytest.approx(2 * 0.1 / math.sqrt(3), rel=1e-5)


def test_chamfer_diagonal_takes_a_seeded_random_subset_of_8000_points() -> None:
    # Along a line, in order: the first 8000 would miss the last third, a random subset is spread over all.
    line = torch.nn.functional.pad(torch.linspace(-0.5, 0.5, 12_000)[None, :, None], (0, 2))
    value = chamfer_diagonal(line, line[:, ::2])
    assert float(value) < 5e-4 and torch.equal(value, chamfer_diagonal(line, line[:, ::2]))
    kept = cloud(1, 8000)
    assert float(chamfer_diagonal(kept, kept)) == 0.0
    assert 0.0 < float(chamfer_diagonal(kept, torch.cat([kept, kept.flip(1)[:, :1]], dim=1))) < 1e-4


def test_chamfer_diagonal_of_a_failed_prediction_is_two() -> None:
    pred, target = cloud(4, 50), cloud(4, 50)
    pred[0] = 0.3  # a single place has no box
    pred[1, 3, 0] = torch.nan
    pred[2] += 1000.0
    metric = ChamferDiagonal()
    metric.update(pred, target, keys(4), keys(4))
    assert metric.values[0].tolist() == [2.0, 2.0, 2.0, 0.0]


def test_f_score_counts_points_within_the_threshold() -> None:
    # Predicted: 2 of 4 close. Target: 1 of 2 close. F = 2 * 0.5 * 0.5 / 1.
    target = torch.tensor([[[0.0, 0, 0], [0.4, 0, 0]]])
    pred = torch.tensor([[[0.0, 0.009, 0], [0.009, 0, 0], [0, 0.011, 0], [0, 0, 0.2]]])
    result = f_score(pred, target)
    assert (float(result.precision), float(result.recall), float(result.f_score)) == (0.5, 0.5, 0.5)
    result = f_score(pred[:, :1], target)
    assert (float(result.precision), float(result.recall)) == (1.0, 0.5)
    assert float(result.f_score) == pytest.approx(2 / 3)
    assert float(f_score(pred, target, threshold=0.5).f_score) == 1.0
    assert float(f_score(pred + 5, target).f_score) == 0.0


def test_a_failed_prediction_scores_worst_and_leaves_the_others() -> None:
    pred, target = cloud(2, 50), cloud(2, 50)
    pred[1, 3, 0] = torch.nan
    chamfer, score = ChamferDistance(), FScore()
    for metric in (chamfer, score):
        metric.update(pred, target, keys(2), keys(2))
    assert chamfer.values[0].tolist() == pytest.approx([0.0, 200 * math.sqrt(3)])
    assert score.values[0].tolist() == [1.0, 0.0]


def test_chamfer_metric_is_times_100() -> None:
    metric = ChamferDistance()
    metric.update(torch.zeros(1, 1, 3), torch.tensor([[[0.3, 0.0, 0.4]]]), keys(1), keys(1))
    assert metric.compute().mean() == pytest.approx(100.0)


def test_neighbours_of_one_pair_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    search = nearest._nearest_cpu
    monkeypatch.setattr(nearest, "_nearest_cpu", lambda *pair: calls.append(pair) or search(*pair))
    pred, target = cloud(1, 40), cloud(1, 40, seed=1)
    first = chamfer_distance(pred, target)
    f_score(pred, target)
    assert len(calls) == 1
    pred += 1.0  # the same tensor with other values is another pair
    assert float(chamfer_distance(pred, target)) > float(first)
    chamfer_distance(pred.clone(), target)
    assert len(calls) == 3


def test_works_in_inference_mode() -> None:
    with torch.inference_mode():
        pred = cloud(1, 10)
        assert float(chamfer_distance(pred, pred)) == 0.0


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (torch.zeros(1, 5, 2), torch.zeros(1, 5, 3), "expected"),
        (torch.zeros(2, 5, 3), torch.zeros(1, 5, 3), "expected"),
        (torch.zeros(1, 0, 3), torch.zeros(1, 5, 3), "empty"),
        (torch.zeros(1, 5, 3), torch.full((1, 5, 3), torch.nan), "target points hold NaN"),
    ],
)
def test_bad_input_is_refused(pred: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_distances(pred, target)
