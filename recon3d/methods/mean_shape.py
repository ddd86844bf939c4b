"""MeanShape: the mean training shape of a category; what a method must beat to have read anything from the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Reconstruction, ViewBatch

THRESHOLDS = tuple(step / 20 for step in range(1, 20))


class MeanShape(ReconstructionMethod):
    """Per category, the mean of the training voxels, cut at the threshold with the best mean IoU on the training set.

    It is told the category of a test image, which no other method is; `category` therefore stands in its supervision.
    """

    needs: frozenset[str] = frozenset({"voxels", "category"})

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.shapes: dict[str, Tensor] = {}  # category -> bool (R,R,R)
        self._seen: dict[str, dict[str, Tensor]] = {}  # category -> object -> voxels

    def forward(self, image: Tensor) -> Reconstruction:
        """The majority of the category shapes, once for each of B images; `reconstruct` knows the category."""
        majority = torch.stack(list(self._fitted().values())).float().mean(dim=0) >= 0.5
        return Reconstruction(voxels=majority.to(image.device).expand(len(image), -1, -1, -1))

    def reconstruct(self, batch: ViewBatch) -> Reconstruction:
        """The shape of each sample's category."""
        shapes = self._fitted()
        if unknown := set(batch.category) - shapes.keys():
            raise ValueError(f"MeanShape was fitted to {sorted(shapes)} and knows nothing of {sorted(unknown)}.")
        return Reconstruction(voxels=torch.stack([shapes[name] for name in batch.category]).to(batch.images.device))

    def training_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Keep each object's voxels once."""
        self._check(batch)
        assert batch.voxels is not None
        for sample_id, category, voxels in zip(batch.sample_id, batch.category, batch.voxels.cpu(), strict=True):
            self._seen.setdefault(category, {})[sample_id.rpartition("/")[0]] = voxels

    def on_validation_start(self) -> None:
        """Answer with what was seen so far."""
        self._fit()

    def on_train_epoch_end(self) -> None:
        """Fit to all that was seen, before the checkpoint is written."""
        self._fit()

    def _fit(self) -> None:
        """Average what all processes have seen, in the order of the names, and choose the thresholds."""
        seen: dict[str, dict[str, Tensor]] = {}
        for part in self._parts():
            for category, objects in part.items():
                seen.setdefault(category, {}).update(objects)
        for category in sorted(seen):
            voxels = torch.stack([seen[category][name] for name in sorted(seen[category])])
            mean = voxels.float().mean(dim=0)
            scores = []
            for threshold in THRESHOLDS:
                shape = mean >= threshold
                overlap = (shape & voxels).flatten(1).sum(dim=1)
                scores.append((overlap / (shape | voxels).flatten(1).sum(dim=1).clamp(min=1)).mean())
            best = THRESHOLDS[int(torch.stack(scores).argmax())]
            self.shapes[category] = mean >= best

    def _parts(self) -> list[dict[str, dict[str, Tensor]]]:
        """What each process has seen."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return [self._seen]
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, self._seen)
        return parts

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the shapes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["shapes"] = self.shapes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the shapes back."""
        self.shapes = checkpoint["shapes"]

    def _fitted(self) -> dict[str, Tensor]:
        if not self.shapes:
            raise RuntimeError("MeanShape has no shapes yet: fit it, or load a checkpoint.")
        return self.shapes
