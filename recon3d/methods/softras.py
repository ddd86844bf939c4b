"""SoftRasMesh: single-view meshes from silhouettes of two views, through the Soft Rasterizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pytorch3d.renderer import TexturesVertex
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.losses.mesh_priors import FlattenLoss, LaplacianLoss
from recon3d.losses.silhouette import silhouette_iou_loss
from recon3d.methods.base import Paper, ReconstructionMethod, Schedule
from recon3d.networks.decoders import OctantSphereDecoder, VertexColorDecoder
from recon3d.networks.encoders import ConvEncoder
from recon3d.renderers.soft import render_soft_rgb, render_soft_silhouette
from recon3d.structures import Reconstruction, ViewBatch


@dataclass(frozen=True)
class SoftRasReconstruction(Reconstruction):
    """Adds the padded tensors that the losses read.

    Attributes:
        verts: (B, V, 3).
        vert_colors: (B, V, 3) RGB, or None without colour.
    """

    verts: Tensor | None = None
    vert_colors: Tensor | None = None


class SoftRasMesh(ReconstructionMethod):
    """Soft Rasterizer, Liu et al. 2019 (arXiv 1901.05567).

    An image with its mask is encoded, and a sphere of 642 vertices deformed. In training two views A and B of an
    object are both reconstructed, and both meshes rendered in both cameras; the loss is
    ``L_IoU + lambda L_lap + mu L_fl`` (eq. 6), the IoU loss averaged over the four renders, the priors over both
    meshes.

    Deviation: the template is our icosphere, because it has the authors' connectivity and prior values with exact
    symmetry (32 coordinates lie on each coordinate plane, theirs have 4, 33 and 30).

    Args:
        sigma: sharpness of the rasteriser: 3e-5 in the paper.
        sigma_schedule: `constant` (paper) or `drop`: starts at sigma / 0.3 and drops to sigma at 60 % of the steps (the
            authors' code: 1e-4, times 0.3 from iteration 150,000 of 250,000).
        iou_weight: weight of the silhouette loss; 1 in the paper.
        laplacian_weight: lambda; 0.01 in the paper (0.005 in the code). 0 switches the term off (Fig. 7).
        flatten_weight: mu; 0.001 in the paper (0.0005 in the code). 0 switches the term off (Fig. 7).
        color: also reconstruct per-vertex colours (section 4.2); L2 between the coloured render and the input image.
        color_weight: weight of the colour loss; the paper gives none, 1 is ours.
        gamma: sharpness over depth of the colour renderer; 1e-4, the authors' default.
        image_size: side of the input and of the renders; 64 in the paper.
        width: channels of the first convolution; 64 in the paper.
        hidden: size of the encoder's linear layers; 1024 in the paper.
        code: size of the latent code; 512 in the paper.
        lr: learning rate of Adam; 1e-4 in the paper.
        schedule: see `ReconstructionMethod`; `constant` in the paper, `step` in the code.
    """

    paper: Paper | None = Paper(
        title="Soft Rasterizer: Differentiable Rendering for Unsupervised Single-View Mesh Reconstruction",
        year=2019,
        url="https://arxiv.org/abs/1901.05567",
    )
    in_channels: ClassVar[int] = 4
    needs: frozenset[str] = frozenset({"masks", "cameras"})
    min_views: int = 2
    encoded_views: int = 2

    def __init__(
        self,
        sigma: float = 3e-5,
        sigma_schedule: Literal["constant", "drop"] = "constant",
        iou_weight: float = 1.0,
        laplacian_weight: float = 0.01,
        flatten_weight: float = 0.001,
        color: bool = False,
        color_weight: float = 1.0,
        gamma: float = 1e-4,
        image_size: int = 64,
        width: int = 64,
        hidden: int = 1024,
        code: int = 512,
        lr: float = 1e-4,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        self.sigma, self.sigma_schedule, self.gamma, self.image_size = sigma, sigma_schedule, gamma, image_size
        self.loss_weights = {
            "iou": iou_weight,
            "laplacian": laplacian_weight,
            "flatten": flatten_weight,
            "color": color_weight,
        }
        self.encoder = ConvEncoder(self.in_channels, image_size, width, hidden, code)
        self.decoder = OctantSphereDecoder(code)
        n_verts = len(self.decoder.sign)
        self.color_decoder = VertexColorDecoder(code, n_verts) if color else None
        self.laplacian_loss = LaplacianLoss(self.decoder.faces, n_verts)
        self.flatten_loss = FlattenLoss(self.decoder.faces)

    def forward(self, image: Tensor) -> SoftRasReconstruction:
        """Meshes of RGBA images (B, 4, S, S)."""
        code = self.encoder(image)
        verts = self.decoder(code)
        colors = self.color_decoder(code) if self.color_decoder is not None else None
        mesh = Meshes(
            verts=verts,
            faces=self.decoder.faces.expand(len(verts), -1, -1),
            textures=TexturesVertex(colors) if colors is not None else None,
        )
        return SoftRasReconstruction(mesh=mesh, verts=verts, vert_colors=colors)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """`iou`, and, where switched on, `laplacian`, `flatten` and `color`."""
        assert isinstance(recon, SoftRasReconstruction) and recon.verts is not None and batch.cameras is not None
        cameras = batch.cameras[:, :2]
        # (2B,V,3) -> (B, mesh A or B, 1, V, 3), against cameras (B, 1, view A or B).
        verts = recon.verts.unflatten(0, (-1, 2)).unsqueeze(2)
        sigma = self.current_sigma()
        silhouettes = render_soft_silhouette(verts, self.decoder.faces, cameras[:, None], self.image_size, sigma)
        losses = {"iou": silhouette_iou_loss(silhouettes, batch.masks[:, None, :2, 0]).mean()}
        if self.loss_weights["laplacian"]:
            losses["laplacian"] = self.laplacian_loss(recon.verts).mean()
        if self.loss_weights["flatten"]:
            losses["flatten"] = self.flatten_loss(recon.verts).mean()
        if recon.vert_colors is not None:
            colors = recon.vert_colors.unflatten(0, (-1, 2))
            image = render_soft_rgb(
                verts[:, :, 0], self.decoder.faces, cameras, self.image_size, sigma, self.gamma, vert_colors=colors
            )
            target = batch.images[:, :2] * batch.masks[:, :2]
            losses["color"] = torch.nn.functional.mse_loss(image, target)
        return losses

    def current_sigma(self) -> float:
        """Sigma at this point of the training."""
        early = self.sigma_schedule == "drop" and self._trainer is not None and self.progress() < self.drop_at
        return self.sigma / self.drop_factor if early else self.sigma
