"""Pictures of an edit: a turning GIF, and the mesh before and after from three sides."""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from recon3d.apps.editing.views import VIEWING_ANGLE
from recon3d.geometry.cameras import NMR_DISTANCE, NMR_ELEVATION, look_at_camera
from recon3d.renderers.hard import AMBIENT, DIFFUSE, TO_LIGHT
from recon3d.renderers.neural import Lights, render_neural

FRAMES, FRAME_TIME = 24, 80  # of the GIF; milliseconds
SIZE, LABEL = 224, 16  # pixels
SIDES = (30.0, 150.0, 270.0)  # azimuths, degrees


def photograph(verts: Tensor, faces: Tensor, textures: Tensor, azimuth: float) -> Image.Image:
    """The mesh on white from one side, at elevation 30 degrees; the light stands with the camera.

    Args:
        verts: (V, 3) in the editing frame.
        faces: (F, 3).
        textures: (F, T, T, T, 3) in [0, 1].
        azimuth: of the camera, degrees; 0 is on +Z.
    """
    camera = look_at_camera(NMR_DISTANCE, NMR_ELEVATION, azimuth, VIEWING_ANGLE)
    to_light = F.normalize(torch.tensor(TO_LIGHT), dim=0) @ camera.R.transpose(-1, -2)  # view to world, (1,3)
    lights = Lights(ambient=AMBIENT, directional=DIFFUSE, direction=to_light.to(verts.device))
    with torch.no_grad():
        render = render_neural(
            verts[None],
            faces,
            textures[None],
            camera.to(verts.device),
            SIZE,
            lights=lights,
            background=(1.0, 1.0, 1.0),
            anti_alias=2,
        )
    assert render.image is not None
    return to_picture(render.image[0])


def to_picture(image: Tensor) -> Image.Image:
    """Image (3, H, W) in [0, 1] with 8 bits per channel."""
    return Image.fromarray(image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def turntable_gif(verts: Tensor, faces: Tensor, textures: Tensor) -> bytes:
    """A GIF that turns the mesh once and loops; arguments as in `photograph`."""
    frames = [photograph(verts, faces, textures, 360 / FRAMES * frame) for frame in range(FRAMES)]
    # One palette for all frames: with one for each, the colours would flicker.
    strip = Image.new("RGB", (SIZE * FRAMES, SIZE))
    for column, frame in enumerate(frames):
        strip.paste(frame, (SIZE * column, 0))
    palette = strip.quantize(256)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    content = io.BytesIO()
    indexed[0].save(content, format="gif", save_all=True, append_images=indexed[1:], duration=FRAME_TIME, loop=0)
    return content.getvalue()


def comparison(
    before: Tensor, after: Tensor, faces: Tensor, textures: Tensor, style: Image.Image | None = None
) -> Image.Image:
    """Grey input above, result below, each from three sides; the style image, if there is one, at the left.

    Args:
        before: (V, 3) in the editing frame.
        after: (V, 3).
        faces: (F, 3).
        textures: (F, T, T, T, 3) of the result.
        style: square.
    """
    grey = torch.full_like(textures[:, :2, :2, :2], 0.5)  # a cube of one colour needs no more nodes
    rows = {"input": (before, grey), "result": (after, textures)}
    left = 0 if style is None else SIZE
    sheet = Image.new("RGB", (left + SIZE * len(SIDES), len(rows) * (SIZE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, (verts, texture)) in enumerate(rows.items()):
        top = row * (SIZE + LABEL)
        draw.text((left + 3, top + 2), title, fill="black")
        for column, azimuth in enumerate(SIDES):
            sheet.paste(photograph(verts, faces, texture, azimuth), (left + column * SIZE, top + LABEL))
    if style is not None:
        draw.text((3, SIZE + LABEL + 2), "style", fill="black")
        sheet.paste(style.resize((SIZE - 8, SIZE - 8), Image.Resampling.BICUBIC), (0, SIZE + 2 * LABEL))
    return sheet
