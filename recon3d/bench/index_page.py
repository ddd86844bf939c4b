"""The entry of the leaderboard, ``leaderboard/README.md``: every page with what it says, how to read and make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recon3d.bench import markdown
from recon3d.bench.beside import Beside, Runs, coverage
from recon3d.bench.ranking import Standing
from recon3d.bench.reported import Reported
from recon3d.bench.standing_table import measure

HOW_TO_READ = """\
## How to read

- A page is one data set and one preset. `quick` is minutes on a CPU, `paper` the schedule of the paper; they never
  share a table, and `smoke` is in none.
- Columns: arrow (better is up or down), [unit], version of the measure. A value is the mean over the seeds ± the sample
  standard deviation; without ± there is one seed. "n/a": there is no value, the notes say why; "-": the run was not
  asked for it. A measure without any value is in no table, and a method without any in no table but the main one.
- *input* is what a method is given, not what it makes of it: `template` and `mean_shape` look at no picture.
- Small, below a value: its **95 % bootstrap interval** (1,000 draws of the test objects, with replacement, each with
  all of its views): what other test objects might have given. With several seeds it goes from the mean of their lower
  ends to the mean of their upper ends: all are scored on the same samples, so more seeds do not narrow it. Left out
  where both ends print as the value does. Measures of a set as a whole (`fid`, `pck_flow`, `pck_camera`) have none.
- **Bold** is the best printed mean of one supervision group (the fields used in training), where the group has at least
  two different ones; equal prints share it. **≈** marks a rival of the best whose interval, widened to mean ±
  deviation where that goes further, overlaps the best one's, widened alike. It says no more than that: both are scored
  on the same objects, so a paired test may still find a difference. **With one seed the chance of training is in no
  interval**: even where nothing overlaps, another seed may turn the order. Without an interval, and by category,
  nothing is marked. Look at the input as well: a mask besides RGB is an advantage.
- *As points*: the variants that papers on point clouds report. `chamfer_best` takes the best input view of each object
  (so it counts objects), `chamfer` the mean over all; `chamfer_diagonal` scales prediction and ground truth to a box of
  diagonal 1; `surface_iou` and `filled_iou` compare the cells of a 32³ grid that hold a point, before and after filling
  cavities: they depend on the number of points and are not `voxel_iou`, which compares solids.
- *As images*, where a method gives a texture: `mask_iou_soft` compares the coverage of pixels, `mask_iou` binary masks.
  `ssim` compares the textured prediction, unlit, with the input image; both lie on black, which agrees and lifts it, so
  `ssim_inside` is the mean inside the true mask. `fid` compares the features of both sets in the network that its note
  names; where a column has values of several networks, a number in brackets says of which one a value is, and only
  values of the same one are compared. `_plain` is the texture without what a method adds for the sake of training.
- *Key points*: the share that lands within 0.1 of the object's size when carried from one image to another, through the
  texture flow or through shape and camera. It counts pairs of images.
- By category, "mean" counts every category the same (as the papers do), "all samples" every sample.
- Cost is comparable on the same device only, which is named. Times are of the fastest seed: other work on the machine
  only ever adds to them. Memory is the highest of the seeds, of the accelerator where there is one, else of the
  process.
- A table holds one version of each measure and one version of the data. A run on other data or with an older measure
  than the newest run, or with another configuration than its method's newest, is listed as stale and not ranked. Failed
  runs stay visible.
- *Reported*: a number printed in a paper. It stands beside ours on a page of data only where data, split and measure
  are the same; on the page of a paper beside similar data, too, and then without a gap, which would say nothing.

## How to regenerate

`make bench METHOD=softras` runs a method and writes its Record to `results/<data>/<preset>/<method>--seed<k>.json`;
`make suite SUITE=quick` runs what fills the pages of preset quick; `make leaderboard` renders all pages from the
Records, `make leaderboard-check` fails when a page is stale.
"""


def index(
    shown: Sequence[Standing],
    papers: Reported,
    beside: Beside,
    runs: Runs,
    suites: Mapping[str, str],
    curves: Sequence[str],
) -> str:
    """Markdown of ``leaderboard/README.md``.

    Args:
        shown: every Standing with a page.
        papers: the reported numbers.
        beside: what of them is ours.
        runs: our runs beside them.
        suites: title of each suite by the path of its page.
        curves: paths of the pages on training time.
    """
    return "\n".join(
        [
            markdown.GENERATED,
            "# Leaderboard\n",
            "Every number that was measured here comes from a Record in [results/](results) or [suites/](suites).\n",
            "## Data sets\n",
            _standings(shown),
            "## Papers\n",
            "Their own tables, beside what was measured here, and why the two differ.\n",
            _papers(papers, beside, runs),
            "All of their numbers on one page: [reported.md](reported.md).\n",
            "## Experiments\n",
            "".join(f"- [{title}]({path})\n" for path, title in suites.items())
            + "".join(f"- [How long methods train to a Chamfer distance]({path})\n" for path in curves),
            HOW_TO_READ,
        ]
    )


def page_name(standing: Standing) -> str:
    """File of the page of a Standing, in the leaderboard's folder."""
    return f"{standing.name}-{standing.preset}.md"


def _standings(shown: Sequence[Standing]) -> str:
    if not shown:
        return "No run yet: `make bench METHOD=softras` makes the first.\n"
    rows = []
    for standing in shown:
        records = [run for row in standing.rows for run in row.records]
        newest = max(records, key=lambda run: run.when).provenance.date[:10] if records else "-"
        link = f"[{standing.name}, {standing.preset}]({page_name(standing)})"
        counts = [len(standing.rows), len(records), len(standing.stale), len(standing.failed)]
        rows.append([link, _summary(standing), *map(str, counts), newest])
    header = ["page", "best of each supervision", "methods", "runs ranked", "stale", "failed", "newest run"]
    return markdown.table(header, rows)


def _summary(standing: Standing) -> str:
    """The best method of each supervision group by the primary measure, of how many; ties are named."""
    primary = standing.primary
    if primary is None:
        return "-"
    parts = []
    for supervision in dict.fromkeys(row.supervision for row in standing.rows):
        # The rows are ordered best first within their group.
        cells = [(row, measure(standing, row, primary)) for row in standing.rows if row.supervision == supervision]
        best, cell = cells[0]
        tied = [row.method for row, other in cells[1:] if other.mark == "tie" or other.mark == cell.mark == "best"]
        ties = f" ≈ {', '.join(tied)}" if tied else ""
        of = f", best of {len(cells)}" if len(cells) > 1 else ""
        parts.append(f"{supervision}: {best.method} {cell.text}{ties}{of}")
    return f"{primary.label}<br>" + "<br>".join(parts)


def _papers(papers: Reported, beside: Beside, runs: Runs) -> str:
    rows = []
    for key in sorted({paper for paper, _ in beside.titles}):
        tables = [number for paper, number in beside.titles if paper == key]
        total, same, similar = coverage(key, papers, beside, runs)
        link = f"[{papers.names(key)}](papers/{key}.md): {papers.papers[key]['title']}"
        rows.append([link, ", ".join(tables), *map(str, (total, same, similar, total - same - similar))])
    header = [
        "paper",
        "tables",
        "rows that are methods here",
        "run on the same data",
        "on similar data only",
        "without a run",
    ]
    return markdown.table(header, rows)
