"""EffectiveLossPC: point clouds that learn from silhouettes without rendering (Zubic and Lio 2021).

One of the methods of `configs/methods`; its loss is `recon3d.losses.effective`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.losses.effective import SilhouetteForm, effective_loss
from recon3d.methods.base import Paper, ReconstructionMethod
from recon3d.networks.decoders import PointDecoder
from recon3d.networks.encoders import DPCEncoder
from recon3d.structures import Reconstruction, ViewBatch


class EffectiveLossPC(ReconstructionMethod):
    """Image to point cloud: the encoder and decoder of DPC, trained by the Effective Loss over several silhouettes.

    The shape comes from view 0; its points are projected into `views` views, view 0 included, and judged by
    `recon3d.losses.effective.effective_loss`, whose docstring says where its defaults deviate from eq. 1 to 6, and why.

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
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution; 16 in the paper.
        hidden: size of the linear layers; 1024 in the paper.
        lr: learning rate of Adam; the paper gives none, 1e-4 in drwr and DPC.
        schedule: see `ReconstructionMethod`.
    """

    paper: ClassVar = Paper(
        title="An Effective Loss Function for Generating 3D Models from Single 2D Image without Rendering",
        year=2021,
        url="https://arxiv.org/abs/2103.03390",
    )
    in_channels: ClassVar[int] = 3
    needs: ClassVar[frozenset[str]] = frozenset({"masks", "cameras"})

    def __init__(
        self,
        n_points: int = 2000,
        resolution: int = 32,
        views: int = 4,
        alpha: float = 1.0,
        beta: float = 0.01,
        silhouette: SilhouetteForm = "gap",
        theta: float = 0.05,
        kernel: Literal["exp", "gauss"] = "exp",
        rings: int = 5,
        bias: float = 0.0,
        weighted: bool = True,
        detach: bool = True,
        reduction: Literal["mean", "sum"] = "mean",
        self_pair: bool = False,
        image_size: int = 64,
        width: int = 16,
        hidden: int = 1024,
        lr: float = 1e-4,
        schedule: Literal["constant", "step", "cosine"] = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        self.resolution, self.min_views = resolution, views
        self.loss_weights = {"unary": alpha, "pairwise": beta}
        self.settings = {
            "silhouette": silhouette, "theta": theta, "kernel": kernel, "rings": rings, "bias": bias,
            "weighted": weighted, "detach": detach, "reduction": reduction, "self_pair": self_pair,
        }  # fmt: skip
        self.encoder = DPCEncoder(image_size, width, hidden)
        self.decoder = PointDecoder(hidden, n_points)

    def forward(self, image: Tensor) -> Reconstruction:
        """Clouds (B, N, 3) of RGB images (B, 3, S, S)."""
        return Reconstruction(points=self.decoder(self.encoder(image)))

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`unary` and `pairwise`."""
        assert recon.points is not None and batch.cameras is not None
        cameras = batch.cameras[:, : self.min_views]
        xy = project(cameras, recon.points[:, None])[..., :2]
        masks = F.adaptive_avg_pool2d(batch.masks[:, : self.min_views, 0], self.resolution) > 0.5
        terms = effective_loss(xy, masks, **self.settings)
        return {"unary": terms.unary, "pairwise": terms.pairwise}
