from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch3d.renderer import TexturesVertex
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.apps.photo import Photo
from recon3d.apps.preview import LABEL, TILE, _fits, preview
from recon3d.geometry.cameras import look_at_camera, nmr_cameras
from recon3d.geometry.marching import voxel_surface
from recon3d.renderers.hard import render_hard
from recon3d.structures import Reconstruction


@pytest.fixture(scope="module")
def arrow() -> tuple[Tensor, Tensor]:
    """A mesh that looks different from all sides: a long bar along +X with a fin on +Z, and a block on top."""
    grid = torch.zeros(16, 16, 16, dtype=torch.bool)
    grid[6:9, 2:14, 6:9] = True
    grid[6:9, 10:13, 9:14] = True
    grid[9:13, 3:5, 6:9] = True
    mesh = voxel_surface(grid[None])
    return mesh.verts_list()[0], mesh.faces_list()[0]


def tiles(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[LABEL:].reshape(TILE, -1, TILE, 3).swapaxes(0, 1)


@pytest.mark.parametrize("view", [0, 5, 13, 22])
def test_the_closest_view_is_the_one_rendered(arrow: tuple[Tensor, Tensor], view: int) -> None:
    verts, faces = arrow
    mask = render_hard(verts[None], faces, nmr_cameras()[view : view + 1], 64).mask[0]
    fits = _fits(verts, faces, mask)
    assert int(fits.argmax()) == view and fits[view] == 1.0
    assert fits.sort(descending=True).values[1] < 0.97


def test_the_predicted_camera_is_used(arrow: tuple[Tensor, Tensor]) -> None:
    verts, faces = arrow
    camera = look_at_camera(elevation=-50.0, azimuth=77.0)
    photo = Photo(Path("x.png"), torch.rand(3, 32, 32), torch.ones(1, 32, 32))
    shown = tiles(preview(photo, Reconstruction(mesh=Meshes(verts[None], faces[None]), camera=camera)))
    expected = render_hard(verts[None], faces, camera, TILE).mask[0, 0].numpy() > 0.5
    assert ((shown[1].min(axis=-1) < 250) != expected).mean() < 0.02


def test_the_front_is_plus_x(arrow: tuple[Tensor, Tensor]) -> None:
    verts, faces = arrow
    red = torch.zeros_like(verts)
    red[:, 0] = (verts[:, 0] > 0.3).float()  # the tip of the bar
    mesh = Meshes(verts[None], faces[None], TexturesVertex(red[None]))
    photo = Photo(Path("x.png"), torch.rand(3, 32, 32), None)
    shown = tiles(preview(photo, Reconstruction(mesh=mesh))).astype(int)
    redness = (shown[1:, ..., 0] - shown[1:, ..., 1] > 60).sum(axis=(1, 2))  # front, quarter, side, back, back quarter
    assert redness[0] > 2 * redness[3]
    columns = np.flatnonzero((shown[3, ..., 0] - shown[3, ..., 1] > 60).any(axis=0))
    body = np.flatnonzero((shown[3].min(axis=-1) < 250).any(axis=0))
    # From the side on -Z, the front (+X) lies to the left.
    assert columns.max() < body.mean()


def test_the_input_is_shown_on_white() -> None:
    verts, faces = torch.eye(3) / 4, torch.tensor([[0, 1, 2]])
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    photo = Photo(Path("x.png"), torch.tensor([1.0, 0.5, 0.0])[:, None, None] * mask, mask)
    shown = tiles(preview(photo, Reconstruction(mesh=Meshes([verts], [faces]))))
    assert shown[0, 80, 80].tolist() == [255, 128, 0]
    assert shown[0, 5, 5].tolist() == [255, 255, 255]
