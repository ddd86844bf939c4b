"""The base of every metric: per-sample values in, means, category means and bootstrap intervals out.

Data flow: `evaluation.evaluator` calls `update` with what `evaluation.convert` made of a batch, and reads `compute` at
the end of an epoch. Samples and categories travel as integer keys (`stable_key`), since strings cannot be gathered
across processes; the evaluator keeps the names.

A few measures are of a set of samples and not the mean of values of each: they are `SetMetric`, which keeps what it
needs of each sample until the end.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat


def stable_key(name: str) -> int:
    """Return a 63-bit integer that is the same for `name` in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def object_name(sample: str) -> str:
    """Return what a sample shows, without the input view that ends its name: ``car/0007/v03`` is of ``car/0007``.

    A name that ends in no view is an object of its own.
    """
    return re.sub(r"/v\d+$", "", sample)


class SampleScores(NamedTuple):
    """One metric over a whole split, one entry per distinct sample.

    Attributes:
        values: (N,); NaN where the metric is not defined for the sample.
        samples: (N,) `stable_key` of the sample names.
        categories: (N,) `stable_key` of the category names.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.int64]
    categories: NDArray[np.int64]

    def defined(self) -> SampleScores:
        """Return the samples for which the metric is defined."""
        keep = ~np.isnan(self.values)
        return SampleScores(self.values[keep], self.samples[keep], self.categories[keep])

    def best_of(self, objects: NDArray[np.int64], higher_is_better: bool) -> SampleScores:
        """Return the best sample of each object, so that mean, `n` and interval are over objects.

        Of equal samples the one with the lowest key is taken; an object stays undefined where all its samples are.

        Args:
            objects: (N,) a key for each sample, equal for the samples of one object.
            higher_is_better: which value is the best.
        """
        # By object, then best first (NaN sorts last), then by key: the order of the samples does not matter.
        order = np.lexsort((self.samples, -self.values if higher_is_better else self.values, objects))
        _, first = np.unique(objects[order], return_index=True)
        best = order[first]
        return SampleScores(self.values[best], self.samples[best], self.categories[best])

    @property
    def n(self) -> int:
        """Number of samples for which the metric is defined."""
        return len(self.defined().values)

    def mean(self) -> float:
        """Mean over the defined samples, each counted the same.

        Raises:
            ValueError: no sample has a defined value.
        """
        return float(self._some().mean())

    def per_category(self) -> dict[int, float]:
        """Mean of every category that has a defined value; the tables of papers average these."""
        values, _, categories = self.defined()
        return {int(category): float(values[categories == category].mean()) for category in np.unique(categories)}

    def interval(
        self,
        objects: NDArray[np.int64] | None = None,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Percentile bootstrap interval of `mean`: objects are drawn with replacement, each with all of its samples.

        Views of one object are alike; drawn one by one they would count as so many objects, and the interval would be
        far too narrow. It covers the choice of test objects, not the choice of training seeds.

        Args:
            objects: (N,) a key for each sample, equal for the samples of one object; None: every sample is one.
            level: share of the means inside.
            resamples: draws.
            seed: of the draws.

        Raises:
            ValueError: no sample has a defined value.
        """
        values = self._some()
        kept = (self.samples if objects is None else objects)[~np.isnan(self.values)]
        _, which = np.unique(kept, return_inverse=True)
        sums, counts = np.bincount(which, weights=values), np.bincount(which)
        draws = np.random.default_rng(seed).integers(0, len(counts), (resamples, len(counts)))
        means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _some(self) -> NDArray[np.float64]:
        values = self.defined().values
        if len(values) == 0:
            raise ValueError("SampleScores: expected at least one defined value, got none; check `n` first.")
        return values


class SampleMetric(torchmetrics.Metric):
    """A metric with one value per sample; a subclass gives `measure`, `higher_is_better` and `worst`.

    A prediction that failed must score badly, not stop a benchmark and not drop out of the mean: a value that is not
    finite becomes `worst`, and no value is worse than `worst`. Where a failed prediction has no meaningful worst value
    (the number of components of a mesh that does not exist), `worst` is None: the sample stays NaN, is left out of the
    mean, and `SampleScores.n` says how many samples remain.
    """

    full_state_update: bool | None = False
    is_differentiable: bool | None = False
    higher_is_better: bool | None
    worst: ClassVar[float | None]

    values: list[Tensor]
    samples: list[Tensor]
    categories: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("values", "samples", "categories"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def measure(self, pred: Any, target: Any) -> Tensor:
        """Return one value per sample, (B,)."""

    def update(self, pred: Any, target: Any, samples: Tensor, categories: Tensor) -> None:
        """Add the values of B samples.

        Args:
            pred: what the metric's `measure` takes.
            target: what the metric's `measure` takes, None for a metric that needs no ground truth.
            samples: (B,) int64, `stable_key` of the sample names.
            categories: (B,) int64, `stable_key` of the category names.

        Raises:
            ValueError: the lengths disagree.
        """
        values = self.measure(pred, target).detach().to(self.device, torch.float64)
        if values.shape != samples.shape or values.shape != categories.shape or values.ndim != 1:
            raise ValueError(
                f"{type(self).__name__}: expected one value, sample and category each, got shapes "
                f"{tuple(values.shape)}, {tuple(samples.shape)} and {tuple(categories.shape)}."
            )
        if self.worst is None:
            values = torch.where(torch.isfinite(values), values, torch.nan)
        else:
            values = torch.where(torch.isfinite(values), values, self.worst)
            values = values.clamp(min=self.worst) if self.higher_is_better else values.clamp(max=self.worst)
        self.values.append(values)
        self.samples.append(samples.to(self.device))
        self.categories.append(categories.to(self.device))

    def compute(self) -> SampleScores:
        """Return the scores; a sample that came twice (padding of a distributed sampler) counts once."""
        if isinstance(self.values, list) and not self.values:
            return SampleScores(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        samples = dim_zero_cat(self.samples).cpu().numpy()
        samples, first = np.unique(samples, return_index=True)
        return SampleScores(
            dim_zero_cat(self.values).cpu().numpy()[first], samples, dim_zero_cat(self.categories).cpu().numpy()[first]
        )


class SetScore(NamedTuple):
    """One metric over a whole split that is no mean over the samples.

    Attributes:
        value: None where the split does not allow it.
        n: what the value is of: samples, or pairs of them.
        note: why there is no value, or what to know about it.
    """

    value: float | None
    n: int
    note: str | None = None


class SetMetric(ABC):
    """A metric of a set of samples; a subclass gives `keep`, `compute` and `higher_is_better`.

    It has no state: the evaluator holds what is kept of each sample by the sample's key, so that one that comes twice
    counts once, and neither batches nor processes change a result.
    """

    higher_is_better: ClassVar[bool]

    @abstractmethod
    def keep(self, pred: Any, target: Any) -> Sequence[Any]:
        """What `compute` needs of each sample of a batch: little, of NumPy arrays (it is held and sent)."""

    @abstractmethod
    def compute(self, kept: Sequence[Any]) -> SetScore:
        """The score of what was kept of all samples, in an order that depends on their names only."""
