from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from recon3d.losses.adversarial import discriminator_loss, generator_loss, gradient_penalty


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_losses_by_hand():
    real = torch.tensor([logit(0.8), logit(0.5)], dtype=torch.float64)
    fake = torch.tensor([logit(0.1), logit(0.6)], dtype=torch.float64)
    log_real = (math.log(0.8) + math.log(0.5)) / 2
    log_not_fake = (math.log(0.9) + math.log(0.4)) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(-log_real - log_not_fake)
    assert generator_loss(fake).item() == pytest.approx(log_not_fake)
    assert generator_loss(fake, "nonsaturating").item() == pytest.approx(-(math.log(0.1) + math.log(0.6)) / 2)
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(2 * math.log(2))
    with pytest.raises(ValueError, match="minimax or nonsaturating, got 'hinge'"):
        generator_loss(fake, "hinge")  # type: ignore[arg-type]


def test_a_sure_discriminator_gives_finite_losses_and_only_one_form_a_gradient():
    fake = torch.tensor([-200.0], requires_grad=True)
    assert discriminator_loss(torch.tensor([-200.0]), torch.tensor([300.0])).item() == 500
    (minimax,) = torch.autograd.grad(generator_loss(fake), fake)
    (other,) = torch.autograd.grad(generator_loss(fake, "nonsaturating"), fake)
    assert minimax.item() == 0 and other.item() == -1


def test_both_forms_drive_the_generator_towards_real():
    for form in ("minimax", "nonsaturating"):
        fake = torch.zeros(4, requires_grad=True)
        generator_loss(fake, form).backward()  # type: ignore[arg-type]
        assert fake.grad is not None and (fake.grad < 0).all()


def test_the_penalty_of_a_linear_discriminator_is_that_of_its_weights():
    weights = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    real, fake = random(5, 1, 1, 3), random(5, 1, 1, 3, seed=1)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weights, real, fake, generator())
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    penalty.backward()  # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    assert weights.grad is not None and weights.grad.tolist() == pytest.approx([8 * 3 / 5, 0, 8 * 4 / 5])


def test_the_penalty_is_taken_between_real_and_fake_at_one_place_for_each_image():
    real, fake = torch.ones(1000, 2, 3, 3, dtype=torch.float64), torch.zeros(1000, 2, 3, 3, dtype=torch.float64)
    seen = []

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().sum(dim=(1, 2, 3)) / 2  # the gradient is x

    penalty = gradient_penalty(discriminator, real, fake, generator())
    share = seen[0].flatten(1)
    assert (share == share[:, :1]).all() and share.min() >= 0 and share.max() <= 1
    assert share[:, 0].mean().item() == pytest.approx(0.5, abs=0.04) and share[:, 0].var().item() == pytest.approx(
        1 / 12, abs=0.01
    )
    expected = (share[:, 0] * 18**0.5 - 1).square().mean()
    assert penalty.item() == pytest.approx(expected.item())
    assert gradient_penalty(discriminator, real, fake, generator()).item() == penalty.item()
    assert gradient_penalty(discriminator, real, fake, generator(1)).item() != penalty.item()


def test_the_penalty_trains_the_discriminator_and_nothing_else():
    torch.manual_seed(0)
    discriminator = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake = random(2, 1, 4, 4).requires_grad_(), random(2, 1, 4, 4, seed=1).requires_grad_()
    gradient_penalty(discriminator, real, fake, generator()).backward()
    assert real.grad is None and fake.grad is None
    # Against central differences of the penalty by a weight.
    weight = discriminator[0].weight
    found, step = weight.grad[0, 0, 1, 1].item(), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 1, 1] += sign * step
        values.append(gradient_penalty(discriminator, real, fake, generator()).item())
        with torch.no_grad():
            weight[0, 0, 1, 1] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)
    with torch.no_grad():  # a validation step may want the number
        assert gradient_penalty(discriminator, real, fake, generator()) > 0


def test_a_flat_discriminator_has_a_finite_penalty_and_gradient():
    scale = torch.zeros((), requires_grad=True)
    penalty = gradient_penalty(
        lambda x: (scale * x).sum(dim=(1, 2, 3)), torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), generator()
    )
    penalty.backward()
    assert penalty.item() == 1 and scale.grad is not None and scale.grad.isfinite()


def test_batches_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 1, 4, 4\) and \(3, 1, 4, 4\)"):
        gradient_penalty(torch.sum, random(2, 1, 4, 4), random(3, 1, 4, 4), generator())
