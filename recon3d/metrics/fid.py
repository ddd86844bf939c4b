"""Frechet distance between the features of rendered predictions and of input images: do they look alike as a set?

The features come from outside: `evaluation.evaluator` is given the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from recon3d.metrics.base import SetMetric, SetScore


class _Given(nn.Module):
    """Features that were computed before, as the network of torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class FeaturePair(NamedTuple):
    """Features (D,) of one prediction and of its input image."""

    pred: NDArray[np.float32]
    target: NDArray[np.float32]


def frechet_distance(pred: Tensor, target: Tensor) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (N, D) and (M, D), at least 2 each.

    ``|m_p - m_t|^2 + tr(S_p + S_t - 2 (S_p S_t)^(1/2))`` with sample covariances, in float64, by torchmetrics. Source:
    Heusel et al. 2017. With fewer samples than features it is mostly bias: two sets of one distribution are far from 0.

    Raises:
        ValueError: fewer than 2 samples, or features that do not fit.
    """
    if pred.ndim != 2 or target.ndim != 2 or pred.shape[1] != target.shape[1] or min(len(pred), len(target)) < 2:
        raise ValueError(
            "frechet_distance: expected features (N,D) and (M,D) of at least 2 samples each, got "
            f"{tuple(pred.shape)} and {tuple(target.shape)}."
        )
    # Every process of a distributed run has all samples already.
    metric = FrechetInceptionDistance(_Given(pred.shape[1]), sync_on_compute=False)
    metric.update(pred.double(), real=False)
    metric.update(target.double(), real=True)
    return float(metric.compute())


class FrechetDistance(SetMetric):
    """`frechet_distance` between the features of all predictions and of all input images.

    With fewer samples than features the value stands, and its note says so. A failed prediction is a black image.
    """

    higher_is_better = False

    def keep(self, pred: Tensor, target: Tensor) -> list[FeaturePair]:
        """Features (B,D) of B predictions and of their input images, one by one."""
        arrays = (features.float().cpu().numpy() for features in (pred, target))
        return [FeaturePair(*pair) for pair in zip(*arrays, strict=True)]

    def compute(self, kept: Sequence[FeaturePair]) -> SetScore:
        """The distance; None for fewer than 2 samples."""
        n = len(kept)
        if n < 2:
            return SetScore(None, n, "a distribution needs two samples")
        pred, target = (torch.from_numpy(np.stack(features)) for features in zip(*kept, strict=True))
        features = pred.shape[1]
        few = f"only {n} samples for {features} features: mostly bias" if n < features else None
        return SetScore(frechet_distance(pred, target), n, few)
