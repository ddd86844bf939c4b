"""The point-cloud network trained on true points: "Ours, supervised" of the Effective Loss paper's table 2."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recon3d.losses.points import chamfer_loss
from recon3d.methods.base import Paper, ReconstructionMethod, Schedule
from recon3d.methods.effective_loss import EffectiveLossPC
from recon3d.networks.decoders import PointDecoder
from recon3d.networks.encoders import DPCEncoder
from recon3d.structures import Reconstruction, ViewBatch


class SupervisedPC(ReconstructionMethod):
    """The network of `EffectiveLossPC`, trained by the Chamfer distance to points of the true surface.

    Deviation: the paper names no loss, points or schedule for its supervised column; the loss here is its metric
    (eq. 7), against as many true points as are predicted, drawn anew in each step.

    Args:
        n_points: N.
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution.
        hidden: size of the linear layers.
        lr: learning rate of Adam.
        schedule: see `ReconstructionMethod`.
    """

    paper: Paper | None = EffectiveLossPC.paper
    in_channels: ClassVar[int] = 3
    needs: frozenset[str] = frozenset({"points"})

    def __init__(
        self,
        n_points: int = 2000,
        image_size: int = 64,
        width: int = 16,
        hidden: int = 1024,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        self.loss_weights = {"chamfer": 1.0}
        self.encoder = DPCEncoder(image_size, width, hidden)
        self.decoder = PointDecoder(hidden, n_points)

    def forward(self, image: Tensor) -> Reconstruction:
        """Clouds (B, N, 3) of RGB images (B, 3, S, S)."""
        return Reconstruction(points=self.decoder(self.encoder(image)))

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`chamfer`."""
        assert recon.points is not None and batch.points is not None
        there = batch.points.shape[1]
        drawn = torch.randperm(there)[: recon.points.shape[1]].to(batch.points.device)
        return {"chamfer": chamfer_loss(recon.points, batch.points[:, drawn]).mean()}
