"""What CMR, UMR and Adaptive Texture share: a symmetric sphere that is deformed, seen, and painted from its photograph.

The networks and losses work in CMR's frame and units (`recon3d.geometry.weak_perspective`), in which the weights of the
papers hold; answers are in the object frame. "Image coordinates" are those of `recon3d.losses.texture`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch3d.renderer import TexturesUV
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.geometry.atlas import atlas_points
from recon3d.geometry.symmetric_sphere import symmetric_sphere, symmetrise
from recon3d.geometry.weak_perspective import cmr_to_object, object_camera, weak_perspective_camera
from recon3d.losses.mesh_priors import FlattenLoss, LaplacianLoss
from recon3d.losses.silhouette import silhouette_iou_loss
from recon3d.losses.texture import (
    SampleMode,
    alignment_loss,
    barrier_field,
    barrier_loss,
    perceptual_loss,
    pixel_loss,
    sample_image,
)
from recon3d.methods.base import ReconstructionMethod, Schedule
from recon3d.networks.imagenet import FeatureNetwork, alexnet_features, vgg16_features
from recon3d.networks.resnet import ResNetEncoder
from recon3d.networks.texture import CameraHead, FlowDecoder, ShapeHead
from recon3d.renderers.soft import render_soft_face_pixels, render_soft_rgb, render_soft_silhouette
from recon3d.structures import Camera, Reconstruction, ViewBatch

# How much of a pixel of the soft render a face must have to count as seen; [choice], UMR asks its hard renderer, whose
# background pixels mark the last face.
SEEN = 0.05
PERCEPTUAL = {
    "alexnet": (alexnet_features, ("conv1", "conv2", "conv3", "conv4", "conv5")),
    "vgg16": (vgg16_features, ("conv1_2", "conv2_2", "conv3_3", "conv4_3")),
}


@dataclass(frozen=True)
class TextureReconstruction(Reconstruction):
    """A reconstruction with what the losses read, in CMR's frame.

    Attributes:
        verts: (B, V, 3).
        offset: (B, P + S, 3) of the half mesh from the template.
        poses: (B, K, 7) cameras.
        probability: (B, K) of them.
        flow_map: (B, H, 2H, 2) image coordinates.
        texels: (B, F, R * R, 2) the flow at the texels of each face, in image coordinates.
        texture: (B, 3, H, 2H) UV map, sampled as the method trains.
        variation: (B, 1, S, S), the factor of the sampled image, or None.
    """

    verts: Tensor | None = None
    offset: Tensor | None = None
    poses: Tensor | None = None
    probability: Tensor | None = None
    flow_map: Tensor | None = None
    texels: Tensor | None = None
    texture: Tensor | None = None
    variation: Tensor | None = None


class TextureFlowMesh(ReconstructionMethod):
    """Base of the methods: networks, answers, renders and the losses that all have; see the subclasses.

    Deviation: renders are S x S with one sample per pixel, where UMR's code renders at twice the size and averages.

    A subclass sets `self.template`, the half mesh (P + S, 3), as a buffer or a parameter.

    Args:
        latent: see `ShapeHead`.
        hypotheses: see `CameraHead`.
        image_size: S of the images and renders, a multiple of 64; with D_var 64 times a power of 2.
        texture_size: rows of the UV map, which has twice as many columns.
        texels: R, of the R x R colours of a face in a render.
        sigma: of the soft rasteriser.
        gamma: of the soft rasteriser.
        code: size of the encoder's code.
        width: channels of the seeds of the decoders, and of the encoder's last convolution.
        encoder_weights: see `ResNetEncoder`; None for random ones.
        perceptual: network whose features the texture is compared in.
        perceptual_weights: torchvision's file for it; None for random ones of a fixed seed.
        lr: learning rate of Adam.
        schedule: see `ReconstructionMethod`.
    """

    photographs: ClassVar[bool] = True
    template: Tensor
    faces: Tensor
    texel_uv: Tensor
    verts_uv: Tensor

    def __init__(
        self,
        latent: int | None,
        hypotheses: int,
        image_size: int,
        texture_size: int,
        texels: int,
        sigma: float,
        gamma: float,
        code: int,
        width: int,
        encoder_weights: Path | None,
        perceptual: Literal["alexnet", "vgg16"],
        perceptual_weights: Path | None,
        lr: float,
        schedule: Schedule,
    ) -> None:
        super().__init__(lr=lr, schedule=schedule)
        self.image_size, self.sigma, self.gamma = image_size, sigma, gamma
        sphere = symmetric_sphere()
        self.n_side, n_verts = sphere.n_side, len(sphere.half) + sphere.n_side
        self.sphere = sphere.half
        self.register_buffer("faces", sphere.faces, persistent=False)
        weights = atlas_points(texels).reshape(-1, 3)
        self.register_buffer("texel_uv", torch.einsum("kc,fcd->fkd", weights, sphere.uv), persistent=False)
        # PyTorch3D's texture coordinates are in [0, 1], with v up.
        self.register_buffer("verts_uv", (sphere.uv * sphere.uv.new_tensor([1, -1]) + 1).flatten(0, 1) / 2, False)
        self.encoder = ResNetEncoder(image_size, code, width, encoder_weights)
        self.shape = ShapeHead(code, len(sphere.half), latent)
        self.cameras = CameraHead(code, hypotheses)
        self.flow = FlowDecoder(code, texture_size, width)
        self.laplacian_loss = LaplacianLoss(sphere.faces, n_verts)
        self.flatten_loss = FlattenLoss(sphere.faces)
        self._perceptual = (perceptual, perceptual_weights)
        # A checkpoint has its own weights, and holds no classes but plain ones.
        self.hparams["encoder_weights"] = None
        self.hparams["perceptual_weights"] = None if perceptual_weights is None else str(perceptual_weights)

    @cached_property
    def features(self) -> FeatureNetwork:
        """What textures are compared in; fixed, no part of checkpoints, and not needed to predict."""
        name, weights = self._perceptual
        build, layers = PERCEPTUAL[name]
        return build(layers, None if weights is None else Path(weights)).to(self.device)

    def forward(self, image: Tensor) -> TextureReconstruction:
        """Textured meshes and cameras of photographs (B, 3, S, S)."""
        code = self.encoder(image)
        offset = self.shape(self.shape.shape_code(code)).float()
        poses, probability = (value.float() for value in self.cameras(code))
        flow_map = self.flow(code).float()
        mode, variation = self.sampling(code)
        with torch.autocast(image.device.type, enabled=False):  # geometry is not for half precision
            return self._assemble(image, offset, poses, probability, flow_map, mode, variation)

    def losses(self, batch: ViewBatch, recon: Reconstruction) -> dict[str, Tensor]:
        """Those of `all_losses` that have a weight, in full precision."""
        assert isinstance(recon, TextureReconstruction)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.all_losses(batch, recon)
        return {name: value for name, value in losses.items() if self.loss_weights.get(name)}

    def all_losses(self, batch: ViewBatch, recon: TextureReconstruction) -> dict[str, Tensor]:
        """Losses of a batch by name, among them ones without a weight."""
        raise NotImplementedError

    def _assemble(
        self,
        image: Tensor,
        offset: Tensor,
        poses: Tensor,
        probability: Tensor,
        flow_map: Tensor,
        mode: SampleMode,
        variation: Tensor | None,
    ) -> TextureReconstruction:
        """The answer from what the heads say."""
        verts = symmetrise(self.template + offset, self.n_side)
        texture = sample_image(image, flow_map, variation, mode)
        texels = self.at_texels(flow_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        best = poses[torch.arange(len(poses)), probability.argmax(dim=1)]
        points, camera = self.to_object(cmr_to_object(verts), object_camera(weak_perspective_camera(best)))
        return TextureReconstruction(
            mesh=Meshes(points, self.faces.expand(len(points), -1, -1), self._textures(texture)),
            camera=camera,
            plain_textures=self._textures(sample_image(image, flow_map, None, "plain")),
            flow=-texels,  # NDC +X is left, +Y is up
            verts=verts,
            offset=offset,
            poses=poses,
            probability=probability,
            flow_map=flow_map,
            texels=texels,
            texture=texture,
            variation=variation,
        )

    def sampling(self, code: Tensor) -> tuple[SampleMode, Tensor | None]:
        """How the image is sampled in this step, and the factor (B, 1, S, S) that it is multiplied by."""
        return "plain", None

    def to_object(self, points: Tensor, camera: Camera) -> tuple[Tensor, Camera]:
        """Points (B, V, 3) and cameras (B,) of the answer, from the method's own frame."""
        return points, camera

    def silhouettes(self, verts: Tensor, poses: Tensor) -> Tensor:
        """Soft silhouettes (B, K, S, S) of verts (B, V, 3) from poses (B, K, 7)."""
        camera = weak_perspective_camera(poses)
        return render_soft_silhouette(verts[:, None], self.faces, camera, self.image_size, self.sigma)

    def paint(self, verts: Tensor, texture: Tensor, poses: Tensor) -> Tensor:
        """Renders (B, 3, S, S) on black, with soft contours, from poses (B, 7)."""
        atlas = self.at_texels(texture).permute(0, 2, 3, 1)  # (B,F,K,3)
        side = round(atlas.shape[2] ** 0.5)
        camera = weak_perspective_camera(poses)
        colors = render_soft_rgb(
            verts, self.faces, camera, self.image_size, self.sigma, self.gamma, atlas=atlas.unflatten(2, (side, side))
        )
        return colors * self.silhouettes(verts, poses[:, None])

    def shape_losses(self, recon: TextureReconstruction) -> dict[str, Tensor]:
        """`deform`, `laplacian`, `flatten`: how far the mesh is from the template, and how rough it is."""
        assert recon.verts is not None and recon.offset is not None
        return {
            # eps keeps the gradient of a norm finite where it is 0.
            "deform": recon.offset.square().sum(dim=-1).add(1e-12).sqrt().mean(),
            "laplacian": self.laplacian_loss(recon.verts).mean(),
            "flatten": self.flatten_loss(recon.verts).mean(),
        }

    def mask_loss(self, recon: TextureReconstruction, masks: Tensor) -> Tensor:
        """Expected ``1 - IoU`` over the camera hypotheses; masks (B, S, S)."""
        assert recon.verts is not None and recon.poses is not None and recon.probability is not None
        each = silhouette_iou_loss(self.silhouettes(recon.verts, recon.poses), masks[:, None])
        return (recon.probability * each).sum(dim=1).mean()

    def texture_losses(
        self, recon: TextureReconstruction, images: Tensor, masks: Tensor, poses: Tensor, probability: Tensor
    ) -> dict[str, Tensor]:
        """`pixel`, `perceptual`, `barrier` and `align` of the texture alone: shape and cameras are constants.

        Args:
            recon: of the batch.
            images: (B, 3, S, S).
            masks: (B, 1, S, S).
            poses: (B, K, 7) cameras to render from.
            probability: (B, K) of them, summing to 1.
        """
        assert recon.verts is not None and recon.texture is not None and recon.texels is not None
        k = poses.shape[1]
        verts, flat = recon.verts.detach().repeat_interleave(k, 0), poses.detach().flatten(0, 1)
        pred = self.paint(verts, recon.texture.repeat_interleave(k, 0), flat)
        target = images * masks
        with torch.no_grad():  # once for all cameras
            wanted = {name: value.repeat_interleave(k, 0) for name, value in self.features(target).items()}
        target = target.repeat_interleave(k, 0)
        weight = probability.detach().flatten() / len(images)
        each = {
            "pixel": pixel_loss(pred, target, masks.repeat_interleave(k, 0)),
            "perceptual": perceptual_loss(self.features(pred), wanted),
        }
        if self.loss_weights.get("align"):
            centers, seen = render_soft_face_pixels(
                verts, self.faces, weak_perspective_camera(flat), self.image_size, self.sigma, self.gamma
            )
            face_flow = recon.texels.mean(dim=2).repeat_interleave(k, 0)
            each["align"] = alignment_loss(face_flow, -centers, seen > SEEN)
        losses = {name: (weight * value).sum() for name, value in each.items()}
        return losses | {"barrier": barrier_loss(recon.texels, barrier_field(masks)).mean()}

    def at_texels(self, maps: Tensor) -> Tensor:
        """Values (B, C, F, R * R) of UV maps (B, C, H, W) at the texels of the faces."""
        grid = self.texel_uv.expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _textures(self, texture: Tensor) -> TexturesUV:
        """UV textures of maps (B, 3, H, W)."""
        b, f = len(texture), len(self.faces)
        corners = torch.arange(3 * f, device=texture.device).reshape(f, 3)
        return TexturesUV(
            maps=texture.permute(0, 2, 3, 1),
            faces_uvs=corners.expand(b, -1, -1),
            verts_uvs=self.verts_uv.expand(b, -1, -1),
            padding_mode="border",
            align_corners=False,
        )
