import re
from pathlib import Path

import pytest

from recon3d.bench import reported
from recon3d.bench.ranking import Column
from recon3d.bench.record import Data

REPORTED = Path(__file__).parents[2] / "leaderboard" / "reported"
PAPERS = "key,title,authors,venue,year,url,note\np1,A Title,Ann One; Bob Two; Cy Three,CVPR,2018,https://x.org,\n"
CELLS = (
    "paper,table,method,setting,dataset,category,measure,unit,value,printed,note\n"
    "p1,1,softras,views=24,shapenet_nmr,car,voxel_iou,percent,50.10,50.10,odd\n"
    "p1,1,softras,views=24,shapenet_nmr,chair,voxel_iou,percent,40,40,\n"
    "p1,1,softras,views=24,shapenet_nmr,mean,voxel_iou,percent,45.05,45.05,odd\n"
    "p1,1,softras,views=24,cub,all,voxel_iou,percent,99,99,\n"
)
IOU = Column("voxel_iou", "1", 1, True)


def shapenet(*categories: str, split: str = "test", name: str = "shapenet") -> Data:
    return Data(name, "d1", categories, split, "longest_side")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "papers.csv").write_text(PAPERS)
    (tmp_path / "p1_table1.csv").write_text(CELLS)
    return tmp_path


def test_values_come_in_our_unit(folder: Path) -> None:
    (row,) = reported.rows(reported.load(folder), shapenet("car", "chair"), IOU)
    assert (row.method, row.setting) == ("softras", "views=24")
    assert row.source == "[One et al. 2018](https://x.org), table 1"
    assert row.values == pytest.approx({"car": 0.501, "chair": 0.4, "mean": 0.4505})
    percent = Column("voxel_iou", "percent", 1, True)
    (row,) = reported.rows(reported.load(folder), shapenet("car", "chair"), percent)
    assert row.printed == {"car": "50.10", "chair": "40", "mean": "45.05"}


def test_the_mean_stands_only_beside_the_same_categories(folder: Path) -> None:
    (row,) = reported.rows(reported.load(folder), shapenet("car"), IOU)
    assert row.values == pytest.approx({"car": 0.501})
    (row,) = reported.rows(reported.load(folder), shapenet("car", "chair", "sofa"), IOU)
    assert set(row.values) == {"car", "chair"}


def test_only_the_same_quantity_is_beside_ours(folder: Path) -> None:
    loaded = reported.load(folder)
    assert reported.rows(loaded, shapenet("car", name="own"), IOU) == []
    assert reported.rows(loaded, shapenet("car", split="val"), IOU) == []
    assert reported.rows(loaded, shapenet("sofa"), IOU) == []
    assert reported.rows(loaded, shapenet("car"), Column("chamfer", "x100", 1, False)) == []
    with pytest.raises(ValueError, match="'percent' has no factor"):
        reported.rows(loaded, shapenet("car"), Column("voxel_iou", "mm", 1, True))


def test_all_of_a_paper_stands_beside_the_only_category_of_ours(folder: Path) -> None:
    loaded = reported.load(folder)
    (row,) = reported.rows(loaded, shapenet("bird", name="cub"), IOU)
    assert row.printed == {"bird": "0.99", "mean": "0.99"} and row.values == {"bird": 0.99, "mean": 0.99}
    assert reported.rows(loaded, shapenet("bird", "bat", name="cub"), IOU) == []
    (folder / "p1_table1.csv").write_text(CELLS.replace("cub,all", "shapenet_nmr,all"))
    (row,) = reported.rows(reported.load(folder), shapenet("car"), IOU)
    assert row.printed == {"car": "0.501"}  # all of 13 categories is not the one that is in use


def test_the_eight_cells_on_cub_stand_beside_ours() -> None:
    loaded = reported.load(REPORTED)
    masks = reported.rows(loaded, shapenet("bird", name="cub"), Column("mask_iou", "1", 1, True))
    ssim = reported.rows(loaded, shapenet("bird", name="cub"), Column("ssim", "1", 1, True))
    assert {row.method: row.printed["bird"] for row in masks} == {
        "cmr": "0.704", "ucmr": "0.6369", "umr": "0.734", "adaptive_texture": "0.7691"
    }  # fmt: skip
    assert {row.method: row.printed["mean"] for row in ssim} == {
        "cmr": "0.782", "ucmr": "0.756", "umr": "0.812", "adaptive_texture": "0.8294"
    }  # fmt: skip


def test_similar_data_are_not_the_same(folder: Path) -> None:
    loaded = reported.load(folder)
    assert not set(reported.SAME_DATA) & {ours for ours, _ in reported.SIMILAR_DATA}
    assert all(
        reported.rows(loaded, shapenet("car", "bird", name=ours), IOU) == [] for ours, _ in reported.SIMILAR_DATA
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("papers.csv", "venue", "where", "papers.csv: expected the columns"),
        ("p1_table1.csv", "printed", "shown", "p1_table1.csv: expected the columns"),
        ("p1_table1.csv", "p1,1", "p2,1", r"papers \['p2'\] are not in papers.csv"),
        ("p1_table1.csv", "50.10,50.10", "?,50.10", "expected a number as value"),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, name: str, old: str, new: str, message: str) -> None:
    (folder / name).write_text((folder / name).read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        reported.load(folder)


def test_the_page_of_the_real_tables_has_every_cell_as_printed() -> None:
    loaded = reported.load(REPORTED)
    text = reported.page(loaded)
    for (_, _), cells in loaded.cells.groupby(["paper", "table"]):
        for cell in cells.itertuples():
            assert re.search(rf"\| {re.escape(cell.printed)}( \(\d+\))? \|", text), cell
            assert cell.note in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "|" in line.strip("|")]
    rows = [line for line in rows if not line.startswith(("| method", "| :--"))]
    assert len(rows) == len(loaded.cells.groupby(["paper", "table", "method", "setting"]))
    assert all("*reported*" in row for row in rows)
    filled = sum(len([cell for cell in row.strip("| ").split(" | ")[2:] if cell]) for row in rows)
    assert filled == len(loaded.cells)


def test_softras_of_the_real_tables_is_comparable_on_shapenet() -> None:
    loaded = reported.load(REPORTED)
    cells = loaded.cells[(loaded.cells["dataset"] == "shapenet_nmr") & (loaded.cells["category"] != "mean")]
    rows = reported.rows(loaded, shapenet(*sorted(set(cells["category"]))), IOU)
    assert [(row.printed["mean"], row.printed["car"]) for row in rows if row.method == "softras"] == [
        ("0.6234", "0.7697")
    ]
    assert {row.printed["mean"] for row in rows if row.method == "neural_renderer"} == {"0.6016", "0.6015"}
