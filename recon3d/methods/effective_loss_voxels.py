"""Voxels that learn from silhouettes without rendering: "Ours-V" of the Effective Loss paper's table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recon3d.methods.effective_loss import EffectiveLossPC
from recon3d.methods.point_cloud import CloudReconstruction
from recon3d.networks.decoders import VolumeDecoder
from recon3d.structures import Reconstruction, ViewBatch


@dataclass(frozen=True)
class MassReconstruction(CloudReconstruction):
    """With the grid's share of mass in each cell, (B, 32, 32, 32), sum 1, index order [y, x, z]."""

    mass: Tensor | None = None


class EffectiveLossVoxels(EffectiveLossPC):
    """A voxel decoder in place of the point decoder of `EffectiveLossPC`, under the same loss.

    The paper names this variant and defines nothing of it. Here the grid is a distribution: cell occupancies in (0, 1)
    divided by their sum. In each step `n_points` cell centres are drawn from it, one lot for an object, and are the
    cloud of the loss; a drawn cell has the mass p / p', p' the p of the draw without gradient, so that the gradient is
    that of the expected loss. No term asks for a number of solid cells: a cell is solid if it has more than `threshold`
    of the mass of a typical cell, ``sum p^2``, which is 1/n where n cells share the mass evenly.

    Args:
        n_points: cells drawn in a step.
        channels: of the decoder's grids, see `VolumeDecoder`.
        batch_norm: normalise in the decoder.
        threshold: share of the typical mass from which a cell is solid.
        kwargs: see `EffectiveLossPC`.
    """

    def __init__(
        self,
        n_points: int = 2000,
        channels: tuple[int, int, int] = (512, 256, 96),
        batch_norm: bool = True,
        threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_points=1, **kwargs)
        if self.ensemble is not None:
            raise ValueError("EffectiveLossVoxels: expected pose known; unknown cameras are for point clouds.")
        self.n_points, self.threshold = n_points, threshold
        self.decoder = VolumeDecoder(self.code_size, channels, batch_norm)

    def forward(self, image: Tensor) -> MassReconstruction:
        """Grids of RGB images (B, 3, S, S)."""
        occupancy = self.decoder(self.encoder(image))
        mass = occupancy / occupancy.sum(dim=(1, 2, 3), keepdim=True)
        typical = mass.square().sum(dim=(1, 2, 3), keepdim=True)
        return MassReconstruction(voxels=mass > self.threshold * typical, mass=mass)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`unary` and `pairwise`, of cells drawn with torch's global generator."""
        assert isinstance(recon, MassReconstruction) and recon.mass is not None
        mass = recon.mass.flatten(1).float()
        drawn = torch.multinomial(mass.detach(), self.n_points, replacement=True)
        share = mass.gather(1, drawn)
        with torch.autocast(mass.device.type, enabled=False):  # as for the points, see `SilhouettePointCloud.losses`
            return self.cloud_losses(batch, _cell_centers(drawn, recon.mass.shape[1]), share / share.detach())

    def cloud_losses(self, batch: ViewBatch, points: Tensor, mass: Tensor) -> dict[str, Tensor]:
        """The losses of points (B, N, 3) with masses (B, N), mean 1."""
        assert batch.cameras is not None
        masks, cameras = self.silhouettes(batch), batch.cameras[:, : self.min_views]
        terms = self.view_losses(masks, points[:, None], mass, cameras, mass[:, None])
        return {name: value.mean() for name, value in terms.items()}


def _cell_centers(index: Tensor, resolution: int) -> Tensor:
    """Centres (..., 3) in the object frame of cells given by their place in a flat [y, x, z] grid."""
    y, x, z = (index // resolution**power % resolution for power in (2, 1, 0))
    return (torch.stack([x, y, z], dim=-1) + 0.5 - resolution / 2) / (resolution - 1)
