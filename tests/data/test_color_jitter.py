from __future__ import annotations

import colorsys
import zlib

import numpy as np
import pytest
import torch

from recon3d.data.color_jitter import HUE_SHARE, jitter_colors


def test_against_the_colours_of_the_standard_library(full_batch):
    batch = full_batch(objects=2, views=2, size=32)
    batch = full_batch(objects=2, views=2, size=32, images=0.3 + 0.4 * batch.images)  # nothing clips
    changed = jitter_colors(batch, 0.2, (3, 1))
    assert changed.masks is batch.masks and changed.images.shape == batch.images.shape
    for index, name in enumerate(batch.sample_id):
        generator = np.random.default_rng([3, 1, zlib.crc32(name.encode())])
        brightness, contrast, saturation, hue = generator.uniform(-0.2, 0.2, 4)
        for view, row, column in ((0, 16, 16), (1, 16, 16), (1, 2, 3)):
            color = batch.images[index, view, :, row, column].double().numpy()
            color = np.clip(color + brightness, 0, 1)
            color = np.clip(color * (1 + contrast), 0, 1)
            h, s, v = colorsys.rgb_to_hsv(*color)
            h, s, v = colorsys.rgb_to_hsv(*colorsys.hsv_to_rgb(h, min(s * (1 + saturation), 1), v))
            expected = colorsys.hsv_to_rgb((h + HUE_SHARE * hue) % 1, s, v)
            assert changed.images[index, view, :, row, column].tolist() == pytest.approx(expected, abs=2e-3)


def test_strength_seed_and_sample(full_batch):
    batch = full_batch(objects=2, views=1)
    same = jitter_colors(batch, 1e-9, (0, 0))
    assert torch.allclose(same.images, batch.images, atol=1e-4)
    ours = jitter_colors(batch, 0.3, (0, 0)).images
    assert torch.equal(ours, jitter_colors(batch, 0.3, (0, 0)).images)
    assert not torch.allclose(ours, jitter_colors(batch, 0.3, (0, 1)).images, atol=1e-3)
    alone = full_batch(objects=2, views=1, images=batch.images.flip(0), sample_id=batch.sample_id[::-1])
    assert torch.allclose(jitter_colors(alone, 0.3, (0, 0)).images.flip(0), ours, atol=1e-6)
