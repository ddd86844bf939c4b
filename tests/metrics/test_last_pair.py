from __future__ import annotations

import gc

import torch
from torch import Tensor

from recon3d.metrics.last_pair import once_per_pair


def test_the_same_two_tensors_are_worked_on_once_and_others_or_changed_ones_again() -> None:
    calls: list[float] = []

    @once_per_pair
    def difference(pred: Tensor, target: Tensor) -> float:
        calls.append(float((pred - target).sum()))
        return calls[-1]

    pred, target = torch.ones(2), torch.zeros(2)
    assert difference(pred, target) == difference(pred, target) == 2.0
    assert len(calls) == 1
    assert difference(target, pred) == -2.0  # another order
    assert difference(pred, target.clone()) == 2.0  # equal, but another tensor
    pred += 1
    assert difference(pred, target) == 4.0
    assert len(calls) == 4
    with torch.inference_mode():
        inside = torch.ones(2)
        assert difference(inside, target) == difference(inside, target) == 2.0
    assert len(calls) == 5


def test_tensors_are_not_kept_alive_and_a_new_one_in_their_place_is_not_mistaken() -> None:
    seen: list[float] = []

    @once_per_pair
    def first(pred: Tensor, target: Tensor) -> float:
        seen.append(float(pred[0]))
        return seen[-1]

    target = torch.zeros(1)
    for value in range(20):
        assert first(torch.full((1,), float(value)), target) == value
        gc.collect()
    assert len(seen) == 20
