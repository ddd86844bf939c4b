"""What the methods share that learn point clouds from silhouettes: DPC's network, and cameras known or unknown.

`effective_loss` and `dpc` differ in how they judge a cloud in a view, and in nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d.geometry.poses import posed_camera
from recon3d.losses.pose import hindsight_loss, student_loss, winning
from recon3d.methods.aligned import WorldAlignment, align_after_training
from recon3d.methods.base import ReconstructionMethod, Schedule
from recon3d.networks.decoders import PointDecoder
from recon3d.networks.encoders import DPCEncoder
from recon3d.networks.pose import PoseEnsemble
from recon3d.structures import Camera, Reconstruction, ViewBatch

Pose = Literal["known", "ensemble"]


@dataclass(frozen=True)
class CloudReconstruction(Reconstruction):
    """Adds what the losses read.

    Attributes:
        code: (B, hidden) of the encoder.
        candidates: (B, K, 4) quaternions of the input view, where cameras are unknown.
        student: (B, 4), where there are several candidates.
    """

    code: Tensor | None = None
    candidates: Tensor | None = None
    student: Tensor | None = None


class SilhouettePointCloud(ReconstructionMethod):
    """Image to point cloud, judged in several views of the object; the shape comes from view 0.

    With `pose` "ensemble" the cameras of the data are not used: every view is encoded, an ensemble proposes its
    cameras, the proposal with the smallest loss is the one that counts, and a student learns it
    (Insafutdinov and Dosovitskiy 2018). Deviation: pose features come from the shape code, the encoder's last layer,
    where the authors branch off one layer before. Predictions are turned to the object frame by one rotation, see
    `recon3d.methods.aligned`.

    A subclass sets `loss_weights`, with "student" where cameras are unknown, and gives `view_losses`.

    Args:
        n_points: N.
        resolution: V, side of the silhouettes; true masks are averaged down to it.
        views: of an object in a training step.
        pose: `known`, or `ensemble`.
        candidates: K of the ensemble; 4 in both papers.
        distance: of unknown cameras from the object, in object units; 2.732 in the NMR layout, 2 in DPC's.
        focal: of unknown cameras, in NDC; 3.732 (half a field of view of 15 degrees) and 3.75.
        image_size: side of the input, a power of 2.
        width: channels of the encoder's first convolution.
        hidden: size of the linear layers.
        lr: learning rate of Adam.
        schedule: see `ReconstructionMethod`.
    """

    in_channels: ClassVar[int] = 3

    def __init__(
        self,
        *,
        n_points: int,
        resolution: int,
        views: int,
        pose: Pose,
        candidates: int,
        distance: float,
        focal: float,
        image_size: int,
        width: int,
        hidden: int,
        lr: float,
        schedule: Schedule,
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        if pose not in ("known", "ensemble"):
            raise ValueError(f"{type(self).__name__}: expected pose known or ensemble, got {pose!r}.")
        self.resolution, self.min_views, self.distance, self.focal = resolution, views, distance, focal
        self.needs = frozenset({"masks", "cameras"} if pose == "known" else {"masks"})
        self.encoded_views = 1 if pose == "known" else views
        self.encoder = DPCEncoder(image_size, width, hidden)
        self.decoder: nn.Module = PointDecoder(hidden, n_points)
        self.ensemble = PoseEnsemble(hidden, candidates) if pose == "ensemble" else None
        self.alignment = WorldAlignment() if pose == "ensemble" else None

    @abstractmethod
    def view_losses(self, masks: Tensor, points: Tensor, code: Tensor, cameras: Camera) -> dict[str, Tensor]:
        """Losses (...) by name of clouds seen by cameras of any leading shape.

        Args:
            masks: (..., V, V), the silhouettes of the data; broadcast against the cameras.
            points: (..., N, 3); leading dimensions broadcast against the cameras'.
            code: (..., hidden) of the shapes; the same.
            cameras: leading shape (...).
        """

    def forward(self, image: Tensor) -> CloudReconstruction:
        """Clouds (B, N, 3) of RGB images (B, 3, S, S), and their cameras where those are unknown."""
        code = self.encoder(image)
        points = self.decoder(code)
        if self.ensemble is None or self.alignment is None:
            return CloudReconstruction(points=points, code=code)
        poses = self.ensemble(code)
        camera = posed_camera(poses.answer, self.distance, self.focal)
        points, camera = self.alignment(points, camera)
        return CloudReconstruction(
            points=points, camera=camera, code=code, candidates=poses.candidates, student=poses.student
        )

    def silhouettes(self, batch: ViewBatch) -> Tensor:
        """The masks of the views of a training step, averaged down to V pixels a side: (B, views, V, V) in [0, 1].

        Raises:
            ValueError: masks of fewer pixels.
        """
        masks = batch.masks[:, : self.min_views, 0]
        if min(masks.shape[-2:]) < self.resolution:
            raise ValueError(
                f"{type(self).__name__}: expected masks of at least {self.resolution} pixels, as its resolution, got "
                f"{tuple(masks.shape[-2:])}; render the data at a larger size or lower the resolution."
            )
        return F.adaptive_avg_pool2d(masks, self.resolution)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """Those of `view_losses`, averaged over objects and views, and `student`."""
        assert isinstance(recon, CloudReconstruction) and recon.points is not None and recon.code is not None
        masks = self.silhouettes(batch)
        first = slice(None, None, self.encoded_views)  # the shape is that of view 0
        # Distances of 1e-3 count: the losses are computed in full precision, whatever the network is.
        points, code = recon.points[first, None].float(), recon.code[first, None].float()
        with torch.autocast(points.device.type, enabled=False):
            if recon.candidates is None:
                assert batch.cameras is not None
                terms = self.view_losses(masks, points, code, batch.cameras[:, : self.min_views])
                return {name: value.mean() for name, value in terms.items()}
            self._check_intrinsics(batch)
            candidates = recon.candidates.float().unflatten(0, (-1, self.min_views))  # (BV,K,4) -> (B,V,K,4)
            cameras = posed_camera(candidates, self.distance, self.focal)
            terms = self.view_losses(masks.unsqueeze(2), points.unsqueeze(2), code.unsqueeze(2), cameras)
            total = torch.stack([self.loss_weights[name] * value for name, value in terms.items()]).sum(dim=0)
            _, winner = hindsight_loss(total)
            losses = {name: value.gather(2, winner.unsqueeze(2)).mean() for name, value in terms.items()}
            if recon.student is not None:
                student = recon.student.float().unflatten(0, winner.shape)
                losses["student"] = student_loss(student, winning(candidates, winner))
        return losses

    def _check_intrinsics(self, batch: ViewBatch) -> None:
        """Refuse data whose cameras have another distance or focal length than those that are proposed."""
        if batch.cameras is None:
            return
        found = {"distance": batch.cameras.T[..., 2], "focal": batch.cameras.focal}
        for name, values in found.items():
            ours, theirs = getattr(self, name), float(values.mean())
            if abs(ours - theirs) > 0.01 * ours:
                raise ValueError(
                    f"{type(self).__name__}: the data's cameras have the {name} {theirs:.4g}, the proposed ones "
                    f"{ours:.4g}, and shapes would come out in another size. Set --model.init_args.{name} {theirs:.4g}."
                )

    def on_train_epoch_end(self) -> None:
        """At the end of the training, find the rotation to the object frame."""
        if self.alignment is not None:
            align_after_training(self, self.alignment)
