"""What every method is: a LightningModule that turns an image into a Reconstruction, and names its losses.

A new method is one file here and one yaml of the same stem in configs/methods/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningModule
from torch import Tensor

from recon3d.bench.record import Paper
from recon3d.structures import Reconstruction, ViewBatch

WARM_UP = 0.03  # share of the steps over which the cosine schedule rises; chosen by us
CLASS_KEY = "recon3d_method"
INVERSE_DECAY = 5e-4  # of the `inverse` schedule, per step: the code of UMR

Schedule = Literal["constant", "step", "cosine", "inverse"]


class ReconstructionMethod(LightningModule):
    """Base of all methods.

    Subclasses set the class attributes, call ``super().__init__``, set `loss_weights`, and define `forward` and
    `losses`. Metrics are not their business: the Evaluator measures all methods alike.

    Args:
        lr: learning rate of Adam.
        schedule: `constant`; `step`: times `drop_factor` from the share `drop_at` of the steps on; `cosine`: rises over
            3 % of the steps and falls to almost 0 over the rest, along half cosines; `inverse`: divided by
            1 + 0.0005 t at step t (Li et al. 2020, their code).
    """

    in_channels: ClassVar[int] = 3  # 4: RGB and mask, an advantage that tables show
    photographs: ClassVar[bool] = False  # trained on photographs with their background, not on renders
    # An argument may decide these.
    paper: Paper | None = None  # None: a baseline without one
    needs: frozenset[str] = frozenset()  # ViewBatch fields used in training (supervision); none: no training
    min_views: int = 1  # views per object that training needs
    encoded_views: int = 1  # of which this many, from the first on, are encoded in a training step
    drop_at: ClassVar[float] = 0.6  # of the `step` schedule: SoftRas's code drops at iteration 150,000 of 250,000,
    drop_factor: ClassVar[float] = 0.3  # by this factor

    def __init__(self, lr: float = 1e-4, schedule: Schedule = "constant") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.schedule = lr, schedule
        self.loss_weights: Mapping[str, float] = {}

    def forward(self, image: Tensor) -> Reconstruction:
        """Reconstruct B images (B, in_channels, H, W) in [0, 1]; deterministic in eval mode."""
        raise NotImplementedError

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """Unweighted scalar losses by name; `recon` holds `encoded_views` answers per object, object by object."""
        raise NotImplementedError

    def reconstruct(self, batch: ViewBatch) -> Reconstruction:
        """Answer for the input views of a batch, as evaluation and prediction ask for it."""
        return self(batch.inputs(self.in_channels))

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Weigh, sum and log the named losses."""
        self._check(batch)
        recon = self(batch.inputs(self.in_channels, self.encoded_views))
        # Geometry is not for half precision: rendered in bfloat16, a vertex moves by half a pixel.
        with torch.autocast(self.device.type, enabled=False):
            losses = self.losses(batch, recon)
        if missing := losses.keys() - self.loss_weights.keys():
            raise KeyError(f"{type(self).__name__}: losses {sorted(missing)} have no weight in loss_weights.")
        total = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
        logged = {f"train/{name}": value for name, value in losses.items()} | {"train/loss": total}
        self.log_dict(logged, batch_size=len(batch), prog_bar=False)
        return total

    def validation_step(self, batch: ViewBatch, batch_idx: int) -> list[Reconstruction]:
        """Reconstruct each object by itself; the Evaluator measures.

        So neither the batch size nor the number of processes changes a result: of a batch of another size, matrix
        products differ in the last digit.
        """
        return [self.reconstruct(one) for one in batch.singles()]

    def test_step(self, batch: ViewBatch, batch_idx: int) -> list[Reconstruction]:
        """As `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the class, so that `load_method` needs nothing but the file."""
        checkpoint[CLASS_KEY] = f"{type(self).__module__}.{type(self).__qualname__}"

    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]; what schedules depend on."""
        total = self.trainer.estimated_stepping_batches
        return min(self.global_step / total, 1.0) if 0 < total < float("inf") else 0.0

    def configure_optimizers(self) -> Any:
        """Adam (the optimiser of all four papers) with the chosen schedule, per step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        if self.schedule == "constant":
            return optimizer
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        if self.schedule == "inverse":
            scheduler: Any = torch.optim.lr_scheduler.LambdaLR(optimizer, self._inverse)
        elif self.schedule == "step":
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(self.drop_at * total)], self.drop_factor)
        else:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=self.lr, total_steps=total, pct_start=WARM_UP, cycle_momentum=False
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def decay_steps(self, step: int) -> int:
        """Steps that the `inverse` schedule counts at a step; a method of two stages may count anew."""
        return step

    def _inverse(self, step: int) -> float:
        return 1 / (1 + INVERSE_DECAY * self.decay_steps(step))

    def _check(self, batch: ViewBatch) -> None:
        views = batch.images.shape[1]
        absent = [name for name in sorted(self.needs) if getattr(batch, name) is None]
        if absent or views < self.min_views:
            raise ValueError(
                f"{type(self).__name__} trains on {self.min_views} views per object and the fields "
                f"{sorted(self.needs)}; this data gives {views} views and lacks {absent or 'nothing'}."
            )
