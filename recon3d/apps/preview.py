"""A picture of one prediction: the photo, and the mesh from several sides."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
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


def preview(photo: Photo, recon: Reconstruction) -> Image.Image:
    """Photo, mesh in the input view, and mesh from five sides at elevation 30 degrees, on white.

    The input view is the predicted camera. A method that predicts none says how the object stands, not where the camera
    was; then it is the one of the 24 views of the training renders whose silhouette fits the mask best, and the label
    says how well. Without a mask that tile is left out.

    Args:
        photo: what was read.
        recon: of this photo alone, with a mesh that has faces.
    """
    assert recon.mesh is not None
    verts, faces = recon.mesh.get_mesh_verts_faces(0)
    titles = list(TURNS)
    cameras = look_at_camera(azimuth=torch.tensor(list(TURNS.values())) + FRONT)
    if recon.camera is not None:
        titles.insert(0, "predicted view")
        cameras = Camera.cat([recon.camera, cameras])
    elif photo.mask is not None:
        fits = _fits(verts, faces, photo.mask)
        best = int(fits.argmax())
        titles.insert(0, f"closest view, IoU {fits[best]:.2f}")
        cameras = Camera.cat([nmr_cameras()[best : best + 1], cameras])
    colors = recon.mesh.textures.verts_features_list()[0][faces] if recon.mesh.textures is not None else None
    render = render_hard(
        verts.expand(len(titles), -1, -1),
        faces,
        cameras,
        TILE,
        colors.expand(len(titles), -1, -1, -1) if colors is not None else None,
        ANTI_ALIAS,
    )
    views = [_on_white(image, mask) for image, mask in zip(render.image, render.mask, strict=True)]
    titles, tiles = ["input", *titles], [_on_white(photo.image, photo.mask), *views]
    sheet = Image.new("RGB", (len(tiles) * TILE, TILE + LABEL), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, tile) in enumerate(zip(titles, tiles, strict=True)):
        sheet.paste(tile.resize((TILE, TILE), Image.Resampling.BICUBIC), (column * TILE, LABEL))
        draw.text((column * TILE + 3, 1), title, fill="black")
    return sheet


def _fits(verts: Tensor, faces: Tensor, mask: Tensor) -> Tensor:
    """IoU (24,) of the mask (1,S,S) with the silhouettes in the 24 views of the training renders."""
    cameras = nmr_cameras()
    silhouettes = render_hard(verts.expand(len(cameras.T), -1, -1), faces, cameras, mask.shape[-1]).mask
    return mask_iou(silhouettes, mask.expand_as(silhouettes))


def _on_white(image: Tensor, mask: Tensor | None) -> Image.Image:
    if mask is not None:
        image = image * mask + 1 - mask
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
