import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from recon3d.losses.effective import effective_loss
from tests.losses import effective_oracle
from tests.losses.effective_oracle import Settings
from tests.losses.effective_scenes import CASES, V, expected_terms, preset, scene, terms_and_gradients, to_ndc

BACKENDS = ["reference", "numba"]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_case = pytest.mark.parametrize(("settings", "detach"), CASES.values(), ids=CASES)


@every_backend
@every_case
def test_both_terms_in_scalars(settings, detach, backend):
    masks, points = scene()
    expected = expected_terms(masks, points, settings)
    found, _ = terms_and_gradients(masks, points, settings, detach=detach, backend=backend)
    assert min(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=3e-6)


@pytest.mark.parametrize("name", ["recon3d", "literal", "drwr"])
def test_the_total_of_a_preset_in_scalars(name):
    """Eq. 6, written out for one view, from the mask to the number."""
    settings, detach, alpha, beta = preset(name)
    masks, points = scene((1,), n=9)
    mask, view = masks[0], points[0].tolist()
    smooth = effective_oracle.smooth(mask, settings.silhouette, V // 2)
    w, mu = effective_oracle.weights(mask, view[4:], settings)
    total = 0.0
    for j, (x, y) in enumerate(view[4:]):  # without those past the margin, of which eq. 6 says nothing
        m1 = abs(1 - effective_oracle.bilinear(smooth, (x + V // 2, y + V // 2)))
        l2 = 0.0
        for k, (xk, yk) in enumerate(view[4:]):
            d = math.hypot(x - xk, y - yk)
            if name == "literal":
                l2 += w[k] * math.exp(-d / V / 0.05 + mu[j])
            elif name == "drwr":
                l2 += w[k] * math.exp(-(d**2) * (32 / V) ** 2 / 5 + mu[j]) / 5  # in pixels of a grid of 32
            elif j != k:
                l2 += w[k] * math.exp(-d / V / 0.05 + mu[j]) / 5
        total += (alpha * m1 + beta * w[j] * l2) / 5
    terms = effective_loss(to_ndc(points[:, 4:]), torch.tensor(masks), **asdict(settings), detach=detach)
    assert alpha * terms.unary.item() + beta * terms.pairwise.item() == pytest.approx(total, rel=1e-3)


def test_the_presets_are_what_was_published():
    settings, detach, alpha, _ = preset("literal")
    assert settings == Settings(silhouette="minmax", reduction="sum", self_pair=True) and not detach and alpha == 1
    settings, detach, alpha, beta = preset("drwr")
    assert (alpha, beta, settings.bias, settings.rings, settings.silhouette) == (1, 3, 3.5, 5, "gap")
    assert (settings.kernel, settings.reduction, settings.self_pair, detach) == ("gauss", "mean", True, False)
    assert settings.theta == pytest.approx(math.sqrt(5) / 32, abs=5e-5)  # exp(-d^2 / 5) in pixels of 32
    settings, detach, alpha, beta = preset("recon3d")
    assert settings == Settings() and detach and (alpha, beta) == (1, 1)


def numeric_gradient(function, points, step=1e-5):
    """Central differences by every coordinate, per pixel."""
    out = np.zeros_like(points)
    for index in np.ndindex(points.shape):
        ends = []
        for sign in (1, -1):
            moved = points.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        out[index] = (ends[0] - ends[1]) / (2 * step)
    return out


@every_case
def test_gradients_by_differences_with_w_and_mu_held_or_not(settings, detach):
    masks, points = scene((1,), n=13, seed=1)
    fixed = effective_oracle.weights(masks[0], points[0].tolist(), settings) if detach else None

    def pairwise(moved):
        return effective_oracle.pairwise(masks[0], moved[0].tolist(), settings, fixed)

    def unary(moved):
        return effective_oracle.unary(masks[0], moved[0].tolist(), settings)

    _, (by_unary, by_pairwise) = terms_and_gradients(masks, points, settings, detach=detach)
    np.testing.assert_allclose(by_unary, numeric_gradient(unary, points), atol=1e-5)
    scale = np.abs(by_pairwise).max()
    assert scale > 1e-4
    np.testing.assert_allclose(by_pairwise, numeric_gradient(pairwise, points), atol=1e-6 * scale)


def test_the_gradient_through_w_pushes_out_of_the_silhouette():
    """The reason to detach: a lone pair at the boundary leaves it, though the points are at one place."""
    masks = np.zeros((1, V, V), bool)
    masks[0, :, :4] = True
    points = np.array([[[3.4, 4.0], [3.4, 4.0]]])
    through = terms_and_gradients(masks, points, Settings(), detach=False)[1][1]
    assert (through[0, :, 0] < 0).all(), "the loss falls to the right, where the background is"
    assert not terms_and_gradients(masks, points, Settings(), detach=True)[1][1].any()


def w_and_mu(mask, point, rings=5, weighted=True):
    """Read from the pairwise term of two points at one place: w^2 e^mu / 2."""
    xy = to_ndc(np.array([[point, point]], float))
    both = [
        2 * effective_loss(xy, torch.tensor(mask)[None], rings=count, weighted=weighted).pairwise.item()
        for count in (0, rings)
    ]
    return math.sqrt(both[0]), math.log(both[1] / both[0])


def test_w_is_the_bilinear_sample_of_the_mask():
    mask = np.zeros((V, V), bool)
    mask[3, 2] = mask[3, 3] = mask[4, 3] = True
    assert w_and_mu(mask, (2.0, 3.0))[0] == pytest.approx(1)  # x, y: the centre of row 3, column 2
    assert w_and_mu(mask, (2.25, 3.5))[0] == pytest.approx(0.75 * 0.5 + 0.25)
    assert w_and_mu(mask, (1.5, 2.75))[0] == pytest.approx(0.5 * 0.75)


def test_mu_is_the_mean_of_growing_squares_with_the_weights_of_the_smallest():
    mask = np.zeros((V, V), bool)
    mask[2:6, 2:6] = True
    assert w_and_mu(mask, (3.5, 3.5))[1] == pytest.approx(2 / 5)  # squares 3..4 and 2..5 are inside, 1..6 is not
    # Columns 2 - n and 3 + n of weights 0.75 and 0.25, rows 3 - n and 4 + n of a half each. n = 0: all inside; n = 1:
    # columns 1 and 4, rows 2 and 5, so a quarter; n = 2: columns 0 and 5, rows 1 and 6: nothing.
    assert w_and_mu(mask, (2.25, 3.5))[1] == pytest.approx((1 + 0.25) / 5)
    full = np.ones((V, V), bool)
    assert w_and_mu(full, (0.5, 6.5))[1] == pytest.approx(1), "clamped to the image"
    corner = np.zeros((V, V), bool)
    corner[0, 0] = True
    # Rows and columns max(0, 0 - n) = 0 of weight 0.9 each, and 1 + n of weight 0.1, which are empty.
    assert w_and_mu(corner, (0.1, 0.1))[1] == pytest.approx(0.81)


def test_mu_is_larger_deep_inside():
    mask = np.zeros((V, V), bool)
    mask[1:7, 1:7] = True
    values = [w_and_mu(mask, (x, 3.5))[1] for x in (3.5, 2.5, 1.5, 1.1)]
    assert values == sorted(values, reverse=True) and values[0] > 2 * values[-1]


def test_the_image_is_read_the_right_way_round():
    mask = np.zeros((V, V), bool)
    mask[0, 0] = True  # top left: +Y is up, +X is left
    xy = torch.tensor([[[1 - 1 / V, 1 - 1 / V]], [[-1 + 1 / V, 1 - 1 / V]], [[1 - 1 / V, -1 + 1 / V]]])
    costs = [effective_loss(p[None], torch.tensor(mask)[None]).unary.item() for p in xy]
    assert costs[0] == pytest.approx(0, abs=1e-6) and costs[1] == pytest.approx(costs[2]) and costs[1] > 1
