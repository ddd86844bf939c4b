"""Scenes for the tests of `recon3d.losses.effective`, its presets, and what the oracle says of them."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
import yaml

from recon3d.losses.effective import effective_loss
from tests.losses.effective_oracle import Settings, pairwise, unary

V = 8
CONFIGS = Path(__file__).parents[2] / "configs"


def preset(name):
    """Settings of the loss, whether w and mu are detached, alpha and beta: of the method's yaml and its variant's."""
    files = [CONFIGS / "methods/effective_loss.yaml"]
    files += [CONFIGS / f"variants/effective_loss-{name}.yaml"] if name != "recon3d" else []
    values = {}
    for file in files:
        values |= yaml.safe_load(file.read_text())["model"]["init_args"]
    settings = Settings(**{field.name: values[field.name] for field in fields(Settings)})
    return settings, values["detach"], values["alpha"], values["beta"]


CASES = {
    "recon3d": (preset("recon3d")[0], True),
    "literal": (preset("literal")[0], False),
    "drwr": (preset("drwr")[0], False),
    "pixel": (Settings(silhouette="pixel", theta=0.1), True),
    "no w": (Settings(weighted=False, bias=0.3), True),
    "no mu": (Settings(rings=0, kernel="gauss", theta=0.2), False),
    "wide": (Settings(silhouette="minmax", theta=0.5, rings=2, reduction="sum"), True),
}


def scene(leading=(2, 2), n=14, seed=0):
    """Masks, one of them empty and one full, and points in pixels: inside, around, at the border, beyond the margin."""
    generator = np.random.default_rng(seed)
    count = math.prod(leading)
    masks = np.zeros((count, V, V), bool)
    masks[0, 2:6, 1:6] = masks[0, 1, 3] = masks[0, 6, 0] = True
    if count > 2:
        masks[1] = True
        masks[3:, 3:, 2:5] = True
    points = generator.uniform(-1, V, (count, n, 2))
    points[:, 7:] = generator.uniform(2, 5, points[:, 7:].shape)
    points[:, 0] = 1.7 * V, 4.2  # past the margin of V / 2
    points[:, 1] = -3.3 * V, -2.1 * V
    points[:, 2] = 4.3, -0.8  # outside the frame, pixels of its border still in reach
    points[:, 3] = V - 0.6, V - 0.2
    return masks.reshape(*leading, V, V), points.reshape(*leading, n, 2)


def to_ndc(pixels):
    """Row 0 at the top, +X left, +Y up: the centre of column j is x = 1 - (2j + 1) / V."""
    return 1 - (2 * torch.as_tensor(pixels) + 1) / V


def views(masks, points):
    return zip(masks.reshape(-1, V, V), points.reshape(-1, *points.shape[-2:]).tolist(), strict=True)


def expected_terms(masks, points, settings):
    """Eq. 6 without its weights: the mean over the views, empty masks included, which count 0."""
    terms = [(unary(mask, view, settings), pairwise(mask, view, settings)) for mask, view in views(masks, points)]
    return np.mean(terms, axis=0)


def terms_and_gradients(masks, points, settings, **options):
    xy = to_ndc(points).requires_grad_()
    terms = effective_loss(xy, torch.tensor(masks), **asdict(settings), **options)
    gradients = [torch.autograd.grad(term, xy, retain_graph=True)[0] for term in terms]
    return [term.item() for term in terms], [-2 / V * gradient.numpy() for gradient in gradients]  # per pixel
