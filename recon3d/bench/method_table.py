"""The results in the pages of docs/methods: of each method what its Records say, between markers.

`bench.table` renders these pages with the others; `bench.ranking` says which runs count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from recon3d.bench import markdown
from recon3d.bench.ranking import Row, Standing
from recon3d.bench.standing_table import duration, measure

MARKER = "results"
PAGES = Path("docs/methods")
MEASURES = ("voxel_iou", "chamfer", "f_score", "mask_iou", "ssim_inside")  # the rest is on the leaderboard's pages


def method_pages(root: Path, standings: Iterable[Standing]) -> dict[Path, str]:
    """Every page of ``docs/methods`` with its table replaced, by path.

    Args:
        root: of the repository; a folder without ``docs/methods`` has no pages.
        standings: those that are shown.

    Raises:
        ValueError: a page without markers.
    """
    standings = list(standings)
    pages = {}
    for path in sorted((root / PAGES).glob("*.md")):
        try:
            text = path.read_text(encoding="utf-8")
            pages[path] = markdown.update_markers(text, MARKER, method_table(path.stem, standings))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return pages


def method_table(method: str, standings: Sequence[Standing]) -> str:
    """Markdown table of the ranked runs of a method and its variants; a sentence where there are none."""
    found = [(standing, row) for standing in standings for row in standing.rows if _is_of(row, method)]
    if not found:
        return "No ranked run yet.\n"
    shown = [name for name in MEASURES if any(row.value(name) is not None for _, row in found)]
    labels = {column.name: column.label for standing, _ in found for column in standing.columns}
    header = ["data, preset", "run", "seeds", *(labels[name] for name in shown), "train time"]
    return markdown.table(header, [_line(standing, row, shown) for standing, row in found])


def _is_of(row: Row, method: str) -> bool:
    return row.method.partition("-")[0] == method


def _line(standing: Standing, row: Row, shown: Sequence[str]) -> list[str]:
    name = f"{standing.name}-{standing.preset}"
    link = f"[{standing.name}, {standing.preset}](../../leaderboard/{name}.md)"
    columns = {column.name: column for column in standing.columns}
    # Without bold and ties: one method says nothing of its rivals.
    cells = [measure(standing, row, columns[name]).text if name in columns else "-" for name in shown]
    return [link, row.method, str(len(row.records)), *cells, duration(row.cost("train_s"))]
