from __future__ import annotations

import numpy as np
import pytest
import torch

from recon3d.losses.style import gram_matrix, style_loss, total_variation


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gram_by_hand():
    # Two channels, two pixels (1, 2) and (3, 4): sums of products 5, 11, 11, 25, over C * pixels = 4.
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert gram_matrix(features).tolist() == [[[1.25, 2.75], [2.75, 6.25]]]


def test_gram_of_a_binary_mask_is_that_of_the_pixels_inside():
    features = random(2, 5, 6, 7)
    mask = (random(2, 1, 6, 7, seed=1) > 0.4).double()
    found = gram_matrix(features, mask).numpy()
    for image in range(2):
        inside = features[image].numpy()[:, mask[image, 0].numpy() == 1]  # (C, pixels)
        np.testing.assert_allclose(found[image], inside @ inside.T / (5 * inside.shape[1]), rtol=1e-12)


def test_a_mask_is_averaged_down_to_the_features():
    # Features of 1, mask of 1/4 after pooling on one of two pixels: weights 0.25 and 1.
    mask = torch.zeros(1, 1, 2, 4)
    mask[..., 0, 0] = 1
    mask[..., 2:] = 1
    features = torch.tensor([[[[2.0, 4.0]]]])
    assert gram_matrix(features, mask).item() == pytest.approx((0.25 * 4 + 16) / 1.25)


def test_gram_of_an_empty_mask_is_zero_and_its_gradient_finite():
    features = random(1, 3, 4, 4).requires_grad_()
    gram = gram_matrix(features, torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    gram.sum().backward()
    assert (gram == 0).all() and features.grad is not None and features.grad.isfinite().all()


def test_style_loss_sums_layers_and_keeps_images_apart():
    grams = {"a": torch.tensor([[[1.0]], [[3.0]]]), "b": torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0]] * 2])}
    targets = {"a": torch.tensor([[[1.0]]]), "b": torch.zeros(1, 2, 2)}
    assert style_loss(grams, targets).tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="layers a, b, got a"):
        style_loss({"a": grams["a"]}, targets)


def test_style_loss_is_zero_for_any_order_of_the_pixels():
    features = random(1, 4, 5, 5)
    shuffled = features.flatten(2)[..., torch.randperm(25, generator=torch.Generator().manual_seed(0))]
    loss = style_loss({"x": gram_matrix(shuffled.reshape(1, 4, 5, 5))}, {"x": gram_matrix(features)})
    assert loss.item() < 1e-24


def test_total_variation_by_hand():
    image = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]).expand(1, 3, 2, 3)
    everywhere = torch.ones(1, 1, 2, 3)
    # Rows: 1 + 1 and 0 + 9; columns: 0 + 1 + 9; three channels.
    assert total_variation(image, everywhere).item() == 3 * 21
    everywhere[..., 1, 2] = 0.99  # on the contour: its two pairs (9 and 9) do not count
    assert total_variation(image, everywhere).item() == 3 * 3


def test_total_variation_of_a_ramp():
    slope = 0.01
    image = slope * torch.arange(20, dtype=torch.float64).expand(2, 3, 10, 20)
    expected = 3 * 10 * 19 * slope**2
    torch.testing.assert_close(total_variation(image, torch.ones(2, 1, 10, 20)), torch.full((2,), expected).double())


def test_gradients_are_exact_and_none_goes_through_the_mask():
    mask = random(2, 1, 4, 4, seed=2).requires_grad_()
    targets = {"x": random(1, 3, 3, seed=3)}

    def loss(features: torch.Tensor) -> torch.Tensor:
        return style_loss({"x": gram_matrix(features, mask)}, targets) + total_variation(features, mask.round())

    features = random(2, 3, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(loss, (features,))
    loss(features).sum().backward()
    assert mask.grad is None
