"""The page on training time: how long each method takes to reach a Chamfer distance.

From the JSON files that ``benchmarks/time_to_chamfer.py`` wrote to a page of ``leaderboard/``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon3d.bench import markdown

STEP = 0.5  # between the levels that the page shows
ABOUT = """\
# Time to a Chamfer distance

Table 3 of Zubic and Lio 2021 gives hours of training; its gap between the two methods on point clouds comes from the
number of iterations (100,000 and 600,000). Here both have the same network, data, batch, views and number of steps, and
the question is how long each trains until its Chamfer distance (x100, mean over the validation split) is first at or
below a level. Validations are left out of the time; a level is seen at the first validation that finds it. "-": not
reached.
"""


def curves_page(path: Path) -> str:
    """Markdown of one result file.

    Raises:
        ValueError: the file is not a result of the benchmark.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        tables = _levels(rows), _summary(rows)
        where = f"data {rows[0]['data']}, preset {rows[0]['preset']}, seed {rows[0]['seed']}; " + "; ".join(
            f"{row['method']}: {row['device']}, commit {row['commit'][:8]}" for row in rows
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:  # JSON's errors are ValueErrors
        raise ValueError(f"{path} is no result of benchmarks/time_to_chamfer.py ({error!r}); run it again.") from error
    how = "`python -m benchmarks.time_to_chamfer`, then `make leaderboard`."
    return "\n".join([markdown.GENERATED + ABOUT, *tables, f"Measured on: {where}. To regenerate: {how}\n"])


def _levels(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row per level, from what all methods soon reach to the best of any."""
    reached = [min(row["chamfer"]) for row in rows]
    top = math.floor(min(row["chamfer"][0] for row in rows) / STEP) * STEP
    count = max(int((top - min(reached)) / STEP), 0)
    header = ["Chamfer", *(f"{row['method']}: {what}" for row in rows for what in ("seconds", "steps"))]
    lines = []
    for level in (top - STEP * number for number in range(count + 1)):
        cells = [f"{level:.1f}"]
        for row in rows:
            first = next((number for number, value in enumerate(row["chamfer"]) if value <= level), None)
            cells += ["-", "-"] if first is None else [f"{row['seconds'][first]:.0f}", f"{row['steps'][first]:,}"]
        lines.append(cells)
    return markdown.table(header, lines)


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            row["method"],
            f"{1e3 * row['seconds'][-1] / row['steps'][-1]:.0f}",
            f"{row['steps'][-1]:,}",
            f"{row['chamfer'][-1]:.2f}",
            f"{min(row['chamfer']):.2f}",
        ]
        for row in rows
    ]
    return markdown.table(["method", "ms a step", "steps", "Chamfer at the end", "best"], lines)
