import numpy as np
import pytest
import torch
import trimesh
from lightning import Trainer
from torch.utils.data import DataLoader

from recon3d.methods.mean_shape import MeanShape
from recon3d.methods.template import TemplateSphere
from recon3d.structures import ViewBatch


def batch_of(voxels: np.ndarray, names: list[str]) -> ViewBatch:
    n = len(voxels)
    return ViewBatch(
        images=torch.zeros(n, 1, 3, 8, 8),
        masks=torch.zeros(n, 1, 1, 8, 8),
        sample_id=tuple(names),
        category=tuple(name.split("/")[0] for name in names),
        voxels=torch.tensor(voxels),
    )


def fitted(*batches: ViewBatch) -> MeanShape:
    method = MeanShape()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, DataLoader(list(batches), batch_size=None))
    return method


def random_shapes(count: int, density: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    core = generator.random((8, 8, 8)) < density
    return np.stack([core ^ (generator.random(core.shape) < 0.15) for _ in range(count)])


def test_template_is_the_sphere_of_radius_a_quarter():
    recon = TemplateSphere()(torch.zeros(3, 3, 8, 8))
    assert len(recon) == 3
    for verts, faces in zip(recon.mesh.verts_list(), recon.mesh.faces_list(), strict=True):
        sphere = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
        assert sphere.is_watertight and sphere.volume == pytest.approx(4 / 3 * np.pi * 0.25**3, rel=0.02)
    torch.testing.assert_close(
        TemplateSphere(0.5)(torch.zeros(1, 3, 8, 8)).mesh.verts_packed().norm(dim=1).max().item(), 0.5
    )
    assert not TemplateSphere.needs and not list(TemplateSphere().parameters())


def test_mean_shape_has_the_best_threshold_of_its_category():
    data = {"car": random_shapes(5, 0.3, 0), "lamp": random_shapes(4, 0.6, 1)}
    names = [f"{category}/{i}/v00" for category, shapes in data.items() for i in range(len(shapes))]
    method = fitted(batch_of(np.concatenate(list(data.values())), names))
    for category, shapes in data.items():
        answer = method.reconstruct(batch_of(shapes[:1], [f"{category}/new/v00"])).voxels[0].numpy()

        def mean_iou(shape: np.ndarray, shapes: np.ndarray = shapes) -> float:
            return float(np.mean([(shape & s).sum() / (shape | s).sum() for s in shapes]))

        candidates = [mean_iou(shapes.mean(axis=0) >= t) for t in np.linspace(0.05, 0.95, 19)]
        assert mean_iou(answer) == pytest.approx(max(candidates), abs=1e-6)
        assert max(candidates) > min(candidates) + 0.05  # the threshold matters


def test_an_object_counts_once_however_often_it_is_seen():
    shapes = random_shapes(3, 0.4, 0)
    once = batch_of(shapes, ["car/a/v00", "car/b/v00", "car/c/v00"])
    again = batch_of(shapes[[0] * 10], [f"car/a/v{view:02d}" for view in range(1, 11)])
    ask = batch_of(shapes[:1], ["car/x/v00"])
    assert torch.equal(fitted(once).reconstruct(ask).voxels, fitted(once, again).reconstruct(ask).voxels)


def test_mean_shape_refuses_what_it_does_not_know():
    shapes = random_shapes(2, 0.4, 0)
    with pytest.raises(RuntimeError, match="fit it, or load a checkpoint"):
        MeanShape().reconstruct(batch_of(shapes, ["car/a/v00", "car/b/v00"]))
    method = fitted(batch_of(shapes, ["car/a/v00", "car/b/v00"]))
    with pytest.raises(ValueError, match=r"fitted to \['car'\] and knows nothing of \['boat'\]"):
        method.reconstruct(batch_of(shapes, ["boat/a/v00", "car/b/v00"]))
