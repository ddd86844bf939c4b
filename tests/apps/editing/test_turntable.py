from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from recon3d.apps.editing.turntable import FRAMES, LABEL, SIDES, SIZE, comparison, photograph, turntable_gif
from recon3d.geometry.cameras import look_at_camera, project
from recon3d.geometry.templates import icosphere

# A sphere that is red on +X, green on +Y, blue on +Z.
VERTS, FACES = icosphere(2, 0.9)
CENTRES = VERTS[FACES].mean(dim=1)
COLORS = (CENTRES > 0.3).float()
TEXTURES = COLORS[:, None, None, None, :].expand(-1, 2, 2, 2, -1).contiguous()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def test_a_photograph_shows_the_side_it_is_taken_from() -> None:
    for azimuth, channel, other in ((0.0, 2, 0), (90.0, 0, 2)):
        shown = pixels(photograph(VERTS, FACES, TEXTURES, azimuth))
        middle = shown[SIZE // 2 + 20, SIZE // 2]
        assert middle[channel] > 100 and middle[other] < 20
        assert shown[0, 0].tolist() == [255, 255, 255]
        # Where a known point of the surface is drawn, by projection alone.
        camera = look_at_camera(2.732, 30.0, azimuth, 30.0)
        top = project(camera, torch.tensor([[[0.0, 0.9, 0.0]]]))[0, 0]
        row, column = (1 - top[1]) * SIZE / 2, (1 - top[0]) * SIZE / 2
        assert shown[int(row) + 8, int(column)].argmax() == 1


def test_the_light_stands_with_the_camera() -> None:
    grey = torch.full_like(TEXTURES, 0.5)
    first, turned = (pixels(photograph(VERTS, FACES, grey, azimuth)) for azimuth in (0.0, 180.0))
    assert np.abs(first - turned).mean() < 2  # a sphere looks the same from everywhere
    left, right = first[:, : SIZE // 2], first[:, SIZE // 2 :]
    assert left[left < 255].mean() > right[right < 255].mean() + 3  # over the left shoulder


def test_the_gif_turns_once_and_loops() -> None:
    gif = Image.open(io.BytesIO(turntable_gif(VERTS, FACES, TEXTURES)))
    assert gif.n_frames == FRAMES and gif.info["loop"] == 0 and gif.size == (SIZE, SIZE)
    for frame in (0, FRAMES // 4, FRAMES // 2):
        gif.seek(frame)
        expected = pixels(photograph(VERTS, FACES, TEXTURES, 360 / FRAMES * frame))
        assert np.abs(pixels(gif) - expected).mean() < 4  # 256 colours


def test_before_and_after() -> None:
    style = Image.new("RGB", (50, 50), (10, 200, 30))
    smaller = 0.5 * VERTS
    sheet = pixels(comparison(VERTS, smaller, FACES, TEXTURES, style))
    assert sheet.shape == (2 * (SIZE + LABEL), (1 + len(SIDES)) * SIZE, 3)
    assert sheet[SIZE + 2 * LABEL + 60, 60].tolist() == [10, 200, 30]
    above, below = sheet[LABEL : LABEL + SIZE, SIZE:], sheet[2 * LABEL + SIZE :, SIZE:]
    assert np.ptp(above, axis=-1).max() == 0  # the input is grey
    assert np.ptp(below, axis=-1).max() > 100
    ratio = (above.min(axis=-1) < 255).sum() / (below.min(axis=-1) < 255).sum()
    assert ratio > 4  # half as large
    assert comparison(VERTS, smaller, FACES, TEXTURES).width == len(SIDES) * SIZE
