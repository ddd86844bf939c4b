"""DifferentiablePointClouds: point clouds that learn from silhouettes by rendering, the baseline of EffectiveLossPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d.methods.base import Paper, ReconstructionMethod
from recon3d.networks.decoders import PointDecoder
from recon3d.networks.encoders import DPCEncoder
from recon3d.renderers.points import render_point_silhouettes
from recon3d.structures import Camera, Reconstruction, ViewBatch


@dataclass(frozen=True)
class ScaledReconstruction(Reconstruction):
    """Adds what the loss reads.

    Attributes:
        scale: (B,) factors of the occupancies, in (0, 1).
    """

    scale: Tensor | None = None


class DifferentiablePointClouds(ReconstructionMethod):
    """DPC, Insafutdinov and Dosovitskiy 2018 (arXiv 1810.09381): image to point cloud, trained through its renderer.

    The cloud comes from view 0 and is rendered (`render_point_silhouettes`) in `views` views, view 0 included, each of
    which draws its own part of the points; the loss is half the squared error, summed over the pixels of a view and
    averaged over views and objects. Smoothing and the part that is drawn change linearly over the training: blurred
    silhouettes of few points at first, sharp ones of all points at the end.

    Deviations: those of the renderer and of the encoder; true masks are averaged down to the grid, where the authors
    interpolate; input, data, batch and views are those of `effective_loss`, so that the two compare (the authors' code
    reads 128 pixels and has batches of 8 objects in 4 of 5 views).

    Args:
        n_points: N; 2,000, 8,000 and 16,000 at resolution 32, 64 and 128 in Zubic and Lio 2021.
        resolution: V, side of the silhouettes and of the grid; true masks are averaged down to it.
        views: views of an object in a training step; 4 in the authors' code.
        sigma: of the smoothing, in cells, at the start and at the end of the training; the authors' configuration.
        taps: cells that the smoothing covers along an axis; the authors' configuration.
        keep: share of the points that a view draws, at the start and at the end; the authors' configuration.
        weight_penalty: of half the squared weights, biases left out; the authors' configuration.
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution; 16 in the paper.
        hidden: size of the linear layers; 1024 in the paper.
        lr: learning rate of Adam; 1e-4 in the paper.
        schedule: see `ReconstructionMethod`; `constant` in the authors' code.
    """

    paper: ClassVar = Paper(
        title="Unsupervised Learning of Shape and Pose with Differentiable Point Clouds",
        year=2018,
        url="https://arxiv.org/abs/1810.09381",
    )
    in_channels: ClassVar[int] = 3
    needs: frozenset[str] = frozenset({"masks", "cameras"})

    def __init__(
        self,
        n_points: int = 2000,
        resolution: int = 32,
        views: int = 4,
        sigma: tuple[float, float] = (3.0, 0.2),
        taps: int = 21,
        keep: tuple[float, float] = (0.07, 1.0),
        weight_penalty: float = 0.001,
        image_size: int = 64,
        width: int = 16,
        hidden: int = 1024,
        lr: float = 1e-4,
        schedule: Literal["constant", "step", "cosine"] = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        if not all(0 < share <= 1 for share in keep) or min(sigma) <= 0:
            raise ValueError(
                f"DifferentiablePointClouds: expected keep in (0, 1] and sigma > 0, got {keep} and {sigma}."
            )
        self.resolution, self.min_views, self.taps, self.sigma, self.keep = resolution, views, taps, sigma, keep
        self.loss_weights = {"projection": 1.0, "weights": weight_penalty}
        self.encoder = DPCEncoder(image_size, width, hidden)
        self.decoder = PointDecoder(hidden, n_points)
        self.scale = nn.Linear(hidden, 1)
        nn.init.trunc_normal_(self.scale.weight, std=0.025, a=-0.05, b=0.05)
        nn.init.zeros_(self.scale.bias)

    def forward(self, image: Tensor) -> ScaledReconstruction:
        """Clouds (B, N, 3) of RGB images (B, 3, S, S)."""
        code = self.encoder(image)
        return ScaledReconstruction(points=self.decoder(code), scale=torch.sigmoid(self.scale(code)).squeeze(1))

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`projection` and `weights`."""
        assert isinstance(recon, ScaledReconstruction) and recon.points is not None and recon.scale is not None
        assert batch.cameras is not None
        errors = self.projection_errors(batch, recon.points, recon.scale, batch.cameras[:, : self.min_views])
        return {"projection": errors.mean(), "weights": self.squared_weights()}

    def projection_errors(self, batch: ViewBatch, points: Tensor, scale: Tensor, camera: Camera) -> Tensor:
        """Half the squared error (B, V) of points (B, N, 3) seen by cameras (B, V), of the first V views."""
        masks = batch.masks[:, : camera.shape[1], 0]
        if min(masks.shape[-2:]) < self.resolution:
            raise ValueError(
                f"DifferentiablePointClouds: expected masks of at least {self.resolution} pixels, as its resolution, "
                f"got {tuple(masks.shape[-2:])}; render the data at a larger size or lower the resolution."
            )
        masks = F.adaptive_avg_pool2d(masks, self.resolution)
        drawn = self.draw(points, camera.shape[1])
        sigma = self.current(self.sigma)
        seen = render_point_silhouettes(drawn, camera, self.resolution, sigma, scale[:, None], self.taps)
        return 0.5 * (seen - masks).square().sum(dim=(2, 3))

    def draw(self, points: Tensor, clouds: int) -> Tensor:
        """(B, clouds, M, 3): of points (B, N, 3), each cloud its own part, without replacement; all but in training.

        M is `keep` of N, rounded down, but at least 1. Random numbers come from torch's global generator.
        """
        b, n, _ = points.shape
        kept = max(1, int(n * self.current(self.keep))) if self.training else n
        points = points[:, None].expand(-1, clouds, -1, -1)
        if kept == n:
            return points
        chosen = torch.rand(b, clouds, n, device=points.device).topk(kept, dim=2, sorted=False).indices
        return points.gather(2, chosen.unsqueeze(3).expand(-1, -1, -1, 3))

    def squared_weights(self) -> Tensor:
        """Half the sum of the squares of all weights that are not biases."""
        weights = [value for value in self.parameters() if value.ndim > 1]
        return 0.5 * torch.stack([torch.linalg.vector_norm(weight).square() for weight in weights]).sum()

    def current(self, span: tuple[float, float]) -> float:
        """Value at this point of the training of what goes linearly from the start to the end of `span`."""
        done = self.progress() if self._trainer is not None else 0.0
        return span[0] + (span[1] - span[0]) * done
