"""Which objects and views an epoch shows, in which order: pure functions of (seed, epoch), and their sampler.

Used by the data modules; the plans of training and evaluation differ, the sampler is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import distributed
from torch.utils.data import DistributedSampler

from recon3d.geometry.cameras import NMR_VIEWS

ViewIndex = tuple[int, tuple[int, ...]]
"""What a sampler draws and a data set answers: an object, and its views, the input first."""


def balanced_plan(
    epoch: int, counts: Sequence[int], n_views: int, views_each: int, length: int, seed: int, distinct: bool = False
) -> list[ViewIndex]:
    """Draws of the official training codes: class uniform, object uniform in its class, views uniform.

    Objects with replacement. Draw p depends on (seed, epoch, p), not on `length`. Source: the reconstruction codes of
    Kato et al. 2018 and Liu et al. 2019 (views with replacement), and of Insafutdinov and Dosovitskiy 2018 (without).

    Args:
        epoch: number of the epoch.
        counts: objects of each class, at least 1; objects are numbered class after class.
        n_views: views of an object.
        views_each: views in a draw.
        length: draws in the epoch.
        seed: of the training order.
        distinct: the views of a draw differ; where more are asked for than there are, they begin again.
    """
    draws = np.random.default_rng([seed, epoch]).random((length, 2 + (n_views if distinct else views_each)))
    sizes = np.asarray(counts)
    groups = (draws[:, 0] * len(sizes)).astype(int)
    objects = (np.cumsum(sizes) - sizes)[groups] + (draws[:, 1] * sizes[groups]).astype(int)
    if distinct:
        views = draws[:, 2:].argsort(axis=1)[:, np.arange(views_each) % n_views]
    else:
        views = (draws[:, 2:] * n_views).astype(int)
    return list(zip(objects.tolist(), map(tuple, views.tolist()), strict=True))


def shuffled_plan(
    epoch: int, counts: Sequence[int], n_views: int, views_each: int, world: int, seed: int
) -> list[ViewIndex]:
    """Every object once, in an order shuffled by (seed, epoch), each with different views, uniformly drawn.

    Where more are asked for than there are, they begin again. Where the number of objects is no multiple of
    `world`, the processes of a distributed run, the first of the order come again at its end: training steps need all
    processes.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(sum(counts))
    order = np.resize(order, -(-len(order) // world) * world)
    shuffled = generator.permuted(np.tile(np.arange(n_views), (len(order), 1)), axis=1)
    views = shuffled[:, np.arange(views_each) % n_views]
    return list(zip(order.tolist(), map(tuple, views.tolist()), strict=True))


def evaluation_plan(
    epoch: int, n_objects: int, n_views: int, inputs: int, second: Callable[[int], int]
) -> list[ViewIndex]:
    """Every object with `inputs` evenly spaced input views, each followed by `second(view)`; alike in every epoch."""
    views = [index * n_views // inputs for index in range(inputs)]
    return [(item, (view, second(view))) for item in range(n_objects) for view in views]


def quarter_turn(view: int) -> int:
    """The view 90 degrees further in azimuth, at the same elevation, in the 24- and the 120-view layout.

    >>> quarter_turn(0), quarter_turn(20), quarter_turn(24 + 20)
    (6, 2, 26)
    """
    block, azimuth = divmod(view, NMR_VIEWS)
    return block * NMR_VIEWS + (azimuth + NMR_VIEWS // 4) % NMR_VIEWS


def world_size() -> int:
    """Processes of the distributed run, or 1."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class PlannedSampler(DistributedSampler[Any]):
    """Draws a plan: the whole order of an epoch, a pure function of the epoch's number.

    So the order is the same for any number of workers and after a resume, and each process of a distributed run takes
    every world-th position of the same plan. It is a `DistributedSampler` because Lightning leaves those in place.

    Args:
        plan: epoch number to the indices of the epoch (what the data set answers), for all processes together. If their
            number is no multiple of the processes', some draw one less: nothing is repeated, which evaluation relies
            on.
        batch_size: of one process; only `skip_batches` counts in it.
    """

    def __init__(self, plan: Callable[[int], Sequence[Any]], batch_size: int) -> None:
        self.plan = plan
        self.batch_size = batch_size
        self.world = world_size()
        self.rank = distributed.get_rank() if self.world > 1 else 0
        self._skip = (0, 0)  # epoch, batches
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to draw; Lightning calls this before each one."""
        self.epoch = epoch
        self._mine = self.plan(epoch)[self.rank :: self.world]

    def skip_batches(self, epoch: int, batches: int) -> None:
        """Begin epoch number `epoch` after its first `batches` batches, as a resumed run has to."""
        self._skip = (epoch, batches)

    @property
    def skipped(self) -> int:
        """Batches left out at the beginning of the chosen epoch."""
        epoch, batches = self._skip
        return batches if epoch == self.epoch else 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mine[self.skipped * self.batch_size :])

    def __len__(self) -> int:
        return len(self._mine)
