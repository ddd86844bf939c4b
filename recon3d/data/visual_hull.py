"""Do the masks of an object agree through their cameras? The visual hull, and which views it contradicts.

Used by `folder_checks`, for data without ground truth. The visual hull (Laurentini 1994) is all that lies in every
mask. With right cameras it is around the object, so its silhouettes are the masks; with wrong ones the masks cut each
other away, and it does not cover them. A set that is wrong as a whole, as that of a mirrored object is, agrees with
itself: no silhouettes tell it from a right one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from recon3d.geometry.cameras import camera_centers, project
from recon3d.structures import Camera

CELLS = 64  # of the grid, along each axis; where the object fills the masks, about as fine as they are
MARGIN = 1.6  # of the grid about what the masks allow: their middles need not be that of the object
NEAR = np.ones((3, 3), bool)


@dataclass(frozen=True)
class VisualHull:
    """What the masks of an object leave.

    Attributes:
        points: (P, 3) cells of the grid that every mask, or the pixels beside it, contain.
        overlap: (V,) IoU of its silhouettes with the masks; pixels beside a mask count as its own.
    """

    points: Tensor
    overlap: np.ndarray


def carve(masks: np.ndarray, cameras: Camera) -> VisualHull:
    """The visual hull of masks, in a grid about the place that their middles point at.

    Args:
        masks: (V, S, S) bool, none of them empty; two or more views.
        cameras: of the views, leading shape (V,), any world.
    """
    points, outside = _candidates(masks, cameras, tolerance=0)
    assert not outside.any()
    return VisualHull(points, _overlap(points, masks, cameras))


def disagreeing(masks: np.ndarray, cameras: Camera, least: float) -> list[int] | None:
    """The views without which the others agree, the worst first; None where a third of them would have to go.

    Args:
        masks: (V, S, S) bool.
        cameras: of the views.
        least: mean overlap of views that agree.
    """
    views, gone = list(range(len(masks))), list[int]()
    while True:
        some, seen_by = masks[views], cameras[torch.tensor(views)]
        points, outside = _candidates(some, seen_by, tolerance=1)
        others = outside.sum(axis=0) - outside  # (V, P) of the views, how many others do not contain a point
        if _overlap(points[torch.from_numpy(~outside.any(axis=0))], some, seen_by).mean() >= least:
            return gone
        if 3 * (len(gone) + 1) > len(masks) or len(views) <= 2:
            return None
        scores = []
        for left in range(len(views)):
            rest = [view for view in range(len(views)) if view != left]
            hull = points[torch.from_numpy(others[left] == 0)]
            scores.append(float(_overlap(hull, some[rest], seen_by[torch.tensor(rest)]).mean()))
        gone.append(views.pop(int(np.argmax(scores))))


def _candidates(masks: np.ndarray, cameras: Camera, tolerance: int) -> tuple[Tensor, np.ndarray]:
    """Points (P, 3) of the grid that at most `tolerance` views do not contain, and which do not, (V, P) bool."""
    low, high = _bounds(masks, cameras)
    axis = (torch.arange(CELLS).to(low) + 0.5) / CELLS
    points = low + (high - low) * torch.cartesian_prod(axis, axis, axis)
    outside = np.zeros((0, len(points)), bool)
    for view, mask in enumerate(masks):  # most points are gone after the first
        rows, columns, seen = _pixels(points, cameras[view : view + 1], mask.shape[-1])
        allowed = ndimage.binary_dilation(mask, NEAR)
        outside = np.concatenate([outside, ~(allowed[rows, columns] & seen)])
        kept = outside.sum(axis=0) <= tolerance
        points, outside = points[torch.from_numpy(kept)], outside[:, kept]
    return points, outside


def _overlap(points: Tensor, masks: np.ndarray, cameras: Camera) -> np.ndarray:
    """IoU (V,) of the silhouettes of points (P, 3) with masks; pixels beside a mask count as its own."""
    rows, columns, seen = _pixels(points, cameras, masks.shape[-1])
    found = []
    for view, mask in enumerate(masks):
        hit = np.zeros(mask.shape, bool)
        hit[rows[view, seen[view]], columns[view, seen[view]]] = True
        silhouette = ndimage.binary_closing(np.pad(hit, 2), NEAR)[2:-2, 2:-2]
        beyond = silhouette & ~ndimage.binary_dilation(mask, NEAR)
        found.append((silhouette & mask).sum() / (mask | beyond).sum())
    return np.array(found)


def _bounds(masks: np.ndarray, cameras: Camera) -> tuple[Tensor, Tensor]:
    """A cube about the point nearest to the rays through the masks' middles, as large as the masks are there."""
    size = masks.shape[-1]
    middles, halves = [], []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        middles.append((1 - (2 * columns.mean() + 1) / size, 1 - (2 * rows.mean() + 1) / size))
        halves.append(max(np.ptp(rows) + 1, np.ptp(columns) + 1) / size)
    place = (torch.tensor(middles).to(cameras.T) - cameras.center) / cameras.focal
    rays = torch.cat([place, torch.ones_like(place[:, :1])], dim=1)
    rays = torch.nn.functional.normalize((rays.unsqueeze(1) @ cameras.R.transpose(1, 2)).squeeze(1), dim=1)
    across = torch.eye(3).to(rays) - rays.unsqueeze(2) * rays.unsqueeze(1)
    centers = camera_centers(cameras)
    # pinv: parallel rays leave a line of points, of which it takes the nearest to the origin.
    point = torch.linalg.pinv(across.sum(dim=0)) @ (across @ centers.unsqueeze(2)).sum(dim=0)[:, 0]
    depth = project(cameras, point.expand(len(masks), 1, 3))[:, 0, 2].clamp(min=1e-3)
    reach = MARGIN * float((torch.tensor(halves).to(depth) * depth / cameras.focal.amin(dim=1)).max())
    return point - reach, point + reach


def _pixels(points: Tensor, cameras: Camera, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (V, P) of the pixels that points (P, 3) fall on, and which of them are in the picture."""
    screen = project(cameras, points.expand(len(cameras.T), -1, -1))
    columns, rows = (((1 - screen[..., axis]) * size / 2).floor().long() for axis in (0, 1))
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size) & (screen[..., 2] > 0)
    return rows.clamp(0, size - 1).numpy(), columns.clamp(0, size - 1).numpy(), inside.numpy()
