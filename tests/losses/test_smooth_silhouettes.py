import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from recon3d.losses.effective import smooth_silhouettes
from tests.losses import effective_oracle

FORMS = ["gap", "minmax", "pixel"]
every_form = pytest.mark.parametrize("form", FORMS)


def blob(size, seed=0):
    """An object of several parts, some of single pixels, some at the border of the frame."""
    generator = np.random.default_rng(seed)
    mask = generator.random((size, size)) < 0.08
    mask[size // 3 : size // 2, size // 4 :] = True
    return mask


def one(mask, form):
    out = smooth_silhouettes(torch.tensor(mask), form)
    assert out.dtype == torch.float32
    return out.numpy()


@every_form
@pytest.mark.parametrize("size", [1, 5, 8])  # an odd side: the margin is rounded up
@pytest.mark.parametrize("seed", [0, 1])
def test_each_form_in_scalars(form, size, seed):
    mask = blob(size, seed)
    mask[0, 0] = True
    expected = effective_oracle.smooth(mask, form, margin=math.ceil(size / 2))
    np.testing.assert_allclose(one(mask, form), expected, atol=2e-6)


def test_the_gap_form_has_the_numbers_of_drwr():
    """Its masks have 128 pixels: 220/255 - d / (64 sqrt 2)."""
    mask = np.zeros((128, 128), bool)
    mask[40, 50] = True
    smooth = one(mask, "gap")
    assert smooth.shape == (256, 256)
    at = {(i, j): float(smooth[64 + i, 64 + j]) for i, j in ((40, 50), (40, 51), (43, 54), (127, 127), (-64, 191))}
    for (i, j), value in at.items():
        d = math.hypot(i - 40, j - 50)
        assert value == pytest.approx(220 / 255 - d / (64 * math.sqrt(2)) if d else 1.0, abs=1e-6)
    assert max(value for value in smooth.flatten() if value < 1) == pytest.approx(0.8627 - 0.0110, abs=1e-4)


def test_the_gap_form_is_the_same_picture_at_every_resolution():
    coarse = np.zeros((8, 8), bool)
    coarse[2:5, 3:4] = True
    fine = one(np.kron(coarse, np.ones((4, 4), bool)), "gap")
    # From the edge of a pixel on, distances shrink by the part of a pixel that a centre lies within it.
    difference = fine.reshape(16, 4, 16, 4).mean(axis=(1, 3)) - one(coarse, "gap")
    assert np.abs(difference).max() < math.sqrt(2) * math.sqrt(2) / 2 / 8
    assert (difference[one(coarse, "gap") == 1] == 0).all()


def test_the_minmax_form_is_eq_2_with_the_background_of_the_frame_between_0_and_1():
    mask = blob(24)
    smooth = one(mask, "minmax")
    frame = smooth[12:36, 12:36]
    raw = 1 - distance_transform_edt(~mask) / 24
    background = raw[~mask]
    expected = (background - background.min()) / (background.max() - background.min())
    np.testing.assert_allclose(frame[~mask], expected, atol=1e-6)
    assert (frame[mask] == 1).all() and frame.min() == 0
    assert frame[~mask].max() == 1, "the nearest background costs nothing"


def test_the_slope_of_the_minmax_form_depends_on_the_mask():
    small, large = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    small[0, 0], large[0] = True, True
    slopes = [float(smooth[9, 8] - smooth[10, 8]) for smooth in (one(small, "minmax"), one(large, "minmax"))]
    assert slopes == pytest.approx([1 / (math.hypot(15, 15) - 1), 1 / (15 - 1)], rel=1e-5)


@pytest.mark.parametrize("form", ["gap", "minmax"])
def test_outside_the_frame_the_slope_goes_on(form):
    mask = np.zeros((8, 8), bool)
    mask[4, 4] = True
    smooth = one(mask, form)
    column = smooth[:, 8]  # straight up and down through the object, which is at row 8
    assert (np.diff(column[9:]) < 0).all() and (np.diff(column[:8]) > 0).all()
    steps = np.diff(column[9:])
    np.testing.assert_allclose(steps, steps[0], atol=1e-6)
    assert smooth.min() == smooth[0, 0]


def test_the_pixel_form_is_the_mask():
    mask = blob(6)
    smooth = one(mask, "pixel")
    assert (smooth[3:9, 3:9] == mask).all()
    assert smooth.sum() == mask.sum()


@every_form
def test_a_mask_without_foreground_asks_for_nothing(form):
    assert (one(np.zeros((6, 6), bool), form) == 1).all()


@every_form
def test_a_mask_without_background_is_1_in_the_frame_and_falls_outside(form):
    smooth = one(np.ones((6, 6), bool), form)
    assert (smooth[3:9, 3:9] == 1).all() and np.isfinite(smooth).all()
    outside = smooth[6, 9:]
    if form == "pixel":
        assert not outside.any()
    else:
        assert (np.diff(outside) < 0).all()


@pytest.mark.parametrize("holes", [[(2, 3)], [(0, 0), (2, 2), (5, 1)]])
def test_background_at_one_distance_is_defined(holes):
    mask = np.ones((6, 6), bool)
    for hole in holes:
        mask[hole] = False
    smooth = one(mask, "minmax")
    assert np.isfinite(smooth).all()
    assert all(smooth[3 + i, 3 + j] == 1 for i, j in holes)
    assert (np.diff(smooth[6, 9:]) < 0).all()


@every_form
def test_leading_dimensions_stay_and_masks_stay_apart(form):
    masks = np.stack([blob(6, seed) for seed in range(5)] + [np.zeros((6, 6), bool)])
    out = smooth_silhouettes(torch.tensor(masks).reshape(2, 3, 6, 6), form)
    assert out.shape == (2, 3, 12, 12)
    for smooth, mask in zip(out.flatten(0, 1).numpy(), masks, strict=True):
        np.testing.assert_array_equal(smooth, one(mask, form))


@pytest.mark.parametrize(
    ("masks", "form", "message"),
    [
        (torch.zeros(2, 6, 6), "gap", r"bool \(\.\.\., V, V\), got torch.float32"),
        (torch.zeros(2, 6, 5, dtype=torch.bool), "gap", r"\(2, 6, 5\)"),
        (torch.zeros(6, dtype=torch.bool), "gap", r"\(6,\)"),
        (torch.zeros(6, 6, dtype=torch.bool), "smooth", "gap, minmax or pixel, got 'smooth'"),
    ],
)
def test_bad_input_is_refused(masks, form, message):
    with pytest.raises(ValueError, match=message):
        smooth_silhouettes(masks, form)
