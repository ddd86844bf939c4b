"""The numbers of a page: Records to the rows and columns of its table, samples.csv to the scores of a sample."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from recon3d.apps.gallery.runs import RunSet
from recon3d.bench.ranking import Row
from recon3d.evaluation.protocol import PROTOCOL

COSTS = ("params", "train_s", "ms_per_image", "peak_mem_mib", "steps")


def columns(run_set: RunSet) -> list[dict[str, Any]]:
    """The measures that any method has a value of, in the order of the protocol."""
    standing = run_set.standing
    return [
        {"name": column.name, "unit": column.unit, "higher": column.higher_is_better}
        for column in standing.columns
        if standing.has_value(column)
    ]


def rows(run_set: RunSet) -> list[dict[str, Any]]:
    """A row for each method of the standing, in its order, and one for each failed run."""
    trained = {run.method for run in run_set.runs}
    found = [_row(row, row.method in trained) for row in run_set.standing.rows]
    for record in run_set.standing.failed:
        assert record.error is not None
        note = f"seed {record.seed} failed: {record.error.splitlines()[0]}"
        found.append(
            {
                "method": record.method,
                "paper": None,
                "input": record.input,
                "supervision": ", ".join(record.supervision) or "none",
                "seeds": 0,
                "values": {},
                "cost": {},
                "meshes": False,
                "note": note,
            }
        )
    return found


def scores(samples: pd.DataFrame, sample_id: str) -> dict[str, float]:
    """Measures of one sample that have a value.

    Args:
        samples: `sample_id`, `category` and a column per measure.
        sample_id: a sample that is not there gives none.
    """
    found = samples[samples["sample_id"] == sample_id]
    names = [measure.name for measure in PROTOCOL if measure.name in found]
    return {name: float(found[name].iloc[0]) for name in names if len(found) and pd.notna(found[name].iloc[0])}


def sample_measures(tables: list[pd.DataFrame]) -> list[dict[str, Any]]:
    """The measures that any sample of any method has, in the order of the protocol."""
    return [
        {"name": measure.name, "unit": measure.unit, "higher": measure.higher_is_better}
        for measure in PROTOCOL
        if any(measure.name in table and table[measure.name].notna().any() for table in tables)
    ]


def _row(row: Row, trained: bool) -> dict[str, Any]:
    names = row.records[0].measure_order
    return {
        "method": row.method,
        "paper": asdict(row.paper) if row.paper else None,
        "input": row.input,
        "supervision": row.supervision,
        "seeds": len(row.records),
        "values": {name: value for name in names if (value := row.value(name)) is not None},
        "cost": {name: row.cost(name) for name in COSTS},
        "meshes": trained,
        "note": "" if trained else "its weights are not here: no meshes",
    }
