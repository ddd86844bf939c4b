import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from recon3d.losses.effective import effective_loss
from tests.losses.effective_oracle import Settings
from tests.losses.effective_scenes import CASES, V, expected_terms, scene, terms_and_gradients, to_ndc, views

BACKENDS = ["reference", "numba"]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_case = pytest.mark.parametrize(("settings", "detach"), CASES.values(), ids=CASES)


@pytest.mark.parametrize("form", ["gap", "minmax"])
@pytest.mark.parametrize("widths", [0.4, 0.55, 0.9, 1.2, 7.0, 1e3])
def test_outside_projections_are_drawn_to_the_silhouette(form, widths):
    masks = np.zeros((1, V, V), bool)
    masks[0, 3:5, 3:5] = True
    centre = (V - 1) / 2
    for angle in np.linspace(0, 2 * math.pi, 7):
        points = centre + widths * V * np.array([[[math.cos(angle), math.sin(angle)]]])
        (value, _), (gradient, _) = terms_and_gradients(masks, points, Settings(silhouette=form))
        pull, way = -gradient[0, 0], centre - points[0, 0]
        cosine = pull @ way / np.linalg.norm(pull) / np.linalg.norm(way)
        assert np.linalg.norm(pull) > 0.05 and cosine > 0.7
        assert np.isfinite(value) and value > 0.1


def test_plain_pixels_do_not_draw_what_is_far():
    """Eq. 1: the reason for S^G."""
    masks = np.zeros((1, V, V), bool)
    masks[0, 3:5, 3:5] = True
    points = np.array([[[0.5, 0.5], [-3.0, 2.0], [2.4, 3.5]]])
    (value, _), (gradient, _) = terms_and_gradients(masks, points, Settings(silhouette="pixel"))
    assert value == pytest.approx((1 + 1 + 0.6) / 3) and not gradient[0, :2].any()
    assert gradient[0, 2].tolist() == pytest.approx([-1 / 3, 0.0])


@every_case
def test_a_view_without_foreground_counts_nothing(settings, detach):
    masks, points = scene()
    assert not masks[1, 0].any()
    (unary, pairwise), gradients = terms_and_gradients(masks[1, :1], points[1, :1], settings, detach=detach)
    assert unary == 0 and pairwise == 0 and not any(gradient.any() for gradient in gradients)
    _, gradients = terms_and_gradients(masks, points, settings, detach=detach)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and not gradient[1, 0].any() and gradient[1, 1].any()


@every_case
def test_a_full_mask_asks_only_for_the_frame(settings, detach):
    points = np.random.default_rng(0).uniform(0, V - 1, (1, 6, 2))
    (unary, pairwise), gradients = terms_and_gradients(np.ones((1, V, V), bool), points, settings, detach=detach)
    assert unary == pytest.approx(0, abs=1e-6) and pairwise > 0 and np.abs(gradients[0]).max() < 1e-6


@every_backend
@every_case
def test_coincident_points_are_defined(settings, detach, backend):
    masks, points = scene((1,))
    points[0, 5:9] = 3.3, 3.1
    points[0, 9:] = points[0, 4]
    found, gradients = terms_and_gradients(masks, points, settings, detach=detach, backend=backend)
    np.testing.assert_allclose(found, expected_terms(masks, points, settings), rtol=3e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.ptp(gradients[1][0, 5:9], axis=0).max() < 1e-12, "all are pushed alike"


def test_the_order_of_points_and_views_does_not_matter():
    masks, points = scene()
    found, gradients = terms_and_gradients(masks, points, Settings())
    order = np.random.default_rng(0).permutation(points.shape[2])
    same, permuted = terms_and_gradients(masks[::-1].copy(), points[::-1, :, order].copy(), Settings())
    np.testing.assert_allclose(same, found, rtol=1e-12)
    for one, other in zip(permuted, gradients, strict=True):
        np.testing.assert_allclose(one, other[::-1, :, order], atol=1e-14)


def test_the_terms_of_each_view():
    masks, points = scene()
    terms = effective_loss(to_ndc(points), torch.tensor(masks), per_view=True)
    expected = [expected_terms(mask[None], np.array([view]), Settings()) for mask, view in views(masks, points)]
    for index, term in enumerate(terms):
        assert term.shape == (2, 2)
        np.testing.assert_allclose(term.flatten(), [one[index] for one in expected], rtol=3e-6)


def test_the_mean_does_not_grow_with_the_number_of_points_and_the_sum_does():
    mask = torch.zeros(16, 32, 32, dtype=torch.bool)
    mask[:, 4:28, 4:28] = True
    generator = torch.Generator().manual_seed(0)
    values = {
        reduction: [
            effective_loss(1.4 * torch.rand(16, n, 2, generator=generator) - 0.7, mask, reduction=reduction).pairwise
            for n in (300, 1200)
        ]
        for reduction in ("mean", "sum")
    }
    assert float(values["mean"][1] / values["mean"][0]) == pytest.approx(1, rel=0.03)
    assert float(values["sum"][1] / values["sum"][0]) == pytest.approx(4, rel=0.03)


def test_mass_weighs_points_in_both_terms():
    masks, points = scene((1,), n=13)
    xy, solid = to_ndc(points), torch.tensor(masks)
    plain = effective_loss(xy, solid)
    even = effective_loss(xy, solid, mass=torch.ones(1, 13).double())
    assert [term.item() for term in even] == [term.item() for term in plain]
    mass = torch.ones(1, 13).double()
    mass[:, 7:10] = 0  # of those inside
    without = effective_loss(xy[:, mass[0] > 0], solid)
    gone = effective_loss(xy, solid, mass=mass)
    assert gone.unary.item() == pytest.approx(without.unary.item() * 10 / 13)
    assert gone.pairwise.item() == pytest.approx(without.pairwise.item() * (10 / 13) ** 2)
    assert 0 < gone.pairwise.item() < 0.9 * plain.pairwise.item()
    mass = torch.rand(1, 13, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    for term in (0, 1):
        assert torch.autograd.gradcheck(lambda m, term=term: effective_loss(xy, solid, mass=m)[term], mass, atol=1e-8)


@every_case
def test_float32_gives_the_same(settings, detach):
    masks, points = scene()
    expected = effective_loss(to_ndc(points), torch.tensor(masks), **asdict(settings), detach=detach)
    found = effective_loss(to_ndc(points).float(), torch.tensor(masks), **asdict(settings), detach=detach)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and one.item() == pytest.approx(other.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xy": torch.zeros(2, 5, 3)}, r"xy \(\.\.\., N, 2\).*\(2, 5, 3\)"),
        ({"xy": torch.zeros(3, 5, 2)}, r"same leading shape.*\(3, 5, 2\)"),
        ({"masks": torch.zeros(2, V, V)}, r"bool masks.*float32"),
        ({"masks": torch.zeros(2, V, 5, dtype=torch.bool)}, r"\(2, 8, 5\)"),
        ({"silhouette": "smooth"}, "gap, minmax or pixel, got 'smooth'"),
        ({"kernel": "gaussian"}, "gaussian"),
        ({"theta": 0.0}, "theta"),
        ({"reduction": "max"}, "mean or sum .*'max'"),
        ({"rings": -1}, "rings >= 0, .*-1"),
        ({"mass": torch.ones(2, 4)}, r"mass.*\(2, 5\).*\(2, 4\)"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = {"xy": torch.zeros(2, 5, 2), "masks": torch.ones(2, V, V, dtype=torch.bool)} | changes
    with pytest.raises(ValueError, match=message):
        effective_loss(**arguments)
