"""Turns any Reconstruction into any representation that a measure compares: the one place that branches on them.

Between a method's answer and the metrics. A representation that the method gives is taken as it is; the others follow
by ``points <- mesh``, ``voxels <- mesh``, ``masks <- mesh``, ``mesh <- voxels`` and ``mesh <- points``. Each is made
once per batch, when the first measure asks for it.

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
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.evaluation.protocol import N_POINTS, SEED, VOXEL_RESOLUTION, Representation
from recon3d.geometry.marching import voxel_surface
from recon3d.geometry.poisson import poisson_surface
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.metrics.base import stable_key
from recon3d.renderers.hard import render_hard
from recon3d.structures import Camera, Reconstruction, ViewBatch

LIMIT = 100.0  # object units, where the object has size 1: what lies beyond has diverged


class NotAvailableError(Exception):
    """A representation that the method or the data cannot give; the measure is "n/a" and the message says why."""


class Conversion:
    """The representations of the prediction for one batch.

    Raises:
        ValueError: the reconstruction and the batch have different lengths.
    """

    def __init__(self, recon: Reconstruction, batch: ViewBatch) -> None:
        if len(recon) != len(batch):
            raise ValueError(f"Conversion: {len(recon)} reconstructions for a batch of {len(batch)} objects.")
        self._recon, self._batch = recon, batch

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
        """(B, 1, 1, H, W) silhouette in the input view, through the predicted camera if there is one.

        Raises:
            NotAvailableError: neither the method nor the data give a camera.
        """
        camera = self._recon.camera
        if camera is not None:
            return self._masks(camera[:, None])
        if self._batch.cameras is None:
            raise NotAvailableError("neither the data nor the method give a camera")
        return self._masks(self._batch.cameras[:, :1])

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

    def _masks(self, cameras: Camera) -> Tensor:
        height, width = self._batch.masks.shape[-2:]
        if height != width:
            raise ValueError(f"Conversion: masks are compared at the size of the data, square; got {height}x{width}.")
        b, v = cameras.shape
        masks = self._batch.masks.new_zeros(b, v, 1, height, width)
        for index, (verts, faces) in enumerate(zip(self.mesh.verts_list(), self.mesh.faces_list(), strict=True)):
            if len(faces):
                masks[index] = render_hard(verts.expand(v, -1, -1), faces, cameras[index], height).mask
        return masks

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(stable_key(f"{SEED}/{self._batch.sample_id[index]}"))


def ground_truth(batch: ViewBatch, representation: Representation) -> Tensor | Camera:
    """The target of a measure from a batch.

    Raises:
        NotAvailableError: the data set does not have it.
    """
    if representation == "input_mask":
        return batch.masks[:, :1]
    if representation == "novel_masks":
        if batch.masks.shape[1] < 2:
            raise NotAvailableError("the data have one view per object")
        return batch.masks[:, 1:]
    if representation == "input_camera":
        if batch.cameras is None:
            raise NotAvailableError("the data have no cameras")
        return batch.cameras[:, 0]
    value: Tensor | None = {"points": batch.points, "voxels": batch.voxels}.get(representation)
    if value is None:
        raise NotAvailableError(f"the data have no {representation}")
    return value


def _failed(verts: Tensor, faces: Tensor) -> bool:
    if len(faces) == 0 or not bool((verts.abs() <= LIMIT).all()):  # a comparison with NaN is False
        return True
    corners = verts.double()[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return not bool(cross.any())
