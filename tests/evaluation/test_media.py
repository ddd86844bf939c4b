from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from pytorch3d.renderer import TexturesUV, TexturesVertex
from pytorch3d.structures import Meshes

from recon3d.evaluation import media
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.media import MediaLogger
from recon3d.evaluation.media_sinks import MediaSink, sink_of
from recon3d.evaluation.picture import LABEL, TILE
from recon3d.evaluation.sample_views import PREDICTED, TRUE, SampleView, Surface, sample_views
from recon3d.structures import Reconstruction, ViewBatch


class Answer:
    """A method that answers with what it is given."""

    device = torch.device("cpu")

    def __init__(self, answer: Callable[[ViewBatch], Reconstruction]) -> None:
        self.reconstruct = answer


def tile(view: SampleView, column: int) -> np.ndarray:
    return np.asarray(view.picture)[LABEL:, column * TILE : (column + 1) * TILE] / 255


def seen(picture: np.ndarray, color: tuple[float, ...]) -> np.ndarray:
    return (np.abs(picture - np.array(color)) < 0.02).all(axis=-1)


def test_outlines_of_the_true_shape_lie_on_each_other(shapes: Meshes, truth: ViewBatch) -> None:
    views = sample_views(Answer(lambda _: Reconstruction(mesh=shapes)), truth)
    assert [view.sample_id for view in views] == list(truth.sample_id)
    for view in views:
        assert view.picture.size == (7 * TILE, LABEL + TILE)
        true, predicted, outlines = (tile(view, column) for column in (4, 5, 6))
        assert (true == predicted).all() and true.min() == 0 and true.max() == 1
        # Red is drawn last: where it covers the green wholly, the outlines are one.
        assert seen(outlines, PREDICTED).sum() > 50 and not seen(outlines, TRUE).any()
    # Of a prediction that is half as large both are seen.
    small = shapes.clone().scale_verts(0.5)
    view = sample_views(Answer(lambda _: Reconstruction(mesh=small)), truth)[0]
    inside, outside = (seen(tile(view, 6), color) for color in (PREDICTED, TRUE))
    assert 0 < inside.sum() < outside.sum()
    assert tile(view, 5)[..., 0].mean() > tile(view, 4)[..., 0].mean()  # more white


def test_shapes_are_the_predicted_ones_with_their_colours(shapes: Meshes, truth: ViewBatch) -> None:
    colors = [torch.rand(len(verts), 3) for verts in shapes.verts_list()]
    colored = Meshes(shapes.verts_list(), shapes.faces_list(), TexturesVertex(colors))
    for view, verts, faces, color, points in zip(
        sample_views(Answer(lambda _: Reconstruction(mesh=colored)), truth),
        shapes.verts_list(),
        shapes.faces_list(),
        colors,
        truth.points,
        strict=True,
    ):
        assert view.mesh is not None and view.cloud is None
        assert torch.equal(view.mesh.verts, verts) and torch.equal(view.mesh.faces, faces)
        assert torch.equal(view.mesh.colors, color)
        assert torch.equal(view.truth, points)


def test_a_map_gives_each_sample_its_own_colours(part, shapes: Meshes, truth: ViewBatch) -> None:
    two = part(truth, 0, 0)
    verts, faces = shapes.verts_list()[0], shapes.faces_list()[0]
    maps = torch.stack([torch.full((4, 4, 3), 0.2), torch.full((4, 4, 3), 0.8)])
    uv = torch.rand(2, len(verts), 2, generator=torch.Generator().manual_seed(0))
    mesh = Meshes([verts] * 2, [faces] * 2, TexturesUV(maps, faces.expand(2, -1, -1), uv))
    views = sample_views(Answer(lambda _: Reconstruction(mesh=mesh)), two)
    for view, value in zip(views, (0.2, 0.8), strict=True):
        assert torch.allclose(view.mesh.colors, torch.full((len(verts), 3), value))


def test_a_cloud_is_shown_with_its_surface(part, truth: ViewBatch) -> None:
    egg = part(truth, 1)
    (view,) = sample_views(Answer(lambda batch: Reconstruction(points=batch.points)), egg)
    assert torch.equal(view.cloud, egg.points[0].float()) and view.mesh is not None
    extent = [points.amax(0) - points.amin(0) for points in (view.mesh.verts, egg.points[0])]
    assert torch.allclose(*extent, atol=0.1)
    assert view.picture.width == 8 * TILE  # the cloud has a tile of its own


def test_a_failed_mesh_is_no_shape_and_its_picture_is_there(shapes: Meshes, truth: ViewBatch) -> None:
    broken = Meshes([verts * torch.nan for verts in shapes.verts_list()], shapes.faces_list())
    view = sample_views(Answer(lambda _: Reconstruction(mesh=broken)), truth)[0]
    assert view.mesh is None and (tile(view, 5) == 1).all()


def test_truth_is_the_surface_of_voxels_where_there_are_no_points(shapes: Meshes, truth: ViewBatch) -> None:
    view = sample_views(Answer(lambda _: Reconstruction(mesh=shapes)), replace(truth, points=None))[0]
    assert isinstance(view.truth, Surface)
    extent = view.truth.verts.amax(0) - view.truth.verts.amin(0)
    assert torch.allclose(extent, torch.tensor([0.9, 0.3, 0.5]), atol=2 / 31)  # the box, in cells of 1/31
    assert (
        sample_views(Answer(lambda _: Reconstruction(mesh=shapes)), replace(truth, points=None, voxels=None))[0].truth
        is None
    )


def test_without_a_camera_there_is_no_predicted_mask(shapes: Meshes, truth: ViewBatch) -> None:
    view = sample_views(Answer(lambda _: Reconstruction(mesh=shapes)), replace(truth, cameras=None))[0]
    assert (tile(view, 5) == 1).all() and seen(tile(view, 6), TRUE).any()


class Kept(MediaSink):
    """Keeps what it is shown."""

    def __init__(self, logger: Any = None) -> None:
        self.shown: list[tuple[str, list[str], int]] = []
        self.worst: list[tuple[list[str], pd.DataFrame]] = []

    def show(self, stage, views, step):
        self.shown.append((stage, [view.sample_id for view in views], step))

    def show_worst(self, views, scores, step):
        self.worst.append(([view.sample_id for view in views], scores))


class Samples(torch.utils.data.Dataset[ViewBatch]):
    """One of the shapes under many names."""

    def __init__(self, batch: ViewBatch, names: list[str]) -> None:
        self.batch, self.names, self.asked = batch, names, list[int]()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ViewBatch:
        self.asked.append(index)
        name = self.names[index]
        return replace(self.batch, sample_id=(name,), category=(name.partition("/")[0],))


NAMES = [f"{category}/{number:03}/v00" for category in ("car", "chair", "lamp") for number in range(10)]


@pytest.fixture
def stage(monkeypatch, part, shapes: Meshes, truth: ViewBatch) -> SimpleNamespace:
    """A trainer with one sink, a loader of 30 samples, and a method."""
    sink = Kept()
    monkeypatch.setattr(media, "sink_of", lambda log: sink if log == "shows" else None)
    loader = torch.utils.data.DataLoader(Samples(part(truth, 0), NAMES), 4, collate_fn=ViewBatch.collate)
    one = Meshes(shapes.verts_list()[:1], shapes.faces_list()[:1])
    method = Answer(lambda batch: Reconstruction(mesh=one.extend(len(batch))))
    evaluator = Evaluator()
    values = np.linspace(0.9, 0.1, len(NAMES))  # the last names are the worst
    evaluator.samples = pd.DataFrame(
        {
            "sample_id": NAMES,
            "category": [name.partition("/")[0] for name in NAMES],
            "chamfer": 1 - values,
            "voxel_iou": values,
            "ssim": np.nan,
        }
    )
    trainer = SimpleNamespace(
        loggers=["shows"],
        is_global_zero=True,
        world_size=1,
        sanity_checking=False,
        val_dataloaders=loader,
        test_dataloaders=loader,
        callbacks=[evaluator],
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7)),
    )
    return SimpleNamespace(sink=sink, trainer=trainer, method=method, loader=loader)


def epoch(callback: MediaLogger, stage: SimpleNamespace, kind: str) -> None:
    callback.setup(stage.trainer, stage.method, "fit")
    getattr(callback, f"on_{kind}_epoch_start")(stage.trainer, stage.method)
    for index, batch in enumerate(stage.loader):
        getattr(callback, f"on_{kind}_batch_end")(stage.trainer, stage.method, None, batch, index)
    if kind == "test":
        callback.on_test_epoch_end(stage.trainer, stage.method)
    getattr(callback, f"on_{kind}_end")(stage.trainer, stage.method)


def test_the_same_few_samples_of_all_categories_are_shown(stage) -> None:
    callback = MediaLogger(samples=5)
    for _ in range(2):
        epoch(callback, stage, "validation")
    (name, first, step), second = stage.sink.shown
    assert (name, step) == ("val", 7) and second[1] == first and len(set(first)) == 5
    assert [one.partition("/")[0] for one in first] == ["car", "chair", "lamp", "car", "chair"]
    # Another run on the same data, whose loader has another order, shows the same.
    stage.loader.dataset.names = NAMES[::-1]
    epoch(MediaLogger(samples=5), stage, "validation")
    assert stage.sink.shown[-1][1] == first


def test_showing_costs_a_few_samples_and_not_a_pass(stage) -> None:
    callback = MediaLogger(samples=2)
    epoch(callback, stage, "validation")
    assert len(stage.loader.dataset.asked) == len(NAMES) + 2
    epoch(callback, stage, "validation")
    assert len(stage.loader.dataset.asked) == 2 * len(NAMES) + 2  # they are kept


def test_every_few_validations(stage) -> None:
    callback = MediaLogger(every=3)
    for _ in range(7):
        epoch(callback, stage, "validation")
    assert len(stage.sink.shown) == 3


def test_the_worst_are_those_of_the_score_that_ranks(stage) -> None:
    epoch(MediaLogger(worst=3), stage, "test")
    ((names, scores),) = stage.sink.worst
    assert names == NAMES[:-4:-1]
    assert list(scores.columns) == ["voxel_iou", "chamfer"]  # what has no value is left out
    assert list(scores["voxel_iou"]) == sorted(scores["voxel_iou"])
    assert stage.loader.dataset.asked[-3:] == [29, 28, 27]


def test_without_a_score_there_is_no_table(stage, caplog) -> None:
    stage.trainer.callbacks[0].samples = stage.trainer.callbacks[0].samples.drop(columns=["voxel_iou", "chamfer"])
    with caplog.at_level("INFO"):
        epoch(MediaLogger(), stage, "test")
    assert not stage.sink.worst and "No table of the worst" in caplog.text


@pytest.mark.parametrize("kind", ["validation", "test"])
def test_other_processes_show_nothing(stage, kind) -> None:
    stage.trainer.is_global_zero = False
    epoch(MediaLogger(), stage, kind)
    assert not stage.sink.shown and not stage.sink.worst and len(stage.loader.dataset.asked) == len(NAMES)


def test_a_logger_of_numbers_is_named_once_and_costs_nothing(stage, tmp_path: Path, caplog) -> None:
    log = CSVLogger(tmp_path)
    assert sink_of(log) is None
    stage.trainer.loggers = [log]
    callback = MediaLogger()
    with caplog.at_level("INFO"):
        for kind in ("validation", "validation", "test"):
            epoch(callback, stage, kind)
    assert caplog.text.count("CSVLogger takes numbers only") == 1
    assert len(stage.loader.dataset.asked) == 3 * len(NAMES)


@pytest.mark.parametrize("arguments", [{"samples": 0}, {"every": 0}, {"worst": -1}])
def test_numbers_that_mean_nothing_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="expected samples >= 1"):
        MediaLogger(**arguments)
