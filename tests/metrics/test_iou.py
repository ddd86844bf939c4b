from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recon3d.metrics.iou import MaskIoU, VoxelIoU, mask_iou, soft_mask_iou, voxel_iou


def box(low: int, high: int, size: int = 32) -> Tensor:
    grid = torch.zeros(1, size, size, size, dtype=torch.bool)
    grid[:, low:high, low:high, low:high] = True
    return grid


def test_voxel_iou_of_cubes() -> None:
    # 10^3 and 10^3 cells that share 8^3: 512 / (2000 - 512).
    assert float(voxel_iou(box(4, 14), box(6, 16))) == pytest.approx(512 / 1488)
    assert float(voxel_iou(box(4, 14), box(4, 14))) == 1.0
    assert float(voxel_iou(box(4, 8), box(10, 16))) == 0.0
    # A cube in a cube: the ratio of the volumes.
    assert float(voxel_iou(box(10, 20), box(5, 25))) == pytest.approx((10 / 20) ** 3)


def test_two_empty_grids_agree_and_one_empty_grid_scores_zero() -> None:
    assert voxel_iou(torch.cat([box(0, 0), box(0, 0)]), torch.cat([box(0, 0), box(3, 5)])).tolist() == [1.0, 0.0]
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    for function in (mask_iou, soft_mask_iou):
        assert (float(function(empty, empty)), float(function(empty, full))) == (1.0, 0.0)


def test_mask_iou_thresholds_at_one_half() -> None:
    pred = torch.tensor([[[[0.51, 0.5], [0.9, 0.0]]]])
    target = torch.tensor([[[[1.0, 1.0], [0.4, 0.0]]]])
    assert float(mask_iou(pred, target)) == pytest.approx(1 / 3)


def test_soft_iou() -> None:
    pred, target = torch.full((1, 1, 8, 8), 0.5), torch.ones(1, 1, 8, 8)
    assert float(soft_mask_iou(pred, target)) == pytest.approx(0.5)
    # p = t = 0.5: sum(pt) / sum(p + t - pt) = 0.25 / 0.75.
    assert float(soft_mask_iou(pred, pred)) == pytest.approx(1 / 3)
    binary = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    assert torch.allclose(soft_mask_iou(binary, binary.flip(-1)), mask_iou(binary, binary.flip(-1)).float())


def test_metrics_keep_one_value_per_object() -> None:
    key = torch.arange(2)
    voxels = VoxelIoU()
    voxels.update(torch.cat([box(4, 14), box(1, 2)]), torch.cat([box(6, 16), box(1, 2)]), key, key)
    assert voxels.values[0].tolist() == pytest.approx([512 / 1488, 1.0])
    masks = MaskIoU()
    pred = torch.zeros(2, 3, 1, 4, 4)
    target = pred.clone()
    pred[0, 0], target[0, 0] = 1.0, 1.0
    target[0, 1] = 1.0
    masks.update(pred, target, key, key)
    assert masks.values[0].tolist() == pytest.approx([2 / 3, 1.0])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        voxel_iou(box(0, 1), box(0, 1, size=16))
    with pytest.raises(ValueError, match="bool grids"):
        voxel_iou(box(0, 1).float(), box(0, 1))
