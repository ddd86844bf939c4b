"""What there is to see of a sample: a strip of pictures, the predicted and the true shape. `evaluation.media` shows it.

The pictures are those of `recon3d.evaluation.picture` and the masks behind the mask measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning import LightningModule
from PIL import Image, ImageDraw
from pytorch3d.renderer.mesh.textures import TexturesVertex
from torch import Tensor

from recon3d.evaluation.convert import Conversion, NotAvailableError
from recon3d.evaluation.picture import LABEL, TILE, layout, tile_image
from recon3d.geometry.gltf import vertex_colors
from recon3d.geometry.marching import voxel_surface
from recon3d.metrics.iou import MASK_THRESHOLD
from recon3d.structures import Reconstruction, ViewBatch

MASK_COLUMNS = ("true mask", "predicted mask", "true green, pred red")
TRUE, PREDICTED = (0.0, 0.65, 0.2), (0.9, 0.1, 0.1)  # colours of the outlines
OUTLINE = 2  # pixels
FADE = 0.5  # of the image under the outlines, towards white


@dataclass(frozen=True)
class Surface:
    """A mesh in the object frame, on the CPU.

    Attributes:
        verts: (V, 3).
        faces: (F, 3).
        colors: (V, 3) sRGB in [0, 1], or None.
    """

    verts: Tensor
    faces: Tensor
    colors: Tensor | None = None


@dataclass(frozen=True)
class SampleView:
    """One sample, on the CPU.

    Attributes:
        sample_id: name.
        category: its category.
        picture: tiles beside each other, with their titles.
        mesh: predicted, of a cloud or a grid its surface; None where it failed.
        cloud: (N, 3) predicted points; None of a method that gives none.
        truth: points (P, 3), else the surface of the voxels; None where the data have neither.
    """

    sample_id: str
    category: str
    picture: Image.Image
    mesh: Surface | None
    cloud: Tensor | None
    truth: Tensor | Surface | None


def sample_views(method: LightningModule, batch: ViewBatch) -> list[SampleView]:
    """Reconstruct a batch and draw every sample of it.

    Args:
        method: with `reconstruct(batch)`, in eval mode.
        batch: on the device of the method.
    """
    recon = method.reconstruct(batch)
    conversion = Conversion(recon, batch)
    titles, draw_row = layout(recon, batch)
    try:
        masks: Tensor | None = conversion.input_mask[:, 0]
    except NotAvailableError:
        masks = None
    views = []
    for index, (name, category) in enumerate(zip(batch.sample_id, batch.category, strict=True)):
        tiles = draw_row(recon, batch, index)
        tiles += _mask_tiles(tiles[0], batch.masks[index, 0], None if masks is None else masks[index])
        views.append(
            SampleView(
                sample_id=name,
                category=category,
                picture=_strip(titles + MASK_COLUMNS, tiles),
                mesh=_predicted(recon, conversion, index),
                cloud=None if recon.points is None else recon.points[index].detach().float().cpu(),
                truth=_truth(batch, index),
            )
        )
    return views


def _strip(titles: tuple[str, ...], tiles: list[Tensor]) -> Image.Image:
    strip = Image.new("RGB", (len(tiles) * TILE, LABEL + TILE), "white")
    draw = ImageDraw.Draw(strip)
    for column, (title, tile) in enumerate(zip(titles, tiles, strict=True)):
        strip.paste(tile_image(tile), (column * TILE, LABEL))
        draw.text((column * TILE + 3, 1), title, fill="black")
    return strip


def _mask_tiles(image: Tensor, true: Tensor, predicted: Tensor | None) -> list[Tensor]:
    """True and predicted mask (1, H, W), black on white, and the outlines of both on the faded input (3, H, W)."""
    large = [_enlarged(mask) for mask in (true, predicted) if mask is not None]
    faded = F.interpolate(image[None], (TILE, TILE), mode="bilinear", antialias=True)[0]
    faded = FADE * faded + 1 - FADE
    for mask, color in zip(large, (TRUE, PREDICTED), strict=False):
        outline = mask & ~_eroded(mask)
        faded = torch.where(outline, faded.new_tensor(color)[:, None, None], faded)
    shown = [1 - mask.float().expand(3, -1, -1) for mask in large]
    blank = torch.ones_like(faded)
    return [*shown, *[blank] * (2 - len(shown)), faded]


def _enlarged(mask: Tensor) -> Tensor:
    return F.interpolate(mask[None], (TILE, TILE), mode="bilinear")[0] > MASK_THRESHOLD


def _eroded(mask: Tensor) -> Tensor:
    """A mask (1, S, S) without its `OUTLINE` outermost pixels; at the border of the image it ends, too."""
    outside = F.pad((~mask).float()[None], (OUTLINE,) * 4, value=1.0)
    return F.max_pool2d(outside, 2 * OUTLINE + 1, stride=1)[0] == 0


def _predicted(recon: Reconstruction, conversion: Conversion, index: int) -> Surface | None:
    verts, faces = conversion.mesh.verts_list()[index], conversion.mesh.faces_list()[index]
    if len(faces) == 0:
        return None
    textures = None if recon.mesh is None else recon.mesh.textures
    if textures is None:
        colors = None
    elif isinstance(textures, TexturesVertex):
        colors = textures.verts_features_list()[index].detach().float().cpu()
    else:
        colors = vertex_colors(textures[[index]], faces, len(verts)).detach().float().cpu()
    return Surface(verts.cpu(), faces.cpu(), colors)


def _truth(batch: ViewBatch, index: int) -> Tensor | Surface | None:
    if batch.points is not None:
        return batch.points[index].float().cpu()
    if batch.voxels is None:
        return None
    solid = voxel_surface(batch.voxels[index : index + 1].cpu())
    verts, faces = solid.verts_list()[0], solid.faces_list()[0]
    return Surface(verts, faces) if len(faces) else None
