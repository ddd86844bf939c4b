"""The usual mistakes in tables of cameras, and how to undo each on masks and cameras, to see whether they then agree.

Used by `camera_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from recon3d.data.camera_table import Convention
from recon3d.geometry.pixel_cameras import MatrixConvention, camera_matrices, matrix_cameras
from recon3d.structures import Camera

Undo = Callable[[np.ndarray, Camera], tuple[np.ndarray, Camera]]
CONVENTIONS: tuple[MatrixConvention, ...] = ("opencv", "opengl")


def camera_mistakes(convention: Convention) -> Iterator[tuple[str, Undo]]:
    """Ways in which cameras may deviate from the convention that is stated: in words, and how to undo them."""
    yield "the pictures are mirrored, or the world is left-handed (azimuths the other way round)", _flip(2, (-1.0, 1.0))
    yield "the elevations (the up axis) count downwards", _flip(1, (1.0, -1.0))
    if convention == "look_at":
        return
    for other in CONVENTIONS:
        for form, words in (
            ("", "from world to camera"),
            ("inverse", "from camera to world"),
            ("transposed", "transposed in their rotation"),
        ):
            if form or other != convention:
                yield f"the matrices are {words}, {other}", _reread(convention, other, form)


def _flip(axis: int, signs: tuple[float, float]) -> Undo:
    def undo(masks: np.ndarray, cameras: Camera) -> tuple[np.ndarray, Camera]:
        return np.flip(masks, axis).copy(), replace(cameras, center=cameras.center * torch.tensor(signs))

    return undo


def _reread(stated: MatrixConvention, convention: MatrixConvention, form: str) -> Undo:
    def undo(masks: np.ndarray, cameras: Camera) -> tuple[np.ndarray, Camera]:
        matrices = camera_matrices(cameras, stated)
        rotation, shift = matrices[..., :3], matrices[..., 3:]
        if form:
            rotation = rotation.transpose(1, 2)
        if form == "inverse":
            shift = -rotation @ shift
        read = torch.cat([rotation, shift], dim=2)
        return masks, matrix_cameras(read, cameras.focal, -cameras.center, convention)

    return undo
