"""EffectiveLossPC: point clouds that learn from silhouettes without rendering (Zubic and Lio 2021).

One of the methods of `configs/methods`; its loss is `recon3d.losses.effective`.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.losses.effective import SilhouetteForm, effective_loss
from recon3d.methods.base import Paper, Schedule
from recon3d.methods.point_cloud import Pose, SilhouettePointCloud
from recon3d.structures import Camera


class EffectiveLossPC(SilhouettePointCloud):
    """Image to point cloud: the encoder and decoder of DPC, trained by the Effective Loss over several silhouettes.

    Points are projected into `views` views, the input included, and judged by
    `recon3d.losses.effective.effective_loss`, whose docstring says where its defaults deviate from eq. 1 to 6, and why.
    Cameras may be unknown: `SilhouettePointCloud`.

    Args:
        n_points: N; the paper has 2,000, 8,000 and 16,000 at resolution 32, 64 and 128.
        resolution: V, side of the silhouettes; true masks are averaged down to it and are solid from 1/2.
        views: G, views of an object in a training step; 4 in the paper, which tries 2 to 4 (its table 6).
        alpha: weight of M1 (eq. 6); the paper gives none, 1 in drwr.
        beta: weight of L2 (eq. 6); the paper gives none.
        silhouette: form of S^G, see `smooth_silhouettes`.
        theta: see `effective_loss`, as all that follow.
        kernel: of the pairs.
        rings: of mu.
        bias: of mu.
        weighted: by w.
        detach: w and mu.
        reduction: over k.
        self_pair: count k = j.
        pose: see `SilhouettePointCloud`, as all that follow but `student_weight`.
        candidates: of a camera.
        student_weight: of the loss of the ensemble's student; 20 in DPC's code.
        distance: of unknown cameras.
        focal: of unknown cameras.
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution; 16 in the paper.
        hidden: size of the linear layers; 1024 in the paper.
        lr: learning rate of Adam; the paper gives none, 1e-4 in drwr and DPC.
        schedule: see `ReconstructionMethod`.
    """

    paper: Paper | None = Paper(
        title="An Effective Loss Function for Generating 3D Models from Single 2D Image without Rendering",
        year=2021,
        url="https://arxiv.org/abs/2103.03390",
    )

    def __init__(
        self,
        n_points: int = 2000,
        resolution: int = 32,
        views: int = 4,
        alpha: float = 1.0,
        beta: float = 1.0,
        silhouette: SilhouetteForm = "gap",
        theta: float = 0.05,
        kernel: Literal["exp", "gauss"] = "exp",
        rings: int = 5,
        bias: float = 0.0,
        weighted: bool = True,
        detach: bool = True,
        reduction: Literal["mean", "sum"] = "mean",
        self_pair: bool = False,
        pose: Pose = "known",
        candidates: int = 4,
        student_weight: float = 20.0,
        distance: float = 2.732,
        focal: float = 3.732,
        image_size: int = 64,
        width: int = 16,
        hidden: int = 1024,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            n_points=n_points, resolution=resolution, views=views, pose=pose, candidates=candidates, distance=distance,
            focal=focal, image_size=image_size, width=width, hidden=hidden, lr=lr, schedule=schedule,
        )  # fmt: skip
        self.code_size = hidden
        self.loss_weights = {"unary": alpha, "pairwise": beta, "student": student_weight}
        self.effective_loss = partial(
            effective_loss, silhouette=silhouette, theta=theta, kernel=kernel, rings=rings, bias=bias,
            weighted=weighted, detach=detach, reduction=reduction, self_pair=self_pair,
        )  # fmt: skip

    def view_losses(
        self, masks: Tensor, points: Tensor, code: Tensor, cameras: Camera, mass: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`unary` and `pairwise` (...); `mass` (..., N), mean 1, of the points."""
        xy = project(cameras, points)[..., :2]
        if mass is not None:
            mass = mass.expand(xy.shape[:-1])
        terms = self.effective_loss(xy, masks > 0.5, mass=mass, per_view=True)
        return {"unary": terms.unary, "pairwise": terms.pairwise}
