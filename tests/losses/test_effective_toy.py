"""Points fitted to four silhouettes by the Effective Loss alone, without a network: where do they end?"""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from recon3d.losses.effective import effective_loss
from recon3d.methods.effective_loss import EffectiveLossPC

V = 32
FOCAL, DISTANCE = 1.875, 2.0  # DPC's camera, in image widths
BOXES = [  # middle and half sides of fuselage, wings, tail plane and fin
    ([0.0, 0.0, 0.0], [0.4, 0.06, 0.06]),
    ([0.05, 0.0, 0.0], [0.09, 0.02, 0.36]),
    ([-0.35, 0.02, 0.0], [0.05, 0.015, 0.14]),
    ([-0.36, 0.11, 0.0], [0.04, 0.07, 0.015]),
]
POSES = [(0, 20), (90, 20), (180, 20), (270, 20)]  # azimuth and elevation in degrees
STARTS = {"broad": 0.25, "tight": 0.025}


def rotations():
    out = []
    for azimuth, elevation in np.radians(POSES):
        c, s = np.cos([azimuth, elevation]), np.sin([azimuth, elevation])
        turn = np.array([[c[0], 0, s[0]], [0, 1, 0], [-s[0], 0, c[0]]])
        tilt = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
        out.append(tilt @ turn)
    return np.stack(out)


def silhouettes():
    """True masks (4, V, V): does the ray through a pixel's centre meet a box?"""
    middle = (np.arange(V) + 0.5) / V - 0.5
    x, y = np.meshgrid(-middle, -middle)  # +X left, +Y up
    rays = np.stack([x / FOCAL, y / FOCAL, np.ones_like(x)], axis=-1)
    masks = np.zeros((len(POSES), V, V), bool)
    for mask, rotation in zip(masks, rotations(), strict=True):
        origin, direction = rotation.T @ [0, 0, -DISTANCE], rays @ rotation  # in the frame of the object
        for centre, half in BOXES:
            ends = [(np.array(centre) + sign * np.array(half) - origin) / direction for sign in (1, -1)]
            near, far = np.minimum(*ends).max(axis=-1), np.maximum(*ends).min(axis=-1)
            mask |= near < far
    return torch.tensor(masks)


def project(points):
    """NDC (4, N, 2)."""
    view = points @ torch.tensor(rotations(), dtype=points.dtype).transpose(1, 2)
    return 2 * FOCAL * view[..., :2] / (view[..., 2:] + DISTANCE)


@functools.cache
def fit(start, beta, n=400, steps=300):
    """Share of the points inside in the worst view, and mean distance (x 100) of the object's volume to its points."""
    generator = torch.Generator().manual_seed(1)
    masks = silhouettes()
    raw = (2 * STARTS[start] * torch.randn(n, 3, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        terms = effective_loss(project(torch.tanh(raw) / 2), masks)
        (terms.unary + beta * terms.pairwise).backward()
        optimizer.step()
    points = (torch.tanh(raw) / 2).detach()
    cell = ((0.5 - 0.5 * project(points)) * V).floor().long()
    seen = ((cell >= 0) & (cell < V)).all(dim=-1)
    row, column = cell.clamp(0, V - 1)[..., 1], cell.clamp(0, V - 1)[..., 0]
    inside = seen & torch.stack([mask[r, c] for mask, r, c in zip(masks, row, column, strict=True)])
    volume = np.concatenate(
        [
            np.array(centre) + np.array(half) * np.random.default_rng(0).uniform(-1, 1, (1000, 3))
            for centre, half in BOXES
        ]
    )
    coverage = 100 * cKDTree(points.numpy()).query(volume)[0].mean()
    return float(inside.double().mean(dim=1).min()), coverage


def test_the_silhouettes_are_those_of_the_boxes():
    masks = silhouettes()
    corners = np.array([np.array(c) + np.array(h) * s for c, h in BOXES for s in np.ndindex(2, 2, 2)])
    inner = torch.tensor(np.concatenate([np.array(c) + np.array(h) * np.zeros((1, 3)) for c, h in BOXES]))
    place = ((0.5 - 0.5 * project(inner)) * V).floor().long()
    assert all(bool(masks[view, row, column]) for view in range(4) for column, row in place[view].tolist())
    assert 0.05 < float(masks.double().mean()) < 0.35
    assert np.abs(corners).max() < 0.5


@pytest.mark.slow
def test_m1_alone_brings_a_broad_cloud_inside():
    # Not all: the pull of one view ends at the step that the gap form puts at the boundary of another. How many are
    # caught so depends on the cameras; four that are less even than these leave 3 %.
    inside, _ = fit("broad", 0.0)
    assert inside >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_a_pairwise_weight_of_a_hundredth_keeps_points_inside_from_both_starts(start):
    """The value to take for points without a network."""
    inside, _ = fit(start, 0.01)
    assert inside >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_the_shipped_pairwise_weight_keeps_most_points_inside_from_both_starts(start):
    # The default of 1 is for a network; points without one it drives over the boundary. Inside are 95.3 % from the
    # broad and 89.3 % from the tight start, where 0.01 has 99.0 % and 100 %.
    inside, _ = fit(start, EffectiveLossPC().loss_weights["pairwise"])
    assert inside >= 0.85


@pytest.mark.slow
def test_the_pairwise_term_spreads_a_tight_cloud():
    """M1 alone leaves it where it is: what is inside is not moved."""
    _, with_pairs = fit("tight", 0.01)
    _, alone = fit("tight", 0.0)
    assert with_pairs < 0.7 * alone and math.isfinite(alone)
