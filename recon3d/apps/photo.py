"""Photographs to what methods are trained on: a square picture of one object.

For methods trained on renders the object is cut out and framed as the renders are; for methods trained on photographs
the background stays, and the frame is that of `recon3d.data.cropping`, which the training sets go through. Image files
come in here, `recon3d.apps.predict` gives the result to a method.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from recon3d.apps.background import BackgroundRemover
from recon3d.data.cropping import crop_pixels, square_crop
from recon3d.data.picture_files import OPAQUE, cut_square, has_mask, mask_box, on_white, open_image, read_mask_of

logger = logging.getLogger(__name__)

# The framing of the training renders, measured on the 9,696 renders of open_shapes: the longer side of the mask's
# bounding box is 0.680 of the image (sd 0.128), its centre lies at column 0.500 and row 0.525 on average. On 1,440
# renders of the synthetic set: 0.653, 0.500, 0.530.
FILL = 0.68
CENTER_ROW = 0.525


@dataclass(frozen=True)
class Photo:
    """One object, ready for a method.

    Attributes:
        path: the file it came from.
        image: (3, S, S) float32 in [0, 1], straight colours, black where the mask is 0 unless `background`.
        mask: (1, S, S) float32 in [0, 1]; None if there is none, then `image` is the whole picture.
        background: `image` shows what is around the object too.
    """

    path: Path
    image: Tensor
    mask: Tensor | None
    background: bool = False


def read_photo(
    path: Path,
    size: int,
    mask_path: Path | None = None,
    background: bool = False,
    remover: BackgroundRemover | None = None,
) -> Photo:
    """Read an image and frame the object as the method's training set does.

    Any mode of any size; EXIF rotation is applied. The mask is the mask file if one is given, else the alpha channel,
    else what `remover` finds; an alpha channel that is opaque everywhere is no mask.

    - Cut out, as in renders: the object's bounding box is centred in a square that its longer side fills to `FILL`, and
      resized with an area filter on premultiplied colours. A picture without a mask is padded to a square with black.
      An RGBA file of exactly S x S pixels with a mask of its own is taken for a render and goes through unchanged.
    - With `background`: the square crop of the object's bounding box, which grows by 5 % on each side, as in training.
      A picture without a mask is taken whole, with a warning. What is transparent, or beyond the picture, is white.

    Args:
        path: of the image.
        size: S, pixels.
        mask_path: grey image of the photo's size, the object in white, or an image whose alpha channel is the mask.
        background: keep what is around the object.
        remover: finds the object where no mask is given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no image, is damaged or too large; a mask that is empty or of another size.
    """
    picture = open_image(path)
    rgba = picture.convert("RGBA")
    seen = on_white(rgba)
    if mask_path is not None:
        rgba.putalpha(read_mask_of(mask_path, rgba, path))
    elif not has_mask(rgba):
        if remover is None:
            if background:
                logger.warning(
                    "%s has no mask: the whole picture is taken, and the object should fill it, as in training. Give a "
                    "mask with --mask, or a network that finds the object with --remove-background MODEL.onnx.",
                    path,
                )
            fill, side = "white" if background else "black", max(rgba.size)
            square = ImageOps.pad(seen, (side, side), color=fill)
            return Photo(path, _to_tensor(square.resize((size, size), Image.Resampling.HAMMING)), None, background)
        rgba.putalpha(remover(seen))
    foreground = np.asarray(rgba.getchannel("A")) >= OPAQUE
    if not foreground.any():
        peak = np.asarray(rgba.getchannel("A")).max()
        raise ValueError(
            f"{mask_path or path}: the mask is empty; the object should be 255 (white, opaque), the highest is {peak}."
        )
    if foreground.all():
        logger.warning("%s: the mask covers the whole picture.", mask_path or path)
    if background:
        return _crop(path, seen, rgba.getchannel("A"), size)
    if mask_path is not None or picture.mode != "RGBA" or picture.size != (size, size):
        rgba = _frame(rgba, foreground, size)
    pixels = _to_tensor(rgba)
    return Photo(path, pixels[:3] * (pixels[3:] > 0), pixels[3:])


def _crop(path: Path, picture: Image.Image, mask: Image.Image, size: int) -> Photo:
    """The crop of the training sets; a picture much larger than theirs is first made smaller by whole factors."""
    crop = square_crop(mask_box(np.asarray(mask) >= OPAQUE), size)
    factor = max(crop.side // size, 1)  # the crop resizes without a filter, which would let fine patterns through
    if factor > 1:
        picture, mask = picture.reduce(factor), mask.reduce(factor)
        crop = replace(crop, left=crop.left // factor, top=crop.top // factor, side=crop.side // factor)
    return Photo(
        path,
        crop_pixels(np.array(picture), crop, fill=1.0),
        crop_pixels(np.array(mask)[..., None], crop, fill=0.0),
        background=True,
    )


def _frame(rgba: Image.Image, foreground: np.ndarray, size: int) -> Image.Image:
    left, top, right, bottom = mask_box(foreground)
    right, bottom = right + 1, bottom + 1
    side = max(right - left, bottom - top) / FILL
    x, y = (left + right - side) / 2, (top + bottom) / 2 - CENTER_ROW * side
    return cut_square(rgba, x, y, side, size)


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
