"""Records to tables: the generated pages of ``leaderboard/``, the tables of README.md, the last print of a bench run.

`bench.ranking` says what is comparable, `bench.page` prints one page of it, this file keeps the folder. The same
Records give the same bytes: nothing is taken from the clock or the machine, so a stale page is a difference in git.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from recon3d.bench import kernel_table, markdown, record, reported, suite, suite_page
from recon3d.bench.curves import curves_page
from recon3d.bench.page import bold_table, by_category, cost, duration, first_line, page, results
from recon3d.bench.ranking import Standing, standings
from recon3d.bench.record import Record
from recon3d.files import write_whole

HIDDEN_PRESETS = frozenset({"smoke"})  # shows that a method runs, says nothing of how well
README_STANDINGS = (("synthetic", "quick"), ("open_shapes", "quick"))
README_MEASURES = ("voxel_iou", "chamfer", "f_score", "mask_iou", "watertight")  # the rest is one click away
MARKER = "leaderboard"
HOW_TO_READ = """\
## How to read

- A page is one data set and one preset. `quick` is minutes on a CPU, `paper` the schedule of the paper; they never
  share a table, and `smoke` is in none.
- Columns: arrow (better is up or down), [unit], version of the measure. A value is the mean over the seeds ± the sample
  standard deviation; without ± there is one seed. "n/a": the data lack the target; "-": the run was not asked for it.
- *As points*: the variants that papers on point clouds report. `chamfer_best` takes the best input view of each object
  (so it counts objects), `chamfer` the mean over all; `chamfer_diagonal` scales prediction and ground truth to a box of
  diagonal 1; `surface_iou` and `filled_iou` compare the cells of a 32³ grid that hold a point, before and after filling
  cavities: they depend on the number of points and are not `voxel_iou`, which compares solids.
- *As images*, where a method gives a texture: `mask_iou_soft` compares the coverage of pixels, `mask_iou` masks of 0 or
  1. `ssim` compares the textured prediction, unlit, with the input image; both lie on black, which agrees and lifts it,
  so `ssim_inside` is the mean inside the true mask. `fid` compares the features of both sets in the network that its
  note names. `_plain` is the texture without what a method adds for the sake of training.
- *Key points*: the share that lands within 0.1 of the object's size when carried from one image to another, through the
  texture flow or through shape and camera. It counts pairs of images.
- By category, "mean" counts every category the same (as the papers do), "all samples" every sample.
- **Bold** is the best of one supervision group (the fields used in training), where the group has at least two methods.
  Look at the input as well: a mask besides RGB is an advantage.
- A table holds one version of each measure and one version of the data. A run on other data or with an older measure
  than the newest run, or with another configuration than its method's newest, is listed as stale and not ranked.
- Failed runs stay visible. Cost is only comparable on the same device.
- *Reported*: a number printed in a paper; it stands beside ours only where data, split and measure are the same.

## How to regenerate

`make bench METHOD=softras` runs a method and writes its Record to `results/<data>/<preset>/<method>--seed<k>.json`;
`make leaderboard` renders all pages from the Records, `make leaderboard-check` fails when a page is stale.
"""


def render_all(leaderboard: Path) -> dict[Path, str]:
    """Every generated page, and the repository's README.md with its tables replaced, by path.

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
    pages = {leaderboard / _page_name(standing): page(standing, papers) for standing in shown}
    suites = suite.experiments(leaderboard.parent / suite.SUITES)
    for path in suites:
        folder = leaderboard / "suites" / path.stem
        pages[folder.with_suffix(".md")] = suite_page.suite_page(path, folder, papers)
    ways = {
        leaderboard / f"{path.stem}.md": curves_page(path)
        for path in sorted((leaderboard.parent / "benchmarks/results/curves").glob("*.json"))
    }
    pages |= ways
    titles = {f"suites/{path.stem}.md": suite.read(path).title for path in suites}
    pages[leaderboard / "README.md"] = index(shown, titles, list(ways))
    pages[leaderboard / "reported.md"] = reported.page(papers)
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
    sections = [("", results(standing)), ("", cost(standing))]
    if standing.primary is not None:
        sections.insert(1, (f"{standing.primary.name}, ", by_category(standing, standing.primary)))
    table.add_column()
    for row in standing.rows:
        table.add_column(Text(row.method), justify="right")
    for prefix, (header, lines) in sections:
        for position, title in enumerate(header[1:], start=1):
            cells = [Text(text, style="bold" if best else "") for text, best in (line[position] for line in lines)]
            table.add_row(Text(prefix + title), *cells)
        table.add_section()
    return table


def index(shown: Sequence[Standing], suites: Mapping[str, str], curves: Sequence[Path] = ()) -> str:
    """Markdown of ``leaderboard/README.md``: the pages, the suites (title by path), how to read, how to make them."""
    rows = []
    for standing in shown:
        runs = [run for row in standing.rows for run in row.records]
        newest = max(runs, key=lambda run: run.when).provenance.date[:10] if runs else "-"
        methods = ", ".join(row.method for row in standing.rows) or "-"
        link = f"[{standing.name}, {standing.preset}]({_page_name(standing)})"
        counts = [str(len(group)) for group in (runs, standing.stale, standing.failed)]
        rows.append([link, methods, *counts, newest])
    pages = markdown.table(["page", "methods", "runs ranked", "stale", "failed", "newest run"], rows) if rows else ""
    none_yet = "" if rows else "No run yet: `make bench METHOD=softras` makes the first.\n"
    more = [f"Suite: [{title}]({path}).\n" for path, title in suites.items()]
    more += [f"[How long methods train to a Chamfer distance]({path.name}).\n" for path in curves]
    more.append("[Numbers reported by the papers](reported.md), quoted with citation.\n")
    return "\n".join([markdown.GENERATED, "# Leaderboard\n", none_yet + pages, *more, HOW_TO_READ])


def short(shown: Sequence[Standing], folder: str) -> str:
    """Markdown of the tables in the repository's README.md; `folder` is the leaderboard's path from there."""
    parts = []
    for name, preset in README_STANDINGS:
        standing = next((one for one in shown if (one.name, one.preset) == (name, preset)), None)
        if standing is None or not standing.rows:
            parts.append(f"No result on `{name}` yet: `make bench METHOD=softras DATA={name}` makes the first.\n")
            continue
        header, lines = results(standing)
        shown_too = {column.label for column in standing.columns if column.name in README_MEASURES}
        keep = [position for position, title in enumerate(header) if title in {"method", "supervision"} | shown_too]
        times = [(duration(row.cost("train_s")), False) for row in standing.rows]
        lines = [[*(line[k] for k in keep), time] for line, time in zip(lines, times, strict=True)]
        header = [*(header[k] for k in keep), "train time"]
        if standing.primary is not None:  # the papers' figure: every category counts the same
            _, categories = by_category(standing, standing.primary)
            header.insert(2, f"{standing.primary.name}, category mean")
            for line, category in zip(lines, categories, strict=True):
                line.insert(2, category[-2])
        link = f"[all measures, cost, provenance]({folder}/{_page_name(standing)})"
        parts += [f"`{name}`, preset `{preset}` ({link}):\n", bold_table(header, lines)]
    return "\n".join(parts)


def _page_name(standing: Standing) -> str:
    return f"{standing.name}-{standing.preset}.md"


def _orphans(leaderboard: Path, pages: Iterable[Path]) -> list[Path]:
    """Generated pages that no Record backs any more."""
    files = sorted({*leaderboard.glob("*.md"), *leaderboard.glob("suites/*.md")} - set(pages))
    return [path for path in files if path.read_text(encoding="utf-8").startswith(markdown.GENERATED)]
