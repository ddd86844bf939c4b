import zlib

import numpy as np
import pytest

from recon3d.geometry.shapes.draws import Draws


def test_a_draw_depends_on_category_seed_and_name_alone():
    first, second = Draws(0, 7), Draws(0, 7)
    second.number("another", 0, 1)
    assert first.unit("span") == second.unit("span")
    assert len({Draws(c, s).unit(n) for c in (0, 1) for s in (0, 1) for n in ("span", "sweep")}) == 8


def test_unit_is_the_double_that_numpy_makes_of_the_stream():
    sequence = np.random.SeedSequence([2, 11, zlib.crc32(b"span")])
    assert Draws(2, 11).unit("span") == np.random.Generator(np.random.PCG64(sequence)).random()


def test_draws_are_uniform():
    values = np.array([Draws(0, seed).number("span", 2.0, 4.0) for seed in range(2000)])
    assert values.min() >= 2.0
    assert values.max() < 4.0
    assert values.mean() == pytest.approx(3.0, abs=4 * 2 / np.sqrt(12 * 2000))
    counts = np.bincount([Draws(0, seed).count("arms", 3, 5) for seed in range(2000)], minlength=6)
    assert counts[:3].sum() == 0
    np.testing.assert_allclose(counts[3:] / 2000, 1 / 3, atol=0.05)


def test_overrides_replace_one_value_and_are_recorded():
    draws = Draws(0, 3, {"span": 9.0, "tail": "v", "gear": True, "bays": 4})
    assert (draws.number("span", 0, 1), draws.option("tail", "ab")) == (9.0, "v")
    assert (draws.flag("gear", 0.0), draws.count("bays", 0, 1)) == (True, 4)
    assert draws.used == {"span": 9.0, "tail": "v", "gear": True, "bays": 4}


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative integer, got -1"):
        Draws(0, -1)
