from benchmarks import bench_poisson, measure
from recon3d.bench.kernel_table import kernel_table


def test_a_quick_run_measures_every_solid_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    bench_poisson.main(["--quick"])
    assert not list(tmp_path.iterdir())
    rows = [row for row in bench_poisson.rows(bench_poisson.QUICK) if row["backend"] == "spectral"]
    assert {row["solid"] for row in rows} == set(bench_poisson.SOLIDS)
    by_weights = {(row["solid"], row["weights"]): row for row in rows}
    assert all(row["watertight"] for row in rows)
    assert all(row["iou"] > 0.8 and row["chamfer_x100"] < 3 for row in rows if row["weights"])
    uneven = "sphere, density 5:1"
    assert by_weights[uneven, True]["iou"] > by_weights[uneven, False]["iou"] + 0.01


def test_its_file_is_not_taken_for_a_speed_of_a_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_poisson, "rows", lambda size, device: [{"size": size.points, "iou": 1.0}])
    bench_poisson.main([])
    assert [path.name for path in tmp_path.rglob("*.json")] == ["poisson--cpu.json"]
    assert kernel_table(tmp_path) == ""
