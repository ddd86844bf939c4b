"""Where on the image the soft renderer shows each face: the transpose of the linear map from colours to image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon3d.kernels.soft_rgb import BACKENDS as BACKENDS  # those of the operation that does the work
from recon3d.kernels.soft_rgb import soft_rgb
from recon3d.kernels.soft_silhouette.reference import pixel_centers

MIN_WEIGHT = 1e-10  # a face that weighs less in the whole image is not seen: the cut-off of the probabilities


class FacePixels(NamedTuple):
    """What the image sees of each face.

    Attributes:
        centers: (B,F,2) mean NDC x, y of the pixels that see a face, weighted by how much they do; 0 where it is not
            seen.
        weight: (B,F) sum of these weights, in pixels; 0 where a face is not seen.
    """

    centers: Tensor
    weight: Tensor


def soft_face_pixels(
    face_verts: Tensor,
    image_size: int,
    sigma: float,
    gamma: float,
    *,
    near: float = 1.0,
    far: float = 100.0,
    eps: float = 1e-3,
    backend: str | None = None,
) -> FacePixels:
    """Mean pixel position of each face under the weights of the soft renderer (Lin and Tian 2021, eq. 12, second term).

    With w_ij the share of face j in the colour of pixel i (`soft_rgb`: a softmax over faces and background) and c_i the
    pixel's centre, ``centers_j = sum_i w_ij c_i / sum_i w_ij``. An image is linear in its colours, so these sums are
    the gradient of ``sum_i c_i . I_i`` with respect to one colour per face, which is how they are computed, by every
    backend. The softmax is that of all faces together; the authors' code takes a running maximum, and its result
    depends on the order of faces.

    Args:
        face_verts: (B, F, 3, 3): NDC x, NDC y, view-space z of each corner.
        image_size: as in `soft_rgb`, like the rest.
        sigma: sharpness of borders.
        gamma: sharpness over depth.
        near: nearest depth that is seen.
        far: farthest depth that is seen.
        eps: depth score of the background.
        backend: as in `soft_rgb`.

    Returns:
        FacePixels without a gradient.

    Raises:
        ValueError: as `soft_rgb`.
    """
    # Under inference mode, too: Lightning validates in it, and autograd does the work here.
    with torch.inference_mode(False), torch.enable_grad():
        corners = face_verts.detach().clone()
        colors = corners.new_zeros(*corners.shape[:2], 1, 1, 3, requires_grad=True)
        image = soft_rgb(
            corners, colors, image_size, sigma, gamma, near=near, far=far, eps=eps, backend=backend
        )  # fmt: skip
        centers = pixel_centers(image_size, corners)  # (S*S, 2)
        moments = torch.nn.functional.pad(centers, (0, 1), value=1.0).T.reshape(1, 3, image_size, image_size)
        (sums,) = torch.autograd.grad(image, colors, moments.expand_as(image))
    x, y, weight = sums[:, :, 0, 0].unbind(dim=-1)
    seen = weight > MIN_WEIGHT
    safe = torch.where(seen, weight, 1.0)
    mean = torch.stack([x / safe, y / safe], dim=-1)
    return FacePixels(mean.where(seen.unsqueeze(-1), 0.0), weight.where(seen, 0.0))
