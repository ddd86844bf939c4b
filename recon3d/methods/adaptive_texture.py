"""AdaptiveTextureUMR (Lin and Tian 2021), and UMR under it: textured meshes of a category from single photographs.

Trained on masks alone; with part maps, parts too. `configs/methods/umr.yaml` is the same code without what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pytorch3d.transforms import quaternion_multiply
from torch import Tensor
from torch.func import functional_call

from recon3d.losses.adversarial import discriminator_loss, generator_loss, gradient_penalty
from recon3d.losses.frechet import FrechetLoss
from recon3d.losses.texture import SampleMode, variation_loss
from recon3d.methods.aligned import SimilarityAlignment, align_after_training
from recon3d.methods.base import Paper, Schedule
from recon3d.methods.part_assignment import PartLosses, assign_parts
from recon3d.methods.template_learning import mean_offset, read_template
from recon3d.methods.texture_flow import TextureFlowMesh, TextureReconstruction
from recon3d.networks.discriminators import ImageDiscriminator
from recon3d.networks.imagenet import FeatureNetwork, inception_features
from recon3d.networks.texture import VariationDecoder
from recon3d.structures import Camera, ViewBatch

logger = logging.getLogger(__name__)

UMR = Paper(
    title="Self-supervised Single-view 3D Reconstruction via Semantic Consistency",
    year=2020,
    url="https://arxiv.org/abs/2003.06473",
)


class AdaptiveTextureUMR(TextureFlowMesh):
    """Shape, camera and texture of an object of one category from one photograph, with the adaptive gradient.

    Two stages, in one training. **Template learning** (UMR's first stage, the first `template_epochs`): every
    `template_every` epochs the mean deformation of the training set moves into the template; the image is sampled as it
    is. Then, where there are part maps, the template's vertices are assigned to parts. **Refinement**: the template
    stays, the decoder D_var multiplies the image that is sampled (eq. 11) so that the flow has a gradient in uniform
    regions, and the Frechet distance of renders from random views to the photographs is a loss (eq. 42 to 47).

    Losses, each an expectation over the camera hypotheses where UMR's code has one: `mask` (eq. 1), `deform`,
    `laplacian` (4), `flatten` (6), `pixel` (10), `perceptual`, `barrier`, `align` (12), `part_points` (13),
    `part_probability` (14), `entropy`, `orientation`, `variation`; on renders from a random azimuth `gan` (38),
    `frechet` (42); `discriminator` (37) and `gradient_penalty` (39) train the discriminator. Where renders train the
    texture, shape and cameras are constants (UMR's code); `part_points` trains the cameras, `part_probability` the
    shape.

    Both players are trained at once, by one Adam (as in UMR's code): the generator's losses see the discriminator's
    weights as constants, and the discriminator's losses the renders. So one backward pass serves both, as Lightning's
    automatic optimisation makes it, with accumulation of gradients, and under DistributedDataParallel.

    Deviation: the paper gives no weights, rates or sizes; those here are UMR's where it has them, else ours
    (configs/methods/adaptive_texture.yaml names the source of each).
    Deviation: one training with K cameras throughout, where UMR's code trains two networks, the first with one camera,
    and hands only the template and the parts on. The GAN sees colours in both stages (UMR: silhouettes in the first)
    and the photographs of the same batch as real ones (UMR: of the batch before); the weights are those of UMR's second
    stage in both (its first has mask 3.0, deform 5.0 from epoch 5 on, align 0.5, flatten 4e-4). `orientation` lasts
    for the first fifth of template learning (UMR: 3 of 500 epochs).
    Deviation: `part_points` is one-sided, as in UMR's code, where eq. 13 prints a Chamfer distance.
    Deviation: when the mean deformation moves into the template, it is taken out of the decoder's bias, so that shapes
    do not jump, as they do in UMR's code.
    Deviation: the random view is turned by an azimuth in [0, 360) degrees, not [0, 180): the paper says random.
    Deviation: answers take the most probable camera and the mean of the shape code; UMR's code draws both.

    Args:
        template: checkpoint of an earlier training, whose template and parts are taken over; None begins with a sphere.
        template_epochs: epochs of template learning.
        template_every: epochs between updates of the template; 5 in UMR's code.
        parts: use part maps of the data: they become supervision.
        variation: largest change of a pixel by D_var, in (0, 1); 0 leaves D_var out.
        mode: how the image is sampled in refinement: `modulated` as eq. 11 prints; `straight_through`: the values of
            the image, the gradients of `modulated`; `plain`: D_var takes no part.
        texture_cameras: render for the texture losses from `all` hypotheses (UMR), or the one `drawn`, which is K times
            cheaper.
        gan_texture: the GAN trains the texture too (the new paper); else the shape alone (UMR).
        gan_form: see `recon3d.losses.adversarial.generator_loss`.
        frechet_layer: tap of Inception v3, by the number of its features.
        frechet_size: pixels that renders are resized to for it; 299 in FID.
        frechet_weights: torchvision's Inception v3; None for random weights of a fixed seed.
        frechet_bank: renders whose features are kept, see `FrechetLoss`.
        frechet_images: training photographs that the real statistics are computed from, at most.
        mask_weight: of the loss of that name, as all `..._weight`; 0 leaves a loss out.
        hypotheses: see `CameraHead`; other arguments: see `TextureFlowMesh`.
    """

    paper: Paper | None = Paper(
        title="Using Adaptive Gradient for Texture Learning in Single-View 3D Reconstruction",
        year=2021,
        url="https://arxiv.org/search/?searchtype=title&query=Using+Adaptive+Gradient+for+Texture+Learning",
    )
    needs: frozenset[str] = frozenset({"masks"})

    def __init__(
        self,
        template: Path | None = None,
        template_epochs: int = 0,
        template_every: int = 5,
        parts: bool = False,
        variation: float = 0.5,
        mode: SampleMode = "modulated",
        texture_cameras: Literal["all", "drawn"] = "all",
        gan_texture: bool = True,
        gan_form: Literal["minimax", "nonsaturating"] = "minimax",
        frechet_layer: Literal[64, 192, 768, 2048] = 2048,
        frechet_size: int = 299,
        frechet_weights: Path | None = None,
        frechet_bank: int = 1024,
        frechet_images: int = 6000,
        mask_weight: float = 2.5,
        deform_weight: float = 1.0,
        laplacian_weight: float = 0.15,
        flatten_weight: float = 5e-4,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 3.0,
        barrier_weight: float = 3.0,
        align_weight: float = 1.0,
        part_points_weight: float = 10.0,
        part_probability_weight: float = 5.0,
        entropy_weight: float = 0.05,
        orientation_weight: float = 0.4,
        variation_weight: float = 0.1,
        gan_weight: float = 0.2,
        gradient_penalty_weight: float = 10.0,
        frechet_weight: float = 0.01,
        latent: int = 350,
        hypotheses: int = 8,
        image_size: int = 256,
        texture_size: int = 128,
        texels: int = 6,
        sigma: float = 1e-5,
        gamma: float = 1e-4,
        code: int = 200,
        width: int = 256,
        encoder_weights: Path | None = None,
        perceptual: Literal["alexnet", "vgg16"] = "alexnet",
        perceptual_weights: Path | None = None,
        lr: float = 1e-4,
        schedule: Schedule = "inverse",
    ) -> None:
        super().__init__(
            latent=latent, hypotheses=hypotheses, image_size=image_size, texture_size=texture_size, texels=texels,
            sigma=sigma, gamma=gamma, code=code, width=width, encoder_weights=encoder_weights, perceptual=perceptual,
            perceptual_weights=perceptual_weights, lr=lr, schedule=schedule,
        )  # fmt: skip
        if not (variation or frechet_weight or gan_texture):
            self.paper = UMR  # nothing of what the new paper adds
        if mode != "plain" and not variation:
            raise ValueError(f"AdaptiveTextureUMR: mode {mode} needs a variation above 0; without one it is plain.")
        self.template_epochs, self.template_every = template_epochs, template_every
        self.mode, self.texture_cameras, self.gan_texture, self.gan_form = mode, texture_cameras, gan_texture, gan_form
        self.frechet_size, self.frechet_images = frechet_size, frechet_images
        self.needs = self.needs | ({"parts"} if parts else set())
        self.loss_weights = {
            "mask": mask_weight, "deform": deform_weight, "laplacian": laplacian_weight, "flatten": flatten_weight,
            "pixel": pixel_weight, "perceptual": perceptual_weight, "barrier": barrier_weight, "align": align_weight,
            "part_points": part_points_weight if parts else 0.0,
            "part_probability": part_probability_weight if parts else 0.0,
            "entropy": entropy_weight if hypotheses > 1 else 0.0, "orientation": orientation_weight,
            "variation": variation_weight if variation else 0.0, "gan": gan_weight,
            "discriminator": 1.0 if gan_weight else 0.0,
            "gradient_penalty": gradient_penalty_weight if gan_weight else 0.0, "frechet": frechet_weight,
        }  # fmt: skip
        self.register_buffer("template", self.sphere.clone())
        self.part_losses = PartLosses(len(self.sphere) + self.n_side)
        if template is not None:
            read_template(template, self.template, self.part_losses.labels)
        self.variation = VariationDecoder(code, image_size, width, variation) if variation else None
        self.discriminator = ImageDiscriminator(3, image_size) if gan_weight else None
        self.frechet = FrechetLoss(frechet_layer, bank=frechet_bank) if frechet_weight else None
        self._inception = (frechet_layer, frechet_weights)
        # A checkpoint has its own template, and holds no classes but plain ones.
        self.hparams["template"] = None
        self.hparams["frechet_weights"] = None if frechet_weights is None else str(frechet_weights)
        self.alignment = SimilarityAlignment()
        self.draws = torch.Generator()

    @cached_property
    def inception(self) -> FeatureNetwork:
        """What renders from random views are compared in; fixed, no part of checkpoints, not needed to predict."""
        layer, weights = self._inception
        weights = None if weights is None else Path(weights)
        return inception_features([str(layer)], weights, image_size=self.frechet_size).to(self.device)

    @property
    def learns_template(self) -> bool:
        """Whether this epoch belongs to the first stage."""
        return self._trainer is not None and self.training and self.current_epoch < self.template_epochs

    def sampling(self, code: Tensor) -> tuple[SampleMode, Tensor | None]:
        """Eq. 11 in refinement; in template learning, and without D_var, the image as it is."""
        if self.variation is None:
            return "plain", None
        return "plain" if self.learns_template else self.mode, self.variation(code).float()

    def to_object(self, points: Tensor, camera: Camera) -> tuple[Tensor, Camera]:
        """By the similarity that was fitted to validation objects after the training; the identity before."""
        return self.alignment(points, camera)

    def all_losses(self, batch: ViewBatch, recon: TextureReconstruction) -> dict[str, Tensor]:
        """Those of the class's docstring that belong to the stage."""
        assert recon.poses is not None and recon.verts is not None and recon.probability is not None
        images, masks = batch.images[:, 0], batch.masks[:, 0]
        drawn = self._draw_camera(recon)
        losses = {"mask": self.mask_loss(recon, masks[:, 0])} | self.shape_losses(recon)
        cameras = (drawn[:, None], torch.ones_like(recon.probability[:, :1]))
        if self.texture_cameras == "all":
            cameras = (recon.poses, recon.probability)
        losses |= self.texture_losses(recon, images, masks, *cameras)
        if self.loss_weights["entropy"]:
            probability = recon.probability.clamp(min=1e-8)
            losses["entropy"] = -(probability * probability.log()).sum(dim=1).mean()
        if recon.variation is not None:
            losses["variation"] = variation_loss(recon.variation).mean()
        if self.learns_template and self.current_epoch < 0.2 * self.template_epochs:
            # UMR's code: the thin side of the object becomes the side that is mirrored.
            losses["orientation"] = recon.verts[..., 0].abs().mean()
        if batch.parts is not None and "parts" in self.needs and not self.learns_template:
            losses |= self.part_losses(self, recon, drawn, batch.parts[:, 0], masks, self.draws)
        losses |= self._unseen_losses(recon, images * masks, drawn)
        return losses

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Both players at once; see the class's docstring."""
        # Draws depend on the seed and the step alone, so that a resumed training goes on as if it had not stopped; of
        # the batches of one step, in one process or in several, each has its own.
        part = batch_idx % self.trainer.accumulate_grad_batches * self.trainer.world_size + self.global_rank
        self.draws.manual_seed((torch.initial_seed() + 1_000_003 * self.global_step + part) % 2**63)
        self.shape.generator = self.draws
        return super().training_step(batch, batch_idx)

    def on_train_start(self) -> None:
        """Load what only training needs; compute the photographs' statistics, unless a checkpoint has them."""
        _ = self.features
        if self.frechet is not None and not self.frechet.is_fitted:
            self.frechet.fit(self._real_features())

    def on_train_epoch_end(self) -> None:
        """Update the template, assign the parts, and after the last epoch fit the alignment."""
        done = self.current_epoch + 1
        if done <= self.template_epochs and (done % self.template_every == 0 or done == self.template_epochs):
            self.update_template(self._training_batches())
        if done == max(self.template_epochs, 1) and "parts" in self.needs and not self.part_losses.labels.any():
            self.part_losses.labels.copy_(assign_parts(self, self._training_batches()))
        align_after_training(self, self.alignment)

    @torch.no_grad()
    def update_template(self, batches: Iterable[ViewBatch]) -> None:
        """Move the mean offset of the photographs into the template, and out of the decoder: no shape changes."""
        shift = mean_offset(self, batches)
        self.template += shift
        self.shape.offset.bias.sub_(shift.flatten())
        logger.info("The template moved by %.4f on average.", float(shift.norm(dim=1).mean()))

    def decay_steps(self, step: int) -> int:
        """UMR's code trains its second stage anew: the rate of `inverse` starts again after template learning."""
        epochs = self.trainer.max_epochs or 0
        if not 0 < self.template_epochs < epochs:
            return step
        first = int(self.trainer.estimated_stepping_batches) * self.template_epochs // epochs
        return step - first if step >= first else step

    def _draw_camera(self, recon: TextureReconstruction) -> Tensor:
        """One pose (B, 7) of each image, drawn by probability, without gradient."""
        assert recon.poses is not None and recon.probability is not None
        probability = recon.probability.detach()
        index = torch.multinomial(probability.cpu(), 1, generator=self.draws)[:, 0].to(probability.device)
        return recon.poses.detach()[torch.arange(len(index), device=index.device), index]

    def _unseen_losses(self, recon: TextureReconstruction, real: Tensor, poses: Tensor) -> dict[str, Tensor]:
        """`gan`, `frechet`, `discriminator`, `gradient_penalty`, on renders from poses (B, 7) turned by an azimuth."""
        refined = self.frechet is not None and not self.learns_template
        if self.discriminator is None and not refined:
            return {}
        assert recon.verts is not None and recon.texture is not None
        angle = 2 * torch.pi * torch.rand(len(poses), generator=self.draws).to(poses)
        turned = turn_about_vertical(poses, angle)
        losses = {}
        train_texture = self.gan_texture or refined
        fake = self.paint(recon.verts, recon.texture if train_texture else recon.texture.detach(), turned)
        if refined:
            assert self.frechet is not None
            losses["frechet"] = self.frechet(self._pooled(fake)).to(fake.dtype)
        if self.discriminator is not None:
            shown = fake
            if train_texture and not self.gan_texture:
                shown = self.paint(recon.verts, recon.texture.detach(), turned)
            frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
            losses["gan"] = generator_loss(functional_call(self.discriminator, frozen, (shown,)), self.gan_form)
            losses["discriminator"] = discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
            if self.loss_weights["gradient_penalty"]:
                losses["gradient_penalty"] = gradient_penalty(self.discriminator, real, fake, self.draws)
        return losses

    def _pooled(self, images: Tensor) -> Tensor:
        """Spatially averaged features (B, d) of images (B, 3, S, S) on black."""
        (features,) = self.inception(images).values()
        return features.mean(dim=(2, 3))

    @torch.no_grad()
    def _real_features(self) -> Iterator[Tensor]:
        count = 0
        for batch in self._training_batches():
            yield self._pooled(batch.images[:, 0] * batch.masks[:, 0])
            count += len(batch)
            if count >= self.frechet_images:
                return

    def _training_batches(self) -> Iterator[ViewBatch]:
        """Every training photograph once, as it is, beside the pass that trains; all of them in every process."""
        data = getattr(self.trainer, "datamodule", None)
        every = data.training_pass() if data is not None else self.trainer.train_dataloader
        for batch in every:
            yield batch.to(self.device)


def turn_about_vertical(poses: Tensor, angle: Tensor) -> Tensor:
    """Poses (B, 7) whose object is turned by `angle` (B,), radians, about the vertical axis of the image."""
    half = angle[:, None] / 2
    turn = torch.cat([half.cos(), torch.zeros_like(half), half.sin(), torch.zeros_like(half)], dim=1)
    return torch.cat([poses[:, :3], quaternion_multiply(turn, poses[:, 3:])], dim=1)
