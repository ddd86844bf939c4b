from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from recon3d.bench.ranking import Standing, standings
from recon3d.bench.record import Record
from recon3d.bench.standing_table import TableCell, between, by_category, cost, measure, results

Make = Callable[..., Record]


def scored(record: Record, value: float, low: float, high: float) -> Record:
    iou = replace(record.measures["voxel_iou"], value=value, interval=(low, high))
    return replace(record, measures={**record.measures, "voxel_iou": iou})


def cells(*records: Record) -> dict[str, TableCell]:
    (standing,) = standings(records)
    return {row.method: measure(standing, row, standing.columns[0]) for row in standing.rows}


def test_a_rival_whose_interval_overlaps_the_best_is_a_tie_and_one_that_only_overlaps_another_is_not(run: Make) -> None:
    found = cells(
        scored(run(method="best"), 0.60, 0.58, 0.62),
        scored(run(method="near"), 0.57, 0.54, 0.585),
        scored(run(method="touching"), 0.56, 0.55, 0.58),
        scored(run(method="below"), 0.56, 0.53, 0.579),
        scored(run(method="elsewhere", supervision=("voxels",)), 0.9, 0.5, 0.95),
    )
    marks = {name: cell.mark for name, cell in found.items()}
    assert marks == {"best": "best", "near": "tie", "touching": "tie", "below": "", "elsewhere": ""}
    assert found["best"].interval == "0.580 to 0.620"
    assert found["best"].markdown == "**0.600**<br><sub>0.580 to 0.620</sub>"
    assert (found["near"].plain, found["near"].markdown) == ("0.570 ≈", "0.570 ≈<br><sub>0.540 to 0.585</sub>")


def test_of_a_measure_to_be_low_the_lowest_is_best_and_the_tie_is_above(run: Make) -> None:
    def far(method: str, value: float, low: float, high: float) -> Record:
        record = run(method=method)
        chamfer = replace(record.measures["chamfer"], value=value, interval=(low, high), note=None)
        return replace(record, measures={"chamfer": chamfer}, measure_order=("chamfer",))

    found = cells(far("a", 5.0, 4.5, 5.5), far("b", 5.8, 5.4, 6.2), far("c", 7.0, 6.1, 7.9))
    assert [found[name].mark for name in "abc"] == ["best", "tie", ""]


def test_seeds_that_differ_more_than_the_samples_make_a_tie(run: Make) -> None:
    best = scored(run(method="best"), 0.600, 0.595, 0.605)
    seeds = (0.50, 0.62)
    rival = [scored(run(method="rival", seed=k), value, value - 0.005, value + 0.005) for k, value in enumerate(seeds)]
    mean, sd = np.mean(seeds), np.std(seeds, ddof=1)
    assert mean + 0.005 < 0.595 < mean + sd  # the intervals are apart, the deviation reaches
    cell = cells(best, *rival)["rival"]
    assert (cell.mark, cell.text) == ("tie", f"{mean:.3f} ± {sd:.3f}")
    assert cell.interval == "0.555 to 0.565"  # (0.495 + 0.615) / 2, (0.505 + 0.625) / 2
    steady = [scored(run(method="rival", seed=k), 0.56, 0.555, 0.565) for k in range(2)]
    assert cells(best, *steady)["rival"].mark == ""


def test_without_an_interval_there_is_a_best_but_no_tie(run: Make) -> None:
    bare = run(method="b", iou=0.59)
    iou = replace(bare.measures["voxel_iou"], interval=None)
    bare = replace(bare, measures={**bare.measures, "voxel_iou": iou})
    found = cells(scored(run(method="a"), 0.6, 0.1, 0.9), bare)
    assert [found[name].mark for name in "ab"] == ["best", ""] and found["b"].markdown == "0.590"


def test_nothing_is_best_where_all_print_the_same(run: Make) -> None:
    found = cells(run(method="a", iou=0.50004), run(method="b", iou=0.49996))
    assert [found[name].mark for name in "ab"] == ["", ""]


def test_an_interval_that_prints_as_its_value_is_left_out(run: Make) -> None:
    assert cells(scored(run(), 1.0, 1.0, 1.0))["softras"].interval == ""
    assert cells(scored(run(), 0.5, 0.4996, 0.5004))["softras"].interval == ""
    (standing,) = standings([scored(run(), 0.5, 0.45, 0.55)])
    assert between(standing.rows[0], "voxel_iou", 1, factor=100) == "45.0 to 55.0"
    assert between(standing.rows[0], "chamfer", 1) == ""


def test_by_category_there_is_no_tie_and_no_interval_but_over_all_samples(run: Make) -> None:
    records = [run(method="a", iou=0.51), run(method="b", iou=0.50, per_category={"car": 0.6, "chair": 0.39})]
    (standing,) = standings(records)
    header, lines = by_category(standing, standing.columns[0])
    assert header == ["method", "car", "chair", "mean", "all samples"]
    assert [cell.mark for cell in lines[1]] == ["", "", "", "", "tie"]
    assert [bool(cell.interval) for cell in lines[1]] == [False, False, False, False, True]


@pytest.fixture
def standing(run: Make) -> Standing:
    (one,) = standings([run(method="a"), run(method="b", cost=replace(run().cost, train_s=None, steps=0))])
    return one


def test_columns_and_rows_are_those_that_are_asked_for(standing: Standing) -> None:
    header, lines = results(standing, standing.columns[:1], ["train time"], standing.rows[1:])
    assert header == ["method", "supervision", "input", "seeds", "voxel_iou ↑ [1] v1", "train time"]
    assert [[cell.plain for cell in line] for line in lines] == [
        ["b", "cameras, masks", "RGB + mask", "1", "0.500", "-"]
    ]
    assert cost(standing, ["steps", "step [ms]"]) == (
        ["method", "steps", "step [ms]"],
        [[TableCell("a"), TableCell("600"), TableCell("600.0")], [TableCell("b"), TableCell("0"), TableCell("-")]],
    )
