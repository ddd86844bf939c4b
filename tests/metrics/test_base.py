from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recon3d.metrics.base import SampleMetric, SampleScores, object_name, stable_key


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


@pytest.mark.parametrize(
    ("sample", "name"),
    [("car/0007/v03", "car/0007"), ("car/v2/v00", "car/v2"), ("car/0007", "car/0007"), ("photo/v1x", "photo/v1x")],
)
def test_the_object_of_a_sample_is_its_name_without_the_view(sample: str, name: str) -> None:
    assert object_name(sample) == name


@pytest.mark.parametrize(("higher", "values", "kept"), [(False, [1.0, 0.5, 4.0], [10, 13, 15]),
                                                        (True, [3.0, 2.0, 4.0], [11, 12, 15])])  # fmt: skip
def test_the_best_sample_of_each_object(higher: bool, values: list[float], kept: list[int]) -> None:
    # Objects 7 (two views), 8 (three, one undefined), 9 (one), in no order; then the same in another order.
    all_values = np.array([4.0, 3.0, 0.5, np.nan, 1.0, 2.0])
    samples, objects = np.array([15, 11, 13, 14, 10, 12]), np.array([9, 7, 8, 8, 7, 8])
    for order in (np.arange(6), np.array([5, 3, 0, 1, 4, 2])):
        given = SampleScores(all_values[order], samples[order], 100 + objects[order])
        best = given.best_of(objects[order], higher)
        assert (best.values.tolist(), best.samples.tolist()) == (values, kept)
        assert best.categories.tolist() == [107, 108, 109]
    assert (best.n, best.mean()) == (3, pytest.approx(sum(values) / 3))


def test_an_object_without_a_defined_sample_stays_undefined_and_equal_samples_go_by_key() -> None:
    given = SampleScores(np.array([np.nan, np.nan, 2.0, 2.0]), np.array([4, 3, 2, 1]), np.zeros(4, np.int64))
    best = given.best_of(np.array([5, 5, 6, 6]), higher_is_better=False)
    assert np.isnan(best.values[0]) and best.n == 1 and best.samples.tolist() == [3, 1]


def test_the_interval_of_the_best_is_over_objects() -> None:
    # 40 objects of 10 views: the best of each is spread by 1, drawn over 40 objects and not over 400 samples.
    best = np.random.default_rng(2).normal(size=40)
    values = (best[:, None] + np.arange(10)).ravel()
    result = SampleScores(values, np.arange(400), np.zeros(400, np.int64)).best_of(np.repeat(np.arange(40), 10), False)
    low, high = result.interval(resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * best.std() / np.sqrt(40), rel=0.05)


def test_interval_has_the_width_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=500)
    result = SampleScores(values, np.arange(500), np.zeros(500, np.int64))
    error = values.std() / np.sqrt(500)
    low, high = result.interval(resamples=4000, seed=3)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_views_of_one_object_are_drawn_together() -> None:
    # 60 objects, of 1 to 8 views each that have the value of the object: the error of a ratio of sums (Cochran 1977,
    # eq. 6.13) over 60 objects, and not that of a mean over as many independent views.
    rng = np.random.default_rng(3)
    views = rng.integers(1, 9, size=60)
    shown = rng.gamma(2.0, size=60)
    objects = np.repeat(np.arange(60), views)
    values = shown[objects]
    result = SampleScores(values, rng.permutation(len(values)), np.zeros(len(values), np.int64))
    mean = values.mean()
    error = np.sqrt(((views * (shown - mean)) ** 2).sum()) / views.sum()
    low, high = result.interval(objects, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert high - low > 1.8 * np.subtract(*result.interval(resamples=4000)[::-1])
    # Undefined samples leave with their objects.
    hole = SampleScores(np.where(objects == 0, np.nan, values), result.samples, result.categories)
    assert hole.interval(objects) == hole.defined().interval(objects[objects != 0])


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
