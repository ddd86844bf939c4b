from __future__ import annotations

import pandas as pd
import pytest

from recon3d.apps.gallery.choice import choose


def table(scores: dict[str, float], category: str = "car", measure: str = "voxel_iou") -> pd.DataFrame:
    return pd.DataFrame({"sample_id": list(scores), "category": category, measure: list(scores.values())})


def ids(choice) -> list[str]:
    return choice.samples["sample_id"].tolist()


TEN = {f"s{i}": i / 10 for i in range(10)}


def test_worst_median_and_best_then_evenly_spaced():
    choice = choose([table(TEN)], 3)
    assert ids(choice) == ["s0", "s5", "s9"]
    assert choice.samples["rank"].tolist() == ["worst", "median", "best"]
    five = choose([table(TEN)], 5)
    assert ids(five)[0] == "s0" and ids(five)[-1] == "s9" and "s5" in ids(five) and len(set(ids(five))) == 5


def test_lower_is_better_turns_the_order():
    assert ids(choose([table(TEN, measure="chamfer")], 2)) == ["s9", "s0"]


def test_the_score_is_the_mean_over_methods_that_have_it():
    first = table({"a": 0.9, "b": 0.2, "c": 0.5})
    second = table({"a": 0.0, "b": 0.9, "c": float("nan")})
    choice = choose([first, second], 3)
    assert ids(choice) == ["a", "c", "b"]
    assert choice.samples["score"].tolist() == pytest.approx([0.45, 0.5, 0.55])


@pytest.mark.parametrize("n", range(1, 14))
def test_samples_spread_over_the_categories(n):
    cars, lamps = table(TEN), table({f"l{i}": i / 3 for i in range(3)}, "lamp")
    choice = choose([pd.concat([lamps, cars])], n)
    counts = choice.samples["category"].value_counts()
    assert len(set(ids(choice))) == n
    lamp = min(n // 2, 3)
    assert counts.get("lamp", 0) == lamp and counts["car"] == n - lamp


def test_more_than_there_are_gives_all_and_says_so():
    choice = choose([table(TEN)], 99)
    assert len(ids(choice)) == 10 and choice.rule(1) == "All 10 test samples."
    assert "3 of 10" in choose([table(TEN)], 3).rule(2) and "voxel_iou" in choose([table(TEN)], 3).rule(2)


def test_order_of_the_rows_changes_nothing():
    whole = table({name: 0.5 for name in TEN})
    assert ids(choose([whole], 4)) == ids(choose([whole.sample(frac=1, random_state=3)], 4))


def test_no_measure_and_no_samples_are_refused():
    with pytest.raises(ValueError, match="voxel_iou, chamfer, mask_iou"):
        choose([table({"a": float("nan")})], 2)
    with pytest.raises(ValueError, match="at least 1"):
        choose([table(TEN)], 0)
