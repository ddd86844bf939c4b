"""Shows what a method does while it learns: a callback that logs pictures, shapes and the worst cases.

It runs beside the Evaluator, takes the samples from the loaders of the trainer, and sends what `sample_views` draws to
every logger that can show it (`media_sinks`). ``configs/logger/*.yaml`` add it; a run with the CSV log only has none.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from itertools import chain, zip_longest
from typing import Any

import torch.distributed
from lightning import Callback, LightningModule, Trainer

from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.media_sinks import MediaSink, sink_of
from recon3d.evaluation.picture import SCORES, ranked_samples
from recon3d.evaluation.sample_views import sample_views
from recon3d.metrics.base import stable_key
from recon3d.structures import ViewBatch

logger = logging.getLogger(__name__)


class MediaLogger(Callback):
    """Logs pictures and shapes of a few samples in validation and test, and the worst of a test as a table.

    The samples are chosen by a hash of their names, one category after the other, and are the same in every epoch and
    every run on the same data, so that one sees the same sample improve. In a distributed run process 0 shows samples
    of its own share in a validation, and the worst of all in a test. Nothing that is trained or measured changes.

    Args:
        samples: shown in a validation and in a test.
        every: show each n-th validation; the first of a session is shown.
        worst: rows of the table of a test.

    Raises:
        ValueError: less than one sample, or `every` less than one.
    """

    def __init__(self, samples: int = 6, every: int = 1, worst: int = 10) -> None:
        if samples < 1 or every < 1 or worst < 0:
            raise ValueError(
                f"MediaLogger: expected samples >= 1, every >= 1 and worst >= 0, got {samples}, {every} and {worst}."
            )
        self.samples, self.every, self.worst = samples, every, worst
        self._sinks: list[MediaSink] = []
        self._looked = False
        self._validations = 0
        self._shown: dict[str, ViewBatch] = {}  # by stage
        self._seen: list[tuple[str, str]] = []  # names and categories in the order of the loader
        self._index: dict[str, Any] = {}  # of a test's samples, in the data set

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out which loggers can show anything, and say which cannot."""
        if self._looked:  # a fit and a test set up each
            return
        self._looked = True
        found = {log: sink_of(log) for log in trainer.loggers}
        self._sinks = [sink for sink in found.values() if sink is not None]
        if trainer.is_global_zero:
            for log in (log for log, sink in found.items() if sink is None):
                logger.info("%s takes numbers only: it shows no pictures, meshes and tables.", type(log).__name__)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the names of the last epoch."""
        self._seen = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        """Note the names of a batch."""
        if self._sinks:
            self._seen += zip(batch.sample_id, batch.category, strict=True)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the chosen samples."""
        if trainer.sanity_checking:
            return
        if self._validations % self.every == 0:
            self._show(trainer, pl_module, "val", trainer.val_dataloaders)
        self._validations += 1

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell process 0 where the samples of the others are."""
        if not self._sinks:
            return
        indices = list(trainer.test_dataloaders.sampler)
        self._index = {name: index for (name, _), index in zip(self._seen, indices, strict=False)}
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self._index)
            self._index = {name: index for part in gathered for name, index in part.items()}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the chosen samples and the worst."""
        self._show(trainer, pl_module, "test", trainer.test_dataloaders)
        evaluator = next((one for one in trainer.callbacks if isinstance(one, Evaluator)), None)
        if not self._sinks or not trainer.is_global_zero or evaluator is None or self.worst == 0:
            return
        if not any(name in evaluator.samples and evaluator.samples[name].notna().any() for name in SCORES):
            logger.info("No table of the worst: no sample has a %s.", ", ".join(SCORES))
            return
        score, ranked = ranked_samples(evaluator.samples)
        worst = ranked.head(self.worst)
        scores = worst.drop(columns=["sample_id", "category"]).dropna(axis=1, how="all")
        scores = scores[[score, *scores.columns.drop(score)]]
        batch = _load(trainer.test_dataloaders, [self._index[name] for name in worst["sample_id"]])
        views = sample_views(pl_module, batch.to(pl_module.device))
        for sink in self._sinks:
            sink.show_worst(views, scores, _step(trainer))

    def _show(self, trainer: Trainer, module: LightningModule, stage: str, loader: Any) -> None:
        if not self._sinks or not trainer.is_global_zero:
            return
        if stage not in self._shown:
            indices = dict(zip(self._seen, loader.sampler, strict=False))
            self._shown[stage] = _load(loader, [indices[one] for one in _chosen(self._seen, self.samples)])
        views = sample_views(module, self._shown[stage].to(module.device))
        for sink in self._sinks:
            sink.show(stage, views, _step(trainer))


def _chosen(seen: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """So many (name, category), one of each category in turn, in each the lowest hash of the name first."""
    of_category = defaultdict(list)
    for name, category in sorted(set(seen), key=lambda one: stable_key(one[0])):
        of_category[category].append((name, category))
    turns = zip_longest(*(of_category[category] for category in sorted(of_category)))
    return [one for one in chain.from_iterable(turns) if one is not None][:count]


def _load(loader: Any, indices: list[Any]) -> ViewBatch:
    return ViewBatch.collate([loader.dataset[index] for index in indices])


def _step(trainer: Trainer) -> int:
    """The step that Lightning gives the numbers that it logs; `global_step` is 0 where no optimiser steps."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
