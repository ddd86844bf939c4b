"""Records to tables: the generated pages of ``leaderboard/``, the tables of README.md, the last print of a bench run.

`bench.ranking` says what is comparable, `bench.standing_table` makes tables of it, `bench.page`, `bench.paper_page`,
`bench.suite_page` and `bench.index_page` print one page each, this file keeps the folder. The same
Records give the same bytes: nothing is taken from the clock or the machine, so a stale page is a difference in git.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from recon3d.bench import beside, index_page, kernel_table, markdown, method_table, record, reported, suite, suite_page
from recon3d.bench.curves import curves_page
from recon3d.bench.page import columns_of_use, first_line, page
from recon3d.bench.paper_page import paper_page
from recon3d.bench.ranking import CATEGORY_MEAN, Standing, standings
from recon3d.bench.record import Record
from recon3d.bench.standing_table import by_category, cost, measure, results
from recon3d.files import write_whole

HIDDEN_PRESETS = frozenset({"smoke"})  # shows that a method runs, says nothing of how well
README_STANDINGS = (("synthetic", "quick"), ("open_shapes", "quick"))
README_MEASURES = ("voxel_iou", "chamfer", "f_score", "mask_iou", "watertight")  # the rest is one click away
MARKER = "leaderboard"


def render_all(leaderboard: Path) -> dict[Path, str]:
    """Every generated page, and README.md and docs/methods of the repository with their tables replaced, by path.

    Args:
        leaderboard: folder with ``results`` and ``reported``; the README.md beside it has markers for its tables.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unreadable Record or CSV, or a README.md without markers.
    """
    if not leaderboard.is_dir():
        raise FileNotFoundError(f"{leaderboard}: expected the leaderboard folder.")
    records = record.load_all(leaderboard / "results")
    shown = [standing for standing in standings(records) if standing.preset not in HIDDEN_PRESETS]
    papers = reported.load(leaderboard / "reported")
    pages = {leaderboard / index_page.page_name(standing): page(standing, papers) for standing in shown}
    suites = suite.experiments(leaderboard.parent / suite.SUITES)
    folders = {path: leaderboard / "suites" / path.stem for path in suites}
    pages |= {
        folder.with_suffix(".md"): suite_page.suite_page(path, folder, papers) for path, folder in folders.items()
    }
    ours = beside.load(leaderboard / "reported", papers)
    repeated = [suite_page.beside_paper(path, folder, papers) for path, folder in folders.items()]
    runs = beside.runs_beside(papers, ours, shown, [one for one in repeated if one is not None])
    for key in sorted({paper for paper, _ in ours.titles}):
        pages[leaderboard / "papers" / f"{key}.md"] = paper_page(key, papers, ours, runs)
    ways = {
        leaderboard / f"{path.stem}.md": curves_page(path)
        for path in sorted((leaderboard.parent / "benchmarks/results/curves").glob("*.json"))
    }
    pages |= ways
    titles = {f"suites/{path.stem}.md": suite.read(path).title for path in suites}
    index = index_page.index(shown, papers, ours, runs, titles, [path.name for path in ways])
    pages[leaderboard / "README.md"] = index
    pages[leaderboard / "reported.md"] = reported.page(papers)
    pages |= method_table.method_pages(leaderboard.parent, shown)
    readme = leaderboard.parent / "README.md"
    if readme.exists():
        try:
            text = markdown.update_markers(readme.read_text(encoding="utf-8"), MARKER, short(shown, leaderboard.name))
            speeds = kernel_table.kernel_table(leaderboard.parent / "benchmarks" / "results")
            text = markdown.update_markers(text, kernel_table.MARKER, speeds)
        except ValueError as error:
            raise ValueError(f"{readme}: {error}") from error
        pages[readme] = text
    return pages


def write_all(leaderboard: Path) -> None:
    """Write what `render_all` gives and delete generated pages that no Record backs any more."""
    pages = render_all(leaderboard)
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text.encode())
    for path in _orphans(leaderboard, pages):
        path.unlink()


def check(leaderboard: Path) -> list[Path]:
    """Pages that `write_all` would change, create or delete, sorted; empty when all is up to date."""
    pages = render_all(leaderboard)
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted(stale + _orphans(leaderboard, pages))


def terminal_table(records: Iterable[Record]) -> Table:
    """The results of one data set and preset for the terminal, which is narrow: a column per method.

    Raises:
        ValueError: the Records are of more than one data set or preset, or there are none.
    """
    found = standings(records)
    if len(found) != 1:
        names = [f"{standing.name}-{standing.preset}" for standing in found]
        raise ValueError(f"terminal_table: expected the Records of one data set and preset, got {names}.")
    standing = found[0]
    lost = [f"stale: {run.method} seed {run.seed}, {reason}" for run, reason in standing.stale]
    lost += [f"failed: {run.method} seed {run.seed}, {first_line(run.error)}" for run in standing.failed]
    table = Table(title=f"{standing.name}, preset {standing.preset}", caption=Text("\n".join(lost)) if lost else None)
    columns = [column for column in columns_of_use(standing) if standing.has_value(column)]
    sections = [("", results(standing, columns)), ("", cost(standing))]
    if standing.primary is not None and standing.data is not None:
        sections.insert(1, (f"{standing.primary.name}, ", by_category(standing, standing.primary)))
    table.add_column()
    for row in standing.rows:
        table.add_column(Text(row.method), justify="right")
    for prefix, (header, lines) in sections:
        for position, title in enumerate(header[1:], start=1):
            cells = [
                Text(cell.plain, style="bold" if cell.mark == "best" else "")
                for cell in (line[position] for line in lines)
            ]
            table.add_row(Text(prefix + title), *cells)
        table.add_section()
    return table


def short(shown: Sequence[Standing], folder: str) -> str:
    """Markdown of the tables in the repository's README.md; `folder` is the leaderboard's path from there."""
    parts = []
    for name, preset in README_STANDINGS:
        standing = next((one for one in shown if (one.name, one.preset) == (name, preset)), None)
        if standing is None or not standing.rows:
            parts.append(f"No result on `{name}` yet: `make bench METHOD=softras DATA={name}` makes the first.\n")
            continue
        columns = [column for column in standing.columns if column.name in README_MEASURES]
        header, lines = results(standing, columns)
        keep = [position for position, title in enumerate(header) if title not in {"input", "seeds"}]
        body = [[replace(line[position], interval="").markdown for position in keep] for line in lines]
        titles = [header[position] for position in keep]
        if standing.primary is not None:  # the papers' figure: every category counts the same
            titles.insert(2, f"{standing.primary.name}, category mean")
            for row, cells in zip(standing.rows, body, strict=True):
                cells.insert(2, measure(standing, row, standing.primary, CATEGORY_MEAN).text)  # no interval: no ranking
        link = f"[all measures, intervals, cost, provenance]({folder}/{index_page.page_name(standing)})"
        parts += [f"`{name}`, preset `{preset}` ({link}):\n", markdown.table(titles, body)]
    how = f"{folder}/README.md#how-to-read"
    parts.append(
        "**Bold**: the best of its supervision; ≈: the intervals overlap, though a paired test may still find a "
        f"difference; with one seed, chance of training is in no interval ([how to read]({how})).\n"
    )
    return "\n".join(parts)


def _orphans(leaderboard: Path, pages: Iterable[Path]) -> list[Path]:
    """Generated pages that no Record backs any more."""
    found = (leaderboard.glob(pattern) for pattern in ("*.md", "suites/*.md", "papers/*.md"))
    files = sorted({path for paths in found for path in paths} - set(pages))
    return [path for path in files if path.read_text(encoding="utf-8").startswith(markdown.GENERATED)]
