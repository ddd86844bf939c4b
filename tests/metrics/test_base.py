from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recon3d.metrics.base import SampleMetric, SampleScores, stable_key


class Higher(SampleMetric):
    higher_is_better = True
    worst = 0.0

    def measure(self, pred: Tensor, target: Tensor) -> Tensor:
        return pred


class Lower(Higher):
    higher_is_better = False
    worst = 10.0


class Undefined(Higher):
    worst = None


def keys(*names: str) -> Tensor:
    return torch.tensor([stable_key(name) for name in names])


def scores(values: list[float], categories: list[int]) -> SampleScores:
    return SampleScores(np.array(values), np.arange(len(values)), np.array(categories))


def test_stable_key_is_the_same_in_every_process() -> None:
    # blake2b of b"car/0007/v03" with 8 bytes, by coreutils: b2sum -l 64.
    assert stable_key("car/0007/v03") == 0x4E6992F6F28949C4 >> 1
    assert 0 <= stable_key("") < 2**63


def test_a_sample_that_comes_twice_counts_once() -> None:
    metric = Higher()
    metric.update(torch.tensor([0.2, 0.4]), None, keys("a", "b"), keys("car", "car"))
    metric.update(torch.tensor([0.9, 0.2]), None, keys("c", "a"), keys("car", "car"))
    result = metric.compute()
    assert result.n == 3
    assert result.mean() == pytest.approx(0.5)
    assert dict(zip(result.samples.tolist(), result.values.tolist(), strict=True)) == {
        stable_key("a"): pytest.approx(0.2),
        stable_key("b"): pytest.approx(0.4),
        stable_key("c"): pytest.approx(0.9),
    }


def test_mean_counts_samples_and_per_category_counts_categories() -> None:
    result = scores([1.0, 1.0, 1.0, 0.0], [5, 5, 5, 2])
    assert result.mean() == 0.75
    assert result.per_category() == {2: 0.0, 5: 1.0}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Higher(), [0.5, 0.0, 0.0, 0.0]),
        (Lower(), [0.5, 10.0, 10.0, 10.0]),
        (Undefined(), [0.5, np.nan, np.nan, np.nan]),
    ],
    ids=["higher", "lower", "undefined"],
)
def test_a_failed_prediction_gets_the_worst_value(metric: SampleMetric, expected: list[float]) -> None:
    bad = -torch.inf if metric.higher_is_better else torch.inf
    metric.update(torch.tensor([0.5, torch.nan, bad, torch.nan]), None, keys(*"abcd"), keys(*"xxxx"))
    result = metric.compute()
    values = dict(zip(result.samples.tolist(), result.values.tolist(), strict=True))
    np.testing.assert_array_equal([values[stable_key(name)] for name in "abcd"], expected)


def test_no_value_is_worse_than_a_failure() -> None:
    metric = Lower()
    metric.update(torch.tensor([1e9, 3.0]), None, keys("a", "b"), keys("x", "x"))
    assert sorted(metric.compute().values) == [3.0, 10.0]


def test_undefined_samples_are_left_out_of_mean_and_n() -> None:
    result = scores([2.0, np.nan, 4.0, np.nan], [0, 0, 0, 1])
    assert (result.n, result.mean(), result.per_category()) == (2, 3.0, {0: 3.0})
    with pytest.raises(ValueError, match="at least one defined value"):
        scores([np.nan], [0]).mean()
    with pytest.raises(ValueError, match="at least one defined value"):
        scores([], []).interval()


def test_interval_has_the_width_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=500)
    result = SampleScores(values, np.arange(500), np.zeros(500, np.int64))
    error = values.std() / np.sqrt(500)
    low, high = result.interval(resamples=4000, seed=3)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_interval_is_seeded_and_grows_with_level() -> None:
    result = scores(list(np.random.default_rng(0).random(50)), [0] * 50)
    assert result.interval(seed=1) == result.interval(seed=1) != result.interval(seed=2)
    low, high = result.interval(level=0.5)
    assert result.interval()[0] < low < high < result.interval()[1]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one value, sample and category each"):
        Higher().update(torch.tensor([0.5]), None, keys("a", "b"), keys("x", "x"))


def test_before_any_update_there_are_no_scores() -> None:
    with pytest.warns(UserWarning, match="compute"):
        assert Higher().compute().n == 0
