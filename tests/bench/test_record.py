import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recon3d.bench.record import Record, config_hash, is_finished, load, load_all, result_path, save

Make = Callable[..., Record]
Put = Callable[[Path, Record], Path]


def test_round_trip_keeps_everything_and_sorts_keys(tmp_path: Path, run: Make, put: Put) -> None:
    path = put(tmp_path, run(seed=3))
    assert path == tmp_path / "synthetic" / "quick" / "softras--seed3.json"
    assert load(path) == run(seed=3)
    content = json.loads(path.read_text())
    assert list(content) == sorted(content)
    assert content["measure_order"] == ["voxel_iou", "chamfer"]
    assert load_all(tmp_path) == [run(seed=3)]
    assert load_all(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.update(colour="red"), "unknown key colour"),
        (lambda content: content["measures"]["voxel_iou"].update(sd=0.1), "measures.voxel_iou: unknown key sd"),
        (lambda content: content["cost"].pop("steps"), "cost: missing key steps"),
        (lambda content: content.update(seed="0"), "seed: expected int, got '0'"),
        (lambda content: content.update(seed=True), "seed: expected int, got True"),
        (lambda content: content.update(seed=-1), "seed: expected 0 or more"),
        (lambda content: content.update(input="depth"), "input: expected"),
        (lambda content: content.update(schema=0), "schema: expected 1, got 0"),
        (lambda content: content.update(method="Soft-Ras"), "method: expected lower-case"),
        (lambda content: content.update(measure_order=["voxel_iou"]), "measure_order: expected"),
        (lambda content: content.update(error="failed"), "a failed run an error and no measures"),
        (lambda content: content["data"].update(categories=["car", 1]), "data.categories.1: expected str, got 1"),
        (
            lambda content: content["measures"]["voxel_iou"].update(interval=[0.1]),
            "measures.voxel_iou.interval: expected",
        ),
        (lambda content: content["measures"]["voxel_iou"].update(value=float("nan")), "NaN is not JSON"),
        (lambda content: content["provenance"].update(date="2026-01-02"), "expected ISO 8601 with time zone"),
        (lambda content: content["provenance"].update(date="yesterday"), "expected ISO 8601 with time zone"),
        (lambda content: content.update(seed=1), "the path says synthetic/quick/softras--seed0.json"),
    ],
)
def test_a_record_against_the_schema_is_refused_by_file_and_key(
    tmp_path: Path, run: Make, put: Put, edit: Callable[[dict], None], message: str
) -> None:
    path = put(tmp_path, run())
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"softras--seed0\.json is not a readable Record") as error:
        load(path)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="softras--seed0"):
        load_all(tmp_path)


def test_truncated_json_is_named(tmp_path: Path, run: Make, put: Put) -> None:
    path = put(tmp_path, run())
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match=r"softras--seed0\.json is not a readable Record"):
        load_all(tmp_path)
    with pytest.raises(ValueError, match="delete it and run again"):
        is_finished(path, "c1", {})


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path, run: Make, put: Put) -> None:
    good = run()
    path = put(tmp_path, good)
    iou = good.measures["voxel_iou"]
    for bad in (
        replace(good, measures={**good.measures, "voxel_iou": replace(iou, value=float("nan"))}),
        replace(good, supervision=(Path("masks"),)),  # type: ignore[arg-type]
        replace(good, cost=replace(good.cost, params=1.5)),  # type: ignore[arg-type]
        replace(good, seed=4),
    ):
        with pytest.raises(ValueError, match="was not written"):
            save(bad, path)
    assert load(path) == good


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path, run: Make, put: Put) -> None:
    path = put(tmp_path, run())
    before = path.read_bytes()
    code = (
        "import dataclasses, os, pathlib, sys\n"
        "from recon3d.bench.record import load, save\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "new = dataclasses.replace(load(path), supervision=('voxels',))\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "save(new, path)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr
    assert path.read_bytes() == before
    assert "voxels" in next(path.parent.glob(".*.part")).read_text()
    assert load_all(tmp_path) == [run()]
    save(run(), path)
    assert load_all(tmp_path) == [run()]


def test_finished_means_same_configuration_and_no_error(tmp_path: Path, run: Make, failed: Make) -> None:
    path = result_path(tmp_path, "synthetic", "quick", "softras", 0)
    assert not is_finished(path, "c1", {})
    save(failed(), path)
    assert not is_finished(path, "c1", {})
    save(run(), path)
    assert is_finished(path, "c1", {})
    assert not is_finished(path, "c2", {})


def test_finished_means_every_measure_asked_for_in_its_version(tmp_path: Path, run: Make, put: Put) -> None:
    path = put(tmp_path, run(version=2))
    assert is_finished(path, "c1", {"voxel_iou": 2, "chamfer": 1})
    assert is_finished(path, "c1", {"voxel_iou": 2})  # one that is no longer measured does no harm
    assert not is_finished(path, "c1", {"voxel_iou": 2, "chamfer": 1, "surface_iou": 1})
    assert not is_finished(path, "c1", {"voxel_iou": 3, "chamfer": 1})
    put(tmp_path, run(version=2, chamfer=None))  # "n/a" is an answer
    assert is_finished(path, "c1", {"voxel_iou": 2, "chamfer": 1})


def test_config_hash_is_of_the_canonical_json_without_the_dropped_keys() -> None:
    config = {"trainer": {"max_steps": 5, "logger": True}, "seed": 1, "model": {"logger": "x", "sizes": (1, 2)}}
    canonical = '{"model":{"logger":"x","sizes":[1,2]},"trainer":{"max_steps":5}}'
    assert config_hash(config, {"seed", "trainer.logger"}) == hashlib.sha256(canonical.encode()).hexdigest()
    other = {**config, "seed": 2, "trainer": {"logger": False, "max_steps": 5}}
    assert config_hash(other, {"seed", "trainer.logger"}) == config_hash(config, {"seed", "trainer.logger"})
    assert config_hash(config, {"seed"}) != config_hash(other, {"seed"})


def test_config_hash_names_a_value_without_a_json_form() -> None:
    with pytest.raises(ValueError, match=r"data\.folders\.0 is a .*Path"):
        config_hash({"data": {"folders": [Path("x")]}}, ())
