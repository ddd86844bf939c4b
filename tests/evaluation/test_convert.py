"""Every representation against the shape it came from, and every way a mesh can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from pytorch3d.structures import Meshes

from recon3d.evaluation.convert import LIMIT, Conversion, NotAvailableError, ground_truth
from recon3d.evaluation.protocol import N_POINTS, VOXEL_RESOLUTION
from recon3d.geometry.cameras import look_at_camera
from recon3d.structures import Camera, Reconstruction, ViewBatch


def test_points_lie_on_the_mesh_and_cover_it(shapes: Meshes, truth: ViewBatch) -> None:
    points = Conversion(Reconstruction(mesh=shapes), truth).points
    assert points.shape == (3, N_POINTS, 3)
    # The box: every point on a side, and each pair of sides has its share of the area.
    half = np.array([0.45, 0.15, 0.25])
    on_side = np.isclose(np.abs(points[0].numpy()), half, atol=1e-6)
    assert on_side.any(axis=1).all()
    areas = np.array([0.3 * 0.5, 0.9 * 0.5, 0.9 * 0.3])
    np.testing.assert_allclose(on_side.mean(axis=0), areas / areas.sum(), atol=0.02)


def test_points_do_not_depend_on_the_batch(shapes: Meshes, truth: ViewBatch, part: Callable[..., ViewBatch]) -> None:
    together = Conversion(Reconstruction(mesh=shapes), truth).points
    order = [2, 0]
    alone = Conversion(Reconstruction(mesh=shapes[order]), part(truth, *order)).points
    assert torch.equal(alone, together[order])
    renamed = replace(truth, sample_id=("a", "b", "c"))
    assert not torch.equal(Conversion(Reconstruction(mesh=shapes), renamed).points, together)


def test_a_given_cloud_is_kept_or_thinned(truth: ViewBatch) -> None:
    few = torch.rand(3, 500, 3)
    assert torch.equal(Conversion(Reconstruction(points=few), truth).points, few)
    many = torch.rand(3, N_POINTS + 5000, 3)
    first, second = (Conversion(Reconstruction(points=many), truth).points for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (3, N_POINTS, 3)
    for kept, given in zip(first, many, strict=True):
        assert len(kept.unique(dim=0)) == N_POINTS  # no point twice
        assert {tuple(row) for row in kept[:50].tolist()} <= {tuple(row) for row in given.tolist()}


def test_voxels_and_masks_equal_the_ground_truth_of_the_same_mesh(shapes: Meshes, truth: ViewBatch) -> None:
    conversion = Conversion(Reconstruction(mesh=shapes), truth)
    assert torch.equal(conversion.voxels, truth.voxels)
    assert torch.equal(conversion.input_mask, truth.masks[:, :1])
    assert torch.equal(conversion.novel_masks, truth.masks[:, 1:])


def test_a_given_grid_is_taken_as_it_is_and_gives_a_mesh(truth: ViewBatch) -> None:
    conversion = Conversion(Reconstruction(voxels=truth.voxels), truth)
    assert conversion.voxels is truth.voxels
    for verts, faces, voxels in zip(
        conversion.mesh.verts_list(), conversion.mesh.faces_list(), truth.voxels, strict=True
    ):
        mesh = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(int(voxels.sum()) / (VOXEL_RESOLUTION - 1) ** 3, rel=0.1)


def test_a_grid_of_another_resolution_goes_through_its_mesh(truth: ViewBatch, part: Callable[..., ViewBatch]) -> None:
    fine = torch.zeros(1, 64, 64, 64, dtype=torch.bool)
    fine[:, 16:48, 16:48, 16:48] = True
    voxels = Conversion(Reconstruction(voxels=fine), part(truth, 0)).voxels
    assert voxels.shape == (1, 32, 32, 32)
    # Half the side of the object frame: [-16/63, 16/63] covers cells floor(31 v + 16) = 8..23 and no others.
    occupied = voxels.nonzero()[:, 1:]
    assert (int(occupied.min()), int(occupied.max())) == (8, 23)
    assert int(voxels.sum()) > 0.8 * 16**3


def test_a_predicted_camera_renders_the_input_view_only(
    shapes: Meshes, truth: ViewBatch, part: Callable[..., ViewBatch]
) -> None:
    # The batch's first view is azimuth 0 and its third azimuth -150.
    turned = look_at_camera(azimuth=-150.0)
    conversion = Conversion(Reconstruction(mesh=shapes[[1]], camera=turned), part(truth, 1))
    assert torch.equal(conversion.input_mask[:, 0], truth.masks[[1], 2])
    assert not torch.equal(conversion.input_mask[:, 0], truth.masks[[1], 0])
    assert torch.equal(conversion.novel_masks, truth.masks[[1], 1:])
    without = Conversion(Reconstruction(mesh=shapes[[1]], camera=turned), part(truth, 1, cameras=None))
    assert torch.equal(without.input_mask, conversion.input_mask)
    with pytest.raises(NotAvailableError, match="no cameras"):
        _ = without.novel_masks


def broken(kind: str, verts: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    verts = verts.clone()
    if kind == "no faces":
        return verts, faces[:0]
    if kind == "no area":
        return verts * torch.tensor([1.0, 0.0, 0.0]), faces
    verts[5, 1] = {"nan": torch.nan, "infinite": -torch.inf, "diverged": 1.01 * LIMIT}[kind]
    return verts, faces


@pytest.mark.parametrize("kind", ["no faces", "no area", "nan", "infinite", "diverged"])
def test_a_failed_mesh_is_empty_everywhere_and_leaves_the_others(kind: str, shapes: Meshes, truth: ViewBatch) -> None:
    pairs = list(zip(shapes.verts_list(), shapes.faces_list(), strict=True))
    pairs[1] = broken(kind, *pairs[1])
    recon = Reconstruction(mesh=Meshes([verts for verts, _ in pairs], [faces for _, faces in pairs]))
    conversion, sound = Conversion(recon, truth), Conversion(Reconstruction(mesh=shapes), truth)
    assert [len(faces) > 0 for faces in conversion.mesh.faces_list()] == [True, False, True]
    assert conversion.points[1].isnan().all()
    assert not conversion.voxels[1].any()
    assert not conversion.input_mask[1].any()
    assert not conversion.novel_masks[1].any()
    for name in ("points", "voxels", "input_mask", "novel_masks"):
        assert torch.equal(getattr(conversion, name)[[0, 2]], getattr(sound, name)[[0, 2]])


def test_a_cloud_is_measured_as_it_is_and_through_its_surface(truth: ViewBatch) -> None:
    assert truth.points is not None and truth.voxels is not None
    cloud = truth.points[:, :2000]
    conversion = Conversion(Reconstruction(points=cloud), truth)
    assert torch.equal(conversion.points, cloud)
    volumes = (0.9 * 0.3 * 0.5, 4 / 3 * np.pi * 0.5**3 * 0.5 * 0.7, 2 * np.pi**2 * 0.35 * 0.1**2)
    for verts, faces, volume in zip(conversion.mesh.verts_list(), conversion.mesh.faces_list(), volumes, strict=True):
        mesh = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(volume, rel=0.1)
    for ours, true in ((conversion.voxels, truth.voxels), (conversion.input_mask > 0.5, truth.masks[:, :1] > 0.5)):
        overlap, union = (ours & true).flatten(1).sum(dim=1), (ours | true).flatten(1).sum(dim=1)
        assert (overlap / union).min() > 0.85


@pytest.mark.parametrize("kind", ["nan", "infinite", "collapsed", "diverged", "few"])
def test_a_cloud_without_a_surface_fails_alone(kind: str, truth: ViewBatch) -> None:
    assert truth.points is not None
    cloud = truth.points[:, : 12 if kind == "few" else 1000].clone()
    if kind == "collapsed":
        cloud[1] = 0.25
    elif kind == "diverged":
        cloud[1] *= 1e4 * LIMIT
    elif kind != "few":
        cloud[1, 7, 2] = {"nan": torch.nan, "infinite": torch.inf}[kind]
    conversion = Conversion(Reconstruction(points=cloud), truth)
    fine = kind != "few"
    assert [len(faces) > 0 for faces in conversion.mesh.faces_list()] == [fine, False, fine]
    assert not conversion.voxels[1].any()
    assert not conversion.input_mask[1].any()
    assert torch.equal(conversion.points.isnan(), cloud.isnan())


def test_lengths_must_agree(shapes: Meshes, truth: ViewBatch, part: Callable[..., ViewBatch]) -> None:
    with pytest.raises(ValueError, match="3 reconstructions for a batch of 2"):
        Conversion(Reconstruction(mesh=shapes), part(truth, 0, 1))


def test_ground_truth_says_what_is_missing(truth: ViewBatch) -> None:
    assert ground_truth(truth, "points") is truth.points
    assert torch.equal(ground_truth(truth, "novel_masks"), truth.masks[:, 1:])
    bare = replace(truth, points=None, voxels=None, cameras=None, images=truth.images[:, :1], masks=truth.masks[:, :1])
    for name, message in (("points", "no points"), ("voxels", "no voxels"), ("novel_masks", "one view")):
        with pytest.raises(NotAvailableError, match=message):
            ground_truth(bare, name)  # type: ignore[arg-type]
    assert torch.equal(ground_truth(bare, "input_mask"), truth.masks[:, :1])


def test_cameras_are_true_only_beside_a_true_shape(truth: ViewBatch) -> None:
    for kept in ({}, {"points": None}, {"voxels": None}):
        camera = ground_truth(replace(truth, **kept), "input_camera")
        assert truth.cameras is not None and isinstance(camera, Camera)
        assert torch.equal(camera.R, truth.cameras[:, 0].R)
    with pytest.raises(NotAvailableError, match="cameras are estimates, without a true shape"):
        ground_truth(replace(truth, points=None, voxels=None), "input_camera")
    with pytest.raises(NotAvailableError, match="no cameras"):
        ground_truth(replace(truth, cameras=None), "input_camera")
