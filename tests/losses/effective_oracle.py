"""The Effective Loss in scalar loops and float64: what `recon3d.losses.effective` is judged by.

Written from eq. 1 to 6 of Zubic and Lio 2021 and the constants of drwr, for one view; nothing is vectorised. Points
(x, y) are in pixels: (0, 0) is the centre of the pixel in the top left corner, x runs to the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """As the keywords of `effective_loss`, whose defaults these are."""

    silhouette: str = "gap"
    theta: float = 0.05
    kernel: str = "exp"
    rings: int = 5
    bias: float = 0.0
    weighted: bool = True
    reduction: str = "mean"
    self_pair: bool = False


def nearest_foreground(mask: np.ndarray, row: int, column: int) -> float:
    """Pixels from a pixel, which may lie outside the mask, to the nearest foreground pixel."""
    return min(math.hypot(row - i, column - j) for i, j in np.argwhere(mask).tolist())


def smooth(mask: np.ndarray, form: str, margin: int) -> np.ndarray:
    """S^G (eq. 2) of a (V, V) mask on the frame and `margin` pixels around it."""
    v = len(mask)
    out = np.ones((v + 2 * margin, v + 2 * margin))
    if not mask.any():
        return out
    inside = [nearest_foreground(mask, i, j) / v for i in range(v) for j in range(v) if not mask[i, j]]
    near, far = (min(inside), max(inside)) if inside else (1 / v, 1 / v)
    for row, column in np.ndindex(out.shape):
        i, j = row - margin, column - margin
        in_frame = 0 <= i < v and 0 <= j < v
        if in_frame and mask[i, j]:
            continue
        d = nearest_foreground(mask, i, j) / v
        if form == "pixel":
            out[row, column] = 0.0
        elif form == "gap":
            out[row, column] = 220 / 255 - (128 * d) / (64 * math.sqrt(2))  # d in pixels of a 128-pixel mask
        else:  # min-max of 1 - d
            low, high = 1 - far, 1 - near
            out[row, column] = ((1 - d) - low) / (high - low) if high > low else 1 - (d - near)
    return out


def bilinear(image: np.ndarray, point: Point) -> float:
    """Sample at a point; pixels outside the image count 0."""
    x, y = point
    x0, y0 = math.floor(x), math.floor(y)
    total = 0.0
    for i, by_row in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for j, by_column in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += by_row * by_column * image[i, j]
    return total


def boundary_bias(mask: np.ndarray, point: Point, rings: int) -> float:
    """Mean over squares of growing size around the point, all with the fractional weights of the smallest."""
    x, y = point
    x0, y0, last = math.floor(x), math.floor(y), len(mask) - 1
    total = 0.0
    for n in range(rings):
        for i, by_row in ((y0 - n, y0 + 1 - y), (y0 + 1 + n, y - y0)):
            for j, by_column in ((x0 - n, x0 + 1 - x), (x0 + 1 + n, x - x0)):
                total += by_row * by_column * mask[min(max(i, 0), last), min(max(j, 0), last)]
    return total / rings if rings else 0.0


def weights(mask: np.ndarray, points: Sequence[Point], settings: Settings) -> tuple[list[float], list[float]]:
    """w and mu of each point."""
    w = [bilinear(mask, point) if settings.weighted else 1.0 for point in points]
    return w, [settings.bias + boundary_bias(mask, point, settings.rings) for point in points]


def unary(mask: np.ndarray, points: Sequence[Point], settings: Settings) -> float:
    """Mean over the points of |1 - S^G|; beyond the margin it grows with the way back to it, along the axes."""
    v, margin = len(mask), math.ceil(len(mask) / 2)
    image = smooth(mask, settings.silhouette, margin)
    total = 0.0
    for x, y in points:
        kx, ky = (min(max(c, -margin), v + margin - 1) for c in (x, y))
        total += abs(1 - bilinear(image, (kx + margin, ky + margin)))
        if settings.silhouette != "pixel" and mask.any():
            total += math.sqrt(2) * (abs(x - kx) + abs(y - ky)) / v
    return total / len(points)


def pairwise(
    mask: np.ndarray,
    points: Sequence[Point],
    settings: Settings,
    fixed: tuple[list[float], list[float]] | None = None,
) -> float:
    """Mean over the points of eq. 5, with w and mu of the points or with `fixed` ones; 0 without foreground."""
    if not mask.any():
        return 0.0
    w, mu = fixed or weights(mask, points, settings)
    n, v = len(points), len(mask)
    total = 0.0
    for j, (xj, yj) in enumerate(points):
        for k, (xk, yk) in enumerate(points):
            if j == k and not settings.self_pair:
                continue
            d = math.hypot(xj - xk, yj - yk) / v / settings.theta
            total += w[j] * w[k] * math.exp(-(d if settings.kernel == "exp" else d**2) + mu[j])
    return total / n / (n if settings.reduction == "mean" else 1)
