"""Losses of unknown cameras: the best of several candidates, and the student that learns to name it.

Data flow: `networks.pose.PoseEnsemble` gives candidates, a method measures the error of the shape seen from each, and
the winner teaches the student, which is the answer at test time.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hindsight_loss(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest error of K candidates; only the winner of each sample gets a gradient.

    Source: the pose ensemble of Insafutdinov and Dosovitskiy 2018 (DPC).

    Args:
        errors: (..., K) of the candidates; K may be 1.

    Returns:
        (...) the error of the winner, and (...) its index, int64. A NaN wins, so that it is seen.

    Raises:
        ValueError: no candidates.
    """
    if errors.ndim < 1 or errors.shape[-1] < 1:
        raise ValueError(
            f"hindsight_loss: expected errors (..., K) of at least 1 candidate, got {tuple(errors.shape)}."
        )
    best = errors.min(dim=-1)
    return best.values, best.indices


def winning(candidates: Tensor, winner: Tensor) -> Tensor:
    """Pick each sample's winner: (..., D) of candidates (..., K, D), such as quaternions, and indices (...) in 0..K-1.

    Raises:
        ValueError: shapes that do not fit.
    """
    if candidates.ndim < 2 or candidates.shape[:-2] != winner.shape:
        raise ValueError(
            f"winning: expected candidates (..., K, D) and indices (...), got {tuple(candidates.shape)} and "
            f"{tuple(winner.shape)}."
        )
    return candidates.take_along_dim(winner[..., None, None], dim=-2).squeeze(-2)


def student_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of ``1 - Re(t conj(s))^2`` of the student's and the teacher's unit quaternions.

    It is the squared sine of half the angle between the two rotations, in [0, 1]; q and -q are the same rotation, and
    have the same loss. Source: the code of Insafutdinov and Dosovitskiy 2018 (DPC), where it is weighted by 20.

    Args:
        student: (..., 4), w first, normalised here.
        teacher: (..., 4), w first, normalised here and taken as a constant.

    Raises:
        ValueError: shapes that differ or do not end in 4.
    """
    if student.shape != teacher.shape or student.shape[-1:] != (4,):
        raise ValueError(
            f"student_loss: expected two tensors (..., 4), got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=-1).square()).mean()
