"""CMR, category-specific mesh reconstruction (Kanazawa et al. 2018): a learned mean shape, key points as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import cmr_camera, weak_perspective_camera, weak_perspective_pose
from recon3d.losses.pose import student_loss
from recon3d.methods.base import Paper, Schedule
from recon3d.methods.texture_flow import TextureFlowMesh, TextureReconstruction
from recon3d.structures import ViewBatch

# A key point's distribution is softmax(gain * parameter), so that it leaves the uniform one within a few hundred steps
# of Adam, whose steps do not depend on the size of the gradient. Ours.
GAIN = 30.0


class CMR(TextureFlowMesh):
    """Shape, camera and texture of a bird or car from one photograph, supervised by key points and their cameras.

    The mean shape is a parameter of the network, and each key point a point of it: a distribution over its vertices.
    Losses: `mask` and `keypoints`, squared differences through the true cameras; `camera`, the predicted camera against
    the true one; `deform`, `laplacian`, `vertex_entropy` of the key points' distributions; `pixel`, `perceptual` and
    `barrier` of the texture. Weights are the authors' code's.

    Deviation: `keypoints` is the mean over the visible ones, so that an image with few counts as much.
    Deviation: the silhouettes and colours are the Soft Rasterizer's and not the Neural Mesh Renderer's, and the
    Laplacian is uniform and squared and not by cotangents, as in the other methods on photographs, so that a table
    compares supervision and not renderers; the Laplacian's weight is therefore that of UMR's code.
    Deviation: the mean shape begins as a sphere, and not on the convex hull of the mean key points, so that nothing but
    photographs and their labels is read; `sphere_scale` makes it about as large.

    Args:
        keypoints: number K of key points: 15 of CUB, 12 of Pascal3D+'s cars.
        true_cameras: render through the true cameras in training (the authors' default); else the predicted ones.
        sphere_scale: radii of the first mean shape along CMR's axes x (across), y (along) and z (up).
        mask_weight: of the loss of that name, as all `..._weight`; 0 leaves a loss out.
        image_size: see `TextureFlowMesh`, as the other arguments.
    """

    paper: Paper | None = Paper(
        title="Learning Category-Specific Mesh Reconstruction from Image Collections",
        year=2018,
        url="https://arxiv.org/abs/1803.07549",
    )
    needs: frozenset[str] = frozenset({"masks", "cameras", "keypoints"})

    def __init__(
        self,
        keypoints: int = 15,
        true_cameras: bool = True,
        sphere_scale: tuple[float, float, float] = (0.4, 0.8, 0.4),
        mask_weight: float = 2.0,
        keypoints_weight: float = 30.0,
        camera_weight: float = 2.0,
        deform_weight: float = 10.0,
        laplacian_weight: float = 0.15,
        vertex_entropy_weight: float = 0.16,
        pixel_weight: float = 0.0,
        perceptual_weight: float = 0.5,
        barrier_weight: float = 0.5,
        image_size: int = 256,
        texture_size: int = 128,
        texels: int = 6,
        sigma: float = 1e-5,
        gamma: float = 1e-4,
        code: int = 200,
        width: int = 256,
        encoder_weights: Path | None = None,
        perceptual: Literal["alexnet", "vgg16"] = "alexnet",
        perceptual_weights: Path | None = None,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            latent=None, hypotheses=1, image_size=image_size, texture_size=texture_size, texels=texels, sigma=sigma,
            gamma=gamma, code=code, width=width, encoder_weights=encoder_weights, perceptual=perceptual,
            perceptual_weights=perceptual_weights, lr=lr, schedule=schedule,
        )  # fmt: skip
        self.true_cameras = true_cameras
        self.loss_weights = {
            "mask": mask_weight, "keypoints": keypoints_weight, "camera": camera_weight, "deform": deform_weight,
            "laplacian": laplacian_weight, "vertex_entropy": vertex_entropy_weight, "pixel": pixel_weight,
            "perceptual": perceptual_weight, "barrier": barrier_weight,
        }  # fmt: skip
        self.template = nn.Parameter(self.sphere * torch.tensor(sphere_scale))
        self.keypoint_logits = nn.Parameter(torch.zeros(keypoints, len(self.sphere) + self.n_side))

    def all_losses(self, batch: ViewBatch, recon: TextureReconstruction) -> dict[str, Tensor]:
        """Those of the class's docstring."""
        assert recon.verts is not None and recon.poses is not None
        assert batch.cameras is not None and batch.keypoints is not None
        if not batch.cameras.orthographic:
            raise ValueError(
                "CMR: expected the scaled orthographic cameras of key points, got perspective ones; of Pascal3D+ take "
                "CMR's annotations: --data.init_args.annotations cmr."
            )
        images, masks = batch.images[:, 0], batch.masks[:, 0]
        true = weak_perspective_pose(cmr_camera(batch.cameras[:, 0]))
        predicted = recon.poses[:, 0]
        poses = true if self.true_cameras else predicted
        silhouettes = self.silhouettes(recon.verts, poses[:, None])
        texture = self.texture_losses(recon, images, masks, poses[:, None], torch.ones_like(poses[:, :1]))
        losses = {
            "mask": F.mse_loss(silhouettes, masks),
            "keypoints": self._keypoint_loss(recon.verts, poses, batch.keypoints[:, 0]),
            "camera": camera_loss(predicted, true),
            "vertex_entropy": self._vertex_entropy(),
        }
        return losses | self.shape_losses(recon) | texture

    def _keypoint_loss(self, verts: Tensor, poses: Tensor, keypoints: Tensor) -> Tensor:
        """Mean squared distance in the image, of the visible key points; (B, K, 3) in NDC."""
        if keypoints.shape[1] != len(self.keypoint_logits):
            raise ValueError(
                f"CMR: the data have {keypoints.shape[1]} key points, the method {len(self.keypoint_logits)}; set "
                f"--model.init_args.keypoints {keypoints.shape[1]}."
            )
        points = (GAIN * self.keypoint_logits).softmax(dim=1) @ verts  # (B,K,3)
        seen = project(weak_perspective_camera(poses), points)[..., :2]
        visible = keypoints[..., 2:]
        return (visible * (seen - keypoints[..., :2]).square()).sum() / (2 * visible.sum()).clamp(min=1)

    def _vertex_entropy(self) -> Tensor:
        """Mean entropy of the key points' distributions over the vertices."""
        logits = GAIN * self.keypoint_logits
        return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def camera_loss(pred: Tensor, true: Tensor) -> Tensor:
    """Squared differences of scale and translation, and ``1 - <q, q'>^2`` of the rotations, of poses (B, 7)."""
    scale_and_shift = (pred[:, :3] - true[:, :3]).square().sum(dim=1).mean()
    return scale_and_shift + student_loss(pred[:, 3:], true[:, 3:])
