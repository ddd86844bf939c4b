"""NeuralRendererMesh: single-view meshes from silhouettes of two views, through the Neural 3D Mesh Renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytorch3d.structures import Meshes
from torch import Tensor, nn

from recon3d.kernels.neural_rasterize import GradientRule
from recon3d.losses.mesh_priors import FlattenLoss
from recon3d.losses.silhouette import silhouette_iou_loss
from recon3d.methods.base import Paper, ReconstructionMethod, Schedule
from recon3d.networks.decoders import OctantSphereDecoder
from recon3d.networks.encoders import ConvEncoder
from recon3d.renderers.neural import render_neural_silhouette
from recon3d.structures import Reconstruction, ViewBatch


@dataclass(frozen=True)
class NeuralRendererReconstruction(Reconstruction):
    """Adds the padded vertices that the losses read.

    Attributes:
        verts: (B, V, 3).
    """

    verts: Tensor | None = None


class NeuralRendererMesh(ReconstructionMethod):
    """Neural 3D Mesh Renderer, Kato et al. 2018 (arXiv 1711.07566), section 4.1.

    An image with its mask is encoded, and a sphere of 642 vertices deformed: each by its own offset and all by a common
    one, no vertex leaving its octant. In training two views of an object are both reconstructed, and both meshes
    rendered in both cameras; the loss is ``lambda_sl L_sl + lambda_sm L_sm`` (eq. 5, 6), the silhouette loss averaged
    over the four renders, the smoothness over both meshes.

    One model over all categories, with `smoothness_weight` 0, is Table 1; a model per category, with 0.001, is Fig. 4
    (`--data.init_args.categories [car] --model.init_args.smoothness_weight 0.001`).

    Deviation: L_sl is one minus the intersection over union, because the paper's minus alone differs by a constant.
    Deviation: renders of twice the size are averaged, because "downsampled" in the paper is nothing else; its code
    weights the two halves of a pixel by its place in the image.
    Deviation: plain Adam, because the paper says so; its code leaves weights alone whose gradient is exactly zero, and
    moves the common offset at a tenth of the rate.
    Deviation: the template is our icosphere, see `SoftRasMesh`.

    Args:
        silhouette_weight: lambda_sl; 1 in the paper.
        smoothness_weight: lambda_sm; 0 in the paper's Table 1, 0.001 for its models of one category.
        gradient: rule of the approximate gradient, see `recon3d.kernels.neural_rasterize`; `code` made the numbers.
        eps: see `recon3d.kernels.neural_rasterize`; 1e-3 in the code.
        anti_alias: renders are this many times larger, and averaged; 2 in the paper (128 to 64).
        image_size: side of the input and of the averaged renders; 64 in the paper.
        width: channels of the first convolution; 64 in the code.
        hidden: size of the encoder's linear layers; 1024 in the code.
        code: size of the latent code; 512 in the paper.
        lr: learning rate of Adam; 1e-4 in the paper.
        schedule: see `ReconstructionMethod`; `constant` in the paper, `step` in the code: x 0.1 at 95 % of the steps.
    """

    paper: Paper | None = Paper(title="Neural 3D Mesh Renderer", year=2018, url="https://arxiv.org/abs/1711.07566")
    in_channels: ClassVar[int] = 4
    needs: frozenset[str] = frozenset({"masks", "cameras"})
    min_views: int = 2
    encoded_views: int = 2
    drop_at: ClassVar[float] = 0.95
    drop_factor: ClassVar[float] = 0.1

    def __init__(
        self,
        silhouette_weight: float = 1.0,
        smoothness_weight: float = 0.0,
        gradient: GradientRule = "code",
        eps: float = 1e-3,
        anti_alias: int = 2,
        image_size: int = 64,
        width: int = 64,
        hidden: int = 1024,
        code: int = 512,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        self.gradient, self.eps, self.anti_alias, self.image_size = gradient, eps, anti_alias, image_size
        self.loss_weights = {"silhouette": silhouette_weight, "smoothness": smoothness_weight}
        self.encoder = ConvEncoder(self.in_channels, image_size, width, hidden, code, batch_norm=False)
        self.decoder = OctantSphereDecoder(code)
        self.smoothness_loss = FlattenLoss(self.decoder.faces)
        self.apply(_lecun_normal)

    def forward(self, image: Tensor) -> NeuralRendererReconstruction:
        """Meshes of RGBA images (B, 4, S, S)."""
        verts = self.decoder(self.encoder(image))
        return NeuralRendererReconstruction(
            mesh=Meshes(verts=verts, faces=self.decoder.faces.expand(len(verts), -1, -1)), verts=verts
        )

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`silhouette`, and `smoothness` where it is switched on."""
        assert isinstance(recon, NeuralRendererReconstruction) and recon.verts is not None
        assert batch.cameras is not None
        # (2B,V,3) -> (B, mesh A or B, 1, V, 3), against cameras (B, 1, view A or B).
        verts = recon.verts.unflatten(0, (-1, 2)).unsqueeze(2)
        silhouettes = render_neural_silhouette(
            verts,
            self.decoder.faces,
            batch.cameras[:, None, :2],
            self.image_size,
            self.anti_alias,
            self.eps,
            self.gradient,
        )
        losses = {"silhouette": silhouette_iou_loss(silhouettes, batch.masks[:, None, :2, 0]).mean()}
        if self.loss_weights["smoothness"]:
            losses["smoothness"] = self.smoothness_loss(recon.verts).mean()
        return losses


def _lecun_normal(module: nn.Module) -> None:
    """Initial weights of the authors' code, a default of its framework: normal, variance 1 / fan-in, biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
