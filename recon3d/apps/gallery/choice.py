"""Which test samples of a data set the gallery shows: between the runs' samples.csv and their reconstruction.

The same samples for every method, chosen by rank and not by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recon3d.evaluation.picture import SCORES
from recon3d.evaluation.protocol import PROTOCOL


class Choice(NamedTuple):
    """The chosen samples.

    Attributes:
        measure: name of the measure that ranked.
        samples: `sample_id`, `category`, `score` (mean over the methods) and `rank` ("worst", "median", "best" of the
            category, or ""), by category and from worst to best.
        total: samples there were.
    """

    measure: str
    samples: pd.DataFrame
    total: int

    def rule(self, n_methods: int) -> str:
        """How they were chosen, in words for the page."""
        if len(self.samples) == self.total:
            return f"All {self.total} test samples."
        return (
            f"{len(self.samples)} of {self.total} test samples, the same for all methods and not picked by hand: "
            f"spread evenly over the categories; of each category the worst and the best by {self.measure}, averaged "
            f"over the {n_methods} methods shown, from three samples on the median, and evenly spaced ranks between. "
            "Orders by worst, best or median cases of one method are of these samples, not of the whole test set."
        )


def choose(tables: Sequence[pd.DataFrame], n_samples: int) -> Choice:
    """Pick `n_samples` that spread over categories and over the ranks of the primary measure.

    The primary measure is the first of voxel_iou, chamfer and mask_iou that any sample has; a sample's score is its
    mean over the methods that have it. Each category gets n // C samples, the first ones in alphabetical order one more
    until n are given. With two the category's worst and best are shown, with one its median. Ties go by name.

    Args:
        tables: samples.csv of each method.
        n_samples: at least 1; more than there are gives all.

    Raises:
        ValueError: n_samples below 1, or no sample has any of the measures.
    """
    if n_samples < 1:
        raise ValueError(f"gallery: expected at least 1 sample a data set, got --samples {n_samples}.")
    rows = pd.concat(tables)
    measure = next((name for name in SCORES if name in rows and rows[name].notna().any()), None)
    if measure is None:
        raise ValueError(f"gallery: expected values of {', '.join(SCORES)} in samples.csv for some sample, got none.")
    (higher_is_better,) = (known.higher_is_better for known in PROTOCOL if known.name == measure)
    means = rows.groupby(["category", "sample_id"], sort=True)[measure].mean().dropna().rename("score").reset_index()
    ranked = means.sort_values(["category", "score", "sample_id"], ascending=[True, higher_is_better, True])
    groups = [group for _, group in ranked.groupby("category", sort=True)]
    picked = []
    for group, quota in zip(groups, _quotas([len(group) for group in groups], n_samples), strict=True):
        ranks = _ranks(len(group), quota)
        titles = {len(group) // 2: "median", len(group) - 1: "best", 0: "worst"}
        picked.append(group.iloc[ranks].assign(rank=[titles.get(rank, "") for rank in ranks]))
    return Choice(measure, pd.concat(picked, ignore_index=True), len(ranked))


def _quotas(sizes: Sequence[int], n_samples: int) -> list[int]:
    """Samples of each category: one at a time in turn, until all are given or none is left."""
    quotas = [0] * len(sizes)
    left = min(n_samples, sum(sizes))
    while left:
        for index, size in enumerate(sizes):
            if left and quotas[index] < size:
                quotas[index] += 1
                left -= 1
    return quotas


def _ranks(size: int, quota: int) -> list[int]:
    """`quota` different ranks of `size`, both ends and the middle among them where there is room."""
    if quota == 0:
        return []
    if quota == 1:
        return [size // 2]
    ranks = np.linspace(0, size - 1, quota).round().astype(int)
    if quota > 2:
        inner = 1 + int(np.abs(ranks[1:-1] - size // 2).argmin())
        ranks[inner] = size // 2
    return sorted(set(ranks.tolist()))
