"""The evaluator in a Lightning run and on its own: results, samples, logs, missing targets, failed predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from pytorch3d.structures import Meshes
from pytorch3d.transforms import axis_angle_to_matrix
from torch.utils.data import DataLoader

from recon3d.evaluation.convert import NO_NETWORK
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.metrics.base import SampleMetric
from recon3d.structures import Camera, Reconstruction, ViewBatch

POINT_MEASURES = tuple(measure.name for measure in PROTOCOL if measure.pred == "points")
CAMERA_MEASURES = ("pose_accuracy", "pose_error")
SAMPLE_MEASURES = tuple(measure for measure in PROTOCOL if issubclass(measure.metric, SampleMetric))
# What a mesh without texture, in data without key points, does not have: measure -> note.
NO_IMAGES = {
    **dict.fromkeys(("ssim", "ssim_inside"), "the method gives no texture"),
    **dict.fromkeys(("ssim_plain", "ssim_inside_plain"), "the method gives no plain texture"),
    **dict.fromkeys(("pck_flow", "pck_camera"), "the data have no key points"),
}


class Fixed(LightningModule):
    """Answers every batch with the meshes it was given, by sample."""

    def __init__(self, answers: dict[str, Meshes]) -> None:
        super().__init__()
        self.answers = answers

    def test_step(self, batch: ViewBatch, batch_idx: int) -> list[Reconstruction]:
        return [Reconstruction(mesh=self.answers[name]) for name in batch.sample_id]

    validation_step = test_step


def trainer(evaluator: Evaluator) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[evaluator],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def loader(truth: ViewBatch, part: Callable[..., ViewBatch], order: list[int], size: int) -> DataLoader[ViewBatch]:
    samples = [part(truth, index) for index in order]
    return DataLoader(samples, batch_size=size, collate_fn=ViewBatch.collate)  # type: ignore[arg-type]


def evaluate(mesh: Meshes | None, batch: ViewBatch, **recon: torch.Tensor | Camera) -> Evaluator:
    evaluator = Evaluator()
    evaluator.start()
    evaluator.update(Reconstruction(mesh=mesh, **recon), batch)  # type: ignore[arg-type]
    evaluator.finish()
    return evaluator


@pytest.fixture
def perfect(shapes: Meshes, truth: ViewBatch) -> Fixed:
    return Fixed({name: shapes[[index]] for index, name in enumerate(truth.sample_id)})


def test_ground_truth_scores_best_in_a_test_run(
    perfect: Fixed, truth: ViewBatch, part: Callable[..., ViewBatch]
) -> None:
    evaluator = Evaluator()
    run = trainer(evaluator)
    run.test(perfect, loader(truth, part, [0, 1, 2], 2), verbose=False)
    values = {name: result.value for name, result in evaluator.results.items()}
    assert list(values) == [measure.name for measure in PROTOCOL]
    others = {*POINT_MEASURES, *CAMERA_MEASURES, *NO_IMAGES, "mask_iou_soft", "fid", "fid_plain"}
    exact = {name: values[name] for name in values if name not in others}
    assert exact == {
        "voxel_iou": 1.0, "mask_iou": 1.0, "mask_iou_novel": 1.0, "watertight": 1.0, "manifold": 1.0,
        "components": 1.0, "self_intersections": 0.0, "degenerate_faces": 0.0,
    }  # fmt: skip
    # The masks of the data are 0 or 1 here, and what is compared with them is the coverage of pixels on the outline.
    assert 0.8 < values["mask_iou_soft"] < 1  # type: ignore[operator]
    # Two samplings of one surface of area A: 0.5 sqrt(A / 10000) + 0.5 sqrt(A / 4000), x 100; the torus has A = 1.38.
    torus = evaluator.samples.set_index("sample_id").loc["torus/0"]
    area = 4 * np.pi**2 * 0.35 * 0.1
    assert torus["chamfer"] == pytest.approx(50 * (np.sqrt(area / 10_000) + np.sqrt(area / 4000)), rel=0.05)
    # In units of the diagonal of its box (0.9, 0.9, 0.2), not x 100, and 8,000 of the 10,000.
    unit = 0.5 / np.linalg.norm([0.9, 0.9, 0.2])
    assert torus["chamfer_diagonal"] == pytest.approx(unit * (np.sqrt(area / 8000) + np.sqrt(area / 4000)), rel=0.05)
    assert torus["chamfer_best"] == torus["chamfer"]  # one view each
    assert 0.7 < torus["surface_iou"] < 1
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged == pytest.approx({f"test/{name}": value for name, value in values.items() if value is not None})


def test_validation_measures_its_part_of_the_protocol(
    perfect: Fixed, truth: ViewBatch, part: Callable[..., ViewBatch]
) -> None:
    evaluator = Evaluator()
    run = trainer(evaluator)
    run.validate(perfect, loader(truth, part, [0, 1, 2], 3), verbose=False)
    measured = {"voxel_iou", "chamfer", "mask_iou", "mask_iou_soft"}
    assert set(run.callback_metrics) == {f"val/{name}" for name in measured}
    assert set(evaluator.results) == measured


def test_batches_order_and_repeats_do_not_change_results(
    perfect: Fixed, truth: ViewBatch, part: Callable[..., ViewBatch]
) -> None:
    first, second = Evaluator(), Evaluator()
    trainer(first).test(perfect, loader(truth, part, [0, 1, 2], 3), verbose=False)
    trainer(second).test(perfect, loader(truth, part, [2, 1, 0, 2, 2], 2), verbose=False)
    assert first.results == second.results
    assert first.samples.equals(second.samples)


def test_results_and_samples_agree(shapes: Meshes, truth: ViewBatch) -> None:
    assert truth.cameras is not None
    moved = shapes.update_padded(0.8 * shapes.verts_padded())
    evaluator = evaluate(moved, truth, camera=truth.cameras[:, 0])
    table = evaluator.samples
    assert list(table.columns) == ["sample_id", "category", *(measure.name for measure in SAMPLE_MEASURES)]
    assert table["sample_id"].tolist() == ["box/0", "egg/0", "torus/0"]
    assert table["category"].tolist() == ["box", "round", "round"]
    for measure in SAMPLE_MEASURES:
        if measure.name in NO_IMAGES:
            continue
        result = evaluator.results[measure.name]
        assert result.n == 3
        assert (result.unit, result.version) == (measure.unit, measure.version)
        assert result.higher_is_better == measure.metric.higher_is_better
        assert result.value == pytest.approx(table[measure.name].mean())
        by_category = table.groupby("category")[measure.name].mean().to_dict()
        assert result.per_category == pytest.approx(by_category)
        assert result.interval is not None
        low, high = result.interval
        assert low <= result.value <= high
    # 0.8 of every side: a mask of about 0.64 of the area, whatever the shape; each below a perfect score.
    assert 0.5 < evaluator.results["mask_iou"].value < 0.75  # type: ignore[operator]
    assert 0 < evaluator.results["voxel_iou"].value < 1  # type: ignore[operator]


def test_predicted_cameras_are_compared_with_those_of_the_input_view(shapes: Meshes, truth: ViewBatch) -> None:
    """The first camera is right, the second a quarter turn off, the third 20 degrees."""
    assert truth.cameras is not None
    cameras = truth.cameras[:, 0]
    turns = axis_angle_to_matrix(torch.tensor([[0.0, 0, 0], [0, np.pi / 2, 0], [np.pi / 9, 0, 0]]))
    evaluator = evaluate(shapes, truth, camera=replace(cameras, R=cameras.R @ turns))
    assert evaluator.results["pose_error"].value == pytest.approx(110 / 3, abs=1e-3)
    assert evaluator.results["pose_accuracy"].value == pytest.approx(200 / 3)
    without = evaluate(shapes, truth).results["pose_error"]
    assert (without.value, without.note) == (None, "the method predicts no camera")


def test_the_best_view_of_each_object_counts_once(truth: ViewBatch, part: Callable[..., ViewBatch]) -> None:
    assert truth.points is not None
    # Points moved by a distance that is small against their spacing are that far from the truth, both ways.
    moves = {"box/0/v00": 3, "box/0/v12": 1, "egg/0/v00": 2, "egg/0/v06": 2, "egg/0/v12": 5, "torus/0/v00": 4}
    index = {"box": 0, "egg": 1, "torus": 2}
    evaluator = Evaluator()
    evaluator.start()
    for name, move in moves.items():  # a batch for each view
        batch = part(truth, index[name.split("/")[0]], sample_id=(name,))
        assert batch.points is not None
        evaluator.update(Reconstruction(points=batch.points + torch.tensor([1e-5 * move, 0, 0])), batch)
    evaluator.finish()
    mean, best = evaluator.results["chamfer"], evaluator.results["chamfer_best"]
    scale = 200 * 1e-5
    assert (mean.n, best.n) == (6, 3)
    assert mean.value == pytest.approx(scale * 17 / 6, rel=0.02)
    assert best.value == pytest.approx(scale * (1 + 2 + 4) / 3, rel=0.02)
    assert best.per_category == pytest.approx({"box": scale * 1, "round": scale * 3}, rel=0.02)
    assert best.interval is not None and best.interval[0] < best.value < best.interval[1]
    # Objects are drawn with all of their views: of the 27 draws of three one is the box alone, with a mean of 2,
    # and one the torus, with 4. Of views drawn one by one 95 % of the means are well inside.
    assert mean.interval == pytest.approx((scale * 2, scale * 4), rel=0.02)
    table = evaluator.samples.set_index("sample_id")
    chosen = table["chamfer_best"].dropna()
    assert len(chosen) == 3 and {"box/0/v12", "torus/0/v00"} <= set(chosen.index)
    assert (chosen == table["chamfer"][chosen.index]).all()


def test_missing_targets_are_not_available_never_zero(shapes: Meshes, truth: ViewBatch) -> None:
    bare = replace(truth, points=None, voxels=None, cameras=None, images=truth.images[:, :1], masks=truth.masks[:, :1])
    evaluator = evaluate(shapes, bare)
    missing = {name: result.note for name, result in evaluator.results.items() if result.value is None}
    assert missing.pop("fid") == missing.pop("fid_plain") == NO_NETWORK
    assert missing == {
        **NO_IMAGES,
        "voxel_iou": "the data have no voxels",
        **dict.fromkeys(POINT_MEASURES, "the data have no points"),
        **dict.fromkeys(("mask_iou", "mask_iou_soft"), "neither the data nor the method give a camera"),
        **dict.fromkeys(CAMERA_MEASURES, "the data have no cameras"),
        "mask_iou_novel": "the data have one view per object",
    }
    assert all(evaluator.results[name].n == 0 for name in missing)
    without = [measure.name for measure in SAMPLE_MEASURES if measure.name in missing]
    assert evaluator.samples[without].isna().all(axis=None)
    assert evaluator.results["watertight"].value == 1.0


def test_points_are_scored_as_they_are_and_as_the_mesh_through_them(truth: ViewBatch) -> None:
    assert truth.points is not None
    evaluator = evaluate(None, truth, points=truth.points)
    values = {name: result.value for name, result in evaluator.results.items()}
    assert {name: values[name] for name in POINT_MEASURES} == {
        "chamfer": 0.0, "chamfer_best": 0.0, "f_score": 1.0, "chamfer_diagonal": 0.0, "surface_iou": 1.0,
        "filled_iou": 1.0,
    }  # fmt: skip
    for name in ("voxel_iou", "mask_iou", "mask_iou_novel"):
        assert 0.9 < values[name] < 1.0  # type: ignore[operator]


def test_a_failed_prediction_scores_worst_and_the_run_goes_on(shapes: Meshes, truth: ViewBatch) -> None:
    verts = [corner.clone() for corner in shapes.verts_list()]
    verts[0][0, 0] = torch.nan
    evaluator = evaluate(Meshes(verts, shapes.faces_list()), truth)
    row = evaluator.samples.set_index("sample_id").loc["box/0"]
    assert row["chamfer"] == row["chamfer_best"] == pytest.approx(200 * np.sqrt(3))
    assert row["chamfer_diagonal"] == 2.0
    iou = ("voxel_iou", "surface_iou", "filled_iou", "mask_iou", "mask_iou_soft", "mask_iou_novel")
    for name in (*iou, "f_score", "watertight", "manifold"):
        assert row[name] == 0.0
        assert evaluator.results[name].n == 3
    for name in ("components", "self_intersections", "degenerate_faces"):
        assert np.isnan(row[name])
        result = evaluator.results[name]
        assert (result.n, result.note) == (2, "not defined for 1 failed predictions")
        assert set(result.per_category) == {"round"}


def test_a_step_that_returns_no_reconstruction_is_refused(truth: ViewBatch, part: Callable[..., ViewBatch]) -> None:
    class Wrong(Fixed):
        def test_step(self, batch: ViewBatch, batch_idx: int) -> None:  # type: ignore[override]
            return None

    with pytest.raises(TypeError, match=r"Wrong.*a Reconstruction of each object.*got NoneType"):
        trainer(Evaluator()).test(Wrong({}), loader(truth, part, [0], 1), verbose=False)
