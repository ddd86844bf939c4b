import logging

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from recon3d.geometry.alignment import AlignmentError, fit_alignment, register
from recon3d.geometry.sampling import sample_surface
from recon3d.geometry.shapes import make_shape

GLOBAL = Rotation.random(random_state=11)  # from the predictions' frame to the object frame


def shape_points(seed: int, n: int, generator: torch.Generator) -> np.ndarray:
    """Points of an airplane in the object frame, longest side 1."""
    shape = make_shape("airplane", seed)
    verts = torch.tensor(shape.verts).double()
    verts = verts - (verts.amax(dim=0) + verts.amin(dim=0)) / 2
    verts = verts / (verts.amax(dim=0) - verts.amin(dim=0)).max()
    return sample_surface(verts, torch.tensor(shape.faces).long(), n, generator)[0].numpy()


class Predictions:
    """What a network might answer for some airplanes from some views, in a frame of its own."""

    def __init__(self, models: int = 4, views: int = 3, points: int = 400, truth_points: int = 1500) -> None:
        self.rng = np.random.default_rng(0)
        generator = torch.Generator().manual_seed(0)
        self.truths = [shape_points(seed, truth_points, generator) for seed in range(models)]
        self.clouds = [
            GLOBAL.inv().apply(shape_points(seed, views * points, generator)).reshape(views, points, 3)
            for seed in range(models)
        ]
        self.true = [Rotation.random(views, random_state=seed) for seed in range(models)]
        self.pred = [turns * GLOBAL for turns in self.true]

    def turn(self, model: int, view: int, error: Rotation) -> None:
        """Make the pose of one view wrong by a rotation of the object."""
        turns = self.pred[model]
        self.pred[model] = Rotation.concatenate(
            [self.true[model][view] * error * GLOBAL if index == view else turns[index] for index in range(len(turns))]
        )

    def blur(self, cloud: float, degrees: float) -> None:
        """Add noise to points (standard deviation) and poses."""
        self.clouds = [points + self.rng.normal(0, cloud, points.shape) for points in self.clouds]
        noise = np.deg2rad(degrees)
        self.pred = [turns * Rotation.from_rotvec(self.rng.normal(0, noise, (len(turns), 3))) for turns in self.pred]

    def arguments(self) -> tuple[list[torch.Tensor], ...]:
        poses = [[torch.tensor(t.as_quat(scalar_first=True)) for t in turns] for turns in (self.pred, self.true)]
        return [torch.tensor(c) for c in self.clouds], [torch.tensor(t) for t in self.truths], *poses

    def error(self, **options: int) -> float:
        """Degrees between the fitted and the true rotation."""
        found = Rotation.from_matrix(fit_alignment(*self.arguments(), **options).numpy().T)
        return float(np.rad2deg((found * GLOBAL.inv()).magnitude()))


def test_rows_times_the_rotation_lie_in_the_object_frame():
    predictions = Predictions(models=2)
    found = fit_alignment(*predictions.arguments())
    cloud = torch.tensor(predictions.clouds[0][0])
    distances, _ = cKDTree(predictions.truths[0]).query((cloud @ found).numpy())
    assert distances.mean() < 0.02
    assert torch.linalg.det(found).item() == pytest.approx(1)


def test_noise_on_points_and_poses():
    predictions = Predictions()
    predictions.blur(cloud=0.01, degrees=10)
    assert predictions.error() < 1


def test_starts_alone_would_not_do():
    predictions = Predictions(models=3)
    predictions.blur(cloud=0.0, degrees=10)
    starts = Rotation.concatenate(
        [true.inv() * pred for true, pred in zip(predictions.true, predictions.pred, strict=True)]
    )
    assert np.rad2deg((starts.mean() * GLOBAL.inv()).magnitude()) > 3 * predictions.error()


def test_wrong_views_and_wrong_models_are_left_out():
    predictions = Predictions(models=5)
    quarter_turn = Rotation.from_euler("y", 90, degrees=True)  # from which ICP does not come back
    for model, views in enumerate([[0], [1], [2], [0], [0, 1, 2]]):
        for view in views:
            predictions.turn(model, view, quarter_turn)
    predictions.blur(cloud=0.005, degrees=3)
    assert predictions.error(models=4) < 1
    assert predictions.error(models=5) > 5  # the wrong model counts here
    assert predictions.error(models=4, views=3) > 5  # and so do the wrong views


def test_average_is_the_eigenvector_of_markley():
    """Spheres leave the starts as they are, to be averaged."""
    rng = np.random.default_rng(5)
    sphere = rng.normal(size=(300, 3))
    sphere *= 0.5 / np.linalg.norm(sphere, axis=1, keepdims=True)
    turns = Rotation.from_rotvec(rng.normal(0, 0.4, (6, 3))) * GLOBAL
    quaternions = turns.as_quat(scalar_first=True) * np.array([1, -1, 1, 1, -1, 1])[:, None]
    true = Rotation.random(6, random_state=0)
    found = fit_alignment(
        [torch.tensor(turn.inv().apply(sphere))[None] for turn in turns],
        [torch.tensor(sphere)] * 6,
        [torch.tensor((a * b).as_quat(scalar_first=True))[None] for a, b in zip(true, turns, strict=True)],
        [torch.tensor(a.as_quat(scalar_first=True))[None] for a in true],
    )
    expected = np.linalg.eigh(quaternions.T @ quaternions)[1][:, -1]
    angle = (Rotation.from_matrix(found.numpy().T).inv() * Rotation.from_quat(expected, scalar_first=True)).magnitude()
    assert angle < 1e-6


def box(n: int, seed: int, sides: tuple[float, float, float]) -> np.ndarray:
    """Points of a box: unchanged by half turns about its axes, and by quarter turns where two sides are equal."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (n, 3))
    axis = rng.integers(0, 3, n)
    points[np.arange(n), axis] = np.sign(points[np.arange(n), axis]) * 0.5
    return points * sides


def symmetric(degrees: float, wrong: int, caplog: pytest.LogCaptureFixture) -> float:
    """Error with 9 boxes of which `wrong` were reconstructed and seen turned about the vertical."""
    turn = Rotation.from_euler("y", degrees, degrees=True)
    quaternions = [Rotation.random(1, random_state=index) for index in range(9)]
    predicted = [q * (turn if index < wrong else Rotation.identity()) * GLOBAL for index, q in enumerate(quaternions)]
    with caplog.at_level(logging.INFO):
        found = fit_alignment(
            [torch.tensor(GLOBAL.inv().apply(box(300, index, (0.6, 1.0, 0.6))))[None] for index in range(9)],
            [torch.tensor(box(3000, 100, (0.6, 1.0, 0.6)))] * 9,
            [torch.tensor(q.as_quat(scalar_first=True)) for q in predicted],
            [torch.tensor(q.as_quat(scalar_first=True)) for q in quaternions],
        )
    return float(np.rad2deg((Rotation.from_matrix(found.numpy().T) * GLOBAL.inv()).magnitude()))


def test_half_turns_of_symmetric_shapes_are_outvoted(caplog):
    assert symmetric(180, wrong=3, caplog=caplog) < 3


def test_quarter_turns_of_symmetric_shapes_pull_the_average(caplog):
    assert symmetric(90, wrong=3, caplog=caplog) == pytest.approx(26.6, abs=3)  # atan(1/2): see the docstring


def test_disagreement_is_warned_of(caplog):
    symmetric(90, wrong=4, caplog=caplog)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_far_points_are_not_matched():
    rng = np.random.default_rng(0)
    target = rng.uniform(-0.5, 0.5, (4000, 3)) * (1.0, 0.6, 0.2)
    turn = Rotation.from_euler("xyz", [5, -4, 6], degrees=True)
    source = np.concatenate([turn.inv().apply(target[:800]), rng.normal([3, 0, 0], 0.1, (200, 3))])
    found, error = register(source, cKDTree(target), Rotation.identity(), max_distance=0.2)
    assert np.rad2deg((found * turn.inv()).magnitude()) < 0.5 and error < 0.02
    far, far_error = register(source, cKDTree(target), Rotation.identity(), max_distance=10.0)
    assert np.rad2deg((far * turn.inv()).magnitude()) > 2 and far_error > 0.5


def test_failed_predictions_are_left_out_and_named_when_there_is_nothing_else():
    predictions = Predictions(models=3)
    predictions.clouds[0][:] = np.nan
    predictions.clouds[1][2, 5] = np.inf
    assert predictions.error() < 1
    for cloud in predictions.clouds:
        cloud[:] = 50.0
    with pytest.raises(AlignmentError, match="none of 3 models"):
        predictions.error()


def test_large_clouds_are_thinned_out_and_types_kept():
    predictions = Predictions(models=2, views=1, points=4500)
    clouds, truths, pred, true = predictions.arguments()
    found = fit_alignment([cloud.float() for cloud in clouds], truths, pred, true)
    assert found.dtype == torch.float32
    assert np.rad2deg((Rotation.from_matrix(found.numpy().T) * GLOBAL.inv()).magnitude()) < 1


def test_wrong_shapes_are_named():
    clouds, truths, pred, true = Predictions(models=2).arguments()
    with pytest.raises(ValueError, match=r"\[2, 1, 2, 2\]"):
        fit_alignment(clouds, truths[:1], pred, true)
    with pytest.raises(ValueError, match=r"\(3, 400, 3\), \(1500, 3\), \(2, 4\)"):
        fit_alignment(clouds, truths, [q[:2] for q in pred], true)
    with pytest.raises(ValueError, match=r"none empty, got \(3, 0, 3\)"):
        fit_alignment([cloud[:, :0] for cloud in clouds], truths, pred, true)
    with pytest.raises(ValueError, match="at least one"):
        fit_alignment([], [], [], [])
