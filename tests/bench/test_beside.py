import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recon3d.bench import beside, reported
from recon3d.bench.beside import SuiteTable
from recon3d.bench.ranking import standings
from recon3d.bench.record import Record

ROOT = Path(__file__).parents[2]
Make = Callable[..., Record]
KEY = ("p1", "1")
CELLS = (
    "paper,table,method,setting,dataset,category,measure,unit,value,printed,note\n"
    "p1,1,softras,views=24,shapenet_nmr,car,voxel_iou,percent,50.1,50.1,\n"
    "p1,1,softras,views=120,shapenet_nmr,car,voxel_iou,percent,51.1,51.1,\n"
    "p1,1,other,,shapenet_nmr,car,voxel_iou,percent,40,40,\n"
)
TABLES = "paper,table,title,about\np1,1,IoU,\n"
OURS = (
    "paper,table,method,setting,ours,measure,why\n"
    "p1,1,softras,views=24,softras,,fewer steps\n"
    'p1,1,softras,views=120,softras-many,surface_iou,"other views, other steps"\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "papers.csv").write_text("key,title,authors,venue,year,url,note\np1,A Title,Ann One,CVPR,2018,,\n")
    (tmp_path / "p1_table1.csv").write_text(CELLS)
    (tmp_path / "tables.csv").write_text(TABLES)
    (tmp_path / "ours.csv").write_text(OURS)
    return tmp_path


def load(folder: Path) -> tuple[reported.Reported, beside.Beside]:
    papers = reported.load(folder)
    return papers, beside.load(folder, papers)


def test_a_line_has_the_rows_whose_setting_it_is_part_of(folder: Path) -> None:
    _, ours = load(folder)
    assert ours.titles == {KEY: ("IoU", "")}
    first, second = ours.ours[KEY]
    assert first.rows == (("softras", "views=24"),) and first.why == "fewer steps"
    assert (second.ours, second.measure, second.why) == ("softras-many", "surface_iou", "other views, other steps")
    (folder / "ours.csv").write_text(OURS.splitlines()[0] + "\np1,1,softras,,softras,,all of them\n")
    (line,) = load(folder)[1].ours[KEY]
    assert line.rows == (("softras", "views=24"), ("softras", "views=120"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("tables.csv", "title", "name", "tables.csv: expected the columns"),
        ("tables.csv", "p1,1,IoU,\n", "", "tables.csv: expected one line for each"),
        ("tables.csv", "p1,1,IoU,\n", "p1,1,IoU,\np1,2,more,\n", "tables.csv: expected one line for each"),
        ("tables.csv", "p1,1,IoU,\n", "p1,1,IoU,\np1,1,twice,\n", "tables.csv: expected one line for each"),
        ("ours.csv", "views=24", "views=2", r"'views=2': expected rows of the table that no other line has, got \[\]"),
        ("ours.csv", "views=120", "views=24", "expected rows of the table that no other line has"),
        ("ours.csv", "p1,1,softras,views=24", "p2,1,softras,views=24", "p2 table 1, softras"),
        ("ours.csv", "fewer steps", "", "expected a reason"),
        ("ours.csv", "fewer steps", "fewer, steps", "ours.csv: .* quotation marks"),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, name: str, old: str, new: str, message: str) -> None:
    (folder / name).write_text((folder / name).read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "ours.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ours\.csv"):
        load(folder)


def test_runs_are_of_our_method_on_the_same_data_first_and_on_similar_data(folder: Path, run: Make) -> None:
    papers, ours = load(folder)
    records = [
        run(data="synthetic"),
        run(data="shapenet"),
        run(data="shapenet", preset="paper"),
        run(data="own"),
        run(data="synthetic_birds"),
        run(data="synthetic", method="voxel"),
        run(data="open_shapes", method="softras-many"),
    ]
    runs = beside.runs_beside(papers, ours, standings(records))
    found = runs[KEY]["softras", "views=24"]
    assert [one.page.partition("]")[0] for one in found] == [
        "[shapenet, paper",
        "[shapenet, quick",
        "[synthetic, quick",
    ]
    assert [one.is_same({"shapenet_nmr"}) for one in found] == [True, True, False]
    (other,) = runs[KEY]["softras", "views=120"]
    assert (other.row.method, other.data.name, other.measure) == ("softras-many", "open_shapes", "surface_iou")
    assert found[0].where == "[shapenet, paper](../shapenet-paper.md), 600 steps"
    assert ("other", "") not in runs[KEY]
    assert beside.coverage("p1", papers, ours, runs) == (2, 1, 1)
    assert beside.coverage("p1", papers, ours, {KEY: {}}) == (2, 0, 0)


def test_a_line_without_a_method_of_ours_is_not_waited_for(folder: Path, run: Make) -> None:
    (folder / "ours.csv").write_text(OURS.replace("softras-many", ""))
    papers, ours = load(folder)
    assert beside.coverage("p1", papers, ours, {KEY: {}}) == (1, 0, 0)
    (standing,) = standings([run(method="half")])
    suite = SuiteTable(KEY, standing, {"half": ("softras", "views=120")}, "[A suite](../suites/one.md)")
    assert beside.coverage("p1", papers, ours, beside.runs_beside(papers, ours, [], [suite])) == (2, 0, 1)


def test_other_splits_are_no_evidence(folder: Path, run: Make) -> None:
    papers, ours = load(folder)
    record = run(data="shapenet")
    found = standings([replace(record, data=replace(record.data, split="val"))])
    assert beside.runs_beside(papers, ours, found) == {KEY: {}}


def test_a_suite_brings_the_rows_that_repeat_the_table(folder: Path, run: Make) -> None:
    papers, ours = load(folder)
    (standing,) = standings([run(method="full"), run(method="half")])
    row = ("softras", "views=120")
    table = SuiteTable(KEY, standing, {"half": row}, "[A suite](../suites/one.md)")
    runs = beside.runs_beside(papers, ours, [], [table])
    assert list(runs[KEY]) == [row]
    (one,) = runs[KEY][row]
    assert (one.row.method, one.measure, one.page) == ("half", "surface_iou", "[A suite](../suites/one.md)")


def test_likeness_is_the_same_nothing_or_words() -> None:
    assert beside.likeness("shapenet", "shapenet_nmr") == "" and beside.likeness("shapenet", "cub") is None
    assert "far fewer objects" in (beside.likeness("synthetic", "shapenet_nmr") or "")
    assert beside.same_data("shapenet_dpc") == "shapenet_points" and beside.same_data("imagenet") is None


def test_every_row_of_a_method_of_ours_has_its_line_and_every_line_a_config(tmp_path: Path) -> None:
    copy = shutil.copytree(ROOT / "leaderboard" / "reported", tmp_path / "reported")
    papers, ours = load(copy)
    methods = {path.stem for path in (ROOT / "configs" / "methods").glob("*.yaml")}
    names = methods | {path.stem for path in (ROOT / "configs" / "variants").glob("*.yaml")}
    for key, lines in ours.ours.items():
        cells = beside.cells_of(papers, key)
        mine = set(cells[cells["method"].isin(methods)][["method", "setting"]].itertuples(index=False, name=None))
        assert {row for line in lines for row in line.rows} == mine, key
        assert {line.ours for line in lines} <= names | {""}
    for data in reported.SAME_DATA:
        assert (ROOT / "configs" / "data" / f"{data}.yaml").is_file()
    for data, theirs in reported.SIMILAR_DATA:
        assert (ROOT / "configs" / "data" / f"{data}.yaml").is_file() and theirs in reported.SAME_DATA.values()
