"""One page of the leaderboard: a Standing (one data set, one preset) as Markdown, section by section."""

from __future__ import annotations

from collections.abc import Sequence

from recon3d.bench import markdown, reported
from recon3d.bench.ranking import CATEGORY_MEAN, Column, Row, Standing
from recon3d.bench.record import Record
from recon3d.bench.reported import Reported

Cells = list[tuple[str, bool]]  # text, and whether it is the best of its group
# Variants of the Chamfer distance and of the IoU that papers on point clouds report; a table of their own.
POINT_MEASURES = frozenset({"chamfer_best", "chamfer_diagonal", "surface_iou", "filled_iou"})
CAMERA_MEASURES = frozenset({"pose_accuracy", "pose_error"})  # shown where a method predicts cameras
TEXTURE_MEASURES = frozenset({"ssim", "ssim_inside", "ssim_plain", "ssim_inside_plain", "fid", "fid_plain"})
IMAGE_MEASURES = TEXTURE_MEASURES | {"mask_iou_soft"}  # shown where a method gives a texture
KEYPOINT_MEASURES = frozenset({"pck_flow", "pck_camera"})  # shown where one is defined


def page(standing: Standing, papers: Reported) -> str:
    """Markdown page of one data set and preset."""
    parts = [markdown.GENERATED, f"# {standing.name}, preset {standing.preset}\n"]
    if standing.data is not None:
        parts.append(
            f"{standing.data.split.capitalize()} split of `{standing.name}` (data hash `{standing.data.hash[:12]}`), "
            f"categories: {', '.join(standing.data.categories)}; {standing.data.scale.replace('_', ' ')} 1. "
            "[How to read](README.md#how-to-read).\n"
        )
        points = tuple(column for column in standing.columns if column.name in POINT_MEASURES)
        cameras = tuple(column for column in standing.columns if column.name in CAMERA_MEASURES)
        shown = columns_shown(standing)
        images = tuple(column for column in shown if column.name in IMAGE_MEASURES)
        keypoints = tuple(column for column in shown if column.name in KEYPOINT_MEASURES)
        others = tuple(column for column in shown if column not in points + cameras + images + keypoints)
        predicted = any(standing.has_value(column) for column in cameras)
        parts += ["## Results\n", bold_table(*results(standing, others)), _scored(standing)]
        parts += ["## As points\n", bold_table(*results(standing, points))] if points else []
        parts += ["## As images\n", bold_table(*results(standing, images))] if images else []
        parts += ["## Key points\n", bold_table(*results(standing, keypoints))] if keypoints else []
        parts += ["## Cameras\n", bold_table(*results(standing, cameras))] if predicted else []
        if standing.primary is not None:
            parts += [
                f"## {standing.primary.label} by category\n",
                bold_table(*by_category(standing, standing.primary)),
            ]
        parts += ["## Cost\n", bold_table(*cost(standing)), "## Reported by papers\n", _beside_papers(standing, papers)]
        parts += ["## Runs\n", runs(standing)]
    parts += left_out(standing)
    return "\n".join(parts)


def columns_shown(standing: Standing) -> tuple[Column, ...]:
    """The columns without those of images and key points that say nothing here: most data have no such thing."""
    textured = any(standing.has_value(column) for column in standing.columns if column.name in TEXTURE_MEASURES)
    return tuple(
        column
        for column in standing.columns
        if column.name not in IMAGE_MEASURES | KEYPOINT_MEASURES
        or (standing.has_value(column) and (textured or column.name in KEYPOINT_MEASURES))
    )


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


def results(standing: Standing, columns: Sequence[Column] | None = None) -> tuple[list[str], list[Cells]]:
    """Header and rows of a table of measures, by default `columns_shown`: text, and whether it is the group's best."""
    columns = columns_shown(standing) if columns is None else columns
    header = ["method", "supervision", "input", "seeds", *(column.label for column in columns)]
    lines: list[Cells] = []
    for row in standing.rows:
        lines.append([(text, False) for text in (row.method, row.supervision, row.input, str(len(row.records)))])
        lines[-1] += [(_cell(standing, row, column), _is_best(standing, row, column)) for column in columns]
    return header, lines


def _decimals(standing: Standing, column: Column) -> int:
    """Digits after the point of a column: 4 up to 0.1 (3 where all is 0), 3 up to 1, 2 up to 100, then 1."""
    values = [abs(value[0]) for row in standing.rows if (value := row.value(column.name)) is not None]
    largest = max(values, default=0.0)
    return 4 if 0 < largest <= 0.1 else 3 if largest <= 1 else 2 if largest <= 100 else 1


def number(value: tuple[float, float | None], decimals: int) -> str:
    """Mean ± standard deviation as text; without ± where there is one seed."""
    mean, sd = value
    return f"{mean:.{decimals}f}" + ("" if sd is None else f" ± {sd:.{decimals}f}")


def _cell(standing: Standing, row: Row, column: Column, category: str | None = None) -> str:
    value = row.value(column.name, category)
    if value is None:
        return "n/a" if len(row.results(column.name)) == len(row.records) else "-"
    return number(value, _decimals(standing, column))


def _is_best(standing: Standing, row: Row, column: Column, category: str | None = None) -> bool:
    """Whether the printed mean is the best of at least two in the supervision group; equal prints share the place."""
    decimals = _decimals(standing, column)
    values = [rival.value(column.name, category) for rival in standing.rivals(row)]
    means = [round(value[0], decimals) for value in values if value is not None]
    own = row.value(column.name, category)
    if own is None or len(means) < 2:
        return False
    return round(own[0], decimals) == (max if column.higher_is_better else min)(means)


def bold_table(header: Sequence[str], lines: Sequence[Cells]) -> str:
    """Markdown table with the best cells in bold."""
    return markdown.table(header, [[f"**{text}**" if best else text for text, best in line] for line in lines])


def first_line(error: str | None) -> str:
    """First line of an error."""
    return (error or "").strip().partition("\n")[0]


def _scored(standing: Standing) -> str:
    """How many samples stand behind the columns, the notes of the measures, the methods' papers."""
    counts, notes = [], []
    for column in columns_shown(standing):
        results = [(row, result) for row in standing.rows for result in row.results(column.name)]
        ns = sorted({result.n for _, result in results})
        counts.append(f"{column.name} {ns[0]}" + (f" to {ns[-1]}" if len(ns) > 1 else ""))
        notes += [f"- {row.method}, {column.name}: {result.note}\n" for row, result in results if result.note]
    for row in standing.rows:
        if paper := row.paper:
            title = f"[{paper.title}]({paper.url})" if paper.url else paper.title
            notes.append(f"- {row.method}: {title}, {paper.year}\n")
    return f"Samples scored: {', '.join(counts)}.\n" + "".join(["\n", *dict.fromkeys(notes)] if notes else [])


def by_category(standing: Standing, column: Column) -> tuple[list[str], list[Cells]]:
    """Header and rows of one measure by category."""
    assert standing.data is not None
    categories = standing.data.categories
    lines: list[Cells] = []
    for row in standing.rows:
        columns = (*categories, CATEGORY_MEAN, None)
        cells = [(_cell(standing, row, column, c), _is_best(standing, row, column, c)) for c in columns]
        lines.append([(row.method, False), *cells])
    return ["method", *categories, CATEGORY_MEAN, "all samples"], lines


def duration(seconds: float | None) -> str:
    """Seconds as text in the unit that reads best; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def cost(standing: Standing) -> tuple[list[str], list[Cells]]:
    """Header and rows of what the methods cost."""

    def text(value: float | None, form: str, scale: float = 1) -> str:
        return "-" if value is None else format(value * scale, form)

    rows = [
        [
            row.method,
            text(row.cost("params"), ".2f", 1e-6),
            text(row.cost("steps"), ".0f"),
            duration(row.cost("train_s")),
            text(row.cost("ms_per_image"), ".1f"),
            text(row.cost("peak_mem_mib"), ".0f"),
            ", ".join(dict.fromkeys(run.provenance.device for run in row.records)),
        ]
        for row in standing.rows
    ]
    header = ["method", "parameters [M]", "steps", "train time", "ms/image", "peak memory [MiB]", "device"]
    return header, [[(cell, False) for cell in row] for row in rows]


def _beside_papers(standing: Standing, papers: Reported) -> str:
    """Our rows and the reported ones for each measure that a paper gives on the same data, or on similar ones."""
    assert standing.data is not None
    name = standing.data.name
    same = name in reported.SAME_DATA
    theirs = (reported.SAME_DATA | reported.SIMILAR_DATA).get(name)
    if theirs is None:
        return f"No paper gives numbers on `{standing.name}`: no reported row is comparable.\n"
    tables = []
    for column in standing.columns:
        if not (quoted := reported.rows(papers, standing.data, column)):
            continue
        categories = (*standing.data.categories, CATEGORY_MEAN)
        ours = {row.method: row.value(column.name, CATEGORY_MEAN) for row in standing.rows}
        lines = [
            [row.method, "run here", row.supervision, *(_cell(standing, row, column, c) for c in categories), ""]
            for row in standing.rows
        ]
        for row in quoted:
            own, value = ours.get(row.method), row.values.get(CATEGORY_MEAN)
            gap = "" if own is None or value is None else f"{own[0] - value:+.{_decimals(standing, column)}f}"
            cells = [row.printed.get(category, "") for category in categories]
            lines.append([f"{row.method} *reported*", row.source, row.setting, *cells, gap])
        header = ["method", "source", "setting", *categories, "ours - reported"]
        if not same:  # then a gap would say nothing
            header, lines = header[:-1], [line[:-1] for line in lines]
        tables.append(f"{column.label}:\n\n{markdown.table(header, lines)}")
    if not tables:
        return "No paper gives one of these measures on this split.\n"
    if not same:
        tables.insert(
            0,
            f"For orientation only: no paper gives numbers on `{standing.name}`. The reported rows are of `{theirs}`: "
            f"{reported.LIKENESS[theirs]}. The order of methods may be compared, the numbers not.\n",
        )
    if theirs in reported.UNSTATED:
        tables.append(f"{reported.UNSTATED[theirs]}\n")
    return "\n".join(tables)


def runs(standing: Standing) -> str:
    """Provenance, one line per ranked run, with the bootstrap interval of the primary measure."""
    name = standing.primary.name if standing.primary else ""
    rows = []
    for run in (run for row in standing.rows for run in row.records):
        result = run.measures.get(name)
        low_high = "-" if result is None or result.interval is None else "{:.3f} to {:.3f}".format(*result.interval)
        origin = run.provenance
        versions = ", ".join(f"{library} {version}" for library, version in sorted(origin.versions.items()))
        rows.append([run.method, str(run.seed), low_high, *_code(run), origin.device, origin.backend])
        rows[-1] += [origin.config_hash[:8], versions]
    header = ["method", "seed", f"{name} interval", "date", "commit", "device", "backend", "configuration", "versions"]
    return markdown.table(header, rows)


def _code(run: Record) -> list[str]:
    """Date and commit."""
    return [run.provenance.date[:10], run.provenance.commit[:10] + (" + changes" if run.provenance.dirty else "")]
