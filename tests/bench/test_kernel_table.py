import json

import pytest

from recon3d.bench.kernel_table import kernel_table

MACHINE = {
    "cpu": "Some CPU",
    "device": "cpu",
    "commit": "0123456789abcdef",
    "load_average": 0.25,
    "threads": {"numba": 2, "torch": 1},
}


def test_a_row_per_measurement_with_its_ratio_and_the_machine(tmp_path):
    rows = [
        {"work": "64 spheres", "backend": "reference", "median_s": 2.0, "times_reference": 1.0},
        {"work": "64 spheres", "backend": "numba", "median_s": 0.005, "times_reference": 400.0},
    ]
    (tmp_path / "op--cpu.json").write_text(json.dumps({"benchmark": "op", "machine": MACHINE, "rows": rows}))
    text = kernel_table(tmp_path)
    assert "| op (cpu) | 64 spheres | numba | 5 | 400 |" in text
    assert "| op (cpu) | 64 spheres | reference | 2,000 | 1 |" in text
    assert "Some CPU, 2 numba and 1 torch threads, commit 01234567, load before the run 0.2" in text


def test_no_results_no_table(tmp_path):
    assert kernel_table(tmp_path) == ""


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "op--cpu.json").write_text('{"benchmark": "op"}')
    with pytest.raises(ValueError, match=r"op--cpu\.json is not a benchmark result"):
        kernel_table(tmp_path)
