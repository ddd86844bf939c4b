"""Cameras of pictures in pixels: from matrices in the OpenCV and the OpenGL convention; to the NDC of a square of one.

A pixel camera is a `structures.Camera` whose focal length and centre are in pixels: what it projects to is **minus**
the place (x, y) in the picture, as NDC points left and up. Places count from the upper left corner of it, so the
middle of the first pixel is at (0.5, 0.5), as in COLMAP, and that of the picture at (width / 2, height / 2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from recon3d.structures import Camera

MatrixConvention = Literal["opencv", "opengl"]

_AXES = {"opencv": (-1.0, -1.0, 1.0), "opengl": (-1.0, 1.0, -1.0)}  # of the view, in those of `structures`
_TOLERANCE = 1e-2  # of the rotation's rows against each other: two decimals of a file that is rounded


def matrix_cameras(matrices: Tensor, focal: Tensor, center: Tensor, convention: MatrixConvention) -> Camera:
    """Pixel cameras (N,) of world-to-camera matrices [R | t], which take a column of the world to ``R x + t``.

    Args:
        matrices: (N, 3, 4). The view has +x right; in ``opencv`` +y down and +z into the scene (OpenCV, COLMAP), in
            ``opengl`` +y up and +z towards the viewer (OpenGL, Blender, NeRF).
        focal: (N, 2) along x and y, in pixels.
        center: (N, 2) principal point, in pixels from the upper left corner.
        convention: of the matrices.

    Raises:
        ValueError: other shapes, a focal length that is not positive, or a matrix whose left part is no rotation; says
            which, and whether it is a reflection.
    """
    if matrices.shape[1:] != (3, 4) or focal.shape != (len(matrices), 2) or center.shape != focal.shape:
        raise ValueError(
            "matrix_cameras: expected matrices (N, 3, 4), focal and center (N, 2), got "
            f"{tuple(matrices.shape)}, {tuple(focal.shape)} and {tuple(center.shape)}."
        )
    rotation = matrices[:, :, :3]
    for index, one in enumerate(rotation):
        if not bool(torch.isfinite(matrices[index]).all()):
            raise ValueError(f"matrix {index}: expected finite numbers, got {matrices[index].tolist()}.")
        if not torch.allclose(one @ one.T, torch.eye(3).to(one), atol=_TOLERANCE):
            raise ValueError(f"matrix {index}: expected a rotation, whose rows are orthonormal, got {one.tolist()}.")
        if torch.linalg.det(one) < 0:
            raise ValueError(
                f"matrix {index}: the determinant is -1, so it reflects: it belongs to a left-handed world or image. "
                "Negate one axis of the world, or the row of the image axis that points the other way."
            )
    if not bool((focal > 0).all()):
        raise ValueError(f"expected positive focal lengths in pixels, got {focal.tolist()}.")
    axes = matrices.new_tensor(_AXES[convention])
    return Camera(R=rotation.transpose(1, 2) * axes, T=matrices[:, :, 3] * axes, focal=focal, center=-center)


def camera_matrices(camera: Camera, convention: MatrixConvention) -> Tensor:
    """World-to-camera matrices (N, 3, 4) of cameras (N,), the inverse of `matrix_cameras`."""
    axes = camera.T.new_tensor(_AXES[convention])
    return torch.cat([(camera.R * axes).transpose(1, 2), (camera.T * axes).unsqueeze(2)], dim=2)


def pixel_camera(camera: Camera, sizes: Tensor) -> Camera:
    """Pixel cameras of cameras whose NDC spans the longer side of pictures, about their middle.

    Args:
        camera: leading shape (N,).
        sizes: (N, 2) width and height of the pictures.
    """
    half = sizes.to(camera.T).amax(dim=1, keepdim=True) / 2
    return replace(camera, focal=camera.focal * half, center=camera.center * half - sizes.to(camera.T) / 2)


def square_camera(camera: Camera, squares: Tensor) -> Camera:
    """The cameras of squares that are cut out of pictures and resized to any size, in the NDC of the squares.

    Args:
        camera: pixel cameras (N,).
        squares: (N, 3): left, top and side in pixels; may lie between pixels, and beyond the picture.
    """
    scale = 2 / squares[:, 2:].to(camera.T)
    corner = squares[:, :2].to(camera.T)
    return replace(camera, focal=camera.focal * scale, center=(camera.center + corner) * scale + 1)
