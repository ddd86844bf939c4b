"""Input checks that the rasterising kernels share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_faces(operation: str, name: str, faces: Tensor, coordinates: int, image_size: int) -> None:
    """Refuse anything but finite float (B,F,3,coordinates) and a positive image size.

    Raises:
        ValueError: wrong shape, dtype, image size, or NaN/inf; the message says what was expected and what came.
    """
    if faces.ndim != 4 or faces.shape[2:] != (3, coordinates):
        raise ValueError(f"{operation}: expected {name} of shape (B, F, 3, {coordinates}), got {tuple(faces.shape)}.")
    if faces.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{operation}: expected {name} in float32 or float64, got {faces.dtype}.")
    if image_size < 1:
        raise ValueError(f"{operation}: image_size must be at least 1, got {image_size}.")
    if not bool(torch.isfinite(faces).all()):
        bad = (~torch.isfinite(faces)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(
            f"{operation}: {name} holds NaN or inf in images {bad[:8]} of the batch; check the vertices and cameras."
        )
