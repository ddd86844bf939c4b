"""One rotation from the frame that a network chose to the object frame, as DPC's evaluation of unknown cameras needs.

A method that never sees a camera can turn all its shapes and all its cameras by one rotation and lose nothing. Before
its shapes are compared with ground truth, that rotation is fitted to a few validation objects.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

logger = logging.getLogger(__name__)

VIEWS = 2  # kept of each model, of the lowest error
MODELS = 15  # kept, of the lowest error
MAX_DISTANCE = 0.2  # between points that are matched, in object units
POINTS = 2000  # of a predicted cloud that are matched, at most; the cost grows with them, the rotation hardly changes
ITERATIONS = 30  # of ICP at most
SETTLED = 1e-6  # change of the error at which ICP stops
DISAGREEMENT = 30.0  # degrees; the papers' own bound of a right pose

Array = NDArray[np.float64]


class AlignmentError(ValueError):
    """No prediction could be matched with its ground truth."""


def fit_alignment(
    clouds: Sequence[Tensor],
    truths: Sequence[Tensor],
    q_pred: Sequence[Tensor],
    q_true: Sequence[Tensor],
    views: int = VIEWS,
    models: int = MODELS,
    max_distance: float = MAX_DISTANCE,
) -> Tensor:
    """Rotation A with which ``cloud @ A`` lies in the object frame, one for all models.

    Each view of each model starts at ``conj(q_true) q_pred`` and is refined by point-to-point ICP from the predicted
    to the true cloud (`register`). The `views` views of lowest error of each model are kept, then the `models` models
    of lowest mean error of those; their rotations are averaged as quaternions (Markley et al. 2007). Source: the
    evaluation of Insafutdinov and Dosovitskiy 2018 (DPC); that the mean of the kept views orders models is ours.
    Deviation: of clouds of more than 2,000 points every k-th is used, as many as leave at most 2,000.

    Symmetric shapes leave several rotations of equal error. A view that was half a turn off counts as orthogonal to the
    others in the average, so that the more frequent rotation wins unchanged; other symmetries pull the average away
    from it, a third of the views at a quarter turn by 27 degrees. A warning is logged where the kept rotations disagree
    with their average by more than 30 degrees in the median. Mirrored shapes stay mirrored.

    Args:
        clouds: of each of M models, (V, N, 3) predicted from V views, in the frame of the predictions. V and N may
            differ between models. Points and poses may be of any device; what is not finite is left out.
        truths: of each model, (P, 3) in the object frame.
        q_pred: of each model, (V, 4) predicted rotations from the predictions' frame to view, w first.
        q_true: of each model, (V, 4) true rotations from the object frame to view, w first.
        views: of a model that are kept, at most.
        models: that are kept, at most.
        max_distance: of points that are matched, in object units.

    Returns:
        (3, 3) of the type and device of the clouds.

    Raises:
        ValueError: no models, or shapes that do not fit.
        AlignmentError: no view could be matched (no prediction is finite, or near its ground truth).
    """
    _check(clouds, truths, q_pred, q_true)
    best: list[tuple[float, list[Rotation]]] = []
    for cloud, truth, predicted, true in zip(clouds, truths, q_pred, q_true, strict=True):
        tree = cKDTree(_array(truth))
        found: list[tuple[float, Rotation]] = []
        for points, pose, true_pose in zip(*map(_array, (cloud, predicted, true)), strict=True):
            if np.isfinite(points).all() and np.isfinite(pose).all() and pose.any():
                start = _rotation(true_pose).inv() * _rotation(pose)
                rotation, error = register(points[:: -(-len(points) // POINTS)], tree, start, max_distance)
                if error < np.inf:
                    found.append((error, rotation))
        if found:
            kept = sorted(found, key=lambda item: item[0])[:views]
            best.append((float(np.mean([error for error, _ in kept])), [rotation for _, rotation in kept]))
    if not best:
        raise AlignmentError(
            f"fit_alignment: none of {len(clouds)} models has a finite prediction within {max_distance} of its truth."
        )
    best.sort(key=lambda item: item[0])
    rotations = Rotation.concatenate([rotation for _, kept in best[:models] for rotation in kept])
    mean = rotations.mean()
    spread = float(np.rad2deg(np.median((mean.inv() * rotations).magnitude())))
    message = "The frame of the predictions: %d rotations, half of them within %.1f degrees of their average."
    logger.log(logging.WARNING if spread > DISAGREEMENT else logging.INFO, message, len(rotations), spread)
    return torch.from_numpy(mean.as_matrix().T.copy()).to(clouds[0])


def register(source: Array, target: cKDTree, start: Rotation, max_distance: float) -> tuple[Rotation, float]:
    """Point-to-point ICP (Besl and McKay 1992): rotation and shift from `source` to the points of `target`.

    Each step matches every point with the nearest one within `max_distance`, and fits the matches by least squares.
    (`pytorch3d.ops.iterative_closest_point` has no bound on distances.) The shift is not returned.

    Args:
        source: (N, 3), finite.
        target: tree of (P, 3).
        start: the first rotation; the first shift is 0.
        max_distance: of points that are matched.

    Returns:
        The rotation, and the root mean squared distance of the points that have a match; infinite where fewer than 3
        have one, and the rotation is then the last that was found.
    """
    rotation, shift, error = start, np.zeros(3), np.inf
    for _ in range(ITERATIONS):
        moved = rotation.apply(source) + shift
        distances, nearest = map(np.asarray, target.query(moved, distance_upper_bound=max_distance, workers=-1))
        near = np.isfinite(distances)
        if near.sum() < 3:
            return rotation, np.inf
        before, error = error, float(np.sqrt(np.mean(distances[near] ** 2)))
        if abs(before - error) < SETTLED:
            break
        ours, theirs = source[near], target.data[nearest[near]]
        rotation, _ = Rotation.align_vectors(theirs - theirs.mean(axis=0), ours - ours.mean(axis=0))
        shift = theirs.mean(axis=0) - rotation.apply(ours.mean(axis=0))
    return rotation, error


def _check(*groups: Sequence[Tensor]) -> None:
    lengths = [len(group) for group in groups]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(f"fit_alignment: expected as many clouds, truths and poses, at least one, got {lengths}.")
    for cloud, truth, predicted, true in zip(*groups, strict=True):
        lead = cloud.shape[:1]
        clouds_fit = cloud.ndim == 3 and cloud.shape[2] == 3 and cloud.numel() > 0
        truth_fits = truth.ndim == 2 and truth.shape[1] == 3 and truth.numel() > 0
        if not (clouds_fit and truth_fits) or predicted.shape != (*lead, 4) or true.shape != (*lead, 4):
            raise ValueError(
                "fit_alignment: expected (V,N,3), (P,3), (V,4) and (V,4), none empty, got "
                f"{', '.join(str(tuple(value.shape)) for value in (cloud, truth, predicted, true))}."
            )


def _array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


def _rotation(quaternion: Array) -> Rotation:
    return Rotation.from_quat(quaternion, scalar_first=True)
