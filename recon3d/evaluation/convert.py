"""Turns any Reconstruction into any representation that a measure compares: the one place that branches on them.

Between a method's answer and the metrics. A representation that the method gives is taken as it is; the others follow
by ``points <- mesh``, ``voxels <- mesh``, ``masks <- mesh``, ``mesh <- voxels`` and ``mesh <- points``; images, their
features and projected vertices are of a mesh that the method gives itself. Each is made once per batch, when the first
measure asks for it.

The input view is seen through the predicted camera if there is one, else through the data's.

The mesh of a cloud is `recon3d.geometry.poisson.poisson_surface` with its default resolution, sigma and number of
neighbours; they are part of the protocol, like the number of surface samples: to change them is to bump the version of
the measures on meshes, voxels and masks. Point measures take the cloud as the method gave it.

A mesh has **failed** when it has no faces or no area, or a vertex that is not finite or lies further than `LIMIT` from
the origin along an axis; so has the mesh of a cloud that has no surface. A failed mesh is empty in every
representation (points: NaN), so that each metric gives it its worst value.
"""

from __future__ import annotations

from functools import cached_property

import torch
from pytorch3d.renderer.mesh.textures import TexturesBase
from pytorch3d.structures import Meshes
from torch import Tensor, nn

from recon3d.evaluation.protocol import N_POINTS, SEED, VOXEL_RESOLUTION, Representation
from recon3d.geometry.cameras import project
from recon3d.geometry.marching import voxel_surface
from recon3d.geometry.poisson import poisson_surface
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.metrics.base import stable_key
from recon3d.metrics.iou import MASK_THRESHOLD
from recon3d.metrics.keypoints import ProjectedVertices
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

LIMIT = 100.0  # object units, where the object has size 1: what lies beyond has diverged
NO_NETWORK = (
    "no weights of a feature network; give torchvision's file, "
    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth, as --evaluator.fid_weights"
)
ANTI_ALIAS = 2  # of soft masks and images, as in UMR's evaluation


class NotAvailableError(Exception):
    """A representation that the method or the data cannot give; the measure is "n/a" and the message says why."""


class Conversion:
    """The representations of the prediction for one batch.

    Args:
        recon: the answers.
        batch: what they are of.
        features: of images (B,3,H,W) in [0, 1], as (B,D); None makes `image_features` not available.

    Raises:
        ValueError: the reconstruction and the batch have different lengths.
    """

    def __init__(self, recon: Reconstruction, batch: ViewBatch, features: nn.Module | None = None) -> None:
        if len(recon) != len(batch):
            raise ValueError(f"Conversion: {len(recon)} reconstructions for a batch of {len(batch)} objects.")
        self._recon, self._batch, self._features = recon, batch, features

    @cached_property
    def mesh(self) -> Meshes:
        """B meshes; failed ones are empty."""
        given = self._recon.mesh
        if given is None and self._recon.voxels is not None:
            given = voxel_surface(self._recon.voxels)
        if given is None:
            assert self._recon.points is not None  # one of the three is present
            given = poisson_surface(self._recon.points)
        verts, faces = [], []
        for corner, face in zip(given.verts_list(), given.faces_list(), strict=True):
            failed = _failed(corner, face)
            verts.append(corner.new_zeros(0, 3, dtype=torch.float32) if failed else corner.detach().float())
            faces.append(face.new_zeros(0, 3) if failed else face)
        return Meshes(verts, faces)

    @cached_property
    def points(self) -> Tensor:
        """(B, N, 3): the given cloud, at most `N_POINTS` of it, else `N_POINTS` area-weighted samples of the mesh.

        Samples depend on the sample's name and the seed only, not on the batch or the device.
        """
        cloud = self._recon.points
        if cloud is not None:
            if cloud.shape[1] <= N_POINTS:
                return cloud.detach()
            picked = [
                torch.randperm(cloud.shape[1], generator=self._generator(b))[:N_POINTS] for b in range(len(cloud))
            ]
            return torch.stack([points[index.to(points.device)] for points, index in zip(cloud, picked, strict=True)])
        sampled = []
        for b, (verts, faces) in enumerate(zip(self.mesh.verts_list(), self.mesh.faces_list(), strict=True)):
            if len(faces) == 0:
                sampled.append(verts.new_full((N_POINTS, 3), torch.nan))
            else:
                sampled.append(sample_surface(verts, faces, N_POINTS, self._generator(b))[0])
        return torch.stack(sampled)

    @cached_property
    def voxels(self) -> Tensor:
        """(B, R, R, R) bool at `VOXEL_RESOLUTION`: the given grid, else the solid of the mesh."""
        given = self._recon.voxels
        if given is not None and given.shape[1] == VOXEL_RESOLUTION:
            return given
        pairs = zip(self.mesh.verts_list(), self.mesh.faces_list(), strict=True)
        return torch.stack([voxelize(verts, faces, VOXEL_RESOLUTION) for verts, faces in pairs])

    @cached_property
    def input_mask(self) -> Tensor:
        """(B, 1, 1, H, W) silhouette in the input view, 0 or 1.

        Raises:
            NotAvailableError: neither the method nor the data give a camera.
        """
        return self._masks(self._input_view()[:, None])

    @cached_property
    def soft_input_mask(self) -> Tensor:
        """(B, 1, 1, H, W) coverage in the input view.

        Raises:
            NotAvailableError: neither the method nor the data give a camera.
        """
        return self._masks(self._input_view()[:, None], ANTI_ALIAS)

    @cached_property
    def input_image(self) -> Tensor:
        """(B, 4, H, W) the textured mesh in the input view without light: RGB times coverage, and coverage.

        NaN for a failed mesh.

        Raises:
            NotAvailableError: the mesh has no texture, or there is no camera.
        """
        return self._images(self._recon.mesh.textures if self._recon.mesh is not None else None, "texture")

    @cached_property
    def plain_image(self) -> Tensor:
        """`input_image` with `plain_textures`.

        Raises:
            NotAvailableError: there are none, or no camera.
        """
        return self._images(self._recon.plain_textures, "plain texture")

    @cached_property
    def image_features(self) -> Tensor:
        """(B, D) of `input_image`; a failed mesh is a black image.

        Raises:
            NotAvailableError: no such image, or no network.
        """
        return image_features(self.input_image.nan_to_num(0.0), self._features)

    @cached_property
    def plain_image_features(self) -> Tensor:
        """(B, D) of `plain_image`; a failed mesh is a black image.

        Raises:
            NotAvailableError: no such image, or no network.
        """
        return image_features(self.plain_image.nan_to_num(0.0), self._features)

    @property
    def flow(self) -> Tensor:
        """(B, F, K, 2) texture flow.

        Raises:
            NotAvailableError: the method has none.
        """
        if self._recon.flow is None:
            raise NotAvailableError("the method gives no texture flow")
        return self._recon.flow

    @cached_property
    def vertices(self) -> ProjectedVertices:
        """Vertices in the input view, of meshes that all have the same faces.

        Raises:
            NotAvailableError: no mesh of the method's own, several topologies in the batch, or no camera.
        """
        mesh = self._recon.mesh
        if mesh is None:
            raise NotAvailableError("the method gives no mesh of its own")
        faces = mesh.faces_list()
        if len(set(mesh.num_verts_per_mesh().tolist())) > 1 or not all(torch.equal(faces[0], one) for one in faces):
            raise NotAvailableError("the meshes do not have the same vertices and faces")
        xy = project(self._input_view(), mesh.verts_padded().detach().float())[..., :2]
        failed = torch.tensor([len(own) == 0 for own in self.mesh.faces_list()], device=xy.device)
        xy = xy.masked_fill(failed[:, None, None], torch.nan)
        snapped = torch.stack([_snap(*pair) for pair in zip(xy, self.input_mask[:, 0, 0], strict=True)])
        return ProjectedVertices(xy, snapped, stable_key(str(faces[0].tolist())))

    @property
    def input_camera(self) -> Camera:
        """(B,) predicted cameras of the input view.

        Raises:
            NotAvailableError: the method predicts none.
        """
        if self._recon.camera is None:
            raise NotAvailableError("the method predicts no camera")
        return self._recon.camera

    @cached_property
    def novel_masks(self) -> Tensor:
        """(B, V-1, 1, H, W) silhouettes in all views but the input view, through the data's cameras.

        Raises:
            NotAvailableError: the data give no cameras.
        """
        if self._batch.cameras is None:
            raise NotAvailableError("the data have no cameras")
        return self._masks(self._batch.cameras[:, 1:])

    def _input_view(self) -> Camera:
        """(B,) cameras of the input view."""
        if self._recon.camera is not None:
            return self._recon.camera
        if self._batch.cameras is None:
            raise NotAvailableError("neither the data nor the method give a camera")
        return self._batch.cameras[:, 0]

    def _size(self) -> int:
        height, width = self._batch.masks.shape[-2:]
        if height != width:
            raise ValueError(f"Conversion: images are compared at the size of the data, square; got {height}x{width}.")
        return height

    def _masks(self, cameras: Camera, anti_alias: int = 1) -> Tensor:
        size = self._size()
        b, v = cameras.shape
        masks = self._batch.masks.new_zeros(b, v, 1, size, size)
        for index, (verts, faces) in enumerate(zip(self.mesh.verts_list(), self.mesh.faces_list(), strict=True)):
            if len(faces):
                seen = render_hard(verts.expand(v, -1, -1), faces, cameras[index], size, anti_alias=anti_alias)
                masks[index] = seen.mask
        return masks

    def _images(self, textures: TexturesBase | None, name: str) -> Tensor:
        if textures is None:
            raise NotAvailableError(f"the method gives no {name}")
        cameras, size = self._input_view(), self._size()
        images = self._batch.images.new_full((len(self._batch), 4, size, size), torch.nan)
        for index, (verts, faces) in enumerate(zip(self.mesh.verts_list(), self.mesh.faces_list(), strict=True)):
            if len(faces):
                view = cameras[index : index + 1]
                own = textures[index]
                seen = render_hard(verts[None], faces, view, size, anti_alias=ANTI_ALIAS, lit=False, textures=own)
                images[index] = torch.cat([seen.image * seen.mask, seen.mask], dim=1)[0]
        return images

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(stable_key(f"{SEED}/{self._batch.sample_id[index]}"))


def image_features(images: Tensor, network: nn.Module | None) -> Tensor:
    """Features (B, D) of the RGB of (B, 4, H, W).

    Raises:
        NotAvailableError: there is no network.
    """
    if network is None:
        raise NotAvailableError(NO_NETWORK)
    with torch.no_grad():
        features: Tensor = network(images[:, :3])
    return features


def ground_truth(
    batch: ViewBatch, representation: Representation, features: nn.Module | None = None
) -> Tensor | Camera:
    """The target of a measure from a batch; `features` as in `Conversion`.

    Raises:
        NotAvailableError: the data set does not have it.
    """
    if representation == "input_mask":
        return batch.masks[:, :1]
    if representation == "input_image":
        return torch.cat([batch.images[:, 0] * batch.masks[:, 0], batch.masks[:, 0]], dim=1)
    if representation == "image_features":
        image = ground_truth(batch, "input_image")
        assert isinstance(image, Tensor)
        return image_features(image, features)
    if representation == "keypoints":
        if batch.keypoints is None:
            raise NotAvailableError("the data have no key points")
        return batch.keypoints[:, 0]
    if representation == "novel_masks":
        if batch.masks.shape[1] < 2:
            raise NotAvailableError("the data have one view per object")
        return batch.masks[:, 1:]
    if representation == "input_camera":
        if batch.cameras is None:
            raise NotAvailableError("the data have no cameras")
        if batch.points is None and batch.voxels is None:  # fitted to key points, as CMR's are
            raise NotAvailableError("the data's cameras are estimates, without a true shape")
        return batch.cameras[:, 0]
    value: Tensor | None = {"points": batch.points, "voxels": batch.voxels}.get(representation)
    if value is None:
        raise NotAvailableError(f"the data have no {representation}")
    return value


def _snap(points: Tensor, mask: Tensor) -> Tensor:
    """The centres of the pixels of a mask (S,S) that are nearest to points (P,2) in NDC; NaN where there is none."""
    pixels = (mask > MASK_THRESHOLD).nonzero().flip(-1)  # column, row
    if len(pixels) == 0 or not bool(points.isfinite().all()):
        return torch.full_like(points, torch.nan)
    size = len(mask)
    own = ((1 - points) / 2 * size).floor()
    column, row = own.clamp(0, size - 1).long().unbind(dim=1)
    # Most points are seen in the mask, and nearest to the centre of their own pixel.
    outside = (mask[row, column] <= MASK_THRESHOLD) | (own < 0).any(dim=1) | (own >= size).any(dim=1)
    snapped = 1 - (2 * own + 1) / size
    centers = 1 - (2 * pixels.to(points) + 1) / size
    snapped[outside] = centers[torch.cdist(points[outside], centers).argmin(dim=1)]
    return snapped


def _failed(verts: Tensor, faces: Tensor) -> bool:
    if len(faces) == 0 or not bool((verts.abs() <= LIMIT).all()):  # a comparison with NaN is False
        return True
    corners = verts.double()[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return not bool(cross.any())
