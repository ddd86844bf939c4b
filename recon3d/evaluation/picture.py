"""A picture of what a method does: input, prediction (and the cloud it came from) and ground truth, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning import LightningModule
from PIL import Image, ImageDraw
from pytorch3d.transforms import axis_angle_to_matrix
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.evaluation.convert import Conversion
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.geometry.cameras import project
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

RANKS = ("worst", "median", "best")
SCORES = ("voxel_iou", "chamfer", "mask_iou")  # the first that the data have a target for ranks the samples
TILE, LABEL = 128, 14  # pixels
COLUMNS = ("input", "prediction", "prediction, side", "ground truth, side")
# Where there is one view of an object: the prediction as a whole, through its own camera, and what is to be seen.
TURNED_COLUMNS = ("input", "prediction", "turned by 90", "turned by 180", "ground truth")
CLOUD_COLUMNS = ("input", "cloud", "prediction (Poisson)", "prediction, side", "ground truth, side")
DOT = 1.0  # radius of a point of a cloud, pixels


def comparison_picture(method: LightningModule, loader: DataLoader[ViewBatch], samples: pd.DataFrame) -> Image.Image:
    """A row for each category; in it the worst, the median and the best sample by score, not chosen by hand.

    The score is the first of `SCORES` that is defined for any sample; samples that lack it are left out.

    Each sample is four tiles: the input, the prediction in the same view, prediction and true image from the side. Of a
    method that gives points there is a fifth, the cloud in the view of the input, and the prediction is its surface. Of
    data with one view per object there are five, too: the photograph, the prediction through its own camera (else the
    data's) as it is and turned about the up axis of the object, and the object cut out. Textures are shown unlit.

    Args:
        method: with `reconstruct(batch)`.
        loader: the test loader that `samples` came from.
        samples: per-sample values of the Evaluator.

    Raises:
        ValueError: no sample has any of the scores.
    """
    score, ranked = ranked_samples(samples)
    # (row, rank) -> name and score; a category of one sample has it in all three places.
    chosen: dict[tuple[int, int], tuple[str, float]] = {}
    for row, (_, group) in enumerate(ranked.groupby("category", sort=True)):
        for rank, position in enumerate((0, len(group) // 2, len(group) - 1)):
            sample = group.iloc[position]
            chosen[row, rank] = (str(sample["sample_id"]), float(sample[score]))
    names = {name for name, _ in chosen.values()}
    tiles: dict[str, list[Tensor]] = {}
    columns: tuple[str, ...] = COLUMNS
    with torch.inference_mode():
        for batch in loader:
            hits = [index for index, name in enumerate(batch.sample_id) if name in names]
            if hits:
                picked = _pick(batch, hits).to(method.device)
                recon = method.reconstruct(picked)
                columns, draw_row = layout(recon, picked)
                tiles |= {name: draw_row(recon, picked, index) for index, name in enumerate(picked.sample_id)}
    strip = len(columns) * TILE
    rows = 1 + max(row for row, _ in chosen)
    sheet = Image.new("RGB", (len(RANKS) * strip, LABEL + rows * (TILE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for (row, rank), (name, value) in chosen.items():
        top, left = LABEL + row * (TILE + LABEL), rank * strip
        for column, tile in enumerate(tiles[name]):
            sheet.paste(tile_image(tile), (left + column * TILE, top))
            if row == 0:
                draw.text((left + column * TILE + 3, 1), columns[column], fill="black")
        draw.text((left + 3, top + TILE), f"{RANKS[rank]}: {name}   {score} {value:.3f}", fill="black")
    for rank in range(1, len(RANKS)):
        draw.line([(rank * strip, 0), (rank * strip, sheet.height)], fill="lightgrey")
    return sheet


def tile_image(tile: Tensor) -> Image.Image:
    """A tile (3, S, S) in [0, 1] at `TILE` pixels."""
    pixels = (tile.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)


def ranked_samples(samples: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The score that ranks, and the samples that have it, the worst first.

    Raises:
        ValueError: no sample has any of `SCORES`.
    """
    score = next((name for name in SCORES if name in samples and samples[name].notna().any()), None)
    if score is None:
        raise ValueError(
            f"Expected values of {', '.join(SCORES)} for some sample, got none; the test data need voxels, points, or "
            "cameras for the masks."
        )
    (higher_is_better,) = (measure.higher_is_better for measure in PROTOCOL if measure.name == score)
    return score, samples.dropna(subset=[score]).sort_values([score, "sample_id"], ascending=[higher_is_better, True])


def _pick(batch: ViewBatch, index: list[int]) -> ViewBatch:
    return ViewBatch(
        images=batch.images[index],
        masks=batch.masks[index],
        sample_id=tuple(batch.sample_id[i] for i in index),
        category=tuple(batch.category[i] for i in index),
        cameras=batch.cameras[index] if batch.cameras is not None else None,
    )


def layout(recon: Reconstruction, batch: ViewBatch) -> tuple[tuple[str, ...], Callable[..., list[Tensor]]]:
    """Titles of the tiles of a sample, and what draws them from (recon, batch, index): tiles (3, S, S) on white."""
    if _is_cloud(recon):
        return CLOUD_COLUMNS, _row
    return (TURNED_COLUMNS, _turned_row) if batch.images.shape[1] == 1 else (COLUMNS, _row)


def _row(recon: Reconstruction, batch: ViewBatch, index: int) -> list[Tensor]:
    """The tiles (3,S,S) of one sample, on white."""
    images = [_on_white(batch.images[index, view], batch.masks[index, view]) for view in (0, -1)]
    cameras = batch.cameras
    blank = torch.ones_like(images[0])
    shown = [images[0]]
    if _is_cloud(recon):
        assert recon.points is not None
        shown.append(blank if cameras is None else _cloud(recon.points[index], cameras[index, 0]))
    both = None if cameras is None else Camera.cat([cameras[index, :1], cameras[index, -1:]])
    return [*shown, *_renders(recon, batch, index, both), images[1]]


def _turned_row(recon: Reconstruction, batch: ViewBatch, index: int) -> list[Tensor]:
    """The tiles (3,S,S) of one sample of which there is one view."""
    camera = recon.camera
    if camera is None and batch.cameras is not None:
        camera = batch.cameras[:, 0]
    views = None
    if camera is not None:
        # To turn the camera's world is to turn the object.
        quarter = axis_angle_to_matrix(torch.tensor([0.0, torch.pi / 2, 0.0])).to(camera.R)
        rotation = camera.R[index]
        turned = torch.stack([rotation, quarter @ rotation, quarter @ quarter @ rotation])
        views = replace(Camera.cat([camera[index : index + 1]] * 3), R=turned)
    image, mask = batch.images[index, 0], batch.masks[index, 0]
    return [image, *_renders(recon, batch, index, views, tiles=3), _on_white(image, mask)]


def _renders(recon: Reconstruction, batch: ViewBatch, index: int, views: Camera | None, tiles: int = 2) -> list[Tensor]:
    """The mesh of one sample in each view (V,) on white; so many blank `tiles` where there is no view or no mesh."""
    mesh = Conversion(recon, batch).mesh
    if views is None or len(mesh.faces_list()[index]) == 0:
        return [batch.images.new_ones(3, TILE, TILE)] * tiles
    verts, faces = mesh.verts_list()[index], mesh.faces_list()[index]
    textures = recon.mesh.textures if recon.mesh is not None else None
    if textures is not None:
        textures = textures[[index] * tiles]
    render = render_hard(
        verts.expand(tiles, -1, -1), faces, views, TILE, anti_alias=2, lit=textures is None, textures=textures
    )
    return [_on_white(image, mask) for image, mask in zip(render.image, render.mask, strict=True)]


def _is_cloud(recon: Reconstruction) -> bool:
    return recon.mesh is None and recon.voxels is None


def _cloud(points: Tensor, camera: Camera) -> Tensor:
    """Points (N,3) as dots on white (3,S,S), the near ones dark and in front."""
    size = 2 * TILE  # drawn at twice the size and averaged, so that dots lie between pixels
    seen = project(camera, points[points.isfinite().all(dim=1)]).cpu()
    image = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(image)
    if len(seen):
        near, far = seen[:, 2].min(), seen[:, 2].max()
        shade = 30 + 170 * (seen[:, 2] - near) / (far - near).clamp(min=1e-6)
        place = (1 - seen[:, :2]) / 2 * size  # NDC +X is left, +Y is up
        order = seen[:, 2].argsort(descending=True)
        for (x, y), grey in zip(place[order].tolist(), shade[order].tolist(), strict=True):
            draw.ellipse((x - 2 * DOT, y - 2 * DOT, x + 2 * DOT, y + 2 * DOT), fill=int(grey))
    pixels = torch.from_numpy(np.array(image)).float() / 255
    return F.avg_pool2d(pixels[None], 2).expand(3, -1, -1).to(points.device)


def _on_white(image: Tensor, mask: Tensor) -> Tensor:
    return image * mask + 1 - mask
