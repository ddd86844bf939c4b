import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recon3d.data import photograph_building
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_building import SEEDS_IN_A_SPLIT, build_set, set_version, split_seeds, write_all
from recon3d.data.worker_pool import Outcome

COUNTS = {"train": 3, "val": 2, "test": 0}


def fill(folder):
    assert not any(folder.iterdir())
    (folder / "a.txt").write_text("content")
    return COUNTS


def refuse(folder):
    raise AssertionError("the set is there already")


def test_a_set_is_made_once_and_recognised(tmp_path):
    out = tmp_path / "sets/birds-1"
    build_set(out, "birds", "1-abc", "somewhere", fill)
    facts = json.loads((out / "dataset.json").read_text())
    assert facts == {
        "name": "birds",
        "version": "1-abc",
        "scale": "keypoints",
        "source": "somewhere",
        "photographs": COUNTS,
    }
    build_set(out, "birds", "1-abc", "somewhere", refuse)
    with pytest.raises(ValueError, match="version 1-abc, not 2-def"):
        build_set(out, "birds", "2-def", "somewhere", refuse)


def test_an_interrupted_run_leaves_nothing_and_a_killed_one_is_cleared_away(tmp_path):
    out = tmp_path / "birds"

    def interrupted(folder):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_set(out, "birds", "1", "somewhere", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == [".birds.lock"]
    (tmp_path / ".birds.99999.part").mkdir()
    (tmp_path / ".birds.99999.part/half").write_text("")
    build_set(out, "birds", "1", "somewhere", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".birds.lock", "birds"]


def test_other_content_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        build_set(tmp_path, "birds", "1", "somewhere", refuse)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(ValueError, match="not the description"):
        build_set(tmp_path, "birds", "1", "somewhere", refuse)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_second_run_waits_for_the_first(tmp_path):
    made = []

    def slow(folder):
        made.append(folder)
        time.sleep(0.3)
        return COUNTS

    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(build_set, tmp_path / "set", "birds", "1", "x", slow) for _ in range(3)]
        for run in runs:
            run.result()
    assert len(made) == 1


def test_splits_share_no_number_and_a_larger_set_contains_the_smaller():
    small, large = split_seeds(COUNTS), split_seeds({"train": 30, "val": 20, "test": 10})
    assert all(set(small[split]) <= set(large[split]) for split in small)
    other = split_seeds({"train": 30, "val": 20, "test": 10}, shape_seed=1)
    numbers = [number for seeds in (large, other) for values in seeds.values() for number in values]
    assert len(numbers) == len(set(numbers)) == 120
    for counts, seed in ((COUNTS | {"train": 0}, 0), (COUNTS | {"val": SEEDS_IN_A_SPLIT + 1}, 0), (COUNTS, -1)):
        with pytest.raises(ValueError, match="Expected"):
            split_seeds(counts, seed)


def test_the_version_knows_shapes_numbers_and_name():
    seeds = split_seeds(COUNTS)
    versions = {
        set_version("birds", "a", seeds),
        set_version("birds", "b", seeds),
        set_version("cars", "a", seeds),
        set_version("birds", "a", split_seeds(COUNTS, 1)),
        set_version("birds", "a", split_seeds(COUNTS | {"val": 3})),
    }
    assert len(versions) == 5
    assert set_version("birds", "a", seeds) in versions


def test_results_come_in_the_order_of_the_jobs_and_a_failure_ends_it(monkeypatch):
    def jobs_from_the_last(function, jobs, workers):
        assert workers == 3
        for job in reversed(jobs):
            yield Outcome(job, function(job), None) if job >= 0 else Outcome(job, None, "ValueError: no root")

    monkeypatch.setattr(photograph_building, "run_jobs", jobs_from_the_last)
    assert write_all(math.sqrt, [9.0, 4.0, 1.0], "Roots", 3) == [3, 2, 1]
    with pytest.raises(DataFileError, match=r"-1.0 failed: ValueError: no root"):
        write_all(math.sqrt, [4.0, -1.0], "Roots", 3)
