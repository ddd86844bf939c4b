import json
import math

import pytest
import torch

from benchmarks import measure
from benchmarks.kernels import bench_point_supervision as bench
from recon3d.bench.kernel_table import kernel_table
from recon3d.geometry.cameras import project


@pytest.fixture(scope="module")
def rows():
    return bench.rows(bench.QUICK)


def test_rendering_is_the_baseline_of_the_losses_and_of_the_whole_step(rows):
    assert [(row["work"].split(", ")[-1], row["backend"]) for row in rows] == [
        ("losses", "dpc"), ("losses", "effective_loss"), ("whole step", "dpc"), ("whole step", "effective_loss"),
    ]  # fmt: skip
    for base, other in (rows[:2], rows[2:]):
        assert base["baseline"] == other["baseline"] == "dpc" and base["times_reference"] == 1
        assert other["times_reference"] == pytest.approx(base["median_s"] / other["median_s"])


def test_rows_are_written_and_read_by_the_table_of_the_readme(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    path = measure.write_result("point_supervision", rows)
    assert len(json.loads(path.read_text())["rows"]) == 4
    table = kernel_table(tmp_path)
    assert all(row["work"] in table for row in rows)


def test_the_quick_run_writes_nothing_and_the_full_run_is_of_the_papers_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    bench.main(["--quick"])
    assert not list(tmp_path.iterdir())
    sizes = []
    monkeypatch.setattr(bench, "rows", lambda size: sizes.extend(size) or [])
    bench.main([])
    assert [(size.resolution, size.points) for size in sizes] == [(32, 2000), (64, 8000), (128, 16000)]
    assert [path.name for path in tmp_path.iterdir()] == ["point_supervision--cpu.json"]


@pytest.mark.parametrize("size", [32, 128])
def test_the_clouds_lie_inside_the_silhouettes(size):
    batch = bench.balls(size)
    edge = bench.BALL * torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    xy = project(batch.cameras[0, 0], edge)[:, :2]
    pixel = ((1 - xy) * size / 2).long()
    assert bool(batch.masks[0, 0, 0][pixel[:, 1], pixel[:, 0]].all())
    radius = bench.DISC / math.sqrt(2.732**2 - bench.DISC**2) / math.tan(math.radians(15))  # of the disc, in NDC
    assert float(batch.masks.mean()) == pytest.approx(math.pi * radius**2 / 4, rel=0.06)


def test_a_step_trains():
    method = bench.both_methods(bench.QUICK[0])["dpc"]
    before = method.decoder.layer.weight.detach().clone()
    bench.step(method, bench.balls(16))()
    assert not torch.equal(before, method.decoder.layer.weight)
