import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon3d.bench import beside, reported
from recon3d.bench.beside import SuiteTable
from recon3d.bench.paper_page import paper_page
from recon3d.bench.ranking import standings
from recon3d.bench.record import MeasureResult, Record

ROOT = Path(__file__).parents[2]
Make = Callable[..., Record]
CELLS = (
    "paper,table,method,setting,dataset,category,measure,unit,value,printed,note\n"
    "p1,1,softras,views=24; grid=32,shapenet_nmr,car,voxel_iou,percent,50.1,50.1,odd\n"
    "p1,1,softras,views=24; grid=32,shapenet_nmr,chair,voxel_iou,percent,40,40.0,\n"
    "p1,1,softras,views=24; grid=32,shapenet_nmr,mean,voxel_iou,percent,45.05,45.05,odd\n"
    "p1,1,nobody,grid=32,shapenet_nmr,car,voxel_iou,percent,1,1.0,\n"
    "p1,2,softras,size=64,cub,all,ssim,1,0.700,0.700,\n"
    "p1,2,softras,size=64,cub,all,training_time,h,6.5,6.5,\n"
)
OTHER = (
    "paper,table,method,setting,dataset,category,measure,unit,value,printed,note\n"
    "p2,1,softras,views=24,shapenet_nmr,car,voxel_iou,percent,50.1,50.1,\n"
    "p2,1,softras,views=24,shapenet_nmr,chair,voxel_iou,percent,41,41.0,\n"
)
FILES = {
    "papers.csv": "key,title,authors,venue,year,url,note\np1,A Title,Ann One; Bob Two,CVPR,2018,https://x.org,long\n"
    "p2,Another,Cy Three,,2019,,\n",
    "p1_table1.csv": CELLS,
    "p2_table1.csv": OTHER,
    "tables.csv": "paper,table,title,about\np1,1,IoU,One network.\np1,2,images and hours,\np2,1,IoU,\n",
    "ours.csv": "paper,table,method,setting,ours,measure,why\np1,1,softras,,softras,,fewer steps.\n"
    "p1,2,softras,,softras,,another window.\np2,1,softras,,,,nothing here.\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def render(folder: Path, *records: Record, suites: tuple[SuiteTable, ...] = (), key: str = "p1") -> str:
    papers = reported.load(folder)
    ours = beside.load(folder, papers)
    return paper_page(key, papers, ours, beside.runs_beside(papers, ours, standings(records), suites))


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def lines(text: str) -> list[list[str]]:
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines() if line[:2] == "| "]


def test_ours_stands_below_the_row_in_the_papers_unit_with_the_gap_where_data_are_the_same(
    folder: Path, run: Make
) -> None:
    seeds = [{"car": 0.61, "chair": 0.40}, {"car": 0.63, "chair": 0.44}]
    records = [
        run(data="shapenet", preset="paper", seed=k, iou=iou, per_category=seeds[k])
        for k, iou in enumerate((0.5, 0.54))
    ]
    records.append(run(data="synthetic", iou=0.3, per_category={"airplane": 0.2, "car": 0.4}))
    table = section(render(folder, *records), "Table 1: IoU")
    assert table.startswith("\nOne network.\n\nshapenet_nmr, voxel_iou [percent], all rows grid=32:\n")
    header, _, softras, same, gap, similar, nobody = lines(table)
    assert header == ["method", "setting or page", "seeds", "mean", "all samples", "car", "chair"]
    assert softras == ["softras *reported*", "views=24", "", "45.05 (1)", "", "50.1 (1)", "40.0"]
    cars, chairs, means = np.array([[0.61, 0.63], [0.40, 0.44], [0.505, 0.535]]) * 100
    assert same[:3] == ["softras", "[shapenet, paper](../shapenet-paper.md), 600 steps", "2"]
    assert [same[3], *same[5:]] == [
        f"{values.mean():.{d}f} ± {values.std(ddof=1):.{d}f}" for values, d in ((means, 2), (cars, 1), (chairs, 1))
    ]
    assert same[4] == "52.00 ± 2.83<br><sub>45.00 to 55.00</sub>"  # conftest's interval of both seeds
    assert gap == ["*ours - reported*", "", "", "+6.95", "", "+11.9", "+2.0"]  # 62 - 50.1, 42 - 40, 52 - 45.05
    # Similar data: no gap; "mean" is of other categories, so it is not beside.
    assert similar == [
        *("softras", "[synthetic, quick](../synthetic-quick.md), 600 steps", "1", ""),
        *("30.00<br><sub>45.00 to 55.00</sub>", "40.0", ""),
    ]
    assert nobody == ["nobody *reported*", "", "", "", "", "1.0", ""]
    assert "\n- (1) odd\n" in table
    assert "- **softras**: fewer steps.\n" in table  # it is measured: nothing to fill
    assert "- Not among the methods here: nobody.\n" in table


def test_what_would_fill_a_row_is_said_until_the_papers_data_and_schedule_are_there(folder: Path, run: Make) -> None:
    command = "`make bench METHOD=softras DATA=shapenet PRESET=paper`"
    assert f"fewer steps. Not measured with the paper's data: {command}.\n" in render(folder)
    assert f"the paper's data: {command}" in render(folder, run(data="synthetic", preset="paper"))
    quick = render(folder, run(data="shapenet"))
    assert f"the paper's schedule, only with a shorter one: {command}.\n" in quick and "*ours - reported*" in quick
    assert command not in render(folder, run(data="shapenet", preset="paper"))
    assert "- **softras**: nothing here.\n" in render(folder, key="p2")  # nothing of ours does the same


def test_similar_data_are_described_once_at_the_end(folder: Path, run: Make) -> None:
    text = render(folder, run(data="synthetic"), run(data="open_shapes"), run(data="shapenet"))
    likeness = reported.SIMILAR_DATA["synthetic", "shapenet_nmr"]
    assert section(text, "The data").strip() == f"- `open_shapes`, `synthetic` beside `shapenet_nmr`: {likeness}."
    assert "## The data" not in render(folder, run(data="shapenet"))


def with_ssim(record: Record, value: float | None) -> Record:
    ssim = MeasureResult(value, 60, "1", 1, True, {"bird": value}, None if value is None else (0.65, 0.75), None)
    return replace(record, measures=record.measures | {"ssim": ssim}, measure_order=(*record.measure_order, "ssim"))


def test_all_of_one_category_has_its_interval(folder: Path, run: Make) -> None:
    (folder / "p1_table2.csv").write_text(CELLS.splitlines()[0] + "\n" + "\n".join(CELLS.splitlines()[-2:-1]) + "\n")
    (folder / "p1_table1.csv").write_text("\n".join(CELLS.splitlines()[:-2]) + "\n")
    birds = [with_ssim(run(data=name, per_category={"bird": 0.5}), 0.72) for name in ("cub", "synthetic_birds")]
    table = section(render(folder, *birds), "Table 2: images and hours")
    assert "cub:\n" in table
    header, _, _, same, gap, similar = lines(table)
    assert header[3:] == ["ssim [1]"]  # no column for all samples: this is it
    assert same[3:] == ["0.720<br><sub>0.650 to 0.750</sub>"] and gap[3:] == ["+0.020"]
    assert similar[3:] == ["0.720<br><sub>0.650 to 0.750</sub>"]
    missing = lines(
        section(
            render(folder, with_ssim(run(data="cub", per_category={"bird": 0.5}), None)), "Table 2: images and hours"
        )
    )
    assert missing[3][3:] == ["n/a"] and len(missing) == 4


def test_training_time_is_of_the_fastest_seed_with_its_devices_and_no_gap(folder: Path, run: Make) -> None:
    (folder / "p1_table1.csv").write_text("\n".join(CELLS.splitlines()[:-2]) + "\n")
    (folder / "p1_table2.csv").write_text(CELLS.splitlines()[0] + "\n" + CELLS.splitlines()[-1] + "\n")
    (folder / "ours.csv").write_text(FILES["ours.csv"].replace("softras,,another", "softras,train_s,another"))
    slow = replace(run().cost, train_s=7560.0)
    records = [
        run(data="cub", per_category={"bird": 0.5}),
        run(data="cub", seed=1, cost=slow, per_category={"bird": 0}),
    ]
    header, _, reported_row, ours = lines(section(render(folder, *records), "Table 2: images and hours"))
    assert header[3:] == ["training_time [h]"] and reported_row[3:] == ["6.5"]
    assert ours[3:] == ["6.0 min on cpu"]


def test_a_suite_stands_below_the_rows_that_it_repeats(folder: Path, run: Make) -> None:
    (standing,) = standings([run(method="full", iou=0.3, per_category={"car": 0.3})])
    table = SuiteTable(("p1", "1"), standing, {"full": ("softras", "views=24; grid=32")}, "[S](../suites/s.md)")
    _, _, _, ours, _ = lines(section(render(folder, suites=(table,)), "Table 1: IoU"))
    # One category is all samples, so it has the interval.
    assert ours == ["full", "[S](../suites/s.md), 600 steps", "1", "", "30.0<br><sub>45.0 to 55.0</sub>", ""]


def test_cells_that_another_paper_prints_too_are_compared(folder: Path) -> None:
    text = section(render(folder), "The same cells in other papers").strip()
    assert text == (
        "- [Three 2019](p2.md), table 1: 1 of 2 cells are equal. Not equal: softras, chair: 40.0 here, 41.0 there."
    )
    (folder / "p2_table1.csv").write_text(OTHER.replace("41,41.0", "40,40.0"))
    assert render(folder, key="p2").strip().endswith("- [One and Two 2018](p1.md), table 1: 2 of 2 cells are equal.")


def test_the_real_pages_have_every_cell_as_printed(tmp_path: Path) -> None:
    folder = ROOT / "leaderboard" / "reported"
    papers = reported.load(folder)
    for key in papers.papers:
        text = render(folder, key=key)
        for number, cells in papers.cells[papers.cells["paper"] == key].groupby("table"):
            table = re.split(rf"\n## Table {number}: ", text)[1].split("\n## ")[0]
            filled = [cell for line in lines(table)[2:] for cell in line[3:] if cell]
            assert sorted(cell.partition(" (")[0] for cell in filled) == sorted(cells["printed"]), (key, number)
