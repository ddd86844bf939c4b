"""Frechet distance of image features as a training loss (Lin and Tian 2021, section 3.3, eq. 40 to 47).

Data flow: `recon3d.networks.imagenet.inception_features` gives features, averaged over the pixels, of photographs and
of renders from random views; `FrechetLoss` knows the statistics of the former and compares the latter with them.

A covariance S is always handled by a root L (d, r) with ``S = L L^T``, whose r is the rank or more: of a batch of m
rows it is the centred rows over sqrt(m - 1), transposed. Then ``tr (S_1 S_2)^(1/2)`` is the sum of the singular values
of ``L_1^T L_2``, exactly, with a finite gradient at every rank, where a matrix square root has none. All inside is
float64.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

logger = logging.getLogger(__name__)


def frechet_distance(features: Tensor, mean: Tensor, root: Tensor, shrinkage: float = 0.0) -> Tensor:
    """Squared Frechet distance of features to the Gaussian of a mean and the covariance ``S = L L^T``.

    ``|mu - mu_f|^2 + tr S + tr S_f - 2 tr (S S_f)^(1/2)`` (eq. 42 and 43), with S_f the unbiased covariance of the
    features. Differentiable in all tensors. A batch-to-batch distance takes ``*feature_moments(real)``; of small
    batches it is mostly bias (Gaussian features of 2048 numbers, twice 16 samples of one distribution: 4045, not 0).

    Costs a singular value decomposition of (m, r).

    Args:
        features: (m, d), at least 2 rows.
        mean: (d,).
        root: (d, r) the root L, see `covariance_root`.
        shrinkage: a in [0, 1]: S_f becomes ``(1 - a) S_f + a tr(S_f) / d I``.

    Returns:
        Scalar, float64.

    Raises:
        ValueError: shapes that do not fit.
    """
    if features.ndim != 2 or len(features) < 2 or mean.shape != features.shape[1:] or root.shape[:-1] != mean.shape:
        raise ValueError(
            "frechet_distance: expected features (m, d) of at least 2 rows, a mean (d,) and a root (d, r), got "
            f"{tuple(features.shape)}, {tuple(mean.shape)} and {tuple(root.shape)}."
        )
    own_mean, own_root = feature_moments(features)
    mean, root = mean.double(), root.double()
    total = own_root.square().sum()
    product = own_root.T @ root
    if shrinkage:
        # The root of a sum of covariances is their roots side by side.
        spread = (shrinkage * total / len(mean)).clamp_min(torch.finfo(total.dtype).tiny).sqrt()
        product = torch.cat([(1 - shrinkage) ** 0.5 * product, spread * root])
    overlap = torch.linalg.svdvals(product).sum()
    return (own_mean - mean).square().sum() + root.square().sum() + total - 2 * overlap


def feature_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and root (d, m) of the unbiased covariance of features (m, d), m >= 2; float64, differentiable."""
    features = features.double()
    mean = features.mean(dim=0)
    return mean, ((features - mean) / (len(features) - 1) ** 0.5).T


def covariance_root(covariance: Tensor, shrinkage: float = 0.0) -> Tensor:
    """Root (d, r) of a covariance (d, d): ``L L^T`` is the covariance, r its numerical rank; float64.

    Eigenvalues up to ``d eps`` of the largest count as 0, negative ones of that size too.

    Args:
        covariance: (d, d), symmetric and positive semidefinite.
        shrinkage: a in [0, 1]: the root is of ``(1 - a) S + a tr(S) / d I``.

    Raises:
        ValueError: no covariance.
    """
    d = covariance.shape[-1]
    if covariance.shape != (d, d) or not covariance.isfinite().all():
        raise ValueError(f"covariance_root: expected a finite covariance (d, d), got {tuple(covariance.shape)}.")
    values, vectors = torch.linalg.eigh(covariance.double())
    # The eigenvalues carry the rounding of the type that the covariance was computed in.
    negligible = d * torch.finfo(covariance.dtype).eps * values[-1].abs()
    if (values < -negligible).any():
        raise ValueError(
            "covariance_root: expected a positive semidefinite covariance, got one with the eigenvalue "
            f"{values[0].item():.3g} (the largest is {values[-1].item():.3g})."
        )
    kept = values > negligible
    values, vectors = (values.clamp_min(0), vectors) if shrinkage else (values[kept], vectors[:, kept])
    values = (1 - shrinkage) * values + shrinkage * values.sum() / d
    return vectors * values.sqrt()


class FeatureStatistics:
    """Mean and unbiased covariance of features that come in batches; float64, on the device of the first batch.

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add features (n, d).

        Raises:
            ValueError: another shape, or features that are not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim or not features.isfinite().all():
            raise ValueError(
                f"FeatureStatistics: expected finite features (n, {self.dim}), got {tuple(features.shape)}."
            )
        if len(features):
            features = features.double()
            mean = features.mean(dim=0)
            self._add(len(features), mean, (features - mean).T @ (features - mean))

    def merge(self, other: FeatureStatistics) -> None:
        """Add all that `other` has seen."""
        if other.dim != self.dim:
            raise ValueError(f"FeatureStatistics: expected statistics of {self.dim} features, got {other.dim}.")
        self._add(other.count, other.mean, other._scatter)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Chan, Golub and LeVeque 1983: no difference of large sums, so that a large mean costs no digits."""
        if count == 0:
            return
        total = self.count + count
        shift = mean - self.mean.to(mean)
        self._scatter = self._scatter.to(mean) + scatter + shift.outer(shift) * (self.count * count / total)
        self.mean = self.mean.to(mean) + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (d, d), of rank ``count - 1`` at most.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"FeatureStatistics: a covariance needs at least 2 features, got {self.count}.")
        return self._scatter / (self.count - 1)


class FrechetLoss(nn.Module):
    """Frechet distance of the features of renders to those of the training photographs (eq. 42 to 47).

    The covariance of one batch has rank m - 1, so both sides can see more: the real statistics are computed once, over
    all training images (`fit`), and a bank keeps the features of the latest renders, without gradient; the distance is
    of the bank and the batch together. The gradient of a row is that of one among ``bank + m``: the larger the bank,
    the less it is biased and the smaller it is. Under `torch.distributed` the rows of all processes count, with
    gradients that `DistributedDataParallel`'s averaging makes those of one large batch; each has equally many rows.

    Deviation: the paper gives no weight, feature layer or size of the batch, and says nothing of the rank; `normalized`
    makes the value independent of the features' scale.

    Checkpoints hold the real statistics and the bank.

    Args:
        dim: d of the features.
        bank: rows kept of earlier batches; 0 uses the batch alone.
        shrinkage: a in [0, 1]: both covariances become ``(1 - a) S + a tr(S) / d I``.
        covariance_from: rows (bank and batch) from which the covariance counts; below, ``|mu - mu_f|^2`` alone does. At
            least 2.
        normalized: divide by the trace of the real covariance.
    """

    mean: Tensor
    root: Tensor
    rank: Tensor
    rows: Tensor
    seen: Tensor

    def __init__(
        self,
        dim: int,
        bank: int = 0,
        shrinkage: float = 0.0,
        covariance_from: int = 4,
        normalized: bool = True,
    ) -> None:
        super().__init__()
        if dim < 1 or bank < 0 or not 0 <= shrinkage <= 1 or covariance_from < 2:
            raise ValueError(
                "FrechetLoss: expected dim >= 1, bank >= 0, shrinkage in [0, 1] and covariance_from >= 2, got "
                f"{dim}, {bank}, {shrinkage} and {covariance_from}."
            )
        self.dim, self.bank, self.shrinkage = dim, bank, shrinkage
        self.covariance_from, self.normalized = covariance_from, normalized
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        # d columns at every rank, so that a checkpoint fits; the first `rank` of them are used. 0: not set.
        self.register_buffer("root", torch.zeros(dim, dim, dtype=torch.float64))
        self.register_buffer("rank", torch.zeros((), dtype=torch.long))
        self.register_buffer("rows", torch.zeros(bank, dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # rows that ever went into the bank

    def fit(self, features: Iterable[Tensor]) -> None:
        """Set the real statistics from batches of features (n, d), and empty the bank."""
        statistics = FeatureStatistics(self.dim)
        for batch in features:
            statistics.update(batch)
        if statistics.count <= self.dim:
            logger.info("The covariance of %d real features of dimension %d is singular.", statistics.count, self.dim)
        self.set_statistics(statistics.mean, statistics.covariance)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the real mean (d,) and covariance (d, d), and empty the bank.

        Raises:
            ValueError: shapes that do not fit, or features that do not vary.
        """
        if mean.shape != (self.dim,) or covariance.shape != (self.dim, self.dim):
            raise ValueError(
                f"FrechetLoss: expected a mean ({self.dim},) and a covariance ({self.dim}, {self.dim}), got "
                f"{tuple(mean.shape)} and {tuple(covariance.shape)}."
            )
        root = covariance_root(covariance, self.shrinkage)
        if not root.any():
            raise ValueError("FrechetLoss: expected real features that vary, got a covariance of 0.")
        self.mean.copy_(mean)
        self.root.zero_()[:, : root.shape[1]] = root.to(self.root)
        self.rank.fill_(root.shape[1])
        self.seen.zero_()

    @property
    def is_fitted(self) -> bool:
        """Whether the real statistics are set."""
        return bool(self.rank)

    def forward(self, features: Tensor) -> Tensor:
        """Distance, a float64 scalar, of features (m, d) of renders; in training they then go into the bank.

        Raises:
            RuntimeError: the real statistics are not set.
            ValueError: another shape.
        """
        if not self.is_fitted:
            raise RuntimeError(
                "FrechetLoss: the real statistics are not set; call fit() with the features of the training images, or "
                "load a checkpoint that has them."
            )
        if features.ndim != 2 or features.shape[1] != self.dim or not len(features):
            raise ValueError(f"FrechetLoss: expected features (m, {self.dim}), got {tuple(features.shape)}.")
        live = _gathered(features)
        known = self.rows[: int(self.seen.clamp_max(self.bank))]
        everything = torch.cat([known.double(), live.double()])  # a copy: the bank is written to below
        root = self.root[:, : int(self.rank)]
        if len(everything) < self.covariance_from:
            distance = (everything.mean(dim=0) - self.mean).square().sum()
        else:
            distance = frechet_distance(everything, self.mean, root, self.shrinkage)
        if self.training and self.bank:
            self._enqueue(live.detach())
        return distance / root.square().sum() if self.normalized else distance

    @torch.no_grad()
    def _enqueue(self, live: Tensor) -> None:
        """Overwrite the oldest rows."""
        places = torch.arange(len(live), device=live.device)[-self.bank :] + self.seen
        self.rows[places % self.bank] = live[-self.bank :].to(self.rows)
        self.seen += len(live)


def _gathered(features: Tensor) -> Tensor:
    """The rows (n, d) of all processes, with gradients."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return features
    count = torch.tensor([len(features)], device=features.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    if len({int(other) for other in counts}) > 1:
        raise ValueError(f"FrechetLoss: expected as many rows in each process, got {[int(other) for other in counts]}.")
    return torch.cat(all_gather(features.contiguous()))
