"""Key-point transfer: does what a method says of two images join the places that a person marked with one name?

A key point of one image is carried to another through the shape or the texture flow, and compared with the mark there.
Both ways to carry it come down to the same: of every image is kept which place of the surface each of its key points
chooses, and where each place of the surface lies in the image (`Transfer`). `transfer_accuracy` draws the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon3d.metrics.base import SetMetric, SetScore

PAIRS = 10_000
RIGHT = 0.1  # of the longer side of the object's box: PCK@0.1
PADDING = 0.05  # of the box on each side of the crop, in the protocol of CMR and UMR; assumed, see `transfer_accuracy`
# Of the heat map around a key point: 3 pixels of 256, in NDC, so that the size of the image plays no part.
HEAT = 3 * 2 / 256


class ProjectedVertices(NamedTuple):
    """Vertices of B meshes with the same faces in the input view.

    Attributes:
        xy: (B,V,2) NDC; NaN for a failed mesh.
        snapped: (B,V,2) the centre of the pixel of the predicted mask that is nearest to `xy`; NaN where it is empty.
        topology: a number of the faces; vertices of two batches belong together where it is equal.
    """

    xy: Tensor
    snapped: Tensor
    topology: int


class Transfer(NamedTuple):
    """What transfer needs of one image.

    Attributes:
        chosen: (K,) place of the surface that each key point chooses; -1 where there is none.
        places: (N,2) NDC of every place of the surface; NaN where it has none.
        keypoints: (K,3) marks: NDC and visibility.
        topology: places of images with the same one belong together.
    """

    chosen: NDArray[np.int32]
    places: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    topology: int


def transfer_accuracy(images: Sequence[Transfer], alpha: float = RIGHT, pairs: int = PAIRS) -> SetScore:
    """Share of key points that are carried to the right place (PCK): the mean over the key points of their shares.

    Pairs are drawn with replacement by a generator seeded with the number of images, and used in both directions. A key
    point counts where it is marked in both images, and is right where it lands nearer to the mark than `alpha` times
    the longer side of the object's box, which a crop padded by `PADDING` on each side shows. That the crops are padded
    so is assumed, not read from the data: with another `padding` the bound is off by as much.

    Source: the protocol of Li et al. 2020 (UMR). Deviations: UMR mirrors images at random, as in training, here
    they are as in the data; and pairs of an image with itself are left out, because they say little and are not rare in
    a small split.

    Args:
        images: of all samples.
        alpha: in sides of the box.
        pairs: number drawn.

    Returns:
        SetScore in [0, 1]; `n` counts the pairs with a key point in common.
    """
    if len({(image.topology, image.places.shape, image.keypoints.shape) for image in images}) > 1:
        return SetScore(None, 0, "the surfaces of two samples do not have the same vertices and faces")
    drawn = np.random.RandomState(len(images)).randint(0, max(len(images), 1), (pairs, 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    if len(drawn) == 0:
        return SetScore(None, 0, "transfer needs two samples")
    source, to = np.concatenate([drawn, drawn[:, ::-1]]).T
    chosen = np.stack([image.chosen for image in images])
    marks = np.stack([image.keypoints for image in images])
    places = np.stack([image.places for image in images])
    carried = places[to[:, None], chosen[source]]  # (pairs, K, 2)
    error = np.linalg.norm(carried - marks[to, :, :2], axis=-1) * (1 + 2 * PADDING) / 2
    right = (chosen[source] >= 0) & (error < alpha)  # a comparison with NaN is False
    both = (marks[source, :, 2] > 0) & (marks[to, :, 2] > 0)
    counted = both.sum(axis=0)
    if not counted.any():
        return SetScore(None, 0, "no two samples have a key point in common")
    shares = (right & both).sum(axis=0)[counted > 0] / counted[counted > 0]
    return SetScore(float(shares.mean()), int(both.any(axis=1).sum()) // 2)


def flow_choice(flow: Tensor, keypoints: Tensor) -> Tensor:
    """The face that each key point chooses: that whose texels have the largest mean in a Gaussian around it.

    Deviation: UMR draws the Gaussian as an image and samples it; here it is evaluated, at any distance.

    Args:
        flow: (B,F,T,2) NDC of the T texels of each face.
        keypoints: (B,K,2) NDC.

    Returns:
        (B,K) index of a face; of equal ones the first.
    """
    answers = []
    for texels, points in zip(flow, keypoints, strict=True):  # (F,T,2), (K,2): one image, for the sake of memory
        squared = (texels.unsqueeze(0) - points[:, None, None]).square().sum(dim=-1)  # (K,F,T)
        # The logarithm keeps the order of the means where the Gaussian itself is 0.
        answers.append((-squared / (2 * HEAT**2)).logsumexp(dim=-1).argmax(dim=-1))
    return torch.stack(answers)


class FlowTransfer(SetMetric):
    """`transfer_accuracy` through the texture flow: key point to face to the mean of the other image's flow there.

    Faces that take their texels from the same points (mirrored ones of a symmetric texture) are one place.
    """

    higher_is_better = True

    def keep(self, pred: Tensor, target: Tensor) -> list[Transfer]:
        """Reduce flows (B,F,T,2) and key points (B,K,3); a flow that is not finite leads nowhere."""
        finite = pred.isfinite().flatten(1).all(dim=1)
        chosen = flow_choice(pred.nan_to_num(0.0, 0.0, 0.0), target[..., :2])
        return _transfers(chosen, pred.mean(dim=2), finite, target, topology=0)

    def compute(self, kept: Sequence[Transfer]) -> SetScore:
        """The accuracy."""
        return transfer_accuracy(kept)


class CameraTransfer(SetMetric):
    """`transfer_accuracy` through shape and camera: the nearest projected vertex, then its place in the other image.

    Hidden vertices are chosen, too, and the place is moved to the nearest pixel of the predicted mask, as in UMR.
    Deviation: UMR projects the template, this the predicted shape.
    """

    higher_is_better = True

    def keep(self, pred: ProjectedVertices, target: Tensor) -> list[Transfer]:
        """Reduce vertices of B shapes and key points (B,K,3)."""
        finite = pred.xy.isfinite().flatten(1).all(dim=1)
        distance = torch.cdist(target[..., :2], pred.xy.nan_to_num(0.0, 0.0, 0.0))
        return _transfers(distance.argmin(dim=-1), pred.snapped, finite, target, pred.topology)

    def compute(self, kept: Sequence[Transfer]) -> SetScore:
        """The accuracy."""
        return transfer_accuracy(kept)


def _transfers(chosen: Tensor, places: Tensor, finite: Tensor, keypoints: Tensor, topology: int) -> list[Transfer]:
    usable = finite[:, None] & (keypoints[..., 2] > 0)
    arrays = (
        torch.where(usable, chosen, -1).to(torch.int32).cpu().numpy(),
        places.masked_fill(~finite[:, None, None], torch.nan).float().cpu().numpy(),
        keypoints.float().cpu().numpy(),
    )
    return [Transfer(*kept, topology) for kept in zip(*arrays, strict=True)]
