from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recon3d.bench.ranking import CATEGORY_MEAN, standings
from recon3d.bench.record import Record

Make = Callable[..., Record]


def test_seeds_are_averaged_with_the_sample_deviation(run: Make) -> None:
    categories = [{"car": 0.6, "chair": 0.4}, {"car": 0.8, "chair": 0.3}, {"car": 0.7, "chair": 0.2}]
    records = [run(seed=seed, iou=iou, per_category=categories[seed]) for seed, iou in enumerate((0.50, 0.54, 0.58))]
    (standing,) = standings(records)
    (row,) = standing.rows
    assert [record.seed for record in row.records] == [0, 1, 2]
    assert row.value("voxel_iou") == pytest.approx((0.54, 0.04))  # deviations -0.04, 0, 0.04; 0.0032 / 2 = 0.04^2
    assert row.value("voxel_iou", "car") == pytest.approx((0.7, 0.1))
    # 0.5, 0.55, 0.45
    assert row.value("voxel_iou", CATEGORY_MEAN) == pytest.approx((0.5, 0.05))
    assert row.value("voxel_iou", "table") is None
    assert row.cost("train_s") == 360.0
    assert row.interval("voxel_iou") == pytest.approx((0.45, 0.55))


def test_one_seed_has_no_deviation_and_a_missing_seed_no_mean(run: Make) -> None:
    (standing,) = standings([run()])
    assert standing.rows[0].value("voxel_iou") == (0.5, None)
    (standing,) = standings([run(seed=0), run(seed=1, iou=None)])
    assert standing.rows[0].value("voxel_iou") is None
    cost = replace(run().cost, train_s=None)
    (standing,) = standings([run(seed=0), run(seed=1, cost=cost)])
    assert standing.rows[0].cost("train_s") is None


def test_a_category_without_a_value_leaves_no_category_mean(run: Make) -> None:
    record = run(per_category={"car": 0.6, "chair": 0.4})
    for per_category in ({"car": 0.6}, {"car": 0.6, "chair": None}, {}):
        iou = replace(record.measures["voxel_iou"], per_category=per_category)
        (standing,) = standings([replace(record, measures={**record.measures, "voxel_iou": iou})])
        assert standing.rows[0].value("voxel_iou", CATEGORY_MEAN) is None
        assert standing.rows[0].value("voxel_iou", "chair") is None


def test_presets_and_data_never_share_a_standing(run: Make) -> None:
    found = standings([run(), run(preset="paper"), run(data="open_shapes"), run(method="other")])
    assert [(standing.name, standing.preset, len(standing.rows)) for standing in found] == [
        ("open_shapes", "quick", 1),
        ("synthetic", "paper", 1),
        ("synthetic", "quick", 2),
    ]


def test_rows_are_ordered_best_first_within_their_supervision(run: Make) -> None:
    records = [
        run(method="worse", iou=0.4),
        run(method="better", iou=0.6),
        run(method="missing", iou=None),
        run(method="best_of_all", iou=0.9, supervision=("voxels",)),
    ]
    (standing,) = standings(records)
    assert [row.method for row in standing.rows] == ["better", "worse", "missing", "best_of_all"]
    assert [row.method for row in standing.rivals(standing.rows[0], "voxel_iou")] == ["better", "worse", "missing"]


def test_a_lower_is_better_primary_measure_orders_upwards(run: Make) -> None:
    def only_chamfer(record: Record) -> Record:
        return replace(record, measures={"chamfer": record.measures["chamfer"]}, measure_order=("chamfer",))

    records = [only_chamfer(run(method="far", chamfer=7.0)), only_chamfer(run(method="near", chamfer=3.0))]
    assert [row.method for row in standings(records)[0].rows] == ["near", "far"]


def test_older_measure_versions_are_stale(run: Make) -> None:
    (standing,) = standings([run(method="old", version=1, day=9), run(method="new", version=2, day=3)])
    assert [row.method for row in standing.rows] == ["new"]
    assert [(record.method, why) for record, why in standing.stale] == [("old", "voxel_iou is v1, the newest v2")]
    assert standing.columns[0].version == 2


def test_runs_on_other_data_than_the_newest_are_stale(run: Make) -> None:
    newest = run(method="new", data_hash="d2", day=5)
    others = [run(method="old", data_hash="d1"), run(method="subset", data_hash="d2", per_category={"car": 0.9})]
    (standing,) = standings([*others, newest])
    assert standing.data == newest.data
    assert [row.method for row in standing.rows] == ["new"]
    reasons = {record.method: why for record, why in standing.stale}
    assert reasons == {"old": "data.hash differs: d1", "subset": "data.categories differs: ('car',)"}


def test_newest_is_by_instant_not_by_text(run: Make) -> None:
    early = run(method="early", data_hash="d1")  # 03:04 UTC
    late = run(method="late", data_hash="d2")
    provenance = replace(late.provenance, date="2026-01-01T23:00:00-05:00")  # 04:00 UTC of the next day
    (standing,) = standings([early, replace(late, provenance=provenance)])
    assert [row.method for row in standing.rows] == ["late"]


def test_seeds_of_another_configuration_are_not_averaged(run: Make) -> None:
    (standing,) = standings([run(seed=0, iou=0.1), run(seed=1, iou=0.5, config="c2", day=8)])
    assert standing.rows[0].value("voxel_iou") == (0.5, None)
    assert [(record.seed, why) for record, why in standing.stale] == [(0, "configuration differs from c2")]


def test_failed_runs_are_kept_apart_and_decide_nothing(run: Make, failed: Make) -> None:
    (standing,) = standings([run(), failed(method="broken", data_hash="d9", day=9)])
    assert [record.method for record in standing.failed] == ["broken"]
    assert standing.data == run().data
    (standing,) = standings([failed()])
    assert standing.data is None
    assert standing.rows == ()


def test_a_changed_unit_needs_a_new_version(run: Make) -> None:
    other = run(method="other")
    percent = replace(other.measures["voxel_iou"], unit="percent")
    with pytest.raises(ValueError, match="needs a new version"):
        standings([run(), replace(other, measures={**other.measures, "voxel_iou": percent})])


def test_a_measure_that_only_some_runs_have_is_a_column(run: Make) -> None:
    old = run(method="old")
    new = run(method="new", day=7)
    extra = replace(new.measures["chamfer"], unit="1", higher_is_better=True)
    new = replace(new, measures={**new.measures, "mask_iou": extra}, measure_order=("mask_iou", "voxel_iou", "chamfer"))
    (standing,) = standings([old, new])
    assert [column.label for column in standing.columns] == [
        "mask_iou ↑ [1] v1",
        "voxel_iou ↑ [1] v1",
        "chamfer ↓ [x100] v1",
    ]
    assert next(row for row in standing.rows if row.method == "old").value("mask_iou") is None


def test_where_nobody_has_the_primary_measure_the_first_that_somebody_has_orders(run: Make) -> None:
    # Photographs have no voxels.
    (standing,) = standings([run(method="a", iou=None, chamfer=3.0), run(method="b", iou=None, chamfer=2.0)])
    assert standing.primary is not None and standing.primary.name == "chamfer"
    assert [row.method for row in standing.rows] == ["b", "a"]
    (standing,) = standings([run(method="a", iou=None, chamfer=None)])
    assert standing.primary is not None and standing.primary.name == "voxel_iou"


def with_interval(record: Record, low: float, high: float) -> Record:
    iou = replace(record.measures["voxel_iou"], interval=(low, high))
    return replace(record, measures={**record.measures, "voxel_iou": iou})


def test_the_interval_of_several_seeds_averages_their_ends(run: Make) -> None:
    seeds = [(0.50, 0.48, 0.53), (0.60, 0.56, 0.62), (0.58, 0.55, 0.65)]
    records = [with_interval(run(seed=k, iou=iou), low, high) for k, (iou, low, high) in enumerate(seeds)]
    (standing,) = standings(records)
    (row,) = standing.rows
    _, lows, highs = np.array(seeds).T
    assert row.interval("voxel_iou") == pytest.approx((lows.mean(), highs.mean()))
    # The seeds differ more than the samples: (0.53, 0.60) against 0.56 -+ 0.0529.
    mean, sd = np.mean([0.5, 0.6, 0.58]), np.std([0.5, 0.6, 0.58], ddof=1)
    assert row.spread("voxel_iou") == pytest.approx((mean - sd, mean + sd))
    wide = [with_interval(run(seed=k, iou=iou), 0.1, 0.9) for k, (iou, _, _) in enumerate(seeds)]
    assert standings(wide)[0].rows[0].spread("voxel_iou") == pytest.approx((0.1, 0.9))
    assert row.interval("chamfer") is None and row.spread("chamfer") is None and row.interval("nothing") is None


def test_a_seed_without_an_interval_leaves_none(run: Make) -> None:
    bare = run(seed=1)
    iou = replace(bare.measures["voxel_iou"], interval=None)
    (standing,) = standings([run(), replace(bare, measures={**bare.measures, "voxel_iou": iou})])
    assert standing.rows[0].interval("voxel_iou") is None and standing.rows[0].spread("voxel_iou") is None


def test_of_several_seeds_the_fastest_time_and_the_highest_memory_count(run: Make) -> None:
    slow = replace(run().cost, train_s=720.0, ms_per_image=2.5, peak_mem_mib=1000.0)
    (standing,) = standings([run(seed=0), run(seed=1, cost=slow)])
    (row,) = standing.rows
    found = {name: row.cost(name) for name in ("train_s", "ms_per_image", "peak_mem_mib", "params", "steps")}
    assert found == {"train_s": 360.0, "ms_per_image": 2.5, "peak_mem_mib": 1000.0, "params": 1e6, "steps": 600.0}


def test_values_of_another_network_are_no_rivals(run: Make) -> None:
    def with_fid(note: str | None, **changes: Any) -> Record:
        record = run(**changes)
        fid = replace(record.measures["chamfer"], value=None if note is None else 3.0, note=note)
        return replace(record, measures={**record.measures, "fid": fid}, measure_order=(*record.measure_order, "fid"))

    records = [with_fid(f"net {k}; more", method=m) for m, k in (("a", 1), ("b", 2), ("c", 1))]
    (standing,) = standings([*records, with_fid(None, method="d")])
    a, *_, d = sorted(standing.rows, key=lambda row: row.method)
    assert [row.method for row in standing.rivals(a, "fid")] == ["a", "c"] and a.networks("fid") == ["net 1"]
    assert len(standing.rivals(a, "chamfer")) == 4 and a.networks("chamfer") == d.networks("fid") == []
    (standing,) = standings([with_fid("net 1", seed=0), with_fid("net 2", seed=1)])
    assert standing.rows[0].value("fid") is None and standing.rows[0].networks("fid") == ["net 1", "net 2"]
