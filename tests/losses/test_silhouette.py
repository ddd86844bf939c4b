import numpy as np
import pytest
import torch

from recon3d.losses.silhouette import silhouette_iou_loss


def test_binary_masks_give_one_minus_their_iou():
    generator = np.random.default_rng(0)
    pred, target = generator.random((2, 5, 16, 16)) < 0.4
    iou = (pred & target).sum(axis=(1, 2)) / (pred | target).sum(axis=(1, 2))
    loss = silhouette_iou_loss(torch.tensor(pred).double(), torch.tensor(target).double())
    np.testing.assert_allclose(loss, 1 - iou, atol=1e-7)


def test_constant_soft_masks_have_a_closed_form():
    # sum(pt) / sum(p + t - pt) with p = 0.3, t = 0.6: 0.18 / 0.72
    loss = silhouette_iou_loss(torch.full((8, 8), 0.3), torch.full((8, 8), 0.6))
    assert loss.item() == pytest.approx(1 - 0.18 / 0.72, abs=1e-6)


def test_bounds():
    full, empty = torch.ones(8, 8), torch.zeros(8, 8)
    half = torch.zeros(8, 8)
    half[:4] = 1
    assert silhouette_iou_loss(half, half).item() == pytest.approx(0, abs=1e-6)
    assert silhouette_iou_loss(half, 1 - half).item() == 1
    assert silhouette_iou_loss(empty, full).item() == 1
    assert silhouette_iou_loss(half, full).item() == pytest.approx(0.5, abs=1e-6)
    assert silhouette_iou_loss(empty, empty).item() == 1  # nothing to overlap, but defined


def test_leading_dimensions_broadcast_and_images_stay_apart():
    pred = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = silhouette_iou_loss(pred, target)
    assert loss.shape == (3, 2)
    torch.testing.assert_close(loss[2, 1], silhouette_iou_loss(pred[2, 0], target[1]))


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 5, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(silhouette_iou_loss, (pred.requires_grad_(), target))
