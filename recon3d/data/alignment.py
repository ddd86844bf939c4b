"""Do the images, the cameras and the ground-truth shape of a data set agree? Scores, a diagnosis, and a picture.

Used by `checking`. The ground truth is projected through the cameras that training will use and compared with the
masks. A number alone does not tell a mirrored frame from a right one on shapes that are nearly symmetric, so the usual
mistakes are tried as well: where one of them fits better than the convention, it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.structures import Camera

TILE = 128  # pixels of a picture on the contact sheet
CAPTION = 14  # pixels below it
OUTLINE = (0, 255, 0)
# Chosen on 60 open shapes of 10 categories, 8 views: undoing a mistake that was not made never gained more than 0.0005
# for any of them, and lost 0.09 on average (0.01 for a negated z: most shapes have that symmetry).
DECISIVE = 0.02


@dataclass(frozen=True)
class Fit:
    """How well a shape covers the masks.

    Attributes:
        inside: fraction of the projected points that land on the mask, or within the tolerance of it.
        covered: fraction of the mask's pixels that a projected point hits, or within the tolerance.
    """

    inside: float
    covered: float

    @property
    def score(self) -> float:
        """The mean of both."""
        return (self.inside + self.covered) / 2


@dataclass(frozen=True)
class Mistake:
    """A way in which data may deviate from the convention: how to undo it on the points and on the screen.

    Cameras that are turned about the up axis see what the right ones see of points turned the other way.
    """

    points: Callable[[Tensor], Tensor] = lambda points: points
    mirrored: bool = False


def _take(*axes: int, signs: tuple[int, int, int] = (1, 1, 1)) -> Callable[[Tensor], Tensor]:
    return lambda points: points[..., list(axes)] * points.new_tensor(signs)


FRAME_MISTAKES = {
    "the images are mirrored left to right": Mistake(mirrored=True),
    "the azimuth runs the other way (view k of NMR is at +15 k degrees)": Mistake(
        points=_take(0, 1, 2, signs=(-1, 1, 1)), mirrored=True
    ),
    "z of the shapes is negated (NMR's left-handed frame)": Mistake(points=_take(0, 1, 2, signs=(1, 1, -1))),
    "the shapes are turned by 90 degrees about the up axis": Mistake(points=_take(2, 1, 0, signs=(1, 1, -1))),
    "the shapes are turned by 180 degrees about the up axis": Mistake(points=_take(0, 1, 2, signs=(-1, 1, -1))),
    "the shapes are turned by 270 degrees about the up axis": Mistake(points=_take(2, 1, 0, signs=(-1, 1, 1))),
}
# `_take(a, b, c)` lists which of the wrongly read (x, y, z) are the true ones, for a reader that expects [y, x, z].
VOXEL_MISTAKES = {
    "the voxels are indexed [x, y, z]": Mistake(points=_take(1, 0, 2)),
    "the voxels are indexed [y, z, x]": Mistake(points=_take(2, 1, 0)),
    "the voxels are indexed [z, y, x]": Mistake(points=_take(2, 0, 1)),
    "the voxels are indexed [x, z, y]": Mistake(points=_take(1, 2, 0)),
    "the voxels are indexed [z, x, y]": Mistake(points=_take(0, 2, 1)),
}


def voxel_centers(voxels: np.ndarray) -> Tensor:
    """Centres (P, 3) of the occupied cells of a grid [y, x, z] in the object frame; inverse of `structures`' rule."""
    resolution = voxels.shape[0]
    cells = torch.from_numpy(np.argwhere(voxels)).float()[:, [1, 0, 2]]
    return (cells + 0.5 - resolution / 2) / (resolution - 1)


def fit(masks: np.ndarray, points: Tensor, cameras: Camera, tolerance: int, mistake: Mistake) -> Fit:
    """How well the points cover the masks of one object, through the cameras of the data set, with a mistake undone.

    Args:
        masks: (K, S, S) in [0, 255], the alpha of K views.
        points: (P, 3) in the object frame.
        cameras: of the views, leading shape (K,).
        tolerance: pixels by which points may miss the mask, and mask pixels the points.
        mistake: what to undo; `Mistake()` is the convention itself.
    """
    rows, columns = _pixels(points, cameras, masks.shape[-1], mistake)
    near = np.ones((1, 2 * tolerance + 1, 2 * tolerance + 1), bool)
    index = np.arange(len(masks))[:, None]
    hit = np.zeros(masks.shape, bool)
    visible = (rows >= 0) & (rows < masks.shape[1]) & (columns >= 0) & (columns < masks.shape[2])
    rows, columns = rows.clip(0, masks.shape[1] - 1), columns.clip(0, masks.shape[2] - 1)
    inside = ndimage.binary_dilation(masks > 0, near)[index, rows, columns] & visible
    hit[np.broadcast_to(index, rows.shape)[visible], rows[visible], columns[visible]] = True
    solid = masks >= 128
    covered = ndimage.binary_dilation(hit, near)[solid]
    return Fit(float(inside.mean()), float(covered.mean()) if covered.size else 0.0)


def mean_fit(fits: Sequence[Fit]) -> Fit:
    """The mean over objects."""
    return Fit(float(np.mean([one.inside for one in fits])), float(np.mean([one.covered for one in fits])))


def diagnose(gains: Mapping[str, Sequence[float]]) -> str | None:
    """The mistake that explains the data better than the convention, or None.

    Args:
        gains: per mistake, how much the score of each object rises when it is undone. A mistake is found where more
            objects gain than lose by `DECISIVE`; symmetric objects do neither. Of several, the largest mean gain wins.
    """
    found = {
        name: float(np.mean(values))
        for name, values in gains.items()
        if sum(value > DECISIVE for value in values) > sum(value < -DECISIVE for value in values)
    }
    return max(found, key=found.__getitem__) if found else None


def tile(rgba: np.ndarray, points: Tensor, camera: Camera, caption: str) -> Image.Image:
    """One picture of the contact sheet: the image, and on it the outline of the projected points.

    Args:
        rgba: (4, S, S) in [0, 255].
        points: (P, 3) in the object frame.
        camera: of the view, leading shape (1,).
        caption: text below.
    """
    color = Image.fromarray(np.ascontiguousarray(rgba[:3].transpose(1, 2, 0)))
    color = color.resize((TILE, TILE), Image.Resampling.NEAREST)
    rows, columns = _pixels(points, camera, TILE, Mistake())
    seen = np.zeros((TILE, TILE), bool)
    within = (rows >= 0) & (rows < TILE) & (columns >= 0) & (columns < TILE)
    seen[rows[within], columns[within]] = True
    # Closing joins the samples, which lie about two pixels apart, to the area they cover.
    area = ndimage.binary_closing(np.pad(seen, 4), iterations=3)[4:-4, 4:-4]
    pixels = np.array(color)
    pixels[area & ~ndimage.binary_erosion(area)] = OUTLINE
    picture = Image.new("RGB", (TILE, TILE + CAPTION))
    picture.paste(Image.fromarray(pixels))
    ImageDraw.Draw(picture).text((1, TILE + 1), caption, fill=(255, 255, 255), font_size=10)
    return picture


def contact_sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of equal size in rows."""
    sheet = Image.new("RGB", (TILE * max(map(len, rows)), (TILE + CAPTION) * len(rows)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet.paste(picture, (j * TILE, i * (TILE + CAPTION)))
    return sheet


def _pixels(points: Tensor, cameras: Camera, size: int, mistake: Mistake) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (K, P) of the pixels the points fall on, possibly outside the image."""
    screen = project(cameras, mistake.points(points).expand(*cameras.shape, -1, -1))
    x = -screen[..., 0] if mistake.mirrored else screen[..., 0]
    columns, rows = ((1 - value) * size / 2 for value in (x, screen[..., 1]))
    return rows.floor().long().numpy(), columns.floor().long().numpy()
