from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from recon3d.bench import markdown, reported, suite
from recon3d.bench.record import Record, save
from recon3d.bench.suite_page import results, suite_page

ROOT = Path(__file__).parents[2]
PAPERS = reported.load(ROOT / "leaderboard" / "reported")
CONTENT: dict[str, Any] = {
    "title": "What w is worth",
    "about": "Is it worth it?\n",
    "reading": "It is.\n",
    "data": "synthetic",
    "preset": "quick",
    "seeds": [0, 1],
    "measures": ["chamfer", "voxel_iou", "mask_iou"],
    "reported": {"paper": "zubic2021effective", "table": 6, "category": "airplane", "measure": "chamfer"},
    "overrides": {"trainer.max_epochs": 3, "model.init_args.color": False},
    "rows": [
        {"name": "without", "label": "no w", "method": "softras", "reported": "loss=full; point_weights=off"},
        {"name": "full", "label": "all", "method": "softras", "reported": "loss=full; views=4"},
        {"name": "other", "label": "something else", "method": "voxel", "overrides": {"trainer.max_epochs": 4}},
    ],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "worth.yaml"
    written.write_text(yaml.safe_dump(CONTENT))
    return written


@pytest.fixture
def put_row(path: Path, run: Callable[..., Record]) -> Callable[..., None]:
    def put(name: str, seed: int, make: Callable[..., Record] = run, **changes: Any) -> None:
        read = suite.read(path)
        (row,) = [one for one in read.rows if one.name == name]
        record = make(method=row.method, seed=seed, config=name, **changes)
        save(record, suite.record_path(path.with_suffix(""), read, row, seed))

    return put


def page(path: Path) -> str:
    return suite_page(path, path.with_suffix(""), PAPERS)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def lines(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_a_line_per_row_in_the_order_of_the_suite_with_the_paper_beside_it(path, put_row, run):
    put_row("full", 0, chamfer=5.0, iou=0.6)
    put_row("full", 1, chamfer=6.0, iou=0.7, cost=replace(run().cost, train_s=900.0))
    slow = replace(run().cost, train_s=720.0)
    put_row("without", 0, chamfer=4.0, iou=0.4, cost=slow)
    text = page(path)
    assert text.startswith(markdown.GENERATED + "\n# What w is worth\n\nIs it worth it?\n")
    header, _, *rows = lines(section(text, "Results"))
    assert header == [
        *("row", "seeds", "chamfer ↓ [x100] v1", "chamfer *reported*", "voxel_iou ↑ [1] v1", "mask_iou", "step [ms]"),
    ]
    # 360 s and 720 s of 600 steps; sd of (5, 6) is 0.7071, of (0.6, 0.7) 0.0707. Not bold: the paper's figures.
    within = "<br><sub>0.450 to 0.550</sub>"
    assert rows == [
        ["no w", "1", "**4.00**", "4.58 (1)", "0.400 ≈" + within, "-", "1200.0"],
        ["all", "2", "5.50 ± 0.71", "4.01 (2)", "**0.650 ± 0.071**" + within, "-", "600.0"],
        ["something else", "-", "-", "-", "-", "-", "-"],
    ]
    assert "table 6 [x100], on `shapenet_dpc`: other data and another schedule" in text
    assert "- (2) unit not stated: x100 as in Table 1; the full model, for which Table 1 prints 3.99\n" in text
    assert text.index("## Results") < text.index("## Reading\n\nIt is.\n") < text.index("## Rows")
    assert "categories: car, chair; preset `quick`, seeds 0, 1" in text
    assert [line[0] for line in lines(section(text, "Cost"))[2:]] == ["without", "full"]


def test_what_a_row_sets_and_how_to_run_it_are_said(path):
    text = page(path)
    settings = section(text, "Rows")
    assert "every row sets `model.init_args.color: false`, `trainer.max_epochs: 3`" in settings
    assert lines(settings)[2:] == [
        ["no w", "without", "softras", "nothing"],
        ["all", "full", "softras", "nothing"],
        ["something else", "other", "voxel", "`trainer.max_epochs: 4`"],
    ]
    assert "`make suite SUITE=worth`" in section(text, "How to run")
    assert "## Cost" not in text and "## Runs" not in text  # nothing was run


def test_failed_stale_and_changed_runs_are_not_averaged_in(path, put_row, failed):
    put_row("full", 0, chamfer=5.0)
    put_row("full", 1, failed, error="LossError: NaN in the loss\nTraceback")
    put_row("without", 0, chamfer=1.0, data_hash="d0", day=1)
    put_row("other", 0, chamfer=9.0)
    text = page(path)
    _, _, without, full, other = lines(section(text, "Results"))
    assert full[:3] == ["all", "1", "**5.00**"] and without[1:3] == ["-", "-"] and other[2] == "9.00"
    assert "| full | 1 | 2026-01-02 | abcdef0123 | LossError: NaN in the loss |" in section(text, "Failed runs")
    assert "| without | 0 | 2026-01-01 | data.hash differs: d0 |" in section(text, "Stale, not ranked")
    cost = lines(section(text, "Cost"))
    header = ["row", "parameters [M]", "steps", "train time", "slowest seed", "step [ms]", "ms/image", "device"]
    assert cost[0] == header  # no memory: see the code
    assert cost[2:] == [[name, "1.00", "600", "6.0 min", "-", "600.0", "5.5", "cpu"] for name in ("full", "other")]
    assert [line[0] for line in lines(section(text, "Runs"))[2:]] == ["full", "other"]


def test_runs_that_all_failed_leave_a_table_of_dashes(path, put_row, failed):
    put_row("full", 0, failed)
    text = page(path)
    assert [line[1] for line in lines(section(text, "Results"))[2:]] == ["-"] * 3
    assert "out of memory" in section(text, "Failed runs")


def test_a_row_without_training_has_no_time_of_a_step(path, put_row, run):
    put_row("full", 0, cost=replace(run().cost, train_s=None, steps=None))
    put_row("other", 0, cost=replace(run().cost, steps=0))
    assert [line[-1] for line in lines(section(page(path), "Results"))[2:]] == ["-"] * 3


def test_a_suite_without_a_paper_has_no_reported_column(path):
    rows = [{key: value for key, value in row.items() if key != "reported"} for row in CONTENT["rows"]]
    plain = CONTENT | {"rows": rows, "reported": None, "reading": "", "about": ""}
    path.write_text(yaml.safe_dump(plain))
    text = page(path)
    assert "reported" not in section(text, "Results").lower() and "## Reading" not in text
    header, body = results(suite.read(path), [])
    assert header == ["row", "seeds", "chamfer", "voxel_iou", "mask_iou", "step [ms]"]
    assert [line[0].text for line in body] == ["no w", "all", "something else"]


@pytest.mark.parametrize(("wanted", "count"), [("loss=full", 5), ("loss=m3", 0), ("point_weights=of", 0)])
def test_a_reported_cell_that_is_not_one_is_refused(path, wanted, count):
    rows = [CONTENT["rows"][0] | {"reported": wanted}]
    path.write_text(yaml.safe_dump(CONTENT | {"rows": rows}))
    with pytest.raises(ValueError, match=f"row without, reported: '{wanted}' fits {count} settings"):
        page(path)


def test_the_ablation_stands_beside_table_6():
    read = suite.read(ROOT / suite.SUITES / "effective_loss_ablation.yaml")
    text = suite_page(ROOT / suite.SUITES / "effective_loss_ablation.yaml", ROOT / "nowhere", PAPERS)
    header, _, *rows = lines(section(text, "Results"))
    figures = [row[header.index("chamfer *reported*")].partition(" ")[0] for row in rows]
    printed = ["19.50", "139.10", "24.59", "4.58", "4.41", "4.79", "4.54", "4.01"]
    assert figures == [*printed, *["-"] * (len(read.rows) - 8)]
