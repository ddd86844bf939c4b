from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates

from recon3d.losses.texture import (
    alignment_loss,
    barrier_field,
    barrier_loss,
    perceptual_loss,
    pixel_loss,
    sample_image,
    variation_loss,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixel_centers(size: int) -> torch.Tensor:
    return (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1


def image_grid(height: int, width: int) -> torch.Tensor:
    """(1, H, W, 2): the flow that takes each pixel from itself."""
    u, v = torch.meshgrid(pixel_centers(width), pixel_centers(height), indexing="xy")
    return torch.stack([u, v], dim=-1)[None]


def test_the_flow_of_pixel_centres_gives_the_image_back():
    image = random(1, 3, 5, 8)
    torch.testing.assert_close(sample_image(image, image_grid(5, 8), None, "plain"), image, rtol=1e-12, atol=1e-12)


def test_samples_are_those_of_scipy_with_the_border_repeated():
    image, flow = random(2, 3, 7, 10), 2.6 * random(2, 4, 6, 2, seed=1) - 1.3
    variation = 0.5 + random(2, 1, 7, 10, seed=2)
    found = sample_image(image, flow, variation, "modulated")
    column, row = ((flow[..., 0] + 1) * 10 - 1) / 2, ((flow[..., 1] + 1) * 7 - 1) / 2
    for b in range(2):
        for c in range(3):
            product = (image[b, c] * variation[b, 0]).numpy()
            expected = map_coordinates(product, np.stack([row[b], column[b]]), order=1, mode="nearest")
            np.testing.assert_allclose(found[b, c].numpy(), expected, rtol=1e-10)


def test_a_variation_may_have_a_value_per_channel():
    image, flow, variation = random(1, 3, 4, 4), image_grid(4, 4), random(1, 3, 4, 4, seed=3)
    torch.testing.assert_close(sample_image(image, flow, variation), image * variation, rtol=1e-12, atol=1e-12)


def test_sampling_refuses_what_does_not_fit():
    image, flow = random(1, 3, 4, 4), image_grid(4, 4)
    with pytest.raises(ValueError, match=r"a flow \(B, h, w, 2\), got \(1, 3, 4, 4\) and \(2, 4, 4, 2\)"):
        sample_image(image, flow.expand(2, 4, 4, 2), None, "plain")
    with pytest.raises(ValueError, match=r"got None; without one, use the mode plain"):
        sample_image(image, flow, None)
    with pytest.raises(ValueError, match=r"got \(1, 2, 4, 4\)"):
        sample_image(image, flow, random(1, 2, 4, 4), "straight_through")
    with pytest.raises(ValueError, match="got 'modulate'"):
        sample_image(image, flow, None, "modulate")  # type: ignore[arg-type]


def test_perceptual_loss_by_hand():
    # Layer a: two pixels, at 60 degrees and parallel, so a mean cosine of 3/4. Layer b: opposite.
    pred = {"a": torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]]), "b": torch.tensor([[[[3.0]]]])}
    target = {"a": torch.tensor([[[[0.5, 7.0]], [[3**0.5 / 2, 0.0]]]]), "b": torch.tensor([[[[-1.0]]]])}
    assert perceptual_loss(pred, target).tolist() == pytest.approx([0.25 + 2])
    assert perceptual_loss(target, target).tolist() == pytest.approx([0], abs=1e-6)
    with pytest.raises(ValueError, match="layers a, b, got a"):
        perceptual_loss({"a": pred["a"]}, target)


def test_perceptual_loss_keeps_images_apart_and_ignores_contrast():
    target = {"a": random(2, 4, 3, 3)}
    pred = {"a": target["a"] * torch.tensor([5.0, 1.0])[:, None, None, None]}
    pred["a"][1, :, 0, 0] = 0  # features of black after a ReLU: similarity 0 on one of nine pixels
    assert perceptual_loss(pred, target).tolist() == pytest.approx([0, 1 / 9])


def test_pixel_loss_by_hand():
    pred, target = torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2)
    pred[0, :, 0, 0] = torch.tensor([0.3, 0.0, 0.6])
    pred[0, :, 0, 1] = 0.9
    mask = torch.tensor([[[[1.0, 0.5]]], [[[0.0, 0.0]]]])
    # (0.3 + 0.6 + 0.5 * 3 * 0.9) / (3 * 1.5); the other mask is empty.
    assert pixel_loss(pred, target, mask).tolist() == pytest.approx([2.25 / 4.5, 0])
    with pytest.raises(ValueError, match=re.escape("got (2, 3, 1, 2), (2, 3, 1, 2) and (2, 1, 2)")):
        pixel_loss(pred, target, mask[:, 0])


def test_pixel_loss_has_no_gradient_through_the_mask_and_none_outside():
    pred, mask = random(1, 3, 4, 4).requires_grad_(), torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., :2] = 1
    mask.requires_grad_()
    pixel_loss(pred, random(1, 3, 4, 4, seed=1), mask).sum().backward()
    assert mask.grad is None and pred.grad is not None
    # Each of 8 pixels and 3 channels counts 1/24.
    assert pred.grad[..., :2].abs().flatten().tolist() == pytest.approx([1 / 24] * 24) and not pred.grad[..., 2:].any()


def test_barrier_of_a_straight_edge():
    # Object in columns 0 to 7 of 20: column 7 is 1 pixel inside, column 8 one outside.
    mask = torch.zeros(1, 1, 10, 20)
    mask[..., :8] = 1
    distance = np.array([c - 8.0 if c < 8 else c - 7.0 for c in range(20)])
    expected = 1 / (1 + np.exp(-50 * distance / 20))
    field = barrier_field(mask)
    assert field.dtype == torch.float32 and field.shape == mask.shape
    np.testing.assert_allclose(field[0, 0].numpy(), np.tile(expected, (10, 1)), rtol=1e-6)


def test_barriers_are_of_exact_distances():
    masks = random(3, 1, 24, 17, seed=5)
    field = barrier_field(masks.requires_grad_())
    assert not field.requires_grad
    for mask, found in zip(masks.detach().numpy()[:, 0] >= 0.5, field[:, 0].numpy(), strict=True):
        distance = distance_transform_edt(~mask) - distance_transform_edt(mask)
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-50 * distance / 24)), rtol=1e-12)


def test_barriers_without_a_contour():
    masks = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    assert barrier_field(masks).flatten(1).unique(dim=1).flatten().tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"masks \(B, 1, H, W\), got \(2, 4, 4\)"):
        barrier_field(masks[:, 0])


def test_the_barrier_drives_a_flow_onto_the_object():
    mask = torch.zeros(2, 1, 40, 40, dtype=torch.float64)
    mask[..., 10:30, 15:35] = 1
    field = barrier_field(mask)
    flow = torch.tensor([[0.2, 0.0], [-0.35, 0.0]], dtype=torch.float64)[:, None, None].requires_grad_()
    losses = barrier_loss(flow, field)
    assert losses[0] < 1e-3 and 0.5 < losses[1] < 1
    losses[1].backward()
    assert flow.grad is not None and flow.grad[1, 0, 0, 0] < -1 and not flow.grad[0].any()
    both = barrier_loss(flow.detach().reshape(1, 1, 2, 2), field[:1])
    torch.testing.assert_close(both, losses.detach().mean(dim=0, keepdim=True))


def test_alignment_loss_by_hand():
    flow = torch.tensor([[[0.5, 0.0], [0.0, -1.0], [0.3, 0.3]]], requires_grad=True)
    centers = torch.tensor([[[0.1, 0.2], [0.0, 0.0], [float("nan")] * 2]])
    visible = torch.tensor([[True, True, False]])
    loss = alignment_loss(flow, centers, visible)
    assert loss.tolist() == pytest.approx([(0.4**2 + 0.2**2 + 1) / 6])  # all three faces count
    loss.sum().backward()
    assert flow.grad is not None
    np.testing.assert_allclose(flow.grad[0], [[2 * 0.4 / 6, -2 * 0.2 / 6], [0, -2 / 6], [0, 0]], atol=1e-7)
    with pytest.raises(ValueError, match=r"bool visible \(B, F\), got .* torch.float32 \(1, 3\)"):
        alignment_loss(flow, centers, visible.float())


def test_variation_loss_by_hand():
    variation = torch.ones(2, 1, 2, 2)
    variation[0, 0, 0] = torch.tensor([1.5, 0.0])
    assert variation_loss(variation).tolist() == pytest.approx([1.25 / 4, 0])


def test_gradients_are_exact():
    image, variation = random(1, 2, 5, 5), (0.5 + random(1, 1, 5, 5, seed=2)).requires_grad_()
    flow = (1.2 * random(1, 2, 3, 2, seed=1) - 0.6).requires_grad_()
    field = barrier_field(random(1, 1, 5, 5, seed=3))
    assert torch.autograd.gradcheck(lambda f, i: sample_image(image, f, i), (flow, variation))
    assert torch.autograd.gradcheck(lambda f: barrier_loss(f, field), (flow,))
    features = random(1, 3, 2, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: perceptual_loss({"a": f}, {"a": random(1, 3, 2, 2, seed=5)}), (features,))
