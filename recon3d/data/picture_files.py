"""Image files of any mode to upright pictures of 8 bits, their masks, and squares cut out of them.

What `recon3d.apps.photo` does to a photograph that is predicted from and `image_folder` to those that are trained on.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

OPAQUE = 128  # of 255; a pixel of at least this alpha belongs to the object


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


def on_white(rgba: Image.Image) -> Image.Image:
    """An RGBA picture as RGB, white where it is transparent."""
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def read_mask_of(mask_path: Path, photo: Image.Image, path: Path) -> Image.Image:
    """The mask of a picture, grey of 8 bits: the alpha channel of the mask's file if it has one, else its brightness.

    Args:
        mask_path: its file.
        photo: the picture.
        path: of the picture, for the error.

    Raises:
        FileNotFoundError: as `open_image`.
        ValueError: as `open_image`, or another size than the picture's.
    """
    mask = open_image(mask_path)
    if mask.size != photo.size:
        raise ValueError(
            f"{mask_path} is {mask.width}x{mask.height} pixels, its photo {path} {photo.width}x{photo.height} "
            "(both turned upright by their EXIF tags); they have to be equal."
        )
    rgba = mask.convert("RGBA")
    return rgba.getchannel("A") if has_mask(rgba) else mask.convert("L")


def has_mask(rgba: Image.Image) -> bool:
    """Whether the alpha channel is a mask: one that is opaque everywhere is none."""
    return bool((np.asarray(rgba.getchannel("A")) < OPAQUE).any())


def mask_box(foreground: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column and row, x1, y1, x2, y2, of what is True in (H, W)."""
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def cut_square(rgba: Image.Image, left: float, top: float, side: float, size: int) -> Image.Image:
    """A square of an RGBA picture, resized to `size` pixels with an area filter on premultiplied colours.

    The square, in pixels from the upper left corner, may lie between pixels and beyond the picture, where it is
    transparent.
    """
    # Cut whole pixels, then resample the square within them. Pillow premultiplies alpha when it resizes.
    outer = (math.floor(left), math.floor(top), math.ceil(left + side), math.ceil(top + side))
    cut = rgba.crop(outer)
    x, y = left - outer[0], top - outer[1]
    box = (x, y, min(x + side, cut.width), min(y + side, cut.height))
    return cut.resize((size, size), Image.Resampling.HAMMING, box=box)
