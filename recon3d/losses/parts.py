"""Losses on object parts: maps of parts on the image against the labelled vertices of a template.

Data flow: data give part maps (`recon3d.structures.ViewBatch.parts`, channel 0 the background), a template knows the
part of each vertex; the vertices are projected (`part_chamfer_loss`) or rendered with their labels
(`part_probability_loss`).

Image coordinates are (u, v) in [-1, 1], u to the right, v **down**; pixel i of S has its centre at (2i + 1) / S - 1.
Deviation from [2], which takes 2i / S - 1: because half a pixel is then between the parts and the rendered mesh.

[1] Lin and Tian 2021, Adaptive Gradient for Texture Learning. [2] Li et al. 2020 (UMR), the code, for what [1] takes
over and does not state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

ChamferForm = Literal["one_sided", "symmetric"]
OVERSAMPLING = 1.5  # pixels drawn per point kept, from [2]
FAINT = 1e-3  # largest value of a rendered part up to which it counts as unseen; bounds the gradient of dividing by it


class PartPoints(NamedTuple):
    """Points of one part.

    Attributes:
        points: (B, n, 2) in image coordinates; 0 where not valid.
        valid: (B,) bool, whether the image shows the part.
    """

    points: Tensor
    valid: Tensor


def sample_part_points(
    parts: Tensor, mask: Tensor, counts: Mapping[int, int], generator: torch.Generator
) -> dict[int, PartPoints]:
    """Points on the parts of images, the labels P of eq. 13 of [1], drawn as in [2].

    Of each channel's map times the mask, ``ceil(1.5 n)`` pixels are drawn without replacement, with probabilities in
    proportion, and the n nearest to the centroid of the map are kept: outliers go. A part of fewer pixels than are
    drawn gives all of them, repeated.

    Args:
        parts: (B, C, S, S), at least 0.
        mask: (B, 1, S, S) in [0, 1].
        counts: channel to n; [2] takes 10 of head and neck, 30 of back and belly.
        generator: draws, on its own device; as many numbers whatever the maps.

    Returns:
        Channel to its points, in the order of `counts`.

    Raises:
        ValueError: shapes that do not fit, or counts of channels that there are not.
    """
    _, channels, *size = _checked("sample_part_points", parts, mask)
    if not all(0 <= channel < channels and n >= 1 for channel, n in counts.items()):
        raise ValueError(
            f"sample_part_points: expected counts >= 1 of channels 0 to {channels - 1}, got {dict(counts)}."
        )
    grid = _pixel_centers(size, parts).flatten(0, 1)  # (S*S, 2)
    sampled = {}
    for channel, n in counts.items():
        weight = (parts[:, channel] * mask[:, 0]).detach().flatten(1)  # (B, S*S)
        drawn = math.ceil(OVERSAMPLING * n)
        # The largest of log w + Gumbel noise are draws without replacement (Efraimidis and Spirakis 2006); unlike
        # torch.multinomial it takes any number of pixels that weigh 0, and it reads the generator equally often.
        uniform = torch.rand(weight.shape, generator=generator, device=generator.device, dtype=torch.float64)
        keys = weight.double().log() - (-uniform.to(weight.device).log()).log()
        order = keys.topk(min(drawn, keys.shape[1]), dim=1).indices
        present = (weight > 0).sum(dim=1, keepdim=True)
        cycle = torch.arange(drawn, device=weight.device) % present.clamp(1, order.shape[1])  # (B, drawn)
        candidates = grid[order.gather(1, cycle)]  # (B, drawn, 2)
        total = weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        centroid = (weight @ grid / total)[:, None]
        kept = (candidates - centroid).square().sum(dim=-1).topk(n, largest=False).indices
        valid = present[:, 0] > 0
        points = candidates.take_along_dim(kept[..., None], dim=1) * valid[:, None, None]
        sampled[channel] = PartPoints(points, valid)
    return sampled


def part_chamfer_loss(projected: Tensor, points: Tensor, valid: Tensor, form: ChamferForm = "one_sided") -> Tensor:
    """Squared distances between the projected vertices of a part and its points (eq. 13 of [1]).

    - `one_sided`: the mean over the vertices of the squared distance to the nearest point, as in [2].
    - `symmetric`: plus the mean over the points of that to the nearest vertex; "chamfer", as eq. 13 prints.

    Args:
        projected: (B, V, 2) the template's vertices of the part, in image coordinates.
        points: (B, n, 2) in image coordinates.
        valid: (B,) bool, see `PartPoints`.
        form: see above.

    Returns:
        (B,); 0 where not valid.

    Raises:
        ValueError: shapes that do not fit, or an unknown form.
    """
    b = len(projected)
    if (
        projected.shape != (b, projected.shape[1], 2)
        or not projected.shape[1]
        or points.shape != (b, points.shape[1], 2)
        or valid.shape != (b,)
    ):
        raise ValueError(
            "part_chamfer_loss: expected projected (B, V, 2) with V >= 1, points (B, n, 2) and valid (B,), got "
            f"{tuple(projected.shape)}, {tuple(points.shape)} and {tuple(valid.shape)}."
        )
    if form not in ("one_sided", "symmetric"):
        raise ValueError(f"part_chamfer_loss: expected the form one_sided or symmetric, got {form!r}.")
    squared = (projected[:, :, None] - points[:, None]).square().sum(dim=-1)  # (B, V, n), a few hundred by 30
    loss = squared.min(dim=2).values.mean(dim=1)
    if form == "symmetric":
        loss = loss + squared.min(dim=1).values.mean(dim=1)
    return torch.where(valid, loss, 0.0)


def part_probability_loss(rendered: Tensor, parts: Tensor, mask: Tensor, channel_weights: Sequence[float]) -> Tensor:
    """Difference of rendered and observed part maps (eq. 14 of [1]; [2]).

    ``1/4 (mean_cp w_c (R_cp / max R_c - P_cp / max P_c)^2 + mean_c |m(R_c) - m(P_c)|^2 / 2)``, with P times the mask, m
    the centroid of a map in image coordinates, and the second mean over the channels of weight > 0.

    Deviation from [2]: a channel that the image does not show counts 0, because the division by its largest value would
    make any trace of it on the render as strong as the whole part; nor do the centroids of one that the render does not
    show.

    Args:
        rendered: (B, C, S, S), at least 0, of the template's labels.
        parts: (B, C, S, S), at least 0, taken as constants.
        mask: (B, 1, S, S) in [0, 1], of the image, taken as a constant.
        channel_weights: w, C of them; [2] has 5 for head and belly, and 0 for background, neck and back.

    Returns:
        (B,).

    Raises:
        ValueError: shapes that do not fit, or weights that are negative or all 0.
    """
    _, channels, *size = _checked("part_probability_loss", parts, mask)
    if rendered.shape != parts.shape:
        raise ValueError(
            f"part_probability_loss: expected rendered {tuple(parts.shape)}, as parts, got {tuple(rendered.shape)}."
        )
    if len(channel_weights) != channels or min(channel_weights) < 0 or not any(channel_weights):
        raise ValueError(
            f"part_probability_loss: expected {channels} weights >= 0, not all 0, got {list(channel_weights)}."
        )
    weights = rendered.new_tensor(channel_weights)
    target = (parts * mask).detach()
    shown = target.amax(dim=(2, 3)) > FAINT  # (B, C)
    difference = _of_largest(rendered) - _of_largest(target)
    maps = (weights * shown * difference.square().mean(dim=(2, 3))).mean(dim=1)
    grid = _pixel_centers(size, rendered)
    both = shown & (rendered.detach().amax(dim=(2, 3)) > FAINT) & (weights > 0)
    apart = (_centroids(rendered, grid) - _centroids(target, grid)).square().mean(dim=-1)  # (B, C)
    return (maps + torch.where(both, apart, 0.0).sum(dim=1) / weights.count_nonzero()) / 4


def _checked(operation: str, parts: Tensor, mask: Tensor) -> torch.Size:
    if parts.ndim != 4 or mask.shape != (parts.shape[0], 1, *parts.shape[2:]):
        raise ValueError(
            f"{operation}: expected parts (B, C, S, S) and a mask (B, 1, S, S), got {tuple(parts.shape)} and "
            f"{tuple(mask.shape)}."
        )
    return parts.shape


def _pixel_centers(size: Sequence[int], like: Tensor) -> Tensor:
    """(H, W, 2) image coordinates of all pixels."""
    height, width = size
    v = (2 * torch.arange(height).to(like) + 1) / height - 1
    u = (2 * torch.arange(width).to(like) + 1) / width - 1
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def _of_largest(maps: Tensor) -> Tensor:
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(FAINT)


def _centroids(maps: Tensor, grid: Tensor) -> Tensor:
    """(B, C, 2) of maps (B, C, H, W)."""
    total = maps.sum(dim=(2, 3)).clamp_min(FAINT)
    return torch.einsum("bchw,hwd->bcd", maps, grid) / total[..., None]
