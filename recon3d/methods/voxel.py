"""PerspectiveTransformerVoxels: occupancy grids from silhouettes of two views, the baseline of the mesh methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from recon3d.methods.base import Paper, ReconstructionMethod, Schedule
from recon3d.networks.decoders import VolumeDecoder
from recon3d.networks.encoders import ConvEncoder
from recon3d.renderers.voxels import render_voxel_silhouettes
from recon3d.structures import Reconstruction, ViewBatch


@dataclass(frozen=True)
class OccupancyReconstruction(Reconstruction):
    """Adds what the loss reads.

    Attributes:
        occupancy: (B, R, R, R) in (0, 1), index order [y, x, z].
    """

    occupancy: Tensor | None = None


class PerspectiveTransformerVoxels(ReconstructionMethod):
    """Perspective Transformer Nets, Yan et al. 2016 (arXiv 1612.00814), trained from silhouettes alone (PTN-Proj).

    The voxel baseline of Kato et al. 2018, Table 1, and of Liu et al. 2019, Table 1. An image is encoded and decoded to
    32^3 occupancies. The loss is the mean squared difference between their perspective projections and the silhouettes,
    averaged over the pixels of all views (the paper sums over pixels; Adam does not notice the factor).

    Deviations, so that input and supervision equal those of the mesh methods here: the input is RGB and mask instead of
    RGB; the encoder, whose layers are theirs, is trained with the rest instead of pre-trained and frozen; the true
    silhouettes are renders of the mesh, where the authors' code projects the true voxels; two views of an object are
    both reconstructed and both grids projected to both cameras in each step, where the paper projects one grid to 24.
    Weight decay (0.001 in the authors' code) is left out. The decoder starts from almost empty grids (`VolumeDecoder`).

    Args:
        silhouette_size: side of the projections; true masks are averaged down to it. 32 in the paper.
        depth_samples: see `render_voxel_silhouettes`; 32 in the paper.
        threshold: occupancy from which a cell is solid; 0.5 in the authors' code.
        image_size: side of the input; 64 in the paper.
        width: channels of the first convolution; 64 in the paper.
        hidden: size of the encoder's linear layers; 1024 in the paper.
        code: size of the latent code; 512 in the paper.
        channels: of the decoder's grids, see `VolumeDecoder`; 512, 256 and 96 in the paper.
        batch_norm: normalise in the decoder; the paper does not.
        lr: learning rate of Adam; 1e-4 in the paper.
        schedule: see `ReconstructionMethod`; `constant` in the paper.
    """

    paper: Paper | None = Paper(
        title="Perspective Transformer Nets: Learning Single-View 3D Object Reconstruction without 3D Supervision",
        year=2016,
        url="https://arxiv.org/abs/1612.00814",
    )
    in_channels: ClassVar[int] = 4
    needs: frozenset[str] = frozenset({"masks", "cameras"})
    min_views: int = 2
    encoded_views: int = 2

    def __init__(
        self,
        silhouette_size: int = 32,
        depth_samples: int = 32,
        threshold: float = 0.5,
        image_size: int = 64,
        width: int = 64,
        hidden: int = 1024,
        code: int = 512,
        channels: tuple[int, int, int] = (512, 256, 96),
        batch_norm: bool = False,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        if not 0 < threshold < 1:
            raise ValueError(f"PerspectiveTransformerVoxels: expected a threshold in (0, 1), got {threshold}.")
        self.silhouette_size, self.depth_samples, self.threshold = silhouette_size, depth_samples, threshold
        self.loss_weights = {"projection": 1.0}
        self.encoder = ConvEncoder(self.in_channels, image_size, width, hidden, code, batch_norm=False)
        self.decoder = VolumeDecoder(code, channels, batch_norm)

    def forward(self, image: Tensor) -> OccupancyReconstruction:
        """Grids of RGBA images (B, 4, S, S)."""
        occupancy = self.decoder(self.encoder(image))
        return OccupancyReconstruction(voxels=occupancy > self.threshold, occupancy=occupancy)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`projection`."""
        assert isinstance(recon, OccupancyReconstruction) and recon.occupancy is not None and batch.cameras is not None
        grids = recon.occupancy.unflatten(0, (-1, 2))  # (2B,R,R,R) -> (B, grid A or B, R,R,R)
        silhouettes = render_voxel_silhouettes(grids, batch.cameras[:, :2], self.silhouette_size, self.depth_samples)
        masks = F.adaptive_avg_pool2d(batch.masks[:, :2, 0], self.silhouette_size)  # (B, view A or B, S,S)
        return {"projection": F.mse_loss(silhouettes, masks[:, None].expand_as(silhouettes))}
