"""Structural similarity against the formula of Wang et al. 2004, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recon3d.metrics.image import SSIM, SSIMInside, structural_similarity


def by_hand(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """SSIM (H,W) of two channels (H,W) in [0, 1], with loops, the edges mirrored without the outermost pixel."""
    weight = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    total = sum(map(sum, weight))
    ours, theirs = (np.pad(channel, 5, mode="reflect") for channel in (pred, target))
    result = np.zeros(pred.shape)
    for row in range(pred.shape[0]):
        for column in range(pred.shape[1]):
            sums = dict.fromkeys(("x", "y", "xx", "yy", "xy"), 0.0)
            for i in range(11):
                for j in range(11):
                    w = weight[i][j] / total
                    x, y = ours[row + i, column + j], theirs[row + i, column + j]
                    for name, value in (("x", x), ("y", y), ("xx", x * x), ("yy", y * y), ("xy", x * y)):
                        sums[name] += w * value
            mx, my = sums["x"], sums["y"]
            vx, vy, cov = sums["xx"] - mx * mx, sums["yy"] - my * my, sums["xy"] - mx * my
            luminance = (2 * mx * my + 0.01**2) / (mx * mx + my * my + 0.01**2)
            result[row, column] = luminance * (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
    return result


def random_pair(size: int = 14) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 1, 4, size, size, generator=generator)
    target[:, 3] = 0
    target[:, 3, 3:9, 4:12] = 1
    return pred, target


def test_it_is_the_mean_of_the_formula_over_pixels_and_channels() -> None:
    pred, target = random_pair()
    pred[:, :3] = 0.7 * target[:, :3] + 0.3 * pred[:, :3]
    expected = np.mean([by_hand(pred[0, c].numpy(), target[0, c].numpy()) for c in range(3)], axis=0)
    result = structural_similarity(pred, target)
    assert float(result.whole) == pytest.approx(expected.mean(), abs=1e-5)
    assert float(result.inside) == pytest.approx(expected[3:9, 4:12].mean(), abs=1e-5)


def test_constant_images_have_a_closed_form() -> None:
    a, b = 0.2, 0.6
    pred, target = torch.full((1, 4, 16, 16), a), torch.full((1, 4, 16, 16), b)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert float(structural_similarity(pred, target).whole) == pytest.approx(expected, abs=1e-3)


def test_black_backgrounds_agree_so_that_the_whole_says_more_than_the_inside() -> None:
    target = torch.zeros(1, 4, 64, 64)
    target[:, 3, 24:40, 24:40] = 1
    target[:, :3, 24:40, 24:40] = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    pred = target.clone()
    pred[:, :3] = pred[:, :3].flip(-1)
    result = structural_similarity(pred, target)
    assert float(result.inside) < 0.3 < 0.8 < float(result.whole)


def test_values_do_not_depend_on_the_batch_and_failures_score_worst() -> None:
    pred, target = (torch.cat([image, image.flip(1), image.flip(2)]) for image in random_pair())
    target[:, 3] = target[0, 3]
    together = structural_similarity(pred, target)
    for index in range(3):
        alone = structural_similarity(pred[index : index + 1], target[index : index + 1])
        assert float(alone.whole) == float(together.whole[index])
    pred[1] = torch.nan
    keys = torch.arange(3)
    for metric in (SSIM(), SSIMInside()):
        metric.update(pred, target, keys, keys)
        values = metric.compute().values
        assert values[1] == -1.0 and (np.delete(values, 1) > -1).all()


def test_without_a_true_mask_there_is_no_inside() -> None:
    pred, target = random_pair()
    target[:, 3] = 0
    assert structural_similarity(pred, target).inside.isnan().all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="RGB and mask"):
        structural_similarity(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
