"""What methods with unknown cameras share: the way from the frame that their network chose to the object frame.

A method holds a `WorldAlignment`, passes its answers through it, and calls `align_after_training` at the end of each
training epoch. The ground-truth cameras and clouds of validation objects serve to fit it and nothing
else, as in the evaluation of Insafutdinov and Dosovitskiy 2018 (DPC): no weight of the network depends on them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, distributed, nn

from recon3d.geometry.alignment import POINTS, AlignmentError, fit_alignment
from recon3d.geometry.poses import camera_quaternion, turn_world
from recon3d.geometry.sampling import sample_surface
from recon3d.methods.base import ReconstructionMethod
from recon3d.metrics.base import object_name
from recon3d.structures import Camera, Reconstruction, ViewBatch

logger = logging.getLogger(__name__)

OBJECTS = 50  # of each category of the validation split, from the first on; the papers have one category
VIEWS = 5  # of each, at most


class WorldAlignment(nn.Module):
    """Turns points and cameras from the frame of the predictions to the object frame, in eval mode only.

    Training goes on in the frame that the network chose, whatever was fitted before. The rotation is the identity until
    it is fitted, and is saved with the weights.

    Attributes:
        rotation: (3, 3), for row vectors: ``points @ rotation`` lies in the object frame.
    """

    rotation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.eye(3))

    def forward(self, points: Tensor, camera: Camera) -> tuple[Tensor, Camera]:
        """Points (..., N, 3) and camera of any leading shape; what the camera sees of the points does not change."""
        if self.training:
            return points, camera
        with torch.autocast(points.device.type, enabled=False):
            return points @ self.rotation, turn_world(camera, self.rotation)

    def reset(self) -> None:
        """Become the identity."""
        self.rotation.copy_(torch.eye(3))

    def fit(self, objects: Sequence[SeenObject]) -> None:
        """Take the rotation that `fit_alignment` finds.

        Raises:
            AlignmentError: no prediction could be matched.
        """
        rotation = fit_alignment(
            [torch.stack(known.clouds[:VIEWS]) for known in objects],
            [known.truth for known in objects],
            [torch.stack(known.q_pred[:VIEWS]) for known in objects],
            [torch.stack(known.q_true[:VIEWS]) for known in objects],
        )
        self.rotation.copy_(rotation)


@dataclass
class SeenObject:
    """What is known of one object.

    Attributes:
        truth: (P, 3) true cloud.
        clouds: predicted ones (N, 3), of one view each.
        q_pred: (4,) rotations predicted for these views, w first.
        q_true: (4,) true ones.
    """

    truth: Tensor
    clouds: list[Tensor] = field(default_factory=list)
    q_pred: list[Tensor] = field(default_factory=list)
    q_true: list[Tensor] = field(default_factory=list)


class SimilarityAlignment(WorldAlignment):
    """A `WorldAlignment` that also scales and shifts, for methods whose cameras leave the size of the object open.

    Orthographic cameras see no difference between a large object far away and a small one: their scale takes it up.

    Attributes:
        scale: applied to the points first.
        shift: (3,), added at the end.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(3))

    def forward(self, points: Tensor, camera: Camera) -> tuple[Tensor, Camera]:
        """Points (..., N, 3) and orthographic cameras; what the camera sees of the points does not change."""
        if self.training:
            return points, camera
        points, camera = super().forward(points * self.scale, camera)
        # view = (points - shift) / scale @ R + T: the scale goes into T and the focal length, the shift into T.
        moved = camera.T * self.scale - self.shift @ camera.R
        return points + self.shift, replace(camera, T=moved, focal=camera.focal / self.scale)

    def reset(self) -> None:
        """Become the identity."""
        super().reset()
        self.scale.fill_(1.0)
        self.shift.zero_()

    def fit(self, objects: Sequence[SeenObject]) -> None:
        """The rotation of the clouds when they are centred and of one size; the median size; the mean place."""
        centers = [[cloud.mean(dim=0) for cloud in known.clouds] for known in objects]
        truths = [known.truth.mean(dim=0) for known in objects]
        ratio = [
            _radius(known.truth) / _radius(cloud)
            for known in objects
            for cloud in known.clouds
            if cloud.isfinite().all()
        ]
        if not ratio:
            raise AlignmentError("no prediction is finite.")
        scale = torch.stack(ratio).median()
        alike = [
            replace(
                known,
                truth=known.truth - truth,
                clouds=[(cloud - center) * scale for cloud, center in zip(known.clouds, middle, strict=True)],
            )
            for known, truth, middle in zip(objects, truths, centers, strict=True)
        ]
        super().fit(alike)
        self.scale.copy_(scale)
        offsets = [
            truth - scale * center @ self.rotation.to(center)
            for truth, middle in zip(truths, centers, strict=True)
            for center in middle
        ]
        self.shift.copy_(torch.stack(offsets).nanmedian(dim=0).values)


def _radius(points: Tensor) -> Tensor:
    """Root mean squared distance to the centre."""
    return (points - points.mean(dim=0)).square().sum(dim=1).mean().sqrt()


def align_after_training(method: ReconstructionMethod, alignment: WorldAlignment, objects: int = OBJECTS) -> None:
    """Fit the alignment to the trainer's validation data if this was the last epoch, before its checkpoint is written.

    To be called from `on_train_epoch_end`, in every process of a distributed run. Validations during training come
    before it, and measure shapes in the frame that the network chose.
    """
    trainer = method.trainer
    last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
    if not last and trainer.global_step != trainer.max_steps:
        return
    # Not there yet in a process that has not validated, such as a resumed one.
    data = getattr(trainer, "datamodule", None)
    loader = trainer.val_dataloaders or (data and data.val_dataloader())
    if not loader:
        logger.warning("No validation data: predictions stay in the frame that the network chose.")
        return
    align_on_validation(method, alignment, loader, objects)


def align_on_validation(
    method: ReconstructionMethod, alignment: WorldAlignment, loader: Iterable[ViewBatch], objects: int = OBJECTS
) -> None:
    """Fit `alignment` by `fit_alignment` to the answers of `method` for the first objects of each category.

    Every view of a batch is reconstructed, up to 5 of an object. The true points and cameras of these objects are used
    for this alone. In a distributed run, called by every process, the first fits to its share of the data and
    the others take its fit. Without points or cameras, or where no prediction can be matched, a warning is logged
    and the alignment is the identity.

    Args:
        method: gives points and camera, passed through `alignment`; its mode and that of its parts stay as they are.
        alignment: of the method.
        loader: validation batches, whose `sample_id` is ``<object>/<view>``.
        objects: of each category.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0:
        modes = {module: module.training for module in method.modules()}
        alignment.reset()
        method.eval()
        try:
            with torch.no_grad():
                alignment.fit(_seen_objects(method, loader, objects))
        except AlignmentError as error:
            alignment.reset()
            logger.warning("Predictions stay in the frame that the network chose: %s", error)
        finally:
            for module, training in modes.items():
                module.training = training
    if distributed.is_available() and distributed.is_initialized():
        for value in alignment.buffers():
            distributed.broadcast(value, src=0)


def _seen_objects(method: ReconstructionMethod, loader: Iterable[ViewBatch], objects: int) -> list[SeenObject]:
    """The first `objects` of each category, with the answers for up to `VIEWS` views of each."""
    chosen: dict[str, SeenObject] = {}
    room: dict[str, int] = {}  # objects that a category may still add
    for batch in loader:
        if batch.points is None or batch.cameras is None:
            raise AlignmentError("the validation data have no points or no cameras.")
        names = [object_name(sample) for sample in batch.sample_id]
        for name, category, truth in zip(names, batch.category, batch.points, strict=True):
            if name not in chosen and room.setdefault(category, objects) > 0:
                chosen[name] = SeenObject(truth)
                room[category] -= 1
        wanted = [index for index, name in enumerate(names) if name in chosen and _lacks_views(chosen[name])]
        if not wanted:
            continue
        views = min(batch.images.shape[1], VIEWS)
        answer = method(batch.to(method.device).inputs(method.in_channels, views))
        assert answer.camera is not None
        q_pred = camera_quaternion(answer.camera).unflatten(0, (-1, views))  # (B*v,4) -> (B,v,4)
        points = _cloud(answer).unflatten(0, (-1, views))  # (B*v,N,3) -> (B,v,N,3)
        q_true = camera_quaternion(batch.cameras[:, :views])
        for index in wanted:
            known = chosen[names[index]]
            known.clouds += points[index].cpu().unbind()
            known.q_pred += q_pred[index].cpu().unbind()
            known.q_true += q_true[index].cpu().unbind()
    if not chosen:
        raise AlignmentError("the validation data are empty.")
    return list(chosen.values())


def _cloud(answer: Reconstruction) -> Tensor:
    """Points (B, N, 3) on the surface: those of the answer, else samples of its meshes, of one topology."""
    if answer.points is not None:
        return answer.points
    assert answer.mesh is not None
    faces = answer.mesh.faces_list()[0]
    clouds = [
        sample_surface(verts, faces, POINTS, torch.Generator().manual_seed(0))[0] for verts in answer.mesh.verts_list()
    ]
    return torch.stack(clouds)


def _lacks_views(known: SeenObject) -> bool:
    return len(known.clouds) < VIEWS
