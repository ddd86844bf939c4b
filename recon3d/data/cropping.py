"""CMR's crop of an object out of a photograph: box, square, resized image and mask, key points and camera to match.

Below `recon3d.data.photographs`. Pure functions: what is random about a crop is drawn by the sampler and comes in as
numbers. The chain is that of Kanazawa et al. 2018 (CMR), which Li et al. 2020 (UMR) and Pavllo et al. 2020 share:

1. every side of the box moves out by `padding`, in training plus a jitter, times the box's width or height;
2. it is rounded to whole pixels, and the short side grows about the centre until the box is square;
3. what lies beyond the picture is filled: 1 (white) in images, 0 in masks;
4. bilinear to `size` pixels, without antialiasing (as cv2.resize); key points and camera go along.

Full-image coordinates are in pixels, 0-based, the centre of the first pixel at 0, boxes inclusive. A point k of the
crop, in its pixels, is at ``2k/size - 1`` of CMR's image coordinates, that is at NDC ``1 - 2k/size``. So key points
and cameras agree with each other, and lie half a pixel of the crop off the pixels' centres, as in CMR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from kornia.geometry.transform import hflip, resize
from torch import Tensor

from recon3d.structures import Camera

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in full-image pixels, 0-based, both ends inside."""


@dataclass(frozen=True)
class Crop:
    """A square of a picture, and what becomes of it.

    Attributes:
        left: first column, in full-image pixels; may lie outside.
        top: first row.
        side: columns, and rows.
        size: pixels of the result, each way.
        mirrored: the result is flipped left to right.
    """

    left: int
    top: int
    side: int
    size: int
    mirrored: bool = False

    @property
    def scale(self) -> float:
        """Pixels of the result to one of the picture."""
        return self.size / self.side


def square_crop(
    box: Box, size: int, padding: float = 0.05, shifts: Sequence[float] = (0, 0, 0, 0), mirrored: bool = False
) -> Crop:
    """The padded, jittered, rounded and squared crop of a box.

    Args:
        box: x1, y1, x2, y2.
        size: pixels of the result.
        padding: share of the box's width (height) by which each side moves out.
        shifts: further shares, of left, top, right and bottom, positive outwards.
        mirrored: flip the result.

    Raises:
        ValueError: an empty box, not finite, or one that padding and shifts leave empty.
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1 + 1, y2 - y1 + 1
    if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
        raise ValueError(f"Expected a box x1, y1, x2, y2 with x2 >= x1 and y2 >= y1, got {box}.")
    left, top, right, bottom = (padding + shift for shift in shifts)
    x1, x2 = _round(x1 - left * width), _round(x2 + right * width)
    y1, y2 = _round(y1 - top * height), _round(y2 + bottom * height)
    width, height = x2 - x1 + 1, y2 - y1 + 1
    if min(width, height) < 1:
        raise ValueError(f"Padding {padding} and shifts {tuple(shifts)} leave nothing of the box {box}.")
    side = max(width, height)
    return Crop(
        left=int(x1) - _round((side - width) / 2),
        top=int(y1) - _round((side - height) / 2),
        side=int(side),
        size=size,
        mirrored=mirrored,
    )


def _round(value: float) -> int:
    """To the nearest whole number, halves away from zero: Python 2's `round`, which CMR ran on."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def crop_pixels(pixels: np.ndarray, crop: Crop, fill: float) -> Tensor:
    """A crop of an image or a mask.

    Args:
        pixels: uint8 (H, W, C), 255 is 1.
        crop: where.
        fill: value beyond the picture, in [0, 1].

    Returns:
        (C, size, size) float32 in [0, 1].
    """
    height, width, channels = pixels.shape
    square = torch.full((channels, crop.side, crop.side), fill)
    rows = slice(max(crop.top, 0), max(min(crop.top + crop.side, height), 0))
    columns = slice(max(crop.left, 0), max(min(crop.left + crop.side, width), 0))
    inside = torch.from_numpy(pixels[rows, columns].copy()).permute(2, 0, 1).float() / 255
    y, x = max(-crop.top, 0), max(-crop.left, 0)
    square[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
    resized = resize(square[None], (crop.size, crop.size), interpolation="bilinear", align_corners=False)[0]
    return hflip(resized) if crop.mirrored else resized


def crop_keypoints(keypoints: np.ndarray, crop: Crop, mirror: Sequence[int]) -> Tensor:
    """Key points in the NDC of a crop.

    Args:
        keypoints: (K, 3): x, y in full-image pixels, and 1 for visible, 0 for not.
        crop: where.
        mirror: key point of the object that each one of the mirrored picture is.

    Returns:
        (K, 3) float32: x, y, visible; all 0 where not visible.
    """
    position = (keypoints[:, :2] - (crop.left, crop.top)) * crop.scale
    visible = keypoints[:, 2:] > 0
    if crop.mirrored:
        position = np.stack([crop.size - 1 - position[:, 0], position[:, 1]], axis=1)[list(mirror)]
        visible = visible[list(mirror)]
    ndc = np.where(visible, 1 - 2 * position / crop.size, 0.0)
    return torch.from_numpy(np.concatenate([ndc, visible], axis=1)).float()


def crop_camera(camera: Camera, crop: Crop) -> Camera:
    """The camera of a crop, from that of the full image.

    Args:
        camera: of the object frame, any leading shape. Its focal length and centre are in pixels: what it projects to
            is **minus** the full-image pixel (x, y), as NDC points left and up.
        crop: where. Mirrored, it sees the object reflected in its plane z = 0, CMR's x = 0: R becomes
            diag(1,1,-1) R diag(-1,1,1).
    """
    ndc = 2 * crop.scale / crop.size
    corner = camera.center.new_tensor([crop.left, crop.top])
    camera = replace(camera, focal=camera.focal * ndc, center=(camera.center + corner) * ndc + 1)
    if not crop.mirrored:
        return camera
    flip = camera.T.new_tensor([-1.0, 1.0, 1.0])
    # Column k of the crop becomes size - 1 - k: NDC changes its sign and moves by the width of a pixel.
    center = camera.center * flip[:2] + flip.new_tensor([2 / crop.size, 0.0])
    return replace(camera, R=flip.flip(0)[:, None] * camera.R * flip, T=camera.T * flip, center=center)


def mirror_points(points: Tensor) -> Tensor:
    """Points or normals (..., 3) of the object frame, reflected as `crop_camera` reflects the object."""
    return points * points.new_tensor([1.0, 1.0, -1.0])
