from __future__ import annotations

import pytest
import torch

from recon3d.apps.editing.views import DISTANCE_SPREAD, VIEWING_ANGLE, random_cameras
from recon3d.geometry.cameras import look_at_parameters


def test_views_cover_what_they_should() -> None:
    cameras = random_cameras(4000, 2.5, (-10.0, 30.0), torch.Generator().manual_seed(0))
    drawn = look_at_parameters(cameras)
    for name, low, high in (("azimuth", -180, 180), ("elevation", -10, 30)):
        counts = torch.histc(drawn[name], 8, low, high)
        assert counts.sum() == 4000 and (counts - 500).abs().max() < 100, name
    assert drawn["distance"].mean().item() == pytest.approx(2.5, abs=0.01)
    assert drawn["distance"].std().item() == pytest.approx(DISTANCE_SPREAD, rel=0.1)
    assert drawn["viewing_angle"].unique().tolist() == pytest.approx([VIEWING_ANGLE])


def test_the_same_seed_gives_the_same_views() -> None:
    first, again, other = (
        random_cameras(3, 2.5, (0.0, 1.0), torch.Generator().manual_seed(seed)).T for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
