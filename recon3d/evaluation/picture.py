"""A picture of what a method does: input, prediction and ground truth, side by side."""

from __future__ import annotations

import pandas as pd
import torch
from lightning import LightningModule
from PIL import Image, ImageDraw
from pytorch3d.renderer import TexturesVertex
from torch import Tensor
from torch.utils.data import DataLoader

from recon3d.evaluation.convert import Conversion, NotAvailableError
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

RANKS = ("worst", "median", "best")
TILE, LABEL = 128, 14  # pixels
COLUMNS = ("input", "prediction", "prediction, side", "ground truth, side")


def comparison_picture(
    method: LightningModule, loader: DataLoader[ViewBatch], samples: pd.DataFrame, score: str = "voxel_iou"
) -> Image.Image:
    """A row for each category; in it the worst, the median and the best sample by score, not chosen by hand.

    Each sample is four tiles: the input, the prediction in the same view, prediction and true image from the side.

    Args:
        method: with `reconstruct(batch)`.
        loader: the test loader that `samples` came from.
        samples: per-sample values of the Evaluator.
        score: the column that ranks.
    """
    ranked = samples.sort_values([score, "sample_id"])
    # (row, rank) -> name and score; a category of one sample has it in all three places.
    chosen: dict[tuple[int, int], tuple[str, float]] = {}
    for row, (_, group) in enumerate(ranked.groupby("category", sort=True)):
        for rank, position in enumerate((0, len(group) // 2, len(group) - 1)):
            sample = group.iloc[position]
            chosen[row, rank] = (str(sample["sample_id"]), float(sample[score]))
    names = {name for name, _ in chosen.values()}
    tiles: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for batch in loader:
            hits = [index for index, name in enumerate(batch.sample_id) if name in names]
            if hits:
                picked = _pick(batch, hits).to(method.device)
                recon = method.reconstruct(picked)
                tiles |= {name: _row(recon, picked, index) for index, name in enumerate(picked.sample_id)}
    strip = len(COLUMNS) * TILE
    rows = 1 + max(row for row, _ in chosen)
    sheet = Image.new("RGB", (len(RANKS) * strip, LABEL + rows * (TILE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for (row, rank), (name, value) in chosen.items():
        top, left = LABEL + row * (TILE + LABEL), rank * strip
        for column, tile in enumerate(tiles[name]):
            pixels = (tile.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            image = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(image, (left + column * TILE, top))
            if row == 0:
                draw.text((left + column * TILE + 3, 1), COLUMNS[column], fill="black")
        draw.text((left + 3, top + TILE), f"{RANKS[rank]}: {name}   {score} {value:.3f}", fill="black")
    for rank in range(1, len(RANKS)):
        draw.line([(rank * strip, 0), (rank * strip, sheet.height)], fill="lightgrey")
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
    textures = recon.mesh.textures if recon.mesh is not None else None
    colors = textures.verts_features_list()[index][faces] if isinstance(textures, TexturesVertex) else None
    render = render_hard(
        verts.expand(2, -1, -1),
        faces,
        both,
        TILE,
        colors.expand(2, -1, -1, -1) if colors is not None else None,
        anti_alias=2,
    )
    predicted = [_on_white(image, mask) for image, mask in zip(render.image, render.mask, strict=True)]
    return [images[0], predicted[0], predicted[1], images[1]]


def _on_white(image: Tensor, mask: Tensor) -> Tensor:
    return image * mask + 1 - mask
