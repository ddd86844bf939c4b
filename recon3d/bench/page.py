"""One page of the leaderboard: a Standing (one data set, one preset) as Markdown, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recon3d.bench import markdown, reported
from recon3d.bench.ranking import CATEGORY_MEAN, Column, Standing
from recon3d.bench.record import Record
from recon3d.bench.reported import Reported
from recon3d.bench.standing_table import MAIN_COSTS, by_category, cost, measure, results, to_markdown

# Sections with a table of their own, in this order, by measure; what is in none is in the main table.
SECTIONS = {
    # Variants of the Chamfer distance and of the IoU that papers on point clouds report.
    "As points": frozenset({"chamfer_best", "chamfer_diagonal", "surface_iou", "filled_iou"}),
    "As images": frozenset(
        {"mask_iou_soft", "ssim", "ssim_inside", "ssim_plain", "ssim_inside_plain", "fid", "fid_plain"}
    ),
    "Key points": frozenset({"pck_flow", "pck_camera"}),
    "Cameras": frozenset({"pose_accuracy", "pose_error"}),
    "Mesh health": frozenset({"watertight", "manifold", "components", "self_intersections", "degenerate_faces"}),
}
COSTS = ("steps", "step [ms]", "train time", "slowest seed", "device")  # what the main table leaves out
# What was chosen by looking at the split that is scored, by data set and preset; no Record knows it.
TUNED_ON_TEST = {
    ("open_shapes", "quick"): {
        "softras": "**tuned on the test split**: the settings of this preset were chosen from four short runs judged "
        "on it, so that its row is rather too good here",
        "neural_renderer": "width and schedule of this preset are those of softras, which were **chosen on the test "
        "split**; its rate alone was compared on the validation split",
    }
}


def page(standing: Standing, papers: Reported) -> str:
    """Markdown page of one data set and preset."""
    parts = [markdown.GENERATED, f"# {standing.name}, preset {standing.preset}\n"]
    if standing.data is not None:
        parts.append(
            f"{standing.data.split.capitalize()} split of `{standing.name}` (data hash `{standing.data.hash[:12]}`), "
            f"categories: {', '.join(standing.data.categories)}; {standing.data.scale.replace('_', ' ')} 1. "
            "[How to read](README.md#how-to-read).\n"
        )
        shown = [column for column in columns_of_use(standing) if standing.has_value(column)]
        apart = frozenset[str]().union(*SECTIONS.values())
        main = [column for column in shown if column.name not in apart]
        parts += ["## Results\n", to_markdown(*results(standing, main, MAIN_COSTS)), about(standing)]
        for title, names in SECTIONS.items():
            if columns := [column for column in shown if column.name in names]:
                having = [row for row in standing.rows if any(row.value(column.name) is not None for column in columns)]
                parts += [f"## {title}\n", to_markdown(*results(standing, columns, rows=having))]
        if standing.primary is not None and len(standing.data.categories) > 1:
            parts += [
                f"## {standing.primary.label} by category\n",
                to_markdown(*by_category(standing, standing.primary)),
            ]
        seeds = max((len(row.records) for row in standing.rows), default=0)
        costs = [name for name in COSTS if seeds > 1 or name != "slowest seed"]
        parts += ["## Cost\n", to_markdown(*cost(standing, costs))]
        parts += ["## Reported by papers\n", _beside_papers(standing, papers), "## Runs\n", runs(standing)]
    parts += left_out(standing)
    return "\n".join(parts)


def columns_of_use(standing: Standing) -> list[Column]:
    """The columns without those of images and key points that say nothing here: most data have no such thing."""
    images = SECTIONS["As images"]
    textured = any(
        standing.has_value(column) for column in standing.columns if column.name in images - {"mask_iou_soft"}
    )

    def of_use(column: Column) -> bool:
        if column.name in images:
            return textured and standing.has_value(column)
        return column.name not in SECTIONS["Key points"] or standing.has_value(column)

    return [column for column in standing.columns if of_use(column)]


def left_out(standing: Standing) -> list[str]:
    """Sections about the runs that are not ranked: the stale ones with the reason, the failed ones with the error."""
    parts = []
    if standing.stale:
        rows = [[run.method, str(run.seed), run.provenance.date[:10], reason] for run, reason in standing.stale]
        parts += ["## Stale, not ranked\n", markdown.table(["method", "seed", "date", "why"], rows)]
    if standing.failed:
        rows = [[run.method, str(run.seed), *_code(run), first_line(run.error)] for run in standing.failed]
        parts += ["## Failed runs\n", markdown.table(["method", "seed", "date", "commit", "error"], rows)]
    return parts


def first_line(error: str | None) -> str:
    """First line of an error."""
    return (error or "").strip().partition("\n")[0]


def about(standing: Standing) -> str:
    """What stands behind the columns: samples scored, notes of the measures, devices, papers; each said once."""
    columns = [column for column in columns_of_use(standing) if standing.has_value(column)]  # those in some table
    by_count: dict[str, list[str]] = {}
    for column in columns:
        counts = sorted({result.n for row in standing.rows for result in row.results(column.name)})
        by_count.setdefault(f"{counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else ""), []).append(column.name)
    lines = [f"- samples scored: {'; '.join(f'{count} ({_names(names)})' for count, names in by_count.items())}"]
    lines += _notes(standing, columns)
    chosen = TUNED_ON_TEST.get((standing.name, standing.preset), {})
    lines += [f"- {row.method}: {chosen[row.method]}" for row in standing.rows if row.method in chosen]
    devices: dict[str, list[str]] = {}
    papers: dict[str, list[str]] = {}
    for row in standing.rows:
        for device in dict.fromkeys(run.provenance.device for run in row.records):
            devices.setdefault(device, []).append(row.method)
        if paper := row.paper:
            title = f"[{paper.title}]({paper.url})" if paper.url else paper.title
            papers.setdefault(f"{title}, {paper.year}", []).append(row.method)
    lines += [f"- cost measured on {device}: {_methods(standing, methods)}" for device, methods in devices.items()]
    lines += [f"- {paper}: {_names(methods)}" for paper, methods in papers.items()]
    return "".join(f"{line}\n" for line in lines)


def _notes(standing: Standing, columns: Sequence[Column]) -> list[str]:
    """The notes of the measures, a line per text and group of methods, and which values have no interval."""
    said: dict[str, dict[str, list[str]]] = {}  # methods by note and measure
    for column in columns:
        networks = sorted({one for row in standing.rows for one in row.networks(column.name)})
        for row in standing.rows:
            found = [result.note for result in row.results(column.name) if result.note]
            if len(networks) > 1 and len(own := row.networks(column.name)) == 1:  # the number is in the cell, too
                found = [f"({networks.index(own[0]) + 1}) {note}" for note in found]
            if row.value(column.name) is not None and row.interval(column.name) is None:
                found.append("no interval, so no tie is marked")
            for note in dict.fromkeys(found):
                said.setdefault(note, {}).setdefault(column.name, []).append(row.method)
    lines = []
    for note, by_measure in said.items():
        groups: dict[str, list[str]] = {}
        for name, methods in by_measure.items():
            groups.setdefault(_methods(standing, methods), []).append(name)
        lines += [f"- {_names(names)}: {note} ({methods})" for methods, names in groups.items()]
    return lines


def _methods(standing: Standing, methods: Iterable[str]) -> str:
    names = list(methods)
    others = [row.method for row in standing.rows if row.method not in names]
    if len(others) < len(names) > 1:
        return "all methods" + (f" but {_names(others)}" if others else "")
    return _names(names)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _beside_papers(standing: Standing, papers: Reported) -> str:
    """Our rows and the reported ones for each measure that a paper gives on the same data; else where to look."""
    assert standing.data is not None
    name = standing.data.name
    if not (theirs := reported.SAME_DATA.get(name)):
        similar = [data for ours, data in reported.SIMILAR_DATA if ours == name]
        links = _paper_pages(papers, standing, similar)
        return f"No paper gives numbers on `{name}`: no reported row is comparable.\n" + (
            f"For orientation, beside numbers on similar data: {links}.\n" if links else ""
        )
    tables = []
    for column in standing.columns:
        if not (quoted := reported.rows(papers, standing.data, column)):
            continue
        categories = (*standing.data.categories, CATEGORY_MEAN)
        ours = {row.method: row for row in standing.rows if row.method in {one.method for one in quoted}}
        lines = [
            [name, "run here", row.supervision, *(measure(standing, row, column, one).plain for one in categories), ""]
            for name, row in ours.items()
        ]
        for one in quoted:
            row, value = ours.get(one.method), one.values.get(CATEGORY_MEAN)
            own = row.value(column.name, CATEGORY_MEAN) if row is not None else None
            gap = "" if own is None or value is None else f"{own[0] - value:+.3f}"
            cells = [one.printed.get(category, "") for category in categories]
            lines.append([f"{one.method} *reported*", one.source, one.setting, *cells, gap])
        header = ["method", "source", "setting", *categories, "ours - reported"]
        tables.append(f"{column.label}:\n\n{markdown.table(header, lines)}")
    if not tables:
        return "No paper gives one of these measures on this split.\n"
    links = _paper_pages(papers, standing, [theirs])
    return "\n".join([*tables, *([f"Why they differ: {links}.\n"] if links else [])])


def _paper_pages(papers: Reported, standing: Standing, datasets: Sequence[str]) -> str:
    """Links to the pages of the papers with one of our measures on some of their data sets."""
    measured = papers.cells["measure"].isin([column.name for column in standing.columns])
    keys = sorted(set(papers.cells["paper"][measured & papers.cells["dataset"].isin(datasets)]))
    return ", ".join(f"[{papers.names(key)}](papers/{key}.md)" for key in keys)


def runs(standing: Standing) -> str:
    """Provenance, one line per ranked run, with the bootstrap interval of the primary measure."""
    name = standing.primary.name if standing.primary else ""
    versions: dict[str, int] = {}
    rows = []
    for run in (run for row in standing.rows for run in row.records):
        result = run.measures.get(name)
        low_high = "-" if result is None or result.interval is None else "{:.3f} to {:.3f}".format(*result.interval)
        origin = run.provenance
        text = _names(f"{library} {version}" for library, version in sorted(origin.versions.items()))
        number = versions.setdefault(text, len(versions) + 1)
        rows.append([run.method, str(run.seed), low_high, *_code(run), origin.device, origin.backend])
        rows[-1] += [origin.config_hash[:8], f"({number})"]
    header = ["method", "seed", f"{name} interval", "date", "commit", "device", "backend", "configuration", "versions"]
    footnotes = "".join(f"- ({number}) {text}\n" for text, number in versions.items())
    return f"{markdown.table(header, rows)}\n{footnotes}"


def _code(run: Record) -> list[str]:
    """Date and commit."""
    return [run.provenance.date[:10], run.provenance.commit[:10] + (" + changes" if run.provenance.dirty else "")]
