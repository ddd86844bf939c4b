import json

import pytest

from recon3d.bench.curves import curves_page


def put(tmp_path, rows):
    path = tmp_path / "time_to_chamfer--cpu.json"
    path.write_text(json.dumps({"rows": rows}))
    return path


def way(method, seconds, chamfer):
    steps = [100 * (number + 1) for number in range(len(chamfer))]
    about = {"data": "d", "preset": "p", "seed": 0, "device": "A", "commit": "0123456789"}
    return about | {"method": method, "steps": steps, "seconds": seconds, "chamfer": chamfer}


def test_a_level_is_reached_at_the_first_validation_at_or_below_it(tmp_path):
    page = curves_page(put(tmp_path, [way("a", [10, 20, 30], [9.2, 8.0, 8.4]), way("b", [5, 9, 14], [9.9, 8.6, 7.4])]))
    assert "| 9.0 | 20 | 200 | 9 | 200 |" in page
    assert "| 8.0 | 20 | 200 | 14 | 300 |" in page
    assert "| 7.5 | - | - | 14 | 300 |" in page and "| 7.0 |" not in page
    assert "| a | 100 | 300 | 8.40 | 8.00 |" in page


def test_another_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"time_to_chamfer--cpu\.json is no result"):
        curves_page(put(tmp_path, []))
