"""Photographs to what methods are trained on: a square picture of one object.

For methods trained on renders the object is cut out and framed as the renders are; for methods trained on photographs
the background stays, and the frame is that of `recon3d.data.cropping`, which the training sets go through. Image files
come in here, `recon3d.apps.predict` gives the result to a method.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from recon3d.apps.background import BackgroundRemover
from recon3d.data.cropping import crop_pixels, square_crop

logger = logging.getLogger(__name__)

# The framing of the training renders, measured on the 9,696 renders of open_shapes: the longer side of the mask's
# bounding box is 0.680 of the image (sd 0.128), its centre lies at column 0.500 and row 0.525 on average. On 1,440
# renders of the synthetic set: 0.653, 0.500, 0.530.
FILL = 0.68
CENTER_ROW = 0.525
OPAQUE = 128  # of 255; a pixel of at least this alpha belongs to the object


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
    seen = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if mask_path is not None:
        rgba.putalpha(_read_mask(mask_path, rgba, path))
    elif not _has_mask(rgba):
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


def open_image(path: Path) -> Image.Image:
    """The first frame of an image file, upright, with 8 bits per channel.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or a damaged or too large one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No image at {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                return _eight_bits(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that can be read; expected PNG, JPEG, WebP or TIFF.") from error
    except Exception as error:  # decoders of damaged files raise SyntaxError, struct.error and others
        raise ValueError(f"{path} cannot be read: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion cuts at 255 instead."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"expected 16-bit pixels, got values from {values.min()} to {values.max()}")
        return Image.fromarray((values / 257).round().astype(np.uint8))
    return image


def _read_mask(mask_path: Path, photo: Image.Image, path: Path) -> Image.Image:
    mask = open_image(mask_path)
    if mask.size != photo.size:
        raise ValueError(
            f"{mask_path} is {mask.width}x{mask.height} pixels, its photo {path} {photo.width}x{photo.height} "
            "(both turned upright by their EXIF tags); they have to be equal."
        )
    rgba = mask.convert("RGBA")
    return rgba.getchannel("A") if _has_mask(rgba) else mask.convert("L")


def _has_mask(rgba: Image.Image) -> bool:
    return bool((np.asarray(rgba.getchannel("A")) < OPAQUE).any())


def _crop(path: Path, picture: Image.Image, mask: Image.Image, size: int) -> Photo:
    """The crop of the training sets; a picture much larger than theirs is first made smaller by whole factors."""
    crop = square_crop(_box(np.asarray(mask) >= OPAQUE), size)
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


def _box(foreground: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column and row, x1, y1, x2, y2, of what is True."""
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _frame(rgba: Image.Image, foreground: np.ndarray, size: int) -> Image.Image:
    left, top, right, bottom = _box(foreground)
    right, bottom = right + 1, bottom + 1
    side = max(right - left, bottom - top) / FILL
    x, y = (left + right - side) / 2, (top + bottom) / 2 - CENTER_ROW * side
    # The square may lie between pixels and beyond the picture: cut whole pixels (what is outside is transparent), then
    # resample the square within them. Pillow premultiplies alpha when it resizes.
    outer = (math.floor(x), math.floor(y), math.ceil(x + side), math.ceil(y + side))
    cut = rgba.crop(outer)
    box = (x - outer[0], y - outer[1], min(x - outer[0] + side, cut.width), min(y - outer[1] + side, cut.height))
    return cut.resize((size, size), Image.Resampling.HAMMING, box=box)


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
