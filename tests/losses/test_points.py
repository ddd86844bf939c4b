import torch
from scipy.spatial import cKDTree

from recon3d.losses.points import chamfer_loss


def test_chamfer_loss_is_the_unsquared_sum_of_both_ways():
    torch.manual_seed(0)
    pred, target = torch.rand(3, 40, 3), torch.rand(3, 70, 3)
    expected = [
        cKDTree(b).query(a)[0].mean() + cKDTree(a).query(b)[0].mean() for a, b in zip(pred, target, strict=True)
    ]
    torch.testing.assert_close(chamfer_loss(pred, target).double(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_a_shift_of_one_point_is_followed_by_the_gradient():
    pred = torch.tensor([[[0.3, 0.0, 0.0]]], requires_grad=True)
    chamfer_loss(pred, torch.zeros(1, 1, 3)).sum().backward()
    torch.testing.assert_close(pred.grad, torch.tensor([[[2.0, 0.0, 0.0]]]))


def test_coincident_points_have_no_gradient():
    pred = torch.zeros(1, 2, 3, requires_grad=True)
    chamfer_loss(pred, torch.zeros(1, 5, 3)).sum().backward()
    assert torch.equal(pred.grad, torch.zeros(1, 2, 3))
