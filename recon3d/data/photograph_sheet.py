"""The contact sheet of photographs: crops as training sees them, with what is known of each object drawn over it.

Used by `photograph_checks`. Yellow: outline of the mask. Green rings: visible key points. Red crosses: where the camera
sees the mean key points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from recon3d.data.alignment import CAPTION, TILE
from recon3d.data.photograph_sampling import Draw
from recon3d.data.photographs import PhotographDataset
from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_to_object

LEGEND = (
    "yellow: mask; green: key points; red: mean key points as the camera sees them, which have to be near the green"
)
RING, CROSS, OUTLINE = (0, 255, 0), (255, 0, 0), (255, 255, 0)
_REACH = 2  # pixels from the middle of a mark


def picture_row(dataset: PhotographDataset, numbers: Sequence[int]) -> list[Image.Image]:
    """A picture of each of some photographs of a data set whose crops have `alignment.TILE` pixels."""
    return [_picture(dataset, number) for number in numbers]


def _picture(dataset: PhotographDataset, number: int) -> Image.Image:
    batch = dataset[Draw(number)]
    pixels = (batch.images[0, 0].permute(1, 2, 0) * 255).round().byte().numpy()
    mask = batch.masks[0, 0, 0].numpy() >= 0.5
    pixels[mask & ~ndimage.binary_erosion(mask)] = OUTLINE
    crop = Image.fromarray(pixels)
    draw = ImageDraw.Draw(crop)
    shape = None if dataset.keypoints is None else dataset.keypoints.shape
    if batch.cameras is not None and shape is not None:
        seen = project(batch.cameras[0], cmr_to_object(torch.from_numpy(shape)).float())[0, :, :2]
        for u, v in _pixels(seen):
            draw.line((u - _REACH, v, u + _REACH, v), fill=CROSS)
            draw.line((u, v - _REACH, u, v + _REACH), fill=CROSS)
    if batch.keypoints is not None:
        points = batch.keypoints[0, 0]
        for u, v in _pixels(points[points[:, 2] > 0, :2]):
            draw.ellipse((u - _REACH, v - _REACH, u + _REACH, v + _REACH), outline=RING)
    picture = Image.new("RGB", (TILE, TILE + CAPTION))
    picture.paste(crop)
    name = dataset.photographs[number].id.rsplit("/", 1)[-1]
    ImageDraw.Draw(picture).text((1, TILE + 1), name[-20:], fill=(255, 255, 255), font_size=10)
    return picture


def _pixels(ndc: Tensor) -> list[list[float]]:
    """Pixels (N, 2) of a crop of places in its NDC, by the rule of `cropping`."""
    pixels: list[list[float]] = ((1 - ndc) * TILE / 2).tolist()
    return pixels
