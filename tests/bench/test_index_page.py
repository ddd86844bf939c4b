from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recon3d.bench import beside, reported
from recon3d.bench.index_page import index
from recon3d.bench.ranking import standings
from recon3d.bench.record import Record

Make = Callable[..., Record]
REPORTED = Path(__file__).parents[2] / "leaderboard" / "reported"


def render(*records: Record) -> str:
    papers = reported.load(REPORTED)
    ours = beside.load(REPORTED, papers)
    shown = standings(records)
    runs = beside.runs_beside(papers, ours, shown)
    return index(shown, papers, ours, runs, {"suites/one.md": "One suite"}, ["curves.md"])


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return line.removeprefix("| ").removesuffix(" |").split(" | ")


def test_a_page_says_the_best_of_each_supervision_and_its_ties(run: Make, failed: Make) -> None:
    def scored(method: str, value: float, low: float, high: float) -> Record:
        record = run(method=method)
        iou = replace(record.measures["voxel_iou"], value=value, interval=(low, high))
        return replace(record, measures={**record.measures, "voxel_iou": iou})

    text = render(
        scored("second", 0.59, 0.57, 0.61),
        scored("best", 0.6, 0.58, 0.62),
        scored("third", 0.5, 0.48, 0.52),
        run(method="told", iou=0.9, supervision=("voxels",)),
        failed(method="broken"),
    )
    page, best, *counts = cells(text, "[synthetic, quick]")
    assert page == "[synthetic, quick](synthetic-quick.md)"
    assert best == (
        "voxel_iou ↑ [1] v1<br>cameras, masks: best 0.600 ≈ second, best of 3<br>voxels: told 0.900"
    )  # third's interval ends below best's
    assert counts == ["4", "4", "0", "1", "2026-01-02"]


def test_equal_bests_are_both_named(run: Make) -> None:
    text = render(run(method="a", iou=0.6), run(method="b", iou=0.6), run(method="c", iou=0.4))
    assert "cameras, masks: a 0.600 ≈ b, c, best of 3" in text  # of c the interval of conftest overlaps


def test_a_page_of_failures_alone_has_no_best(failed: Make) -> None:
    assert cells(render(failed()), "[synthetic, quick]")[1:] == ["-", "0", "0", "0", "1", "-"]


def test_papers_say_how_many_of_their_rows_were_run(run: Make) -> None:
    text = render(run(data="shapenet"), run(data="synthetic", method="voxel"))
    assert cells(text, "[Liu et al. 2019](papers/liu2019softras.md)")[1:] == ["1", "4", "1", "1", "2"]
    assert cells(text, "[Lin and Tian 2021](papers/lin2021adaptive.md)")[1:] == ["1", "3", "0", "0", "3"]
    assert "- [One suite](suites/one.md)\n- [How long methods train to a Chamfer distance](curves.md)\n" in text
    assert "(reported.md)" in text and "No run yet" in render()
