from __future__ import annotations

from collections import Counter

import numpy as np

from recon3d.data.photograph_sampling import Draw, evaluation_draws, training_draws

MANY = ["bird"] * 1000 + ["car"] * 10


def draws(epoch=0, categories=MANY, length=20_000, mirror=True, world=1, seed=0) -> list[Draw]:
    return training_draws(epoch, categories, length, mirror, world, seed)


def test_draws_with_replacement():
    plan = draws()
    shifts, mirrored = np.array([draw.shifts for draw in plan]), np.array([draw.mirrored for draw in plan])
    cars = np.array([draw.photograph >= 1000 for draw in plan])
    assert abs(cars.mean() - 0.5) < 0.015 and abs(mirrored.mean() - 0.5) < 0.015  # 4 standard deviations
    assert shifts.shape == (20_000, 4) and shifts.min() >= -1 and shifts.max() < 1
    assert np.allclose(shifts.mean(axis=0), 0, atol=0.017) and np.allclose(shifts.var(axis=0), 1 / 3, atol=0.01)
    # Left and right, top and bottom move alone; so does mirroring.
    together = np.corrcoef(np.column_stack([shifts, mirrored, cars]).T) - np.eye(6)
    assert np.abs(together).max() < 0.03
    counts = Counter(draw.photograph for draw in plan)
    assert set(range(1000, 1010)) < set(counts) and max(counts[i] for i in range(1000, 1010)) < 1150
    unbalanced = [draw.photograph >= 1000 for draw in draws(categories=[""] * 1010)]
    assert abs(np.mean(unbalanced) - 10 / 1010) < 0.003


def test_categories_in_any_order():
    mixed = ["car", "bird"] * 3 + ["bird"] * 94
    plan = draws(categories=mixed, length=4000)
    assert abs(np.mean([mixed[draw.photograph] == "car" for draw in plan]) - 0.5) < 0.04
    assert {draw.photograph for draw in plan} == set(range(100))


def test_every_photograph_once():
    plan = draws(length=None)
    assert sorted(draw.photograph for draw in plan) == list(range(1010))
    assert [draw.photograph for draw in plan] != list(range(1010))
    assert 0.4 < np.mean([draw.mirrored for draw in plan]) < 0.6
    shared = [draw.photograph for draw in draws(length=None, world=4)]
    assert len(shared) == 1012 and shared[:2] == shared[-2:] and set(shared) == set(range(1010))


def test_a_function_of_seed_epoch_and_position():
    plan = draws(length=200)
    assert draws(length=50) == plan[:50]  # not of the length
    assert draws(length=200) == plan and draws(epoch=1, length=200) != plan and draws(seed=1, length=200) != plan
    unmirrored = draws(length=200, mirror=False)
    assert not any(draw.mirrored for draw in unmirrored)
    assert [draw.shifts for draw in unmirrored] == [draw.shifts for draw in plan]


def test_evaluation():
    assert evaluation_draws(0, 3) == evaluation_draws(5, 3) == [Draw(0), Draw(1), Draw(2)]
    assert Draw(0) == (0, (0, 0, 0, 0), False)
