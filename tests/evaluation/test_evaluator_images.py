"""Measures of images and key points in the evaluator: values, names of networks, batches, and gathered processes."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch3d.renderer import TexturesAtlas
from pytorch3d.structures import Meshes
from torch import Tensor, nn

from recon3d.evaluation import evaluator as module
from recon3d.evaluation.convert import Conversion
from recon3d.evaluation.evaluator import Evaluator
from recon3d.evaluation.protocol import VOXEL_RESOLUTION
from recon3d.metrics.base import stable_key
from recon3d.structures import Camera, Reconstruction, ViewBatch

COUNT, SIZE, K = 7, 32, 4
IMAGES = ("ssim", "ssim_inside", "ssim_plain", "ssim_inside_plain", "fid", "fid_plain")


@pytest.fixture(scope="module")
def recon() -> Reconstruction:
    """Seven deformed tetrahedra, textured and seen by their own orthographic cameras."""
    generator = torch.Generator().manual_seed(0)
    tetrahedron = torch.tensor([[0.4, 0.4, 0.4], [0.4, -0.4, -0.4], [-0.4, 0.4, -0.4], [-0.4, -0.4, 0.4]])
    verts = tetrahedron + 0.1 * torch.randn(COUNT, 4, 3, generator=generator)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]).expand(COUNT, -1, -1)
    atlas, plain = torch.rand(2, COUNT, 4, 2, 2, 3, generator=generator)
    ones = torch.ones(COUNT, 2)
    shift = torch.tensor([0.0, 0.0, 5.0]).expand(COUNT, 3)
    camera = Camera(torch.eye(3).expand(COUNT, 3, 3), shift, 1.5 * ones, 0 * ones, orthographic=True)
    return Reconstruction(
        mesh=Meshes(verts, faces, TexturesAtlas(atlas)),
        camera=camera,
        plain_textures=TexturesAtlas(plain),
        flow=torch.rand(COUNT, 4, 9, 2, generator=generator) - 0.5,
    )


@pytest.fixture(scope="module")
def photographs(recon: Reconstruction) -> ViewBatch:
    """What the predictions show exactly, before a background, with key points on the vertices."""
    empty = ViewBatch(
        torch.zeros(COUNT, 1, 3, SIZE, SIZE), torch.zeros(COUNT, 1, 1, SIZE, SIZE), ("",) * COUNT, ("",) * COUNT
    )
    conversion = Conversion(recon, empty)
    image = conversion.input_image
    background = torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    straight = image[:, :3] / image[:, 3:].clamp(min=1e-6)
    shown = torch.where(image[:, 3:] > 0, straight, background)
    keypoints = torch.cat([conversion.vertices.snapped, torch.ones(COUNT, K, 1)], dim=2)
    keypoints[::2, 1, 2] = 0
    return ViewBatch(
        images=shown[:, None],
        masks=image[:, None, 3:],
        sample_id=tuple(f"bird/{index}" for index in range(COUNT)),
        category=("bird",) * COUNT,
        keypoints=keypoints[:, None],
    )


def some(recon: Reconstruction, batch: ViewBatch, index: list[int]) -> tuple[Reconstruction, ViewBatch]:
    """Samples by index."""
    assert recon.mesh is not None and recon.camera is not None and recon.plain_textures is not None
    assert recon.flow is not None and batch.keypoints is not None
    taken = replace(
        recon,
        mesh=recon.mesh[index],
        camera=recon.camera[index],
        plain_textures=recon.plain_textures[index],
        flow=recon.flow[index],
    )
    return taken, replace(
        batch,
        images=batch.images[index],
        masks=batch.masks[index],
        sample_id=tuple(batch.sample_id[k] for k in index),
        category=tuple(batch.category[k] for k in index),
        keypoints=batch.keypoints[index],
    )


class Tiny(nn.Module):
    """One convolution, as a FeatureNetwork answers: layer name to (B, C, h, w)."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, stride=2)
        self.load_state_dict(torch.load(weights, weights_only=True))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"2048": self.convolution(images).relu()}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the tiny network, which stands for Inception."""
    path = tmp_path / "tiny.pth"
    torch.manual_seed(3)
    convolution = nn.Conv2d(3, 5, 3, stride=2)
    torch.save({f"convolution.{name}": value for name, value in convolution.state_dict().items()}, path)
    monkeypatch.setattr(module, "inception_features", lambda layers, weights: Tiny(weights))
    return path


def run(recon: Reconstruction, batch: ViewBatch, parts: list[list[int]], **options: Any) -> Evaluator:
    evaluator = Evaluator(**options)
    evaluator.start()
    for index in parts:
        evaluator.update(*some(recon, batch, index))
    evaluator.finish()
    return evaluator


WHOLE = [list(range(COUNT))]


def test_the_true_texture_scores_best_and_the_plain_one_does_not(
    recon: Reconstruction, photographs: ViewBatch, weights: Path
) -> None:
    results = run(recon, photographs, WHOLE, fid_weights=weights).results
    # The masks of the data are the coverage p: sum(p p) / sum(2 p - p p).
    p = photographs.masks.double().flatten(1)
    soft = (p * p).sum(dim=1) / (2 * p - p * p).sum(dim=1)
    assert results["mask_iou_soft"].value == pytest.approx(float(soft.mean()), abs=1e-6)
    assert results["ssim"].value == pytest.approx(1, abs=1e-5)
    assert results["ssim_inside"].value == pytest.approx(1, abs=1e-5)
    assert results["fid"].value == pytest.approx(0, abs=1e-6)
    assert results["ssim_plain"].value < 0.9 and results["ssim_inside_plain"].value < 0.6  # type: ignore[operator]
    assert results["fid_plain"].value > 1e-4  # type: ignore[operator]
    for name in IMAGES:
        assert (results[name].n, results[name].version) == (COUNT, 1)
    # Key points lie on the vertices: camera transfer is right, a flow of random points is not.
    assert results["pck_camera"].value == 1.0
    assert results["pck_flow"].value < 1.0  # type: ignore[operator]
    pairs = np.random.RandomState(COUNT).randint(0, COUNT, (10_000, 2))
    assert results["pck_camera"].n == results["pck_flow"].n == int((pairs[:, 0] != pairs[:, 1]).sum())


def test_the_note_of_fid_names_the_network_and_its_file(
    recon: Reconstruction, photographs: ViewBatch, weights: Path
) -> None:
    evaluator = run(recon, photographs, WHOLE, fid_weights=weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    assert evaluator.network == f"torchvision's Inception v3, weights {digest}"
    assert evaluator.results["fid"].note == evaluator.network  # 7 samples, 5 features
    few = run(recon, photographs, [[0, 1, 2, 3]], fid_weights=weights).results["fid"]
    assert few.note == f"{evaluator.network}; only 4 samples for 5 features: mostly bias"
    assert evaluator.results["pck_camera"].note is None


def test_neither_batches_nor_order_nor_repeats_change_a_measure(
    recon: Reconstruction, photographs: ViewBatch, weights: Path
) -> None:
    whole = run(recon, photographs, WHOLE, fid_weights=weights).results
    split = run(recon, photographs, [[6, 2], [0, 5, 1], [2], [4, 3, 6]], fid_weights=weights).results
    for name in (*IMAGES, "pck_flow", "pck_camera", "mask_iou_soft"):
        assert split[name].n == whole[name].n
        assert split[name].value == pytest.approx(whole[name].value, rel=1e-5, abs=1e-7)
    assert split["pck_flow"] == whole["pck_flow"]


def gathered(monkeypatch: pytest.MonkeyPatch, evaluators: list[Evaluator]) -> list[Evaluator]:
    """Let evaluators finish as the processes of one run would."""
    sent: list[Any] = []
    received: list[Any] = []

    def all_gather_object(into: list[Any], own: Any) -> None:
        sent.append(own)
        into[:] = received or [own] * len(into)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(evaluators))
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    for one in deepcopy(evaluators):  # to see what each would send
        one.finish()
    received += sent
    for one in evaluators:
        one.finish()
    return evaluators


def test_two_processes_that_share_a_sample_agree_with_one(
    recon: Reconstruction, photographs: ViewBatch, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recon, photographs, WHOLE, fid_weights=weights).results
    evaluators = []
    for index in ([0, 3, 5, 6], [6, 1, 2, 4]):
        evaluators.append(Evaluator(fid_weights=weights))
        evaluators[-1].start()
        evaluators[-1].update(*some(recon, photographs, index))
    first, second = gathered(monkeypatch, evaluators)
    for name in ("pck_flow", "pck_camera", "fid", "fid_plain"):
        assert first.results[name] == second.results[name]
        assert first.results[name].n == whole[name].n
        assert first.results[name].value == pytest.approx(whole[name].value, rel=1e-5, abs=1e-7)


def test_what_one_process_lacks_is_not_available_on_any(
    recon: Reconstruction, photographs: ViewBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluators = [Evaluator(), Evaluator()]
    for one, flow in zip(evaluators, (recon.flow, None), strict=True):
        one.start()
        one.update(replace(recon, flow=flow), photographs)
    for one in gathered(monkeypatch, evaluators):
        assert (one.results["pck_flow"].value, one.results["pck_flow"].note) == (
            None,
            "the method gives no texture flow",
        )
        assert one.results["pck_camera"].value == 1.0


def test_a_method_of_several_topologies_has_no_camera_transfer(recon: Reconstruction, photographs: ViewBatch) -> None:
    assert recon.mesh is not None
    evaluator = Evaluator()
    evaluator.start()
    for index, faces in ((0, [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]), (1, [[0, 3, 1], [0, 1, 2], [0, 2, 3]])):
        one, batch = some(recon, photographs, [index])
        assert one.mesh is not None
        mesh = Meshes(one.mesh.verts_list(), [torch.tensor(faces)])
        evaluator.update(Reconstruction(mesh=mesh, camera=one.camera), batch)
    evaluator.finish()
    result = evaluator.results["pck_camera"]
    assert (result.value, result.n) == (None, 0) and "same vertices and faces" in str(result.note)


def test_a_failed_prediction_scores_worst_in_images_and_the_run_goes_on(
    recon: Reconstruction, photographs: ViewBatch, weights: Path
) -> None:
    assert recon.mesh is not None
    verts = recon.mesh.verts_padded().clone()
    verts[2] = torch.nan
    failed = replace(recon, mesh=recon.mesh.update_padded(verts))
    evaluator = run(failed, photographs, WHOLE, fid_weights=weights)
    row = evaluator.samples.set_index("sample_id").loc["bird/2"]
    assert row["mask_iou_soft"] == 0 and (row[list(IMAGES[:4])] == -1).all()
    assert all(evaluator.results[name].n == COUNT for name in IMAGES)
    assert evaluator.results["fid"].value > 0  # type: ignore[operator]
    pairs = np.random.RandomState(COUNT).randint(0, COUNT, (10_000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    order = sorted(range(COUNT), key=lambda index: stable_key(photographs.sample_id[index]))
    shares = []
    for k in range(K):
        seen = photographs.keypoints[order, 0, k, 2].numpy() > 0  # type: ignore[index]
        both = seen[pairs].all(axis=1)
        shares.append(1 - (pairs[both] == order.index(2)).any(axis=1).mean())
    assert evaluator.results["pck_camera"].value == pytest.approx(np.mean(shares))


def test_camera_errors_of_orthographic_cameras(recon: Reconstruction, photographs: ViewBatch) -> None:
    camera = recon.camera
    assert camera is not None
    turned = replace(camera, R=camera.R @ torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]), focal=2 * camera.focal)
    solid = torch.ones(COUNT, VOXEL_RESOLUTION, VOXEL_RESOLUTION, VOXEL_RESOLUTION, dtype=torch.bool)
    estimated = replace(photographs, cameras=turned[torch.arange(COUNT)[:, None]])
    notes = {run_once(recon, estimated)[name].note for name in ("pose_error", "pose_accuracy")}
    assert notes == {"the data's cameras are estimates, without a true shape"}
    batch = replace(estimated, voxels=solid)
    results = run_once(recon, batch)
    assert results["pose_error"].value == pytest.approx(90, abs=1e-3)
    assert results["pose_accuracy"].value == 0
    exact = run_once(recon, replace(batch, cameras=camera[torch.arange(COUNT)[:, None]]))
    assert exact["pose_error"].value == pytest.approx(0, abs=0.1)
    assert exact["mask_iou_novel"].note == "the data have one view per object"


def run_once(recon: Reconstruction, batch: ViewBatch) -> dict[str, Any]:
    evaluator = Evaluator()
    evaluator.start()
    evaluator.update(recon, batch)
    evaluator.finish()
    return evaluator.results
