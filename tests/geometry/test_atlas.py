from types import SimpleNamespace

import pytest
import torch
from pytorch3d.renderer import TexturesAtlas

from recon3d.geometry.atlas import atlas_points


def lookup(weights, resolution):
    """Index of the texel that PyTorch3D looks up at points (N,3) of a face."""
    index = torch.arange(resolution**2).reshape(1, 1, resolution, resolution, 1).float()
    count = len(weights)
    fragments = SimpleNamespace(
        pix_to_face=torch.zeros(1, count, 1, 1, dtype=torch.long), bary_coords=weights.reshape(1, count, 1, 1, 3)
    )
    return TexturesAtlas(index).sample_textures(fragments).flatten().long()


@pytest.mark.parametrize("resolution", [1, 2, 3, 4, 6, 7])
def test_each_texel_is_what_pytorch3d_looks_up_at_its_own_point(resolution):
    points = atlas_points(resolution)
    assert points.shape == (resolution, resolution, 3) and points.dtype == torch.float32
    assert torch.equal(lookup(points.reshape(-1, 3), resolution), torch.arange(resolution**2))
    # And around it: three points half way to the corners of its small triangle, which is 1/R of the face.
    for shift in torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]) / 6 / resolution:
        upper = torch.arange(resolution)[:, None] + torch.arange(resolution) >= resolution
        near = points + torch.where(upper[..., None], -shift, shift)
        assert torch.equal(lookup(near.reshape(-1, 3), resolution), torch.arange(resolution**2))


@pytest.mark.parametrize("resolution", [1, 2, 3, 6])
def test_the_points_lie_inside_and_spread_evenly(resolution):
    points = atlas_points(resolution)
    assert points.min() > 0.3 / resolution
    torch.testing.assert_close(points.sum(dim=-1), torch.ones(resolution, resolution))
    torch.testing.assert_close(points.mean(dim=(0, 1)), torch.full((3,), 1 / 3))


def test_the_first_row_runs_along_the_edge_to_corner_0():
    points = atlas_points(4)
    assert points[0, 3].argmax() == 0 and points[3, 0].argmax() == 1 and points[0, 0].argmax() == 2


def test_no_texels():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        atlas_points(0)
