"""Which photographs an epoch shows, and how each crop is shifted and mirrored: pure functions of (seed, epoch).

Beside `view_sampling`, for data sets with one view of an object; its sampler draws these plans too. All chance is
here, so an epoch is the same for any number of workers and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """What a sampler draws and a `PhotographDataset` answers.

    Attributes:
        photograph: its number.
        shifts: of the crop's left, top, right and bottom, in units of the jitter: [-1, 1), positive outwards.
        mirrored: the crop is flipped left to right.
    """

    photograph: int
    shifts: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    mirrored: bool = False


def training_draws(
    epoch: int, categories: Sequence[str], length: int | None, mirror: bool, world: int, seed: int
) -> list[Draw]:
    """Shifted, and every other one mirrored, draws.

    Args:
        epoch: number of the epoch.
        categories: of each photograph. Drawn uniformly, then a photograph of it, uniformly: one name for all ignores
            categories.
        length: draws, with replacement; draw p depends on (seed, epoch, p) only. None gives every photograph once, in a
            shuffled order, and the first of it again until all processes have as many.
        mirror: mirror half of the draws, at random.
        world: processes of the run.
        seed: of the training order.
    """
    generator = np.random.default_rng([seed, epoch])
    if length is None:
        order = generator.permutation(len(categories))
        order = np.resize(order, -(-len(order) // world) * world)
        chances = generator.random((len(order), 5))
    else:
        names, labels = np.unique(categories, return_inverse=True)
        sizes = np.bincount(labels)
        chances = generator.random((length, 7))
        groups = (chances[:, 5] * len(names)).astype(int)
        places = (np.cumsum(sizes) - sizes)[groups] + (chances[:, 6] * sizes[groups]).astype(int)
        order = np.argsort(labels, kind="stable")[places]
    mirrored = (chances[:, 0] < 0.5) & mirror
    shifts = 2 * chances[:, 1:5] - 1
    return [
        Draw(number, tuple(shift), flip)
        for number, shift, flip in zip(order.tolist(), shifts.tolist(), mirrored.tolist(), strict=True)
    ]


def evaluation_draws(epoch: int, count: int) -> list[Draw]:
    """Every one of `count` photographs as it is, in order; alike in every epoch."""
    return [Draw(number) for number in range(count)]
