from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.time_to_chamfer import course
from recon3d.bench.record import SCHEMA, Cost, Data, MeasureResult, Provenance, Record

RECORD = Record(
    schema=SCHEMA, method="dpc", data=Data("tiny", "h", (), "test", "diagonal"), seed=0, preset="quick", input="RGB",
    supervision=(), measures={"chamfer": MeasureResult(6.6, 3, "x100", 1, False, {}, None, None)},
    measure_order=("chamfer",), cost=Cost(None, None, None, None, None),
    provenance=Provenance("c", False, "2026-01-01T00:00:00+00:00", {}, "cpu", "numba", "0" * 64), paper=None,
    error=None,
)  # fmt: skip


def log(folder: Path, version: int, text: str) -> None:
    path = folder / "csv" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_the_logs_of_all_sessions_are_one_course(tmp_path):
    log(
        tmp_path,
        9,
        "epoch,step,train/loss,val/chamfer,val/train_s\n"
        "0,99,,9.0,10.0\n0,119,0.5,,\n1,199,,8.0,20.0\n2,299,,7.5,30.0\n",
    )
    # Killed behind step 299, and gone on from a checkpoint of step 100, with other columns in another order.
    log(tmp_path, 10, "val/train_s,val/chamfer,step\n21.0,8.1,199\n31.0,7.0,299\n41.0,6.5,399\n")
    log(tmp_path, 11, "epoch,step,test/chamfer\n4,400,6.6\n")
    way = course(RECORD, tmp_path)
    assert way["steps"] == [100, 200, 300, 400]
    assert way["chamfer"] == [9.0, 8.1, 7.0, 6.5]
    assert way["seconds"] == [10.0, 21.0, 31.0, 41.0]
    assert (way["method"], way["data"], way["preset"], way["seed"]) == ("dpc", "tiny", "quick", 0)


def test_a_run_without_validation_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="dpc: no val/chamfer in the 0 logs"):
        course(RECORD, tmp_path)
    log(tmp_path, 0, "epoch,step,test/chamfer\n4,400,6.6\n")
    log(tmp_path, 1, "epoch,step,val/chamfer,val/train_s\n4,400,,1.0\n")
    with pytest.raises(RuntimeError, match="dpc: no val/chamfer in the 2 logs"):
        course(RECORD, tmp_path)


def test_a_failed_run_is_refused(tmp_path):
    log(tmp_path, 0, "step,val/chamfer,val/train_s\n99,9.0,10.0\n")
    with pytest.raises(RuntimeError, match="dpc failed: no room"):
        course(replace(RECORD, measures={}, measure_order=(), error="no room"), tmp_path)
