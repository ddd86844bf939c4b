"""The Frechet distance against SciPy's matrix square root and against a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from recon3d.metrics.fid import FrechetDistance, frechet_distance


def by_scipy(pred: np.ndarray, target: np.ndarray) -> float:
    first, second = np.cov(pred, rowvar=False), np.cov(target, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    shift = pred.mean(axis=0) - target.mean(axis=0)
    return float(shift @ shift + np.trace(first + second - 2 * root.real))


def test_it_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    pred = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)) + 1
    target = rng.normal(size=(50, 8))
    ours = frechet_distance(torch.from_numpy(pred), torch.from_numpy(target))
    assert ours == pytest.approx(by_scipy(pred, target), rel=1e-8)
    assert ours == pytest.approx(frechet_distance(torch.from_numpy(target), torch.from_numpy(pred)))


def test_a_shift_costs_its_square_and_a_scale_the_difference_of_the_deviations() -> None:
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 3)))
    shift = torch.tensor([1.0, -2.0, 2.0])
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features + shift, features) == pytest.approx(9)
    # 3 times the deviation in every direction: the sum of (3 s - s)^2 over the variances s^2.
    centered = features - features.mean(dim=0)
    assert frechet_distance(3 * centered, centered) == pytest.approx(4 * float(centered.var(dim=0).sum()))


def test_few_samples_are_marked_and_too_few_have_no_value() -> None:
    metric = FrechetDistance()
    features = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    kept = [*metric.keep(features[:5], features[:5] + 1), *metric.keep(features[5:], features[5:] + 1)]
    full = metric.compute(kept)
    assert (full.n, full.note) == (12, None)
    assert full.value == pytest.approx(12, rel=1e-4)
    few = metric.compute(kept[:11])
    assert few.value is not None and few.note == "only 11 samples for 12 features: mostly bias"
    assert metric.compute(kept[:1]).value is metric.compute([]).value is None


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        frechet_distance(torch.rand(1, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match="expected features"):
        frechet_distance(torch.rand(5, 3), torch.rand(5, 4))
