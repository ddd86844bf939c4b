"""DifferentiablePointClouds: point clouds that learn from silhouettes by rendering, the baseline of EffectiveLossPC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recon3d.methods.base import Paper, Schedule
from recon3d.methods.point_cloud import Pose, SilhouettePointCloud
from recon3d.renderers.points import render_point_silhouettes
from recon3d.structures import Camera, Reconstruction, ViewBatch


class DifferentiablePointClouds(SilhouettePointCloud):
    """DPC, Insafutdinov and Dosovitskiy 2018 (arXiv 1810.09381): image to point cloud, trained through its renderer.

    The cloud is rendered (`render_point_silhouettes`) in `views` views, the input included, each of which draws its own
    part of the points; the loss is half the squared error, summed over the pixels of a view and averaged over views and
    objects. Smoothing and the part that is drawn change linearly over the training: blurred silhouettes of few points
    at first, sharp ones of all points at the end. Cameras may be unknown: `SilhouettePointCloud`.

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
        weight_penalty: of half the squared weights of encoder and decoder, biases left out; the authors' configuration.
        pose: see `SilhouettePointCloud`, as all that follow but `student_weight`.
        candidates: of a camera.
        student_weight: of the loss of the ensemble's student; 20 in the authors' configuration.
        distance: of unknown cameras.
        focal: of unknown cameras.
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution; 16 in the paper.
        hidden: size of the linear layers; 1024 in the paper.
        lr: learning rate of Adam; 1e-4 in the paper.
        schedule: see `ReconstructionMethod`; `constant` in the authors' code.
    """

    paper: Paper | None = Paper(
        title="Unsupervised Learning of Shape and Pose with Differentiable Point Clouds",
        year=2018,
        url="https://arxiv.org/abs/1810.09381",
    )

    def __init__(
        self,
        n_points: int = 2000,
        resolution: int = 32,
        views: int = 4,
        sigma: tuple[float, float] = (3.0, 0.2),
        taps: int = 21,
        keep: tuple[float, float] = (0.07, 1.0),
        weight_penalty: float = 0.001,
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
        if not all(0 < share <= 1 for share in keep) or min(sigma) <= 0:
            raise ValueError(
                f"DifferentiablePointClouds: expected keep in (0, 1] and sigma > 0, got {keep} and {sigma}."
            )
        self.taps, self.sigma, self.keep = taps, sigma, keep
        self.loss_weights = {"projection": 1.0, "weights": weight_penalty, "student": student_weight}
        self.scale = nn.Linear(hidden, 1)
        nn.init.trunc_normal_(self.scale.weight, std=0.025, a=-0.05, b=0.05)
        nn.init.zeros_(self.scale.bias)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`projection`, `student` where cameras are unknown, and `weights`."""
        return super().losses(batch, recon) | {"weights": self.squared_weights()}

    def view_losses(self, masks: Tensor, points: Tensor, code: Tensor, cameras: Camera) -> dict[str, Tensor]:
        """`projection`."""
        drawn, scale = self.draw(points, cameras.shape), torch.sigmoid(self.scale(code)).squeeze(-1)
        sigma = self.current(self.sigma)
        seen = render_point_silhouettes(drawn, cameras, self.resolution, sigma, scale, self.taps)
        return {"projection": 0.5 * (seen - masks).square().sum(dim=(-2, -1))}

    def draw(self, points: Tensor, clouds: Sequence[int]) -> Tensor:
        """(*clouds, M, 3): of points (..., N, 3), each cloud its own part, without replacement; all but in training.

        M is `keep` of N, rounded down, but at least 1. Random numbers come from torch's global generator.
        """
        n = points.shape[-2]
        kept = max(1, int(n * self.current(self.keep))) if self.training else n
        points = points.expand(*clouds, n, 3)
        if kept == n:
            return points
        chosen = torch.rand(*clouds, n, device=points.device).topk(kept, dim=-1, sorted=False).indices
        return points.gather(-2, chosen.unsqueeze(-1).expand(*clouds, kept, 3))

    def squared_weights(self) -> Tensor:
        """Half the sum of the squares of the weights of encoder and decoder that are not biases."""
        parts = self.encoder, self.decoder, self.scale
        weights = [value for part in parts for value in part.parameters() if value.ndim > 1]
        return 0.5 * torch.stack([torch.linalg.vector_norm(weight).square() for weight in weights]).sum()

    def current(self, span: tuple[float, float]) -> float:
        """Value at this point of the training of what goes linearly from the start to the end of `span`."""
        done = self.progress() if self._trainer is not None else 0.0
        return span[0] + (span[1] - span[0]) * done
