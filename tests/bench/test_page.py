from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recon3d.bench import page, reported
from recon3d.bench.ranking import standings
from recon3d.bench.record import MeasureResult, Record

Make = Callable[..., Record]
INTERVAL = "<br><sub>0.450 to 0.550</sub>"  # of conftest's voxel_iou
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
    header = "| method | supervision | input | seeds | voxel_iou ↑ [1] v1 | chamfer ↓ [x100] v1 | parameters [M] |"
    assert header in table
    # sd of (0.50, 0.54) is 0.02 sqrt(2) = 0.0283, of (5, 6) 0.7071; chamfer 5.5 beats 5.6, being lower
    assert row(table, "a")[:6] == [
        *("a", "cameras, masks", "RGB + mask", "2"), "**0.520 ± 0.028**" + INTERVAL, "**5.50 ± 0.71**"
    ]  # fmt: skip
    # Chamfer has no interval here, so no tie is shown.
    assert row(table, "b")[:6] == ["b", "cameras, masks", "RGB + mask", "1", "0.510 ≈" + INTERVAL, "5.60"]
    # alone in its supervision group: nothing to be best of
    assert row(table, "c")[4:6] == ["0.900" + INTERVAL, "1.00"]
    assert "- samples scored: 60 (voxel_iou, chamfer)\n" in table
    assert "- chamfer: no interval, so no tie is marked (all methods)\n" in table


def test_equal_prints_share_the_bold(run: Make) -> None:
    table = section(
        render(run(method="a", iou=0.5004), run(method="b", iou=0.4996), run(method="c", iou=0.49)), "Results"
    )
    assert [row(table, name)[4].removesuffix(INTERVAL) for name in "abc"] == ["**0.500**", "**0.500**", "0.490 ≈"]


def test_a_missing_value_is_not_zero_and_never_best(run: Make) -> None:
    lacking = run(method="old")
    lacking = replace(lacking, measures={"voxel_iou": lacking.measures["voxel_iou"]}, measure_order=("voxel_iou",))
    table = section(render(run(method="none", chamfer=None), lacking, run(method="some")), "Results")
    assert [row(table, name)[5] for name in ("none", "old", "some")] == ["n/a", "-", "5.00"]
    assert "- chamfer: no points (none)\n" in table


def test_a_measure_in_no_table_has_no_notes(run: Make) -> None:
    none = replace(run().measures["chamfer"], value=None, n=0, note="predicts no camera")
    measures = run().measures | {"pose_accuracy": none}
    text = render(run(measures=measures, measure_order=tuple(measures)))
    assert "pose_accuracy" not in text and "predicts no camera" not in text


def test_settings_that_were_chosen_on_the_test_split_are_said(run: Make) -> None:
    text = section(render(run(data="open_shapes"), run(data="open_shapes", method="voxel")), "Results")
    assert "- softras: **tuned on the test split**" in text and "- neural_renderer: " not in text
    assert "tuned on" not in render(run(data="synthetic")) + render(run(data="open_shapes", preset="paper"))


def with_points(record: Record) -> Record:
    best = MeasureResult(4.25, 6, "x100", 1, False, {}, (4.0, 4.5), None)
    diagonal = replace(best, value=0.0342, unit="1", n=60)
    measures = record.measures | {"chamfer_best": best, "chamfer_diagonal": diagonal}
    return replace(record, measures=measures, measure_order=tuple(measures))


def test_variants_for_points_have_a_table_of_their_own_of_the_runs_that_have_them(run: Make) -> None:
    text = render(with_points(run(method="new")), run(method="old"), run(method="newer", day=3))
    assert "chamfer_best" not in section(text, "Results").split("- samples scored")[0]
    assert "60 (voxel_iou, chamfer, chamfer_diagonal); 6 (chamfer_best)\n" in section(text, "Results")
    table = section(text, "As points")
    assert row(table, "method")[4:] == ["chamfer_best ↓ [x100] v1", "chamfer_diagonal ↓ [1] v1"]
    assert row(table, "new")[4:] == ["4.25<br><sub>4.00 to 4.50</sub>", "0.0342<br><sub>4.0000 to 4.5000</sub>"]
    assert "| old |" not in table and "| newer |" not in table  # without any of these values
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
    assert row(table, "a")[1:] == ["**0.600**", "0.400", "0.500", "**0.550**" + INTERVAL]
    assert row(table, "b")[1:] == ["0.500", "**0.600**", "**0.550**", "0.540 ≈" + INTERVAL]
    assert "by category" not in render(run(per_category={"bird": 0.6}))  # it would say one thing three times


def test_cost_is_of_the_fastest_seed_and_names_every_device(run: Make) -> None:
    slow = replace(run().cost, train_s=7560.0, ms_per_image=4.5, peak_mem_mib=950.0)
    other = replace(run().provenance, device="cpu, 2 threads")
    text = render(
        run(method="a", seed=0), run(method="a", seed=1, cost=slow, provenance=other), run(method="b", cost=slow)
    )
    results = section(text, "Results")
    assert row(results, "method")[6:] == ["parameters [M]", "train time", "ms/image", "peak memory [MiB]"]
    # 360 and 7560 s, 5.5 and 4.5 ms; of memory the highest
    assert (row(results, "a")[6:], row(results, "b")[6:]) == (
        ["1.00", "6.0 min", "4.5", "950"], ["1.00", "2.1 h", "4.5", "950"]
    )  # fmt: skip
    table = section(text, "Cost")
    assert row(table, "method") == ["method", "steps", "step [ms]", "train time", "slowest seed", "device"]
    assert row(table, "a") == ["a", "600", "600.0", "6.0 min", "2.1 h", "cpu, cpu, 2 threads"]
    assert row(table, "b") == ["b", "600", "12600.0", "2.1 h", "-", "cpu"]
    assert "- cost measured on cpu: all methods\n- cost measured on cpu, 2 threads: a\n" in results
    assert "slowest seed" not in render(run())


def test_provenance_stale_and_failed_runs_are_shown(run: Make, failed: Make) -> None:
    dirty = run(method="new", version=2)
    dirty = replace(dirty, provenance=replace(dirty.provenance, dirty=True))
    text = render(dirty, run(method="old"), failed(method="broken", error="RuntimeError: a|b\nTraceback"))
    expected = "new | 0 | 0.450 to 0.550 | 2026-01-02 | abcdef0123 + changes | cpu | numba | c1 | (1)"
    assert row(section(text, "Runs"), "new") == expected.split(" | ")
    assert section(text, "Runs").endswith("\n\n- (1) torch 2.11.0\n")
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


def test_similar_data_point_to_the_papers_that_give_one_of_our_measures(run: Make) -> None:
    text = section(render(run(data="synthetic")), "Reported by papers")
    assert "no reported row is comparable" in text and "|" not in text
    keys = ("kato2018nmr", "liu2019softras", "zubic2021effective")
    assert [f"(papers/{key}.md)" in text for key in (*keys, "lin2021adaptive")] == [True, True, True, False]
    birds = render(with_images(run(data="synthetic_birds", per_category={"bird": 0.6})))
    assert "(papers/lin2021adaptive.md).\n" in section(birds, "Reported by papers")


def test_photographs_of_birds_stand_beside_the_numbers_on_cub(run: Make) -> None:
    images = with_images(run(method="cmr", data="cub", per_category={"bird": 0.6}))
    ssim = replace(images.measures["ssim"], per_category={"bird": 0.75})
    text = section(render(replace(images, measures=images.measures | {"ssim": ssim})), "Reported by papers")
    table = text.split("ssim")[1]
    assert row(table, "cmr", "run here")[4] == "0.750"
    assert row(table, "cmr *reported*")[3:] == ["0.782", "0.782", "-0.032"]  # 0.75 - 0.782
    assert text.endswith("Why they differ: [Lin and Tian 2021](papers/lin2021adaptive.md).\n")


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
    assert row(section(render(run(iou=iou)), "Results"), "softras")[4].partition("<br>")[0] == shown


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
    results = section(text, "Results").split("- samples scored")[0]
    assert not any(name in results for name in ("mask_iou_soft", "ssim", "fid", "pck"))
    images, keypoints = section(text, "As images"), section(text, "Key points")
    assert row(images, "method")[4:] == ["mask_iou_soft ↑ [1] v1", "ssim ↑ [1] v1", "fid ↓ [1] v1"]
    within = "<br><sub>0.700 to 0.800</sub>"
    # mask_iou_soft is the same for both: then nothing is best.
    assert row(images, "paints")[4:] == ["0.750" + within, "0.750" + within, "12.50<br><sub>0.70 to 0.80</sub>"]
    assert row(images, "grey")[4:] == ["0.750" + within, "n/a", "n/a"]
    assert row(keypoints, "method")[4:] == ["pck_flow ↑ [1] v1"]
    assert row(keypoints, "paints")[4:] == ["0.400" + within] and "| grey |" not in keypoints
    assert "60 (voxel_iou, chamfer, mask_iou_soft); 0 to 60 (ssim, fid); 0 to 9000 (pck_flow)\n" in text
    assert "- ssim, fid: the method gives no texture (grey)\n" in text
    assert "- fid: a network (paints)\n" in text and "ssim_plain" not in text and "another reason" not in text


def test_pages_without_textures_and_key_points_do_not_grow(run: Make) -> None:
    assert render(with_images(run(), textured=False, keypoints=False)) == render(run())


def test_values_of_different_networks_are_told_apart_and_not_ranked_together(run: Make) -> None:
    def with_fid(method: str, value: float, note: str, **changes: int) -> Record:
        images = with_images(run(method=method, **changes))
        fid = replace(images.measures["fid"], value=value, note=note, interval=None)
        return replace(images, measures=images.measures | {"fid": fid})

    text = render(
        with_fid("a", 10.0, "network X"),
        with_fid("b", 12.0, "network X; 3 images left out"),
        with_fid("c", 1.0, "network W"),
        with_fid("mixed", 1.0, "network W", seed=0),
        with_fid("mixed", 2.0, "network X", seed=1),
    )
    table = section(text, "As images")
    found = {name: row(table, name)[-1] for name in ("a", "b", "c", "mixed")}
    assert found == {"a": "**10.00 (2)**", "b": "12.00 (2)", "c": "1.00 (1)", "mixed": "n/a"}
    notes = section(text, "Results")
    assert "- fid: (2) network X (a)\n" in notes and "- fid: (1) network W (c)\n" in notes
    assert "- fid: (2) network X; 3 images left out (b)\n" in notes


def test_notes_are_said_once_for_all_measures_and_methods_that_share_them(run: Make) -> None:
    def without(method: str, note: str | None) -> Record:
        record = run(method=method)
        pose = MeasureResult(None if note else 1.0, 60, "%", 1, True, {}, None if note else (0.5, 1.5), note)
        measures = record.measures | {"pose_accuracy": pose, "pose_error": replace(pose, higher_is_better=False)}
        return replace(record, measures=measures, measure_order=tuple(measures))

    none = "predicts no camera"
    text = render(*(without(name, none) for name in ("a", "b", "c")), without("d", None))
    assert text.count(none) == 1
    assert f"- pose_accuracy, pose_error: {none} (all methods but d)\n" in text
    assert [line[:4] for line in section(text, "Cameras").splitlines() if line.startswith("| ")][2:] == ["| d "]
