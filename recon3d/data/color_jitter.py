"""Change of the colours of training photographs, on the device that trains.

Used by `recon3d.data.photographs`. The paper's methods train without it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from kornia.enhance import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation

from recon3d.structures import ViewBatch

HUE_SHARE = 0.25  # of the strength, in turns of the colour wheel


def jitter_colors(batch: ViewBatch, strength: float, seed: Sequence[int]) -> ViewBatch:
    """The batch with brightness, contrast, saturation and hue of each sample's images changed.

    Args:
        batch: photographs, on any device.
        strength: brightness moves by up to this much, contrast and saturation are multiplied by 1 plus as much, hue
            turns by up to a quarter of it, in turns; all uniformly drawn, either way.
        seed: with the name of a sample it determines its change, whatever batch it is in.
    """
    draws = [
        np.random.default_rng([*seed, zlib.crc32(name.encode())]).uniform(-strength, strength, 4)
        for name in batch.sample_id
    ]
    images, views = batch.images.flatten(0, 1), batch.images.shape[1]
    change = torch.tensor(np.stack(draws), dtype=images.dtype, device=images.device).repeat_interleave(views, dim=0)
    brightness, contrast, saturation, hue = change.unbind(dim=1)
    images = adjust_brightness(images, brightness)
    images = adjust_contrast(images, (1 + contrast).clamp(min=0))
    images = adjust_saturation(images, (1 + saturation).clamp(min=0))
    images = adjust_hue(images, hue * HUE_SHARE * 2 * torch.pi)
    return replace(batch, images=images.clamp(0, 1).unflatten(0, batch.images.shape[:2]))
