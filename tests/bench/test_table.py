import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from recon3d.bench import markdown, table
from recon3d.bench.record import Record, save

Make = Callable[..., Record]
Put = Callable[[Path, Record], Path]
LEADERBOARD = Path(__file__).parents[2] / "leaderboard"
README = (
    "# x\n<!-- BEGIN leaderboard -->\n<!-- END leaderboard -->\n<!-- BEGIN kernels -->\n<!-- END kernels -->\nend\n"
)


@pytest.fixture
def folder(tmp_path: Path, run: Make, put: Put) -> Path:
    """A repository with a README.md and a leaderboard of two runs and one of preset smoke."""
    leaderboard = tmp_path / "leaderboard"
    shutil.copytree(LEADERBOARD / "reported", leaderboard / "reported")
    (tmp_path / "README.md").write_text(README)
    for record in (run(), run(preset="smoke", iou=0.123), run(data="cub", preset="paper", iou=0.456)):
        put(leaderboard / "results", record)
    return leaderboard


def test_pages_are_one_per_data_and_preset_without_smoke(folder: Path) -> None:
    pages = table.render_all(folder)
    names = ["README.md", "cub-paper.md", "reported.md", "synthetic-quick.md"]
    keys = ["kato2018nmr", "lin2021adaptive", "liu2019softras", "zubic2021effective"]
    expected = [*(f"leaderboard/{name}" for name in names), *(f"leaderboard/papers/{key}.md" for key in keys)]
    assert {path.relative_to(folder.parent).as_posix() for path in pages} == {"README.md", *expected}
    assert not any("0.123" in text or "smoke.md" in text for text in pages.values())
    assert "0.456" not in pages[folder / "synthetic-quick.md"]
    for path, text in pages.items():
        assert text.startswith(markdown.GENERATED) or path == folder.parent / "README.md"
    index = pages[folder / "README.md"]
    assert "| [synthetic, quick](synthetic-quick.md) | voxel_iou" in index and "| 1 | 1 | 0 | 0 | 2026-01-02 |" in index
    assert all(f"({name})" in index for name in ("reported.md", *(f"papers/{key}.md" for key in keys)))


def test_the_repository_readme_has_the_short_tables(folder: Path) -> None:
    text = table.render_all(folder)[folder.parent / "README.md"]
    assert text.startswith("# x\n<!-- BEGIN leaderboard -->\n`synthetic`, preset `quick`")
    assert text.endswith("<!-- END leaderboard -->\n<!-- BEGIN kernels -->\n\n<!-- END kernels -->\nend\n")
    assert "| method | supervision | voxel_iou, category mean | voxel_iou ↑ [1] v1 | chamfer ↓ [x100] v1 |\n" in text
    assert "| softras | cameras, masks | 0.500 | 0.500 | 5.00 |\n" in text
    assert "(leaderboard/synthetic-quick.md)" in text
    assert "No result on `open_shapes` yet" in text
    (folder.parent / "README.md").write_text("# no markers\n")
    with pytest.raises(ValueError, match=r"README\.md: expected one '<!-- BEGIN leaderboard -->'"):
        table.render_all(folder)


def test_the_category_mean_of_the_readme_has_no_interval_and_so_no_best(folder: Path, run: Make, put: Put) -> None:
    put(folder / "results", run(method="voxel", iou=0.6, per_category={"car": 0.6, "chair": 0.7}))
    text = table.render_all(folder)[folder.parent / "README.md"]
    assert "| voxel | cameras, masks | 0.650 | **0.600** | 5.00 |\n" in text


def test_check_finds_missing_edited_and_orphaned_pages(folder: Path) -> None:
    readme, page = folder.parent / "README.md", folder / "synthetic-quick.md"
    assert set(table.check(folder)) == set(table.render_all(folder))
    table.write_all(folder)
    assert table.check(folder) == []
    page.write_text(page.read_text().replace("0.500", "0.600"))
    assert table.check(folder) == [page]
    readme.write_text(readme.read_text().replace("0.500", "0.600"))
    assert table.check(folder) == [readme, page]
    table.write_all(folder)
    assert table.check(folder) == []
    readme.write_text("introduction\n" + readme.read_text())
    assert table.check(folder) == []
    shutil.rmtree(folder / "results" / "cub")
    (folder / "notes.md").write_text("written by hand\n")
    orphan = folder / "papers" / "nobody2020.md"
    orphan.write_text(markdown.GENERATED)
    assert table.check(folder) == [folder / "README.md", folder / "cub-paper.md", orphan]
    table.write_all(folder)
    assert not (folder / "cub-paper.md").exists() and not orphan.exists()
    assert (folder / "notes.md").exists()
    assert table.check(folder) == []


def test_a_suite_has_a_page_that_follows_its_yaml_and_its_records(folder: Path, run: Make) -> None:
    source = folder.parent / "benchmarks" / "suites" / "steps.yaml"
    source.parent.mkdir(parents=True)
    shutil.copyfile(LEADERBOARD.parent / "benchmarks" / "suites" / "effective_loss_ablation.yaml", source)
    page = folder / "suites" / "steps.md"
    assert table.check(folder).count(page) == 1
    table.write_all(folder)
    assert table.check(folder) == []
    assert "- [Ablation of the Effective Loss](suites/steps.md)\n" in (folder / "README.md").read_text()
    paper = folder / "papers" / "zubic2021effective.md"
    main = (folder / "synthetic-quick.md").read_text()
    path = folder / "suites" / "steps" / "full" / "synthetic" / "quick" / "effective_loss--seed0.json"
    save(run(method="effective_loss", chamfer=1.23), path)
    assert set(table.check(folder)) == {page, paper, folder / "README.md"}
    table.write_all(folder)
    assert "1.23" in page.read_text() and (folder / "synthetic-quick.md").read_text() == main
    assert "1.23" in paper.read_text()  # Table 6
    source.unlink()
    assert set(table.check(folder)) == {folder / "README.md", page, paper}
    table.write_all(folder)
    assert not page.exists() and path.exists()


def test_pages_of_methods_follow_the_records(folder: Path, run: Make, put: Put) -> None:
    page = folder.parent / "docs" / "methods" / "softras.md"
    page.parent.mkdir(parents=True)
    page.write_text("# SoftRas\n<!-- BEGIN results -->\n<!-- END results -->\n")
    table.write_all(folder)
    assert "0.500" in page.read_text() and "0.123" not in page.read_text()  # smoke is in no table
    put(folder / "results", run(iou=0.321))
    assert page in table.check(folder)


def test_the_same_records_give_the_same_bytes(folder: Path, run: Make, put: Put) -> None:
    first = table.render_all(folder)
    for path in sorted((folder / "results").rglob("*.json"), reverse=True):
        text = path.read_text()
        path.unlink()
        path.write_text(text)
    assert table.render_all(folder) == first
    put(folder / "results", run(seed=1))
    assert table.render_all(folder) != first


def test_a_damaged_record_stops_the_rendering_by_name(folder: Path) -> None:
    path = next((folder / "results" / "cub").rglob("*.json"))
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=path.name):
        table.render_all(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        table.render_all(folder / "nowhere")


def test_an_empty_leaderboard_tells_how_to_start(folder: Path) -> None:
    shutil.rmtree(folder / "results")
    pages = table.render_all(folder)
    assert "No run yet" in pages[folder / "README.md"]
    assert pages[folder.parent / "README.md"].count("No result on") == 2


def printed(records: list[Record]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table.terminal_table(records))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_table(run: Make, failed: Make) -> None:
    text = printed([run(method="a", iou=0.7, preset="smoke"), failed(method="b", preset="smoke")])
    assert "synthetic, preset smoke" in text
    assert "voxel_iou ↑ [1] v1" in text
    assert "0.700" in text
    assert "6.0 min" in text
    assert "voxel_iou, chair" in text
    assert "failed: b seed 0, RuntimeError: out of memory" in " ".join(text.split())
    for records in ([], [run(), run(preset="paper")]):
        with pytest.raises(ValueError, match="one data set and preset"):
            table.terminal_table(records)


def test_the_committed_leaderboard_renders(tmp_path: Path) -> None:
    copy = shutil.copytree(LEADERBOARD, tmp_path / "leaderboard")
    assert "0.6234" in table.render_all(copy)[copy / "reported.md"]


def test_records_and_tables_do_not_import_torch() -> None:
    code = "import sys, recon3d.bench.record, recon3d.bench.table; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
