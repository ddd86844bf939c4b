"""A picture of one prediction: the photo, and the mesh from several sides."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from PIL import Image, ImageDraw
from pytorch3d.renderer import TexturesUV
from torch import Tensor

from recon3d.apps.photo import Photo
from recon3d.geometry.cameras import look_at_camera, nmr_cameras
from recon3d.metrics.iou import mask_iou
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction

TILE, LABEL = 160, 14  # pixels
ANTI_ALIAS = 3
FRONT = 90.0  # azimuth, degrees: the camera on +X, where the front of the object is
TURNS = {"front": 0.0, "front quarter": 45.0, "side": 90.0, "back": 180.0, "back quarter": 225.0}  # from the front


class _View(NamedTuple):
    """One render: its title, the camera, and whether the mesh is shown without its colours."""

    title: str
    camera: Camera
    clay: bool = False


def preview(photo: Photo, recon: Reconstruction) -> Image.Image:
    """Photo and mesh side by side, on white.

    A coloured mesh with a predicted camera is shown in the input view, from the other side (turned half around its +Y)
    and in the input view as clay. Any other mesh is shown in the input view, and from five sides at elevation 30
    degrees. The input view is the predicted camera. A method that predicts none says how the object stands, not where
    the camera was; then it is the one of the 24 views of the training renders whose silhouette fits the mask best, and
    the label says how well. Without a mask that tile is left out. UV maps hold their light and get none; vertex colours
    and clay are shaded.

    Args:
        photo: what was read.
        recon: of this photo alone, with a mesh that has faces.
    """
    assert recon.mesh is not None
    verts, faces = recon.mesh.get_mesh_verts_faces(0)
    titles, tiles = ["input"], [_on_white(photo.image, None if photo.background else photo.mask)]
    for view in _views(photo, recon):
        textures = None if view.clay else recon.mesh.textures
        render = render_hard(
            verts[None],
            faces,
            view.camera,
            TILE,
            anti_alias=ANTI_ALIAS,
            lit=not isinstance(textures, TexturesUV),
            textures=textures,
        )
        titles.append(view.title)
        tiles.append(_on_white(render.image[0], render.mask[0]))
    sheet = Image.new("RGB", (len(tiles) * TILE, TILE + LABEL), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, tile) in enumerate(zip(titles, tiles, strict=True)):
        sheet.paste(tile.resize((TILE, TILE), Image.Resampling.BICUBIC), (column * TILE, LABEL))
        draw.text((column * TILE + 3, 1), title, fill="black")
    return sheet


def _views(photo: Photo, recon: Reconstruction) -> list[_View]:
    assert recon.mesh is not None
    camera = recon.camera
    if camera is not None and recon.mesh.textures is not None:
        half_turn = camera.R.new_tensor([-1.0, 1.0, -1.0])[:, None]
        other = replace(camera, R=half_turn * camera.R)
        return [_View("predicted view", camera), _View("other side", other), _View("clay", camera, clay=True)]
    views = [_View(title, look_at_camera(azimuth=turn + FRONT)) for title, turn in TURNS.items()]
    if camera is not None:
        views.insert(0, _View("predicted view", camera))
    elif photo.mask is not None:
        verts, faces = recon.mesh.get_mesh_verts_faces(0)
        fits = _fits(verts, faces, photo.mask)
        best = int(fits.argmax())
        views.insert(0, _View(f"closest view, IoU {fits[best]:.2f}", nmr_cameras()[best : best + 1]))
    return views


def _fits(verts: Tensor, faces: Tensor, mask: Tensor) -> Tensor:
    """IoU (24,) of the mask (1,S,S) with the silhouettes in the 24 views of the training renders."""
    cameras = nmr_cameras()
    silhouettes = render_hard(verts.expand(len(cameras.T), -1, -1), faces, cameras, mask.shape[-1]).mask
    return mask_iou(silhouettes, mask.expand_as(silhouettes))


def _on_white(image: Tensor, mask: Tensor | None) -> Image.Image:
    if mask is not None:
        image = image * mask + 1 - mask
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
