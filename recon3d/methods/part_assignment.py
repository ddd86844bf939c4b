"""Semantic parts of the template: its vertices are assigned to parts, which then have to lie on those of the images.

Parts are the channels of `ViewBatch.parts`: 0 the background, then head, neck, back, belly (the order of UMR's SCOPS).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recon3d.geometry.cameras import project
from recon3d.geometry.symmetric_sphere import symmetrise
from recon3d.geometry.weak_perspective import mirrored_pose, weak_perspective_camera
from recon3d.losses.parts import part_chamfer_loss, part_probability_loss, sample_part_points
from recon3d.losses.texture import perceptual_loss, sample_image
from recon3d.renderers.soft import render_soft_rgb
from recon3d.structures import ViewBatch

if TYPE_CHECKING:
    from recon3d.methods.texture_flow import TextureFlowMesh, TextureReconstruction

logger = logging.getLogger(__name__)

POINTS = {1: 10, 4: 30}  # drawn of head and belly of an image; neck and back have weight 0 in UMR's code
NEAREST = 5  # images of a batch whose maps are averaged; UMR's code


class PartLosses(nn.Module):
    """`part_points` (eq. 13) and `part_probability` (eq. 14), for vertices with labels.

    Attributes:
        labels: (V,) part of each vertex, 0 for none; all 0 until they are assigned.
    """

    labels: Tensor

    def __init__(self, n_verts: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.zeros(n_verts, dtype=torch.long))

    def forward(
        self,
        method: TextureFlowMesh,
        recon: TextureReconstruction,
        poses: Tensor,
        parts: Tensor,
        masks: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Losses of a batch; none before the labels are assigned.

        `part_points` draws the template's vertices of head and belly towards the points of these parts in the image, by
        the cameras alone, weighted with their probability, as a mean over the vertices of all parts; `part_probability`
        compares a render of the labels from poses (B, 7) with the part maps, by the shape alone (UMR's code).
        """
        if not self.labels.any():
            return {}
        assert recon.poses is not None and recon.probability is not None and recon.verts is not None
        drawn = sample_part_points(parts, masks, POINTS, generator)
        template = symmetrise(method.template, method.n_side).detach()
        cameras = weak_perspective_camera(recon.poses.flatten(0, 1))
        k = recon.poses.shape[1]
        total = recon.probability.new_zeros(())
        labelled = int((self.labels > 0).sum())
        for part in POINTS:
            chosen = self.labels == part
            if not chosen.any():
                continue
            seen = -project(cameras, template[chosen])[..., :2]  # image coordinates
            points, valid = (value.repeat_interleave(k, 0) for value in drawn[part])
            each = part_chamfer_loss(seen, points, valid) * int(chosen.sum()) / labelled
            total = total + (recon.probability.detach().flatten() * each).sum() / len(parts)
        painted = torch.stack([(self.labels == part).float() for part in POINTS] + [torch.zeros_like(self.labels)], 1)
        rendered = render_soft_rgb(
            recon.verts, method.faces, weak_perspective_camera(poses), method.image_size, method.sigma, method.gamma,
            vert_colors=painted.to(recon.verts).expand(len(recon.verts), -1, -1),
        )  # fmt: skip
        # Two channels of weight 2 are UMR's five, of which two have weight 5 and the others 0.
        probability = part_probability_loss(rendered[:, :2], parts[:, list(POINTS)], masks, channel_weights=(2.0, 2.0))
        return {"part_points": total, "part_probability": probability.mean()}


@torch.no_grad()
def assign_parts(method: TextureFlowMesh, batches: Iterable[ViewBatch]) -> Tensor:
    """Labels (V,) of the template's vertices from the part maps of the training photographs (UMR's second step).

    The exemplar is the image that looks most as itself when it and its camera are mirrored: least perceptual loss, plus
    the squared distance of its shape to the template. The part map of each image is carried to the UV map by the flow;
    of each batch the `NEAREST` to the exemplar's are averaged. A face has the part of the most of its texels, a vertex
    that of the most of its faces.

    Args:
        method: whose template, flow and cameras are used, in eval mode.
        batches: with parts.
    """
    training = method.training
    method.eval()
    maps: list[Tensor] = []
    best, exemplar = float("inf"), None
    for batch in batches:
        assert batch.parts is not None
        images, masks = batch.images[:, 0], batch.masks[:, 0]
        recon = method(images)
        assert recon.verts is not None and recon.texture is not None and recon.flow_map is not None
        assert recon.poses is not None and recon.probability is not None and recon.offset is not None
        carried = sample_image(batch.parts[:, 0], recon.flow_map, None, "plain")  # (B,C,H,2H)
        poses = recon.poses[torch.arange(len(images)), recon.probability.argmax(dim=1)]
        pred = method.paint(recon.verts, recon.texture, mirrored_pose(poses))
        score = perceptual_loss(method.features(pred), method.features((images * masks).flip(-1)))
        score = score + recon.offset.square().sum(dim=(1, 2))
        maps.append(carried.half().cpu())
        if float(score.min()) < best:
            best, exemplar = float(score.min()), carried[score.argmin()].half().cpu()
    method.train(training)
    assert exemplar is not None
    kept = []
    for carried in maps:
        distance = (carried - exemplar).float().square().sum(dim=(1, 2, 3))
        kept.append(carried[distance.topk(min(NEAREST, len(carried)), largest=False).indices])
    mean = torch.cat(kept).float().mean(dim=0, keepdim=True).to(method.device)
    texels = method.at_texels(mean)[0].argmax(dim=0)  # (F,K)
    face_labels = nn.functional.one_hot(texels, mean.shape[1]).sum(dim=1).argmax(dim=1)
    votes = torch.zeros(int(method.faces.max()) + 1, mean.shape[1], device=method.device)
    for corner in range(3):
        votes.index_put_((method.faces[:, corner], face_labels), torch.ones_like(face_labels).float(), accumulate=True)
    labels = votes.argmax(dim=1)
    counts = torch.bincount(labels, minlength=mean.shape[1]).tolist()
    level = logging.WARNING if 0 in [counts[part] for part in POINTS] else logging.INFO
    logger.log(level, "Vertices of the template by part, the background first: %s.", counts)
    return labels
