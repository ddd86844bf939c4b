from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recon3d.bench.cell import Cell
from recon3d.bench.record import SCHEMA, Cost, Data, MeasureResult, Paper, Provenance, Record, result_path, save


def make_record(
    method: str = "softras",
    seed: int = 0,
    iou: float | None = 0.5,
    chamfer: float | None = 5.0,
    version: int = 1,
    data: str = "synthetic",
    preset: str = "quick",
    per_category: dict[str, float | None] | None = None,
    data_hash: str = "d1",
    day: int = 2,
    config: str = "c1",
    **changes: Any,
) -> Record:
    categories = {"car": 0.6, "chair": 0.4} if per_category is None else per_category
    voxel_iou = MeasureResult(iou, 60, "1", version, True, categories, (0.45, 0.55), None)
    distance = MeasureResult(chamfer, 60, "x100", 1, False, {}, None, None if chamfer else "no points")
    run = Record(
        schema=SCHEMA,
        method=method,
        data=Data(data, data_hash, tuple(categories), "test", "longest_side"),
        seed=seed,
        preset=preset,
        input="RGB + mask",
        supervision=("masks", "cameras"),
        measures={"voxel_iou": voxel_iou, "chamfer": distance},
        measure_order=("voxel_iou", "chamfer"),
        cost=Cost(1_000_000, 360.0, 5.5, 900.0, 600),
        provenance=Provenance(
            "abcdef0123456", False, f"2026-01-{day:02}T03:04:05+00:00", {"torch": "2.11.0"}, "cpu", "numba", config
        ),
        paper=Paper("Soft Rasterizer", 2019, "https://arxiv.org/abs/1901.05567"),
        error=None,
    )
    return replace(run, **changes)


@pytest.fixture
def run() -> Callable[..., Record]:
    return make_record


@pytest.fixture
def failed() -> Callable[..., Record]:
    def make(error: str = "RuntimeError: out of memory", **changes: Any) -> Record:
        return make_record(measures={}, measure_order=(), error=error, **changes)

    return make


@pytest.fixture
def put() -> Callable[[Path, Record], Path]:
    """Save under a results folder."""

    def saved(root: Path, record: Record) -> Path:
        path = result_path(root, record.data.name, record.preset, record.method, record.seed)
        save(record, path)
        return path

    return saved


@pytest.fixture
def cell(tiny_configs, tmp_path) -> Callable[..., Cell]:
    """SoftRas with a tiny network on tiny data, everything below tmp_path."""

    def make(**changes: Any) -> Cell:
        places = {"configs": tiny_configs, "results": tmp_path / "board" / "results", "runs": tmp_path / "runs"}
        return Cell(**{"method": "softras", "data": "tiny", "preset": "tiny"} | places | changes)

    return make
