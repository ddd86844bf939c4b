from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recon3d.bench import page, reported
from recon3d.bench.ranking import standings
from recon3d.bench.record import MeasureResult, Record

Make = Callable[..., Record]
PAPERS = reported.load(Path(__file__).parents[2] / "leaderboard" / "reported")


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def row(text: str, *starts: str) -> list[str]:
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines()]
    (found,) = [cells for cells in lines if cells[: len(starts)] == list(starts)]
    return found


def render(*records: Record) -> str:
    (standing,) = standings(records)
    return page.page(standing, PAPERS)


def test_mean_deviation_and_bold_of_the_main_table(run: Make) -> None:
    text = render(
        run(method="a", seed=0, iou=0.50, chamfer=5.0),
        run(method="a", seed=1, iou=0.54, chamfer=6.0),
        run(method="b", seed=0, iou=0.51, chamfer=5.6),
        run(method="c", iou=0.9, chamfer=1.0, supervision=("voxels",)),
    )
    table = section(text, "Results")
    header = "| method | supervision | input | seeds | voxel_iou ↑ [1] v1 | chamfer ↓ [x100] v1 |"
    assert header in table
    # sd of (0.50, 0.54) is 0.02 sqrt(2) = 0.0283, of (5, 6) 0.7071; chamfer 5.5 beats 5.6, being lower
    assert row(table, "a") == ["a", "cameras, masks", "RGB + mask", "2", "**0.520 ± 0.028**", "**5.50 ± 0.71**"]
    assert row(table, "b") == ["b", "cameras, masks", "RGB + mask", "1", "0.510", "5.60"]
    # alone in its supervision group: nothing to be best of
    assert row(table, "c")[4:] == ["0.900", "1.00"]
    assert "Samples scored: voxel_iou 60, chamfer 60." in table


def test_equal_prints_share_the_bold(run: Make) -> None:
    table = section(
        render(run(method="a", iou=0.5004), run(method="b", iou=0.4996), run(method="c", iou=0.49)), "Results"
    )
    assert [row(table, name)[4] for name in "abc"] == ["**0.500**", "**0.500**", "0.490"]


def test_a_missing_value_is_not_zero_and_never_best(run: Make) -> None:
    lacking = run(method="old")
    lacking = replace(lacking, measures={"voxel_iou": lacking.measures["voxel_iou"]}, measure_order=("voxel_iou",))
    table = section(render(run(method="none", chamfer=None), lacking, run(method="some")), "Results")
    assert [row(table, name)[5] for name in ("none", "old", "some")] == ["n/a", "-", "5.00"]
    assert "- none, chamfer: no points\n" in table


def with_points(record: Record) -> Record:
    best = MeasureResult(4.25, 6, "x100", 1, False, {}, (4.0, 4.5), None)
    diagonal = replace(best, value=0.0342, unit="1", n=60)
    measures = record.measures | {"chamfer_best": best, "chamfer_diagonal": diagonal}
    return replace(record, measures=measures, measure_order=tuple(measures))


def test_variants_for_points_have_a_table_of_their_own_and_runs_of_before_a_dash(run: Make) -> None:
    text = render(with_points(run(method="new")), run(method="old"), run(method="newer", day=3))
    assert "chamfer_best" not in section(text, "Results").split("Samples scored")[0]
    assert "voxel_iou 60, chamfer 60, chamfer_best 6, chamfer_diagonal 60." in section(text, "Results")
    table = section(text, "As points")
    assert row(table, "method")[4:] == ["chamfer_best ↓ [x100] v1", "chamfer_diagonal ↓ [1] v1"]
    assert row(table, "new")[4:] == ["4.25", "0.0342"]
    assert row(table, "old")[4:] == row(table, "newer")[4:] == ["-", "-"]
    assert "## As points" not in render(run())


def test_digits_follow_the_largest_value_of_a_column(run: Make) -> None:
    for value, printed in ((0.0, "0.000"), (0.0342, "0.0342"), (0.5, "0.500"), (5.0, "5.00"), (346.41, "346.4")):
        measures = {"chamfer": replace(run().measures["chamfer"], value=value, note=None)}
        record = run(measures=measures, measure_order=("chamfer",))
        assert row(section(render(record), "Results"), "softras")[4] == printed


def test_categories_and_their_mean(run: Make) -> None:
    text = render(
        run(method="a", iou=0.55, per_category={"car": 0.6, "chair": 0.4}),
        run(method="b", iou=0.54, per_category={"car": 0.5, "chair": 0.6}),
    )
    table = section(text, "voxel_iou ↑ [1] v1 by category")
    assert row(table, "method") == ["method", "car", "chair", "mean", "all samples"]
    assert row(table, "a")[1:] == ["**0.600**", "0.400", "0.500", "**0.550**"]
    assert row(table, "b")[1:] == ["0.500", "**0.600**", "**0.550**", "0.540"]


def test_cost_is_averaged_in_readable_units(run: Make) -> None:
    slow = replace(run().cost, train_s=7560.0, peak_mem_mib=None)
    text = render(run(method="a", seed=0), run(method="a", seed=1, cost=slow), run(method="b", cost=slow))
    table = section(text, "Cost")
    assert row(table, "a") == ["a", "1.00", "600", "66.0 min", "5.5", "-", "cpu"]
    assert row(table, "b")[3] == "2.1 h"
    assert page.duration(119.4) == "119 s"


def test_provenance_stale_and_failed_runs_are_shown(run: Make, failed: Make) -> None:
    dirty = run(method="new", version=2)
    dirty = replace(dirty, provenance=replace(dirty.provenance, dirty=True))
    text = render(dirty, run(method="old"), failed(method="broken", error="RuntimeError: a|b\nTraceback"))
    expected = "new | 0 | 0.450 to 0.550 | 2026-01-02 | abcdef0123 + changes | cpu | numba | c1 | torch 2.11.0"
    assert row(section(text, "Runs"), "new") == expected.split(" | ")
    assert "old" not in section(text, "Results")
    assert row(section(text, "Stale, not ranked"), "old")[3] == "voxel_iou is v1, the newest v2"
    assert "| broken | 0 | 2026-01-02 | abcdef0123 | RuntimeError: a\\|b |" in section(text, "Failed runs")
    assert "Traceback" not in text


def test_a_page_of_failures_alone_has_no_table(failed: Make) -> None:
    text = render(failed())
    assert "## Results" not in text
    assert "out of memory" in text


def test_own_data_say_that_no_paper_is_comparable(run: Make) -> None:
    assert "no reported row is comparable" in section(render(run(data="own")), "Reported by papers")


def test_rows_of_similar_data_are_marked_and_have_no_gap(run: Make) -> None:
    table = section(render(run(data="synthetic")), "Reported by papers")
    assert "For orientation only" in table and "ours - reported" not in table
    assert row(table, "softras", "run here")[-1] == row(section(render(run(data="shapenet")), "Reported by papers"),
                                                        "softras", "run here")[-2]  # fmt: skip
    assert row(table, "softras *reported*")[3:] == ["0.7697", "0.5270", ""]


def test_photographs_of_birds_stand_beside_the_numbers_on_cub(run: Make) -> None:
    images = with_images(run(method="cmr", per_category={"bird": 0.6}))
    for name, gap in (("cub", ["-0.032"]), ("synthetic_birds", [])):
        ssim = replace(images.measures["ssim"], per_category={"bird": 0.75})
        record = replace(images, data=replace(images.data, name=name), measures=images.measures | {"ssim": ssim})
        text = section(render(record), "Reported by papers")
        table = text.split("ssim")[1]
        assert row(table, "cmr", "run here")[4] == "0.750"
        assert row(table, "cmr *reported*")[3:] == ["0.782", "0.782", *gap]
        assert "do not say which split they score" in text
        assert ("photographs of real birds; here they are drawn" in text) == (name == "synthetic_birds")


def test_reported_rows_stand_beside_ours_on_shapenet(run: Make) -> None:
    cells = PAPERS.cells[PAPERS.cells["paper"] == "liu2019softras"]
    names = sorted(set(cells["category"]) - {"mean"})
    text = render(run(data="shapenet", per_category=dict.fromkeys(names, 0.6)))
    table = section(text, "Reported by papers")
    assert row(table, "softras", "run here")[-2:] == ["0.600", ""]
    assert row(table, "softras *reported*")[-2:] == ["0.6234", "-0.023"]
    assert row(table, "softras *reported*")[1] == "[Liu et al. 2019](https://arxiv.org/abs/1901.05567), table 1"
    # a subset of the categories has no mean to compare with
    table = section(render(run(data="shapenet")), "Reported by papers")
    assert row(table, "softras *reported*")[3:] == ["0.7697", "0.5270", "", ""]


@pytest.mark.parametrize(("iou", "shown"), [(0.98765, "0.988"), (1.5, "1.50"), (123.456, "123.5")])
def test_digits_follow_the_size(run: Make, iou: float, shown: str) -> None:
    assert row(section(render(run(iou=iou)), "Results"), "softras")[4] == shown


def with_images(record: Record, *, textured: bool = True, keypoints: bool = True) -> Record:
    soft = MeasureResult(0.75, 60, "1", 1, True, {}, (0.7, 0.8), None)
    none = replace(soft, value=None, n=0, interval=None, note="the method gives no texture")
    fid = replace(soft, value=12.5 if textured else None, higher_is_better=False, note="a network")
    extra = {
        "mask_iou_soft": soft,
        "ssim": soft if textured else none,
        "ssim_plain": none,
        "fid": fid if textured else replace(none, higher_is_better=False),
        "pck_flow": replace(soft, value=0.4, n=9000) if keypoints else replace(none, note="no key points"),
        "pck_camera": replace(none, note="another reason"),
    }
    measures = record.measures | extra
    return replace(record, measures=measures, measure_order=tuple(measures))


def test_images_and_key_points_have_tables_of_the_measures_that_somebody_has(run: Make) -> None:
    text = render(with_images(run(method="paints")), with_images(run(method="grey"), textured=False, keypoints=False))
    results = section(text, "Results").split("Samples scored")[0]
    assert not any(name in results for name in ("mask_iou_soft", "ssim", "fid", "pck"))
    images, keypoints = section(text, "As images"), section(text, "Key points")
    assert row(images, "method")[4:] == ["mask_iou_soft ↑ [1] v1", "ssim ↑ [1] v1", "fid ↓ [1] v1"]
    assert row(images, "paints")[4:] == ["**0.750**", "0.750", "12.50"]
    assert row(images, "grey")[4:] == ["**0.750**", "n/a", "n/a"]
    assert row(keypoints, "method")[4:] == ["pck_flow ↑ [1] v1"]
    assert (row(keypoints, "paints")[4:], row(keypoints, "grey")[4:]) == (["0.400"], ["n/a"])
    assert "mask_iou_soft 60, ssim 0 to 60, fid 0 to 60, pck_flow 0 to 9000." in text
    assert "- paints, fid: a network\n" in text and "ssim_plain" not in text and "another reason" not in text


def test_pages_without_textures_and_key_points_do_not_grow(run: Make) -> None:
    assert render(with_images(run(), textured=False, keypoints=False)) == render(run())
