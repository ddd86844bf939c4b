"""Losses of a generator and a discriminator of images, and the gradient penalty (Lin and Tian 2021, eq. 36 to 39).

Data flow: a method renders its object from a random view (eq. 36), a discriminator
(`recon3d.networks.discriminators`) gives logits of these fake images and of photographs.

Logits are before the sigmoid, ``D(x) = sigmoid(logit)``; all losses are to be **minimised**.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GeneratorForm = Literal["minimax", "nonsaturating"]


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """``-E[log D(real)] - E[log(1 - D(fake))]``, a scalar (eq. 37, negated); ``2 log 2`` for a D that cannot tell.

    Args:
        real_logits: of any shape.
        fake_logits: of any shape.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor, form: GeneratorForm = "minimax") -> Tensor:
    """What the generator minimises, a scalar.

    - `minimax`: ``E[log(1 - D(fake))]`` (eq. 38), unbounded below. Its gradient vanishes where D is sure of a fake.
    - `nonsaturating`: ``-E[log D(fake)]`` (Goodfellow et al. 2014), with the same fixed points and without that flaw.

    Args:
        fake_logits: of any shape.
        form: see above.

    Raises:
        ValueError: an unknown form.
    """
    if form == "minimax":
        return -F.softplus(fake_logits).mean()
    if form == "nonsaturating":
        return F.softplus(-fake_logits).mean()
    raise ValueError(f"generator_loss: expected the form minimax or nonsaturating, got {form!r}.")


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    """``E[(|grad_x D(x)| - 1)^2]`` between real and fake images (eq. 39; Gulrajani et al. 2017), a scalar.

    ``x = e real + (1 - e) fake``, with one e of each image uniform in [0, 1]; D is the logit, the critic of Gulrajani
    et al.; the norm is over all channels and pixels. Trains the discriminator only: the images count as constants. The
    discriminator must treat each image of a batch by itself, so it may have no batch normalisation.

    Args:
        discriminator: gives logits (B,) or (B, 1) of images (B, C, H, W).
        real: (B, C, H, W).
        fake: (B, C, H, W).
        generator: draws e, on its own device.

    Raises:
        ValueError: batches of different shapes.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"gradient_penalty: expected real and fake images of one shape, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}."
        )
    draw = torch.rand(len(real), generator=generator, device=generator.device).to(real)
    share = draw.reshape(-1, *[1] * (real.ndim - 1))
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    with torch.enable_grad():
        logits = discriminator(between)
        (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
