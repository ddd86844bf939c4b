from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recon3d.bench import suite
from recon3d.bench.record import Record, save

ROOT = Path(__file__).parents[2]
PLAIN: dict[str, Any] = {
    "title": "Steps of softras",
    "data": "synthetic",
    "preset": "quick",
    "seeds": [0, 1],
    "measures": ["chamfer", "voxel_iou"],
    "overrides": {"trainer.max_epochs": 3, "model.init_args.lr": 1e-3},
    "rows": [
        {"name": "plain", "label": "as it is", "method": "softras"},
        {"name": "slow", "label": "a tenth", "method": "softras", "overrides": {"model.init_args.lr": 1e-4}},
    ],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "steps.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes))
    return path


def row(**changes: Any) -> dict[str, Any]:
    return PLAIN["rows"][0] | changes


def test_a_row_takes_the_options_of_the_suite_and_its_own_come_last(tmp_path):
    read = suite.read(write(tmp_path))
    assert (read.title, read.data, read.preset, read.seeds) == ("Steps of softras", "synthetic", "quick", [0, 1])
    assert [one.name for one in read.rows] == ["plain", "slow"]
    plain, slow = (read.options(one) for one in read.rows)
    assert plain == {"trainer.max_epochs": 3, "model.init_args.lr": 1e-3}
    assert slow == {"trainer.max_epochs": 3, "model.init_args.lr": 1e-4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [0]}, "'sedes'"),
        ({"rows": [row(overides={"trainer.max_epochs": 4})]}, "'overides.trainer.max_epochs'"),
        ({"reported": {"paper": "x", "table": 6, "category": "car", "measure": "chamfer", "colour": 1}}, "colour"),
        ({"rows": [{"name": "a", "label": "b"}]}, "method"),
        ({"seeds": ["first"]}, "seeds"),
        ({"seeds": [0, 0]}, r"seeds: expected at least one, each once, got \[0, 0\]"),
        ({"seeds": [0, -1]}, "seeds: expected 0 or more"),
        ({"measures": []}, "measures: expected at least one"),
        ({"rows": []}, "names of rows: expected at least one"),
        ({"rows": [row(), row()]}, "names of rows: expected at least one, each once"),
        ({"rows": [row(name="M1 only")]}, "lower-case letters.*M1 only"),
        ({"rows": [row(name="../x")]}, "lower-case letters"),
        ({"rows": [row(reported="loss=m1")]}, r"\['plain'\] have `reported`, but the suite does not say"),
        (
            {"reported": {"paper": "x", "table": 6, "category": "car", "measure": "f_score"}},
            "reported.measure: expected one of .*chamfer.*f_score",
        ),
        ({"overrides": {"seed_everything": 3}}, "seed_everything"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_what_is_expected(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        suite.read(write(tmp_path, **changes))
    assert "steps.yaml" in str(caught.value)
    assert "a suite has the keys title, data, preset, seeds, measures, rows" in str(caught.value)
    assert "a row has the keys name, label, method" in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a list", "title: [unclosed", "title: a title alone"])
def test_a_file_that_is_no_suite_is_refused(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        suite.read(path)


def test_an_unknown_suite_is_answered_with_the_known_ones(tmp_path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match="known suites: steps"):
        suite.read(tmp_path / "stops.yaml")


def test_records_are_those_of_the_suite_under_the_names_of_its_rows(tmp_path, run: Callable[..., Record]):
    read = suite.read(write(tmp_path))
    for one, seed in ((read.rows[1], 0), (read.rows[0], 1)):
        path = suite.record_path(tmp_path / "steps", read, one, seed)
        assert path == tmp_path / "steps" / one.name / "synthetic" / "quick" / f"softras--seed{seed}.json"
        save(run(method="softras", seed=seed), path)
    save(run(method="softras", seed=2), suite.record_path(tmp_path / "steps", read, read.rows[0], 2))  # no seed of it
    found = suite.records(tmp_path / "steps", read)
    assert [(record.method, record.seed) for record in found] == [("plain", 1), ("slow", 0)]


@pytest.mark.parametrize("path", suite.experiments(ROOT / suite.SUITES), ids=lambda path: path.stem)
def test_every_suite_of_the_repository_is_read_and_says_what_it_is(path):
    read = suite.read(path)
    assert path.read_text().startswith("# ") and read.about
    for value in [value for one in read.rows for value in read.options(one).values() if isinstance(value, str)]:
        with pytest.raises(ValueError):
            float(value)  # YAML 1.1 reads 1e-4 as a string


def test_the_ablation_has_the_columns_of_table_6_and_the_presets():
    read = suite.read(ROOT / suite.SUITES / "effective_loss_ablation.yaml")
    reported = [one.name for one in read.rows if one.reported]
    assert reported == ["m1", "l2", "pixel_l2", "no_w", "no_mu", "views2", "views3", "full"]
    assert {one.method for one in read.rows} == {"effective_loss", "effective_loss-literal", "effective_loss-drwr"}
    assert read.seeds == [0, 1, 2] and read.measures[0] == "chamfer"
    assert all(read.options(one)["data.init_args.categories"] == ["airplane"] for one in read.rows)


def test_the_grids_of_the_repository_name_what_there_is():
    grids = [path for path in (ROOT / suite.SUITES).glob("*.yaml") if suite.is_grid(path)]
    assert {path.stem for path in grids} == {"quick", "smoke"}
    methods = {path.stem for folder in ("methods", "variants") for path in (ROOT / "configs" / folder).glob("*.yaml")}
    for path in grids:
        grid = suite.read_grid(path)
        assert path.read_text().startswith("# ") and (ROOT / f"configs/presets/{grid.preset}.yaml").is_file()
        assert all((ROOT / f"configs/data/{name}.yaml").is_file() for name in grid.grid)
        named = {name for names in grid.grid.values() for name in names}
        # Nothing rots unseen: every method is in both.
        assert {path.stem for path in (ROOT / "configs/methods").glob("*.yaml")} <= named <= methods


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds: expected at least one"),
        ({"seeds": [0, -1]}, "seeds: expected 0 or more"),
        ({"grid": {}}, "grid: expected at least one"),
        ({"grid": {"synthetic": ["softras", "softras"]}}, "synthetic: expected at least one, each once"),
        ({"grid": {"synthetic": "softras"}}, "grid"),
        ({"sedes": [1]}, "sedes"),
    ],
)
def test_a_grid_is_refused_by_key(tmp_path, changes, message):
    content = {"title": "T", "preset": "tiny", "seeds": [0], "grid": {"synthetic": ["softras"]}}
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    with pytest.raises(ValueError, match=message):
        suite.read_grid(path)
