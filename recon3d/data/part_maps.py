"""Part maps of photographs: SCOPS's, made offline, and soft ones from key points; put into the frame of a crop.

Below `recon3d.data.photographs`. SCOPS (Hung et al. 2019) leaves, for each picture, an array (256, 256, 5) of its crop,
channel 0 the background; parts 1 to 4 are head, neck, back and belly for the weights that UMR (Li et al. 2020) used,
in which order depends on the weights. Nothing here runs SCOPS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from kornia.geometry.transform import hflip, warp_affine
from torch import Tensor

from recon3d.data.cropping import Box, Crop, square_crop
from recon3d.data.npz import DataFileError, reading

PART_NAMES = ("background", "head", "neck", "back", "belly")
KEYPOINT_SPREAD = 0.2  # standard deviation in NDC of a key point's claim to the pixels around it: ours
_CMR_PADDING = 0.05  # of the crops that SCOPS's script takes


def read_part_map(path: Path, picture: tuple[int, int], box: Box) -> tuple[Tensor, Box]:
    """A part map, and the box of the picture that it covers.

    Args:
        path: an .npy of (h, w, C): of the whole picture if (h, w) is its size, else of the square that
            `cropping.square_crop` takes with 5 % padding, which is what SCOPS's script saves but for a jitter of up to
            5 % that it does not. Or an .npz of ``parts`` (h, w, C) and ``box`` (x1, y1, x2, y2), 0-based, inclusive.
        picture: width and height.
        box: of the object.

    Returns:
        (C, h, w) float32 in [0, 1], and the box.

    Raises:
        DataFileError: missing, damaged, of another shape, values outside [0, 1], or a size that fits both readings.
    """
    if not path.is_file():
        raise DataFileError(f"{path}: no such part map. Save SCOPS's there, or choose parts: keypoints or none.")
    with reading(path, "an .npy, or an .npz with 'parts' and 'box'"):
        content = np.load(path, allow_pickle=False)
        covered = None if isinstance(content, np.ndarray) else np.asarray(content["box"], np.float64)
        parts = content if isinstance(content, np.ndarray) else content["parts"]
    if parts.ndim != 3 or parts.dtype.kind != "f" or parts.shape[2] < 2:
        raise DataFileError(f"{path}: expected floats (h, w, C), C at least 2, got {parts.dtype} {parts.shape}.")
    if not (parts.min() >= -1e-4 and parts.max() <= 1 + 1e-4):
        raise DataFileError(
            f"{path}: expected values in [0, 1], got {parts.min()} to {parts.max()}. Logits (SCOPS's folder prob) are "
            "no part maps; take dcrf_prob."
        )
    values = torch.from_numpy(np.ascontiguousarray(parts.transpose(2, 0, 1))).float().clamp(0, 1)
    if covered is not None:
        if covered.shape != (4,) or not (covered[2:] >= covered[:2]).all():
            raise DataFileError(f"{path}: expected a box x1, y1, x2, y2, got {covered.tolist()}.")
        return values, tuple(covered.tolist())
    height, width = parts.shape[:2]
    if (width, height) != picture:
        if width != height:
            raise DataFileError(
                f"{path}: expected a map of the whole picture, {picture[1]}x{picture[0]}, or a square one of the crop, "
                f"got {height}x{width}. Save others as .npz with 'parts' and 'box'."
            )
        crop = square_crop(box, width, _CMR_PADDING)
        return values, (crop.left, crop.top, crop.left + crop.side - 1, crop.top + crop.side - 1)
    if width == height:
        raise DataFileError(
            f"{path}: a map as large as the square picture could be of it or of the crop. Save it as .npz with "
            "'parts' and 'box'."
        )
    return values, (0, 0, width - 1, height - 1)


def crop_part_map(parts: Tensor, covered: Box, crop: Crop) -> Tensor:
    """A part map in the frame of a crop, by bilinear interpolation; all background where the map does not reach.

    Args:
        parts: (C, h, w), channel 0 the background.
        covered: box of the picture that it covers.
        crop: where.

    Returns:
        (C, size, size).
    """
    x1, y1, x2, y2 = covered
    transform = torch.zeros(1, 2, 3, dtype=torch.float64)
    for axis, (first, last, pixels, corner) in enumerate(
        ((x1, x2, parts.shape[2], crop.left), (y1, y2, parts.shape[1], crop.top))
    ):
        cell = (last - first + 1) / pixels  # picture pixels to one of the map; pixels are centred at whole numbers
        transform[0, axis, axis] = cell * crop.scale
        transform[0, axis, 2] = (first + cell / 2 - corner) * crop.scale - 0.5
    # What lies beyond a map is read as 0, so the background goes through as its opposite.
    opposite = torch.cat([1 - parts[:1], parts[1:]])
    warped = warp_affine(
        opposite[None], transform.float(), (crop.size, crop.size), padding_mode="zeros", align_corners=True
    )[0]
    warped = torch.cat([1 - warped[:1], warped[1:]])
    return hflip(warped) if crop.mirrored else warped


def keypoint_parts(
    keypoints: Tensor, names: Sequence[str], groups: Mapping[str, Sequence[str]], mask: Tensor
) -> Tensor:
    """Pseudo-parts: the pixels of the mask, shared softly among the groups of visible key points.

    Every key point claims a pixel as a Gaussian of its distance, `KEYPOINT_SPREAD` wide; a part has its share of all
    claims. Nothing but key points and masks goes in.

    Args:
        keypoints: (K, 3): x, y in NDC, visible.
        names: of the K key points.
        groups: {part: names of its key points}, parts in the order of the channels.
        mask: (1, S, S) in [0, 1].

    Returns:
        (1 + parts, S, S) of sum 1; channel 0 is the background, and all of a picture without visible key points.
    """
    size = mask.shape[-1]
    centers = 1 - (2 * torch.arange(size) + 1) / size
    squared = (centers - keypoints[:, :1]).square()[:, None] + (centers - keypoints[:, 1:2]).square()[:, :, None]
    visible = keypoints[:, 2] > 0
    used = torch.tensor([any(name in members for members in groups.values()) for name in names])
    if not (visible & used).any():
        return torch.cat([torch.ones_like(mask), mask.new_zeros(len(groups), size, size)])
    claims = (-squared / (2 * KEYPOINT_SPREAD**2)).masked_fill(~(visible & used)[:, None, None], -torch.inf).softmax(0)
    shares = [claims[[names.index(name) for name in members]].sum(0) for members in groups.values()]
    return torch.cat([1 - mask, torch.stack(shares) * mask])
