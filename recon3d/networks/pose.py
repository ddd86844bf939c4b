"""Pose networks: from the features of an image encoder to the quaternions that `geometry.poses` makes cameras of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Poses(NamedTuple):
    """Quaternions of B images, w first, of any length but 0, each meaning the rotation from world to view.

    Attributes:
        candidates: (B, K, 4).
        student: (B, 4), the answer when there is more than one candidate; None for K = 1.
    """

    candidates: Tensor
    student: Tensor | None

    @property
    def answer(self) -> Tensor:
        """(B, 4): what the network says without ground truth; the student, or the only candidate."""
        return self.candidates[:, 0] if self.student is None else self.student


class PoseEnsemble(nn.Module):
    """Several guesses of the camera of an image, and a student that learns which of them is right.

    A linear layer with ReLU makes pose features; each of K candidates and the student is then an MLP of its own, of two
    hidden layers with LeakyReLU(0.2). One candidate is a single linear layer, and there is no student.

    Source: Insafutdinov and Dosovitskiy 2018 (DPC) and its code, which Zubic and Lio 2021 take over. There the features
    are those of the encoder's second linear layer, before the shape code; here they are what the caller passes, and to
    pass the shape code is a deviation of the caller.

    Deviation: the last layers start small, with biases that are orthogonal in fours, that is rotations half a turn
    apart, where the authors' start by He's rule. With that, two of four candidates began 50 degrees apart in half of
    20 seeds, and 15 in the worst.

    Args:
        code: size of the encoder's features.
        candidates: K; 4 in the paper.
        hidden: size of the hidden layers of candidates and student; 32 in the code.
        features: size of the pose features; 1024 in the code.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, code: int = 1024, candidates: int = 4, hidden: int = 32, features: int = 1024) -> None:
        super().__init__()
        if min(code, candidates, hidden, features) < 1:
            raise ValueError(
                "PoseEnsemble: expected sizes of at least 1, got "
                f"code {code}, candidates {candidates}, hidden {hidden}, features {features}."
            )
        self.features = nn.Sequential(_he(nn.Linear(code, features)), nn.ReLU(inplace=True))
        branches = 1 if candidates == 1 else candidates + 1
        spread = torch.cat([nn.init.orthogonal_(torch.empty(4, 4)) for _ in range(-(-branches // 4))])
        layers = [_head(nn.Linear(features if branches == 1 else hidden, 4), row) for row in spread[:branches]]
        if branches > 1:
            layers = [_branch(features, hidden, last) for last in layers]
        self.candidates = nn.ModuleList(layers[:candidates])
        self.student = layers[candidates] if branches > 1 else None

    def forward(self, code: Tensor) -> Poses:
        """Quaternions of features (B, code)."""
        features = self.features(code)
        candidates = torch.stack([branch(features) for branch in self.candidates], dim=1).float()
        return Poses(candidates, None if self.student is None else self.student(features).float())


def _branch(features: int, hidden: int, last: nn.Module) -> nn.Module:
    first, second = _he(nn.Linear(features, hidden)), _he(nn.Linear(hidden, hidden))
    return nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), second, nn.LeakyReLU(0.2, inplace=True), last)


def _he(layer: nn.Linear) -> nn.Linear:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _head(layer: nn.Linear, start: Tensor) -> nn.Module:
    nn.init.normal_(layer.weight, std=0.025)
    with torch.no_grad():
        layer.bias.copy_(start)
    return layer
