from collections.abc import Callable
from pathlib import Path

import pytest

from recon3d.bench.method_table import PAGES, method_pages, method_table
from recon3d.bench.ranking import standings
from recon3d.bench.record import Record

Make = Callable[..., Record]
ROOT = Path(__file__).parents[2]
SYNTHETIC = "[synthetic, quick](../../leaderboard/synthetic-quick.md)"
PAGE = "# A method\n\n<!-- BEGIN results -->\nold\n<!-- END results -->\n\nThe end.\n"


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_a_method_with_its_variants_and_nothing_of_others(run: Make) -> None:
    found = standings(
        [
            run(method="softras", seed=0, iou=0.5),
            run(method="softras", seed=1, iou=0.6),
            run(method="softras-small", iou=0.4),
            run(method="softras2", iou=0.9),
            run(method="softras", data="open_shapes", iou=0.3, chamfer=None),
        ]
    )
    text = method_table("softras", found)
    assert text.splitlines()[0].startswith("| data, preset | run | seeds | voxel_iou ↑ [1] v1 | chamfer ↓ [x100] v1 |")
    assert cells(text) == [
        ["[open_shapes, quick](../../leaderboard/open_shapes-quick.md)", "softras", "1", "0.300", "n/a", "6.0 min"],
        # the sample deviation of 0.5 and 0.6 is 0.1 / sqrt(2) = 0.0707
        [SYNTHETIC, "softras", "2", "0.550 ± 0.071", "5.00 ± 0.00", "6.0 min"],
        [SYNTHETIC, "softras-small", "1", "0.400", "5.00", "6.0 min"],
    ]  # fmt: skip


def test_a_page_keeps_its_text_and_gets_its_table(tmp_path: Path, run: Make) -> None:
    folder = tmp_path / PAGES
    folder.mkdir(parents=True)
    for name in ("softras", "cmr"):
        (folder / f"{name}.md").write_text(PAGE)
    pages = method_pages(tmp_path, standings([run(method="softras", iou=0.5)]))
    assert set(pages) == {folder / "softras.md", folder / "cmr.md"}
    text = pages[folder / "softras.md"]
    assert text.startswith("# A method\n") and text.endswith("The end.\n") and "old" not in text and "0.500" in text
    assert "No ranked run yet." in pages[folder / "cmr.md"]
    (folder / "cmr.md").write_text("# No markers\n")
    with pytest.raises(ValueError, match=r"cmr\.md: expected one '<!-- BEGIN results -->'"):
        method_pages(tmp_path, [])


def test_a_repository_without_the_pages_has_none(tmp_path: Path) -> None:
    assert method_pages(tmp_path, []) == {}


def test_every_method_has_a_page() -> None:
    assert {path.stem for path in (ROOT / PAGES).glob("*.md")} == {
        path.stem for path in (ROOT / "configs/methods").glob("*.yaml")
    }
