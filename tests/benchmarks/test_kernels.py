import json

import pytest

from benchmarks import measure
from benchmarks.kernels import bench_neural_rasterize, bench_soft_rgb, bench_soft_silhouette, bench_zbuffer
from benchmarks.kernels.spheres import projected_spheres
from recon3d.bench.kernel_table import kernel_table

ROWS = {
    "neural_rasterize": lambda: bench_neural_rasterize.rows(bench_neural_rasterize.QUICK),
    "soft_rgb": lambda: bench_soft_rgb.rows(bench_soft_rgb.QUICK),
    "soft_silhouette": lambda: bench_soft_silhouette.rows(bench_soft_silhouette.QUICK),
    "zbuffer": lambda: bench_zbuffer.rows(bench_zbuffer.QUICK),
}


@pytest.fixture(scope="module", params=ROWS)
def benchmark(request):
    return request.param, ROWS[request.param]()


def test_each_row_is_compared_with_its_baseline_in_the_same_run(benchmark):
    name, rows = benchmark
    rows = [row for row in rows if "soft_silhouette" not in row["work"]]
    baseline = "reference" if name == "neural_rasterize" else "pytorch3d"
    works = {row["work"] for row in rows}
    assert works and len(rows) == 2 * len(works)
    for work in works:
        base, compiled = sorted((row for row in rows if row["work"] == work), key=lambda row: row["backend"] == "numba")
        assert (base["backend"], compiled["backend"]) == (base["baseline"], "numba") == (baseline, "numba")
        assert base["times_reference"] == 1
        assert compiled["times_reference"] == pytest.approx(base["median_s"] / compiled["median_s"])


def test_rows_are_written_and_read_by_the_table_of_the_readme(benchmark, tmp_path, monkeypatch):
    name, rows = benchmark
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    path = measure.write_result(name, rows)
    assert len(json.loads(path.read_text())["rows"]) == len(rows)
    table = kernel_table(tmp_path)
    assert all(row["work"] in table for row in rows)


def test_the_backends_agree_on_what_is_timed():
    for row in ROWS["soft_silhouette"]():
        if row["backend"] == "numba":
            assert row["mean_abs_difference"] < 1e-3 and row["max_abs_difference"] < 2e-2
            assert row["gradient_cosine"] > 0.999 and 0.1 < row["mean_silhouette"] < 0.9
            assert set(row["median_s_by_images"]) == {"1", "2"}
    colors = [row for row in ROWS["soft_rgb"]() if row["backend"] == "numba"]
    assert len(colors) == 4
    for row in colors:
        assert row["mean_abs_difference"] < 1e-3
        assert row["gradient_cosine_verts"] > 0.999 and row["gradient_cosine_colors"] > 0.999
    compiled = [row for row in ROWS["neural_rasterize"]() if "gradient_cosine" in row]
    assert [("texture_gradient_cosine" in row, row["eps"]) for row in compiled] == [(False, 1e-4), (True, 1e-3)]
    for row in compiled:
        assert row["max_abs_difference"] < 1e-5 and 0.05 < row["mean_value"] < 0.9
        assert row["gradient_cosine"] > 0.999 and row.get("texture_gradient_cosine", 1.0) > 0.999
        assert row["gradient_max_abs_difference"] < 1e-2 * row["gradient_max_abs"]
    for row in ROWS["zbuffer"]():
        assert row["equal_faces"] == 1 and 0.1 < row["covered"] < 0.9


def test_soft_silhouette_stands_beside_the_rasteriser():
    rows = ROWS["neural_rasterize"]()
    (soft,) = (row for row in rows if "soft_silhouette" in row["work"])
    reference, compiled = (row for row in rows if "silhouettes" in row["work"])
    assert compiled["times_as_fast_as_soft_silhouette"] == pytest.approx(soft["median_s"] / compiled["median_s"])
    assert soft["times_reference"] == pytest.approx(reference["median_s"] / soft["median_s"])
    assert soft["backend"] == "numba" and f"sigma {soft['sigma']:g}" in soft["work"]


@pytest.mark.parametrize("bench", [bench_neural_rasterize, bench_soft_rgb, bench_soft_silhouette, bench_zbuffer])
def test_the_quick_run_writes_nothing_and_the_full_run_is_of_the_stated_size(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    bench.main(["--quick"])
    assert not list(tmp_path.iterdir())
    sizes = []
    monkeypatch.setattr(bench, "rows", lambda size: sizes.append(size) or [])
    bench.main([])
    assert sizes == [bench.FULL] and [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_the_spheres_are_as_many_and_as_large_as_said():
    assert projected_spheres(2, 3).shape == (2, 1280, 3, 3)
    corners = projected_spheres(30, 1)
    assert corners.shape == (30, 80, 3, 3)
    assert corners[..., :2].abs().max() < 1 and corners[..., 2].min() > 2
    assert (corners[0] - corners[24]).abs().max() > 0.01, "the same camera, another sphere"
