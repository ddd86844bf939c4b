"""Builds the comparison of runs on Weights & Biases: a workspace for work, a report for readers.

What is shown follows from the protocol and the Records; the objects are those of W&B's own library (extra `wandb`).
Runs are found by what `bench.wandb_run` put into their configuration: ``method``, ``dataset``, ``preset``, ``seed``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon3d.bench import markdown
from recon3d.bench.page import columns_of_use
from recon3d.bench.ranking import Column, Standing, standings
from recon3d.bench.record import load_all
from recon3d.bench.standing_table import results
from recon3d.bench.table import HIDDEN_PRESETS
from recon3d.evaluation.protocol import PROTOCOL, Measure
from recon3d.files import write_whole

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

logger = logging.getLogger(__name__)

TITLE = "recon3d: methods compared"
COSTS = ("train_s", "ms_per_image", "peak_mem_mib", "params")
SYSTEM = ("cpu", "proc.memory.rssMB", "gpu.0.gpu", "gpu.0.memoryAllocated")
HALF, WHOLE, LOW, HIGH = 12, 24, 8, 14  # sizes of panels; a report is 24 wide
INTRODUCTION = (
    "Single-view 3D reconstruction: every method measured by one protocol. The tables are those of the leaderboard and "
    "hold what its Records say; the panels below each table show the runs of that data set and preset in this project, "
    "grouped by method, with the spread over seeds. Arrows say which direction is better. Pictures show the same "
    "samples throughout a run: input, prediction, truth, masks and both outlines (true green, predicted red)."
)


def main(kind: str, entity: str | None, project: str, leaderboard: Path, out: Path | None) -> int:
    """Save a workspace or a report on W&B and log its address, or write its specification.

    Args:
        kind: ``workspace`` or ``report``.
        entity: user or team; None is the default one of who is logged in.
        project: that the runs are in.
        leaderboard: folder with ``results``.
        out: JSON file for the specification, in the form of W&B's library; then nothing is sent, and no key is needed.

    Returns:
        0.

    Raises:
        RuntimeError: the extra `wandb` is not installed, nobody is logged in, or W&B refuses.
        ValueError: an unknown kind, or an unreadable Record.
    """
    if kind not in ("workspace", "report"):
        raise ValueError(f"dashboard: expected workspace or report, got {kind!r}.")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401

        from recon3d.bench.wandb_run import has_key
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error.name} is not installed; it comes with the extra `wandb`: pip install -e '.[wandb]'"
        ) from error
    shown = [one for one in standings(load_all(leaderboard / "results")) if one.preset not in HIDDEN_PRESETS]
    build: Any = workspace if kind == "workspace" else report
    if out is not None:
        content = (
            build(shown, entity or "", project)._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
        )
        write_whole(out, content.encode() + b"\n")
        logger.info("%s", out)
        return 0
    if not has_key():
        raise RuntimeError("Nobody is logged in to W&B: run `wandb login`, or write the specification with --out FILE.")
    try:
        saved = build(shown, entity or wandb.Api().default_entity, project).save()
    except (wandb.Error, OSError) as error:
        raise RuntimeError(f"W&B did not take the {kind}: {error}. --out FILE writes it without a network.") from error
    logger.info("%s", saved.url)
    return 0


def workspace(shown: Sequence[Standing], entity: str, project: str) -> Workspace:
    """The workspace: a section for each question, on the runs of the data set and preset that has most Records.

    The filter above the runs changes that. W&B adds a panel for every other key, each term of the losses among them.
    """
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    counts = Counter({(one.name, one.preset): sum(len(row.records) for row in one.rows) for one in shown})
    filters = [expr.Metric("State") == "finished"]
    if counts:
        data, preset = counts.most_common(1)[0][0]
        filters += [expr.Config("dataset") == data, expr.Config("preset") == preset]
    columns = [
        "config:method.value",
        "config:seed.value",
        *(f"summary:test/{one.name}" for one in PROTOCOL if one.in_validation),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            ws.Section(name=name, panels=panels, is_open=index < 2, pinned=index == 0)
            for index, (name, panels) in enumerate(sections().items())
        ],
        settings=ws.WorkspaceSettings(x_axis="trainer/global_step", group_by_prefix="first", max_runs=100),
        runset_settings=ws.RunsetSettings(filters=filters, pinned_columns=columns),
        auto_generate_panels=True,
    )


def report(shown: Sequence[Standing], entity: str, project: str) -> Report:
    """The report: an introduction, then for each data set and preset its table and the panels of its runs."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    blocks: list[Any] = [wr.P(INTRODUCTION), wr.TableOfContents()]
    for standing in shown:
        here = [expr.Config("dataset") == standing.name, expr.Config("preset") == standing.preset]
        runs = wr.Runset(
            entity=entity,
            project=project,
            name=f"{standing.name}, {standing.preset}",
            filters=[*here, expr.Metric("State") == "finished"],
            groupby=["config.method"],
        )
        columns = [column for column in columns_of_use(standing) if standing.has_value(column)]
        blocks += [wr.H1(f"{standing.name}, preset {standing.preset}"), wr.MarkdownBlock(_table(standing, columns))]
        for name, panels in sections({column.name for column in columns}).items():
            blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=entity, project=project, title=TITLE, description="Made by recon3d.", blocks=blocks, width="fluid"
    )


def sections(measures: set[str] | None = None) -> dict[str, list[Any]]:
    """Panels by title of their section.

    Args:
        measures: show these only; None is all of the protocol.
    """
    import wandb_workspaces.reports.v2 as wr

    method = wr.Config("method")
    asked = [measure for measure in PROTOCOL if measures is None or measure.name in measures]

    # A layout for each panel: the library moves panels that lie on each other by changing theirs.
    def half() -> wr.Layout:
        return wr.Layout(w=HALF, h=LOW)

    def wide() -> wr.Layout:
        return wr.Layout(w=WHOLE, h=HIGH)

    def bars(key: str, title: str) -> wr.BarPlot:
        return wr.BarPlot(
            title=title,
            metrics=[key],
            groupby=method,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            layout=half(),
        )

    def lines(title: str, x: str, **options: Any) -> wr.LinePlot:
        return wr.LinePlot(title=title, x=x, layout=half(), **options)

    step = "trainer/global_step"
    return {
        "Results by method": [bars(f"test/{one.name}", _label(one)) for one in asked],
        "Validation over training time": [
            lines(_label(one), "val/train_s", y=[f"val/{one.name}"], title_x="seconds of training")
            for one in asked
            if one.in_validation
        ],
        "Losses by term": [
            lines("weighted sum", step, y=["train/loss"]),
            lines("all terms", step, metric_regex="^train/", log_y=True),
            lines("learning rate", step, metric_regex="^lr-"),
        ],
        "Pictures": [
            wr.MediaBrowser(title=f"{stage} samples", media_keys=[f"{stage}/pictures"], num_columns=1, layout=wide())
            for stage in ("val", "test")
        ],
        "Shapes": [
            wr.MediaBrowser(title=f"{stage} {kind}", media_keys=[f"{stage}/{kind}"], num_columns=3, layout=wide())
            for stage in ("val", "test")
            for kind in ("meshes", "clouds", "truth")
        ],
        "Worst cases": [wr.WeavePanelSummaryTable(table_name="test/worst", layout=wide())],
        "Cost": [bars(f"cost/{name}", name) for name in COSTS],
        "System": [lines(name, "Runtime", y=[f"system/{name}"]) for name in SYSTEM],
    }


def _label(measure: Measure) -> str:
    return Column(measure.name, measure.unit, measure.version, measure.higher_is_better).label


def _table(standing: Standing, columns: Sequence[Column]) -> str:
    header, lines = results(standing, columns)
    return markdown.table(
        header, [[f"**{cell.text}**" if cell.mark == "best" else cell.plain for cell in line] for line in lines]
    )
