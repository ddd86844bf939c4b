"""A picture of what a method does: input, prediction and ground truth, side by side."""

from __future__ import annotations

import pandas as pd
import torch
from lightning import LightningModule
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.evaluation.convert import Conversion, NotAvailableError
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

PER_CATEGORY = 3  # samples of each category: the worst, the median and the best by voxel IoU
TILE, LABEL = 128, 14  # pixels
COLUMNS = ("input", "prediction", "prediction, side", "ground truth, side")


def comparison_picture(
    method: LightningModule, loader: DataLoader[ViewBatch], samples: pd.DataFrame, score: str = "voxel_iou"
) -> Image.Image:
    """Rows of input, prediction in the input view, prediction and true image from another side.

    The rows are chosen by score, not by hand: the worst, the median and the best sample of each category.

    Args:
        method: with `reconstruct(batch)`.
        loader: the test loader that `samples` came from.
        samples: per-sample values of the Evaluator.
        score: the column that ranks.
    """
    ranked = samples.sort_values([score, "sample_id"])
    chosen: dict[str, float] = {}
    for _, group in ranked.groupby("category", sort=True):
        positions = sorted({0, len(group) // 2, len(group) - 1})[:PER_CATEGORY]
        chosen |= {group.iloc[index]["sample_id"]: group.iloc[index][score] for index in positions}
    rows: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for batch in loader:
            hits = [index for index, name in enumerate(batch.sample_id) if name in chosen]
            if not hits:
                continue
            batch = _pick(batch, hits).to(method.device)
            recon = method.reconstruct(batch)
            for index, name in enumerate(batch.sample_id):
                rows[name] = _row(recon, batch, index)
    sheet = Image.new("RGB", (len(COLUMNS) * TILE, LABEL + len(chosen) * (TILE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        draw.text((column * TILE + 3, 1), title, fill="black")
    for line, (name, value) in enumerate(chosen.items()):
        top = LABEL + line * (TILE + LABEL)
        for column, tile in enumerate(rows[name]):
            pixels = (tile.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS), (column * TILE, top))
        draw.text((3, top + TILE), f"{name}   {score} {value:.3f}", fill="black")
    return sheet


def _pick(batch: ViewBatch, index: list[int]) -> ViewBatch:
    return ViewBatch(
        images=batch.images[index],
        masks=batch.masks[index],
        sample_id=tuple(batch.sample_id[i] for i in index),
        category=tuple(batch.category[i] for i in index),
        cameras=batch.cameras[index] if batch.cameras is not None else None,
    )


def _row(recon: Reconstruction, batch: ViewBatch, index: int) -> list[Tensor]:
    """Four tiles (3,S,S) of one sample, on white."""
    images = [_on_white(batch.images[index, view], batch.masks[index, view]) for view in (0, -1)]
    cameras = batch.cameras
    try:
        mesh = Conversion(recon, batch).mesh
    except NotAvailableError:
        mesh = None
    blank = torch.ones_like(images[0])
    if mesh is None or cameras is None or len(mesh.faces_list()[index]) == 0:
        return [images[0], blank, blank, images[1]]
    verts, faces = mesh.verts_list()[index], mesh.faces_list()[index]
    both = Camera.cat([cameras[index, :1], cameras[index, -1:]])
    render = render_hard(verts.expand(2, -1, -1), faces, both, TILE, anti_alias=2)
    predicted = [_on_white(image, mask) for image, mask in zip(render.image, render.mask, strict=True)]
    return [images[0], predicted[0], predicted[1], images[1]]


def _on_white(image: Tensor, mask: Tensor) -> Tensor:
    return image * mask + 1 - mask
