"""Scores every method by the protocol: a callback for `Trainer.validate`, `Trainer.test` and validation in a fit.

It takes the Reconstructions that the method's step returns, one of each object, and the ViewBatch they came from, and
knows neither method nor data set by name. `bench.runner` reads `results` and `samples` afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from recon3d.bench.record import MeasureResult
from recon3d.evaluation.convert import Conversion, NotAvailableError, ground_truth
from recon3d.evaluation.protocol import PROTOCOL, SEED, Measure
from recon3d.metrics.base import SampleMetric, SampleScores, SetMetric, object_name, stable_key
from recon3d.networks.imagenet import inception_features
from recon3d.structures import Reconstruction, ViewBatch

FID_LAYER = "2048"  # of Inception v3: the one before its last average pooling


class Evaluator(Callback):
    """Measures all of `PROTOCOL` in a test, its `in_validation` part in a validation.

    Logs ``test/<measure>`` or ``val/<measure>`` at the end of the epoch. In distributed runs every process holds the
    results of all samples, each counted once.

    Args:
        fid_weights: torchvision's state dict of Inception v3, ``inception_v3_google-0cc3c7bd.pth``, for `fid`, which
            without it is not available. The note of the result names the network and the file's hash.

    Attributes:
        results: by measure, in the order of the protocol, of the last epoch. `value` is None and `note` says why where
            the data lack the target or the method the representation.
        samples: of the last epoch, one row per sample: `sample_id`, `category`, and a column per measure that has a
            value per sample (NaN: n/a, and in a measure of the best view the samples that are not).
        network: what `fid` compares the features of, in words; None without `fid_weights`.
    """

    results: dict[str, MeasureResult]
    samples: pd.DataFrame

    def __init__(self, fid_weights: Path | None = None) -> None:
        self.results, self.samples = {}, pd.DataFrame(columns=["sample_id", "category"])
        self.network: str | None = None
        self._features: nn.Module | None = None
        if fid_weights is not None:
            self._features = nn.Sequential(inception_features([FID_LAYER], fid_weights), _PixelMean())
            self.network = f"torchvision's Inception v3, weights {_file_hash(fid_weights)[:12]}"
        self._metrics: dict[str, SampleMetric] = {}
        self._kept: dict[str, dict[int, Any]] = {}  # set measure -> sample -> what it needs of it
        self._notes: dict[str, str] = {}
        self._names: dict[int, str] = {}

    def start(self, measures: tuple[Measure, ...] = PROTOCOL, device: torch.device | None = None) -> None:
        """Begin an epoch of `measures`; their states live on `device`, by default the CPU."""
        device = device or torch.device("cpu")
        self._metrics, self._kept = {}, {}
        for measure in measures:
            if issubclass(measure.metric, SampleMetric):
                # `finish` gathers: torchmetrics would take the keys of a process without samples for float32.
                self._metrics[measure.name] = measure.metric(sync_on_compute=False).to(device)
            else:
                self._kept[measure.name] = {}
        if self._features is not None:
            self._features.to(device)
        self._notes, self._names = {}, {}

    def update(self, recon: Reconstruction, batch: ViewBatch) -> None:
        """Measure the predictions of one batch."""
        samples, categories = ([stable_key(name) for name in names] for names in (batch.sample_id, batch.category))
        self._names.update(zip(samples + categories, batch.sample_id + batch.category, strict=True))
        conversion = Conversion(recon, batch, self._features)
        true = cache(partial(ground_truth, batch, features=self._features))
        for measure in self._asked():
            if measure.name in self._notes:
                continue
            try:
                target = None if measure.target is None else true(measure.target)
                pred = getattr(conversion, measure.pred)
            except NotAvailableError as reason:
                self._notes[measure.name] = str(reason)
                continue
            if measure.name in self._metrics:
                self._metrics[measure.name].update(pred, target, torch.tensor(samples), torch.tensor(categories))
            else:
                kept = _set_metric(measure).keep(pred, target)
                self._kept[measure.name].update(zip(samples, kept, strict=True))

    def finish(self) -> None:
        """Fill in `results` and `samples`; in a distributed run, on every process at once."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            states = {name: _state(metric) for name, metric in self._metrics.items()}
            torch.distributed.all_gather_object(gathered, (self._names, self._notes, self._kept, states))
            for names, notes, kept, _ in gathered:
                self._names |= names
                self._notes |= notes  # what one process lacks is not available
                for name, samples in kept.items():
                    self._kept[name] |= samples
            for name, metric in self._metrics.items():
                parts = [state[name] for *_, state in gathered]
                metric.values, metric.samples, metric.categories = (
                    [*chain(*lists)] for lists in zip(*parts, strict=True)
                )
        measures = [measure for measure in self._asked() if measure.name not in self._notes]
        scores = {measure.name: self._scores(measure) for measure in measures if measure.name in self._metrics}
        self.results = {}
        for measure in self._asked():
            set_measure = measure.name in self._kept
            self.results[measure.name] = (
                self._set_result(measure) if set_measure else self._result(measure, scores.get(measure.name))
            )
        self.samples = self._table(scores)

    def _asked(self) -> list[Measure]:
        return [measure for measure in PROTOCOL if measure.name in self._metrics or measure.name in self._kept]

    def _scores(self, measure: Measure) -> SampleScores:
        scores = self._metrics[measure.name].compute()
        if not measure.best_of_views:
            return scores
        return scores.best_of(self._objects(scores), measure.higher_is_better)

    def _objects(self, scores: SampleScores) -> NDArray[np.int64]:
        keys = [stable_key(object_name(self._names[key])) for key in scores.samples.tolist()]
        return np.array(keys, np.int64)

    def _result(self, measure: Measure, scores: SampleScores | None) -> MeasureResult:
        missing = _no_result(measure, self._notes.get(measure.name, "not defined for any sample"))
        if scores is None or scores.n == 0:
            return missing
        failed = len(scores.values) - scores.n
        return replace(
            missing,
            value=scores.mean(),
            n=scores.n,
            per_category={self._names[key]: mean for key, mean in scores.per_category().items()},
            interval=scores.interval(self._objects(scores), seed=SEED),
            note=f"not defined for {failed} failed predictions" if failed else None,
        )

    def _set_result(self, measure: Measure) -> MeasureResult:
        if measure.name in self._notes:
            return _no_result(measure, self._notes[measure.name])
        # In the order of the keys: neither batches nor processes change a result.
        value, n, note = _set_metric(measure).compute([kept for _, kept in sorted(self._kept[measure.name].items())])
        network = self.network if measure.target == "image_features" else None
        notes = "; ".join(part for part in (network, note) if part) or None
        return replace(_no_result(measure, None), value=value, n=n, note=notes)

    def _table(self, scores: dict[str, SampleScores]) -> pd.DataFrame:
        columns: dict[str, pd.Series] = {}
        category: dict[int, int] = {}
        for name, (values, samples, categories) in scores.items():
            columns[name] = pd.Series(values, index=samples)
            category |= dict(zip(samples.tolist(), categories.tolist(), strict=True))
        table = pd.DataFrame(columns, columns=list(self._metrics), index=pd.Index(list(category)))
        table.insert(0, "sample_id", [self._names[key] for key in table.index])
        table.insert(1, "category", [self._names[category[key]] for key in table.index])
        return table.sort_values("sample_id", ignore_index=True)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with empty metrics."""
        self.start(tuple(measure for measure in PROTOCOL if measure.in_validation), pl_module.device)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with empty metrics."""
        self.start(PROTOCOL, pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the objects of a batch, one at a time."""
        for recon, one in zip(_reconstructions(outputs, pl_module), batch.singles(), strict=True):
            self.update(recon, one)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log."""
        self._report(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log."""
        self._report(pl_module, "test")

    def _report(self, pl_module: LightningModule, stage: str) -> None:
        self.finish()
        values = {f"{stage}/{name}": result.value for name, result in self.results.items() if result.value is not None}
        # Every process holds the same numbers; sync_dist tells Lightning so.
        pl_module.log_dict(values, sync_dist=True)


class _PixelMean(nn.Module):
    """The one layer of a FeatureNetwork, averaged over its pixels: (B, D)."""

    def forward(self, layers: dict[str, Tensor]) -> Tensor:
        (layer,) = layers.values()
        return layer.mean(dim=(2, 3))


def _state(metric: SampleMetric) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    values, samples, categories = (
        [value.cpu() for value in part] for part in (metric.values, metric.samples, metric.categories)
    )
    return values, samples, categories


def _set_metric(measure: Measure) -> SetMetric:
    metric = measure.metric()
    assert isinstance(metric, SetMetric)
    return metric


def _no_result(measure: Measure, note: str | None) -> MeasureResult:
    return MeasureResult(
        value=None,
        n=0,
        unit=measure.unit,
        version=measure.version,
        higher_is_better=measure.higher_is_better,
        per_category={},
        interval=None,
        note=note,
    )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reconstructions(outputs: Any, module: LightningModule) -> list[Reconstruction]:
    if not isinstance(outputs, list) or not all(isinstance(one, Reconstruction) for one in outputs):
        raise TypeError(
            f"Evaluator: expected {type(module).__name__}'s validation and test step to return a Reconstruction of "
            f"each object, as `ReconstructionMethod.validation_step` does, got {type(outputs).__name__}."
        )
    return outputs
