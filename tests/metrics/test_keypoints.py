"""Key-point transfer against loops over pairs, key points, faces and texels, and against answers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recon3d.metrics.keypoints import (
    CameraTransfer,
    FlowTransfer,
    ProjectedVertices,
    Transfer,
    flow_choice,
    transfer_accuracy,
)

K = 5


def marks(count: int, seed: int = 0, seen: float = 0.7) -> Tensor:
    """Key points (count,K,3)."""
    generator = torch.Generator().manual_seed(seed)
    place = 1.2 * torch.rand(count, K, 2, generator=generator) - 0.6
    visible = (torch.rand(count, K, 1, generator=generator) < seen).float()
    return torch.cat([place * visible, visible], dim=-1)


def pairs_of(count: int) -> list[tuple[int, int]]:
    rng = np.random.RandomState(count)
    return [(int(i), int(j)) for i, j in rng.randint(0, count, (10_000, 2))]


def by_hand(carry, keypoints: list[list[list[float]]], count: int) -> tuple[float, int]:
    """PCK@0.1 by loops; `carry(i, j, k)` is where key point k of image i lands in image j."""
    right, total, scored = [0] * K, [0] * K, 0
    for i, j in pairs_of(count):
        if i == j:
            continue
        common = [k for k in range(K) if keypoints[i][k][2] and keypoints[j][k][2]]
        scored += bool(common)
        for source, to in ((i, j), (j, i)):
            for k in common:
                x, y = carry(source, to, k)
                error = math.hypot(x - keypoints[to][k][0], y - keypoints[to][k][1])
                total[k] += 1
                right[k] += error * (1 + 2 * 0.05) / 2 < 0.1
    shares = [r / t for r, t in zip(right, total, strict=True) if t]
    return sum(shares) / len(shares), scored


def test_flow_transfer_is_that_of_the_protocol() -> None:
    count, faces, texels = 6, 11, 4
    keypoints = marks(count)
    flow = 1.2 * torch.rand(count, faces, texels, 2, generator=torch.Generator().manual_seed(1)) - 0.6
    # Most faces lie near a key point, so that some transfers are right and some are not.
    flow[:, :K] = keypoints[:, :, None, :2] + 0.1 * torch.randn(
        count, K, texels, 2, generator=torch.Generator().manual_seed(2)
    )
    points, lists = flow.tolist(), keypoints.tolist()
    sigma = 3 * 2 / 256

    def carry(i: int, j: int, k: int) -> tuple[float, float]:
        def response(face: list[list[float]]) -> float:
            squares = [(x - lists[i][k][0]) ** 2 + (y - lists[i][k][1]) ** 2 for x, y in face]
            return sum(math.exp(-square / (2 * sigma**2)) for square in squares) / texels

        answers = [response(face) for face in points[i]]
        chosen = points[j][answers.index(max(answers))]
        return sum(x for x, _ in chosen) / texels, sum(y for _, y in chosen) / texels

    metric = FlowTransfer()
    kept = [*metric.keep(flow[:2], keypoints[:2]), *metric.keep(flow[2:], keypoints[2:])]
    score = metric.compute(kept)
    assert (score.value, score.n) == pytest.approx(by_hand(carry, lists, count))
    assert 0.2 < score.value < 0.95


def test_camera_transfer_is_that_of_the_protocol() -> None:
    count, vertices = 5, 30
    keypoints = marks(count, seed=3)
    xy = 1.2 * torch.rand(count, vertices, 2, generator=torch.Generator().manual_seed(4)) - 0.6
    xy[:, :K] = keypoints[..., :2] + 0.08 * torch.randn(count, K, 2, generator=torch.Generator().manual_seed(5))
    snapped = xy + 0.05
    first, second, lists = xy.tolist(), snapped.tolist(), keypoints.tolist()

    def carry(i: int, j: int, k: int) -> list[float]:
        distances = [math.hypot(x - lists[i][k][0], y - lists[i][k][1]) for x, y in first[i]]
        return second[j][distances.index(min(distances))]

    metric = CameraTransfer()
    score = metric.compute(metric.keep(ProjectedVertices(xy, snapped, 7), keypoints))
    assert (score.value, score.n) == pytest.approx(by_hand(carry, lists, count))
    assert 0.2 < score.value < 0.95


def test_perfect_surfaces_carry_every_key_point_and_shifted_ones_as_far_as_allowed() -> None:
    keypoints = marks(8, seen=1.0)
    metric = FlowTransfer()
    # The bound, 0.1 sides of the box, in NDC of a crop that is 1.1 sides wide and 2 NDC.
    bound = 0.1 * 2 / 1.1
    for shift, value in ((0.0, 1.0), (0.99 * bound, 1.0), (1.01 * bound, 0.0)):
        flow = keypoints[:, :, None, :2].expand(-1, -1, 3, -1)
        kept = metric.keep(flow, keypoints)
        moved = [one._replace(places=one.places + np.float32([shift, 0])) for one in kept]
        assert metric.compute(moved).value == value


def test_every_key_point_counts_the_same_however_often_it_is_seen() -> None:
    places = np.zeros((2, 2), np.float32)
    places[1] = 9  # far from any mark
    always, once = [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]
    images = [Transfer(np.array([0, 1], np.int32), places, np.float32([always, once]), 0) for _ in range(20)]
    # The second key point, carried to a wrong place, is seen in two images only.
    images[:2] = [one._replace(keypoints=np.float32([always, always])) for one in images[:2]]
    assert transfer_accuracy(images).value == pytest.approx(0.5)


def test_a_failed_prediction_carries_nothing_and_receives_nothing() -> None:
    keypoints = marks(3, seen=1.0)
    flow = keypoints[:, :, None, :2].repeat(1, 1, 3, 1)
    flow[1] = torch.nan
    metric = FlowTransfer()
    involved = [1 in pair for pair in pairs_of(3) if pair[0] != pair[1]]
    score = metric.compute(metric.keep(flow, keypoints))
    assert score.n == len(involved)
    assert score.value == pytest.approx(1 - np.mean(involved))


def test_a_distant_key_point_chooses_the_nearest_face_all_the_same() -> None:
    flow = torch.tensor([[[[0.9, 0.9]] * 2, [[0.5, 0.5]] * 2, [[-0.9, 0.9]] * 2]])
    # At this distance the Gaussian is 0 in float32.
    assert flow_choice(flow, torch.tensor([[[-0.5, -0.5], [0.9, 0.8]]])).tolist() == [[1, 0]]


def test_what_cannot_be_scored_says_why() -> None:
    keypoints = marks(2, seen=1.0)
    metric = CameraTransfer()
    xy = torch.rand(2, 4, 2)
    one, two = (metric.keep(ProjectedVertices(xy, xy, topology), keypoints) for topology in (1, 2))
    other = metric.keep(ProjectedVertices(xy[:, :3], xy[:, :3], 1), keypoints)
    for mixed in (one + two, one + other):
        score = metric.compute(mixed)
        assert score.value is None and "same vertices and faces" in str(score.note)
    assert metric.compute(one[:1]).note == metric.compute([]).note == "transfer needs two samples"
    blind = metric.keep(ProjectedVertices(xy, xy, 1), keypoints * torch.tensor([1.0, 1.0, 0.0]))
    assert metric.compute(blind) == (None, 0, "no two samples have a key point in common")
