"""The worked examples of docs/adding.md are what they say they are: each is taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recon3d.bench import suite
from recon3d.bench.cell import Cell, own_arguments
from recon3d.data.checking import check
from recon3d.data.shapenet import ShapeNetDataModule
from recon3d.evaluation.protocol import PROTOCOL, Measure
from recon3d.geometry.cameras import nmr_cameras
from recon3d.geometry.templates import icosphere
from recon3d.kernels.voxelize import reference
from recon3d.metrics.base import stable_key
from recon3d.structures import ViewBatch
from tests.docs.commands import ROOT
from tests.docs.test_pages import ParsedCLI

PAGE = (ROOT / "docs/adding.md").read_text(encoding="utf-8")


def examples(heading: str, language: str) -> list[str]:
    """The fences of one language below a heading, in their order."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def executed(source: str, **names: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "example", **names}
    exec(compile(source, "docs/adding.md", "exec"), namespace)
    return namespace


def test_the_method_learns() -> None:
    (source,) = examples("A method", "python")
    torch.manual_seed(0)
    method = executed(source)["NearestSphere"]()
    axis = torch.linspace(-1, 1, 64)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.6**2).float().expand(2, 1, 1, 64, 64)
    batch = ViewBatch(
        images=disc.expand(-1, -1, 3, -1, -1),
        masks=disc,
        sample_id=("a", "b"),
        category=("x", "x"),
        cameras=nmr_cameras()[torch.zeros(2, 1, dtype=torch.long)],
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = method.losses(batch, method(batch.inputs(method.in_channels)))["iou"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    (config,) = examples("A method", "yaml")
    assert yaml.safe_load(config)["model"]["class_path"] == "recon3d.methods.nearest_sphere.NearestSphere"


def test_the_data_set_passes_the_check_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECON3D_DATA", raising=False)
    (source,) = examples("A data set", "python")
    (config,) = examples("A data set", "yaml")
    executed(source)
    report = check("boxes")
    assert report.problems == []
    assert {(one.category, one.split) for one in report.splits} == {("box", "train"), ("box", "val"), ("box", "test")}
    spec = yaml.safe_load(config)["data"]
    assert spec["class_path"].endswith(".ShapeNetDataModule")
    module = ShapeNetDataModule(**spec["init_args"], batch_size=2, test_views=1)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.category == ("box", "box")
    assert batch.points is not None and batch.points.abs().max() <= 0.5 + 1e-6


def test_the_metric_measures() -> None:
    source, line = examples("A metric", "python")
    namespace = executed(source)
    measure = executed(f"measure = {line}", Measure=Measure, VolumeError=namespace["VolumeError"])["measure"]
    assert measure.name not in {one.name for one in PROTOCOL}
    pred, target = torch.zeros(3, 4, 4, 4, dtype=torch.bool), torch.zeros(3, 4, 4, 4, dtype=torch.bool)
    target[:, 0, 0] = True  # 4 cells
    pred[0, 0, 0] = pred[0, 1, 0, :2] = True  # 6: half too many
    pred[1] = True  # 64: counts as the worst, 1
    keys = torch.tensor([stable_key(name) for name in ("a", "b", "c")])
    metric = measure.metric()
    metric.update(pred, target, keys, keys)
    scores = metric.compute()
    by_name = dict(zip(scores.samples.tolist(), scores.values.tolist(), strict=True))
    assert [by_name[stable_key(name)] for name in ("a", "b", "c")] == [0.5, 1.0, 1.0]
    assert not measure.higher_is_better


def test_the_backend_agrees_with_the_reference() -> None:
    (source,) = examples("A backend of a kernel", "python")
    occupancy = executed(source)["occupancy"]
    verts, faces = icosphere(2, 0.3)
    grid = torch.stack([verts, 0.5 * verts]).double() * 15 + 8
    faces = faces.expand(2, -1, -1)
    for solid in (True, False):
        expected = reference.occupancy(grid, faces, 16, solid)
        assert torch.equal(occupancy(grid, faces, 16, solid), expected)
    filled, surface = (int(reference.occupancy(grid, faces, 16, solid).sum()) for solid in (True, False))
    assert filled > surface


def test_the_logger_is_added_to_the_csv_log(tmp_path: Path) -> None:
    (config,) = examples("A logger", "yaml")
    path = tmp_path / "second_csv.yaml"
    path.write_text(config)
    cell = Cell("template", "synthetic", "smoke", configs=ROOT / "configs", overrides=("--config", str(path)))
    with own_arguments():
        parsed = ParsedCLI(args=["fit", *cell.arguments()], save_config_callback=None)
    loggers = [one.init_args.name for one in parsed.config.fit.trainer.logger]
    assert loggers == ["csv", "second"]


def test_the_suites_are_read(tmp_path: Path) -> None:
    experiment, grid = examples("A suite", "yaml")
    (tmp_path / "sharpness.yaml").write_text(experiment)
    (tmp_path / "two.yaml").write_text(grid)
    rows = suite.read(tmp_path / "sharpness.yaml").rows
    assert [row.overrides.get("model.init_args.sigma") for row in rows] == [None, 1e-5]
    assert set(suite.read(tmp_path / "sharpness.yaml").measures) <= {one.name for one in PROTOCOL}
    found = suite.read_grid(tmp_path / "two.yaml").grid
    for data, methods in found.items():
        assert (ROOT / "configs/data" / f"{data}.yaml").is_file()
        assert all((ROOT / "configs/methods" / f"{name}.yaml").is_file() for name in methods)
