from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer
from pytorch3d.transforms import quaternion_multiply
from scipy.spatial import cKDTree

from recon3d.bench.cell import Cell, ReconCLI, own_arguments
from recon3d.geometry.cameras import project
from recon3d.geometry.poses import camera_quaternion
from recon3d.geometry.sampling import sample_surface
from recon3d.geometry.templates import icosphere
from recon3d.losses.effective import smooth_silhouettes
from recon3d.methods.effective_loss import EffectiveLossPC
from recon3d.methods.effective_loss_supervised import SupervisedPC
from recon3d.methods.effective_loss_voxels import EffectiveLossVoxels, MassReconstruction
from recon3d.methods.loading import load_method
from recon3d.methods.point_cloud import CloudReconstruction

CONFIGS = Path(__file__).parents[2] / "configs"
SIZE = 32
SMALL = {"image_size": SIZE, "width": 4, "hidden": 32, "n_points": 200}


def trained(method, batch, steps, lr):
    optimizer = torch.optim.Adam(method.parameters(), lr=lr)
    for _ in range(steps):
        losses = method.losses(batch, method(batch.inputs(3)))
        optimizer.zero_grad()
        sum(method.loss_weights[name] * value for name, value in losses.items()).backward()
        optimizer.step()
    return method.eval()


def given(points):
    return CloudReconstruction(points=points, code=torch.zeros(len(points), 32))


def inside(method, batch, points) -> float:
    """Least share over the views of points whose pixel is foreground."""
    xy = project(batch.cameras, points[:, None])[..., :2]
    column, row = ((0.5 - 0.5 * xy) * SIZE).floor().clamp(0, SIZE - 1).long().unbind(-1)
    found = (batch.masks[:, :, 0] > 0.5).flatten(2).gather(2, row * SIZE + column)
    return float(found.float().mean(dim=-1).min())


@pytest.mark.parametrize("name", ["effective_loss", "effective_loss_supervised", "effective_loss_voxels"])
def test_defaults_are_those_of_the_yaml(name):
    content = yaml.safe_load((CONFIGS / f"methods/{name}.yaml").read_text())["model"]
    kind = {
        "effective_loss": EffectiveLossPC,
        "effective_loss_supervised": SupervisedPC,
        "effective_loss_voxels": EffectiveLossVoxels,
    }[name]
    assert content["class_path"].endswith(kind.__name__)
    defaults = dict(kind().hparams)
    assert {key: defaults[key] for key in content["init_args"]} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["init_args"].items()
    }


@pytest.mark.parametrize("variant", ["literal", "drwr"])
def test_a_variant_changes_the_loss_and_keeps_the_rest(variant):
    def settings(method):
        with own_arguments():
            arguments = Cell(method, "synthetic", "paper", configs=CONFIGS).arguments()
            cli = ReconCLI(args=arguments, run=False, save_config_callback=None)
        return cli.config.model.init_args.as_dict(), cli.config.trainer.max_epochs

    (base, epochs), (changed, same_epochs) = settings("effective_loss"), settings(f"effective_loss-{variant}")
    different = {key for key, value in base.items() if value != changed[key]}
    assert {"detach", "self_pair"} <= different
    assert not different & {"n_points", "resolution", "views", "image_size", "hidden", "lr"}
    assert epochs == same_epochs


def test_an_unknown_variant_is_named():
    with pytest.raises(FileNotFoundError, match=r"effective_loss-gap.*drwr"):
        Cell("effective_loss-gap", "synthetic", "quick", configs=CONFIGS)


def test_the_terms_are_those_of_the_projected_points(full_batch):
    """M1 by hand: points on pixel centres read one pixel of S^G each."""
    batch = full_batch(objects=1, views=4, size=SIZE)
    method = EffectiveLossPC(**SMALL, resolution=SIZE)
    points = torch.rand(1, 200, 3) - 0.5
    losses = method.losses(batch, given(points))
    xy = project(batch.cameras, points[:, None])[..., :2]
    pixel = (0.5 - 0.5 * xy) * SIZE - 0.5 + SIZE // 2  # of the padded grid
    low = pixel.floor()
    smooth = smooth_silhouettes(batch.masks[:, :, 0] > 0.5)
    value = torch.zeros(1, 4, 200)
    for down in (0, 1):
        for right in (0, 1):
            corner = low + torch.tensor([right, down])
            part = (1 - (pixel - corner).abs()).prod(dim=-1)
            row, column = corner[..., 1].long(), corner[..., 0].long()
            value += part * smooth.flatten(2).gather(2, row * smooth.shape[-1] + column)
    torch.testing.assert_close(losses["unary"], (1 - value).abs().mean(), rtol=1e-5, atol=1e-6)
    assert losses["pairwise"] > 0


def test_only_the_views_asked_for_count(full_batch):
    batch = full_batch(objects=1, views=4, size=SIZE)
    points = given(torch.rand(1, 50, 3) - 0.5)
    two = EffectiveLossPC(**SMALL, views=2).losses(batch, points)
    again = EffectiveLossPC(**SMALL, views=2).losses(full_batch(objects=1, views=2, size=SIZE), points)
    four = EffectiveLossPC(**SMALL, views=4).losses(batch, points)
    assert torch.equal(two["unary"], again["unary"]) and not torch.equal(two["unary"], four["unary"])


def test_a_cloud_is_trained_into_the_silhouettes_and_spreads_over_them(full_batch):
    torch.manual_seed(0)
    batch = full_batch(objects=1, views=4, size=SIZE)
    method = trained(EffectiveLossPC(**SMALL), batch, steps=100, lr=4e-3)
    points = method(batch.inputs(3)).points.detach()
    assert inside(method, batch, points) > 0.9
    # Far from a clump: true surface points have predicted ones near them.
    reach = cKDTree(points[0].numpy()).query(batch.points[0].numpy())[0]
    assert reach.mean() < 0.1


def test_the_supervised_variant_comes_close_to_the_true_points(full_batch):
    torch.manual_seed(0)
    batch = full_batch(objects=1, views=1, size=SIZE)
    verts, faces = icosphere(2)
    surface = sample_surface(0.4 * verts, faces, 2000, torch.Generator().manual_seed(0))[0].float()
    batch = full_batch(objects=1, views=1, size=SIZE, points=surface[None], normals=None)
    method = trained(SupervisedPC(**SMALL), batch, steps=80, lr=4e-3)
    radius = method(batch.inputs(3)).points.norm(dim=-1)
    assert (radius - 0.4).abs().mean() < 0.05


def mass_of(grid):
    return MassReconstruction(voxels=grid > 0, mass=grid)


def test_cells_that_share_the_mass_are_solid():
    """n cells of equal mass have the typical mass 1/n: above half of it is solid, below is not."""
    method = EffectiveLossVoxels(**SMALL, channels=(16, 8, 8))
    occupancy = torch.full((1, 32, 32, 32), 1e-6)
    occupancy[0, :8] = 0.8
    occupancy[0, 8] = 0.3
    method.decoder = torch.nn.Identity()
    method.encoder = torch.nn.Identity()
    recon = method(occupancy)
    assert recon.voxels[0, :8].all() and not recon.voxels[0, 8:].any()
    torch.testing.assert_close(recon.mass.sum(), torch.tensor(1.0))


def test_the_gradient_through_drawn_cells_is_that_of_the_expected_loss(full_batch):
    """For the term per point, the expectation is a sum over all cells; the mean of many draws comes close to it."""
    batch = full_batch(objects=1, views=4, size=SIZE)
    method = EffectiveLossVoxels(**SMALL | {"n_points": 4000}, channels=(16, 8, 8), beta=0.0)
    torch.manual_seed(0)
    coarse = torch.randn(1, 2, 2, 2, requires_grad=True)

    def mass():
        logits = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2).repeat_interleave(16, 3)
        return logits.flatten(1).softmax(dim=1).reshape(1, 32, 32, 32)

    index = torch.arange(32**3)
    cells = torch.stack([index // 32 % 32, index // 1024, index % 32], dim=-1)
    centers = (cells + 0.5 - 16) / 31  # structures: cell of v is floor(31 v + 16)
    p = mass()
    exact = method.cloud_losses(batch, centers[None], 32**3 * p.reshape(1, -1))["unary"]
    (expected,) = torch.autograd.grad(exact, coarse)
    draws = [torch.autograd.grad(method.losses(batch, mass_of(mass()))["unary"], coarse)[0] for _ in range(20)]
    found = torch.stack(draws)
    error = (found.mean(0) - expected).abs()
    assert bool((error < 4 * found.std(0) / 20**0.5 + 1e-6).all())
    assert float(error.max()) < 0.1 * float(expected.abs().max())


def test_unknown_cameras_need_masks_only_and_answer_with_a_camera(full_batch):
    torch.manual_seed(0)
    method = EffectiveLossPC(**SMALL, pose="ensemble")
    assert method.needs == {"masks"} and method.encoded_views == 4
    batch = full_batch(objects=2, views=4, size=SIZE, cameras=None)
    recon = method(batch.inputs(3, 4))
    assert recon.camera.shape == (8,) and recon.candidates.shape == (8, 4, 4)
    losses = method.losses(batch, recon)
    assert losses.keys() == {"unary", "pairwise", "student"}
    torch.stack([method.loss_weights[name] * value for name, value in losses.items()]).sum().backward()


def test_the_candidate_with_the_smallest_loss_counts(full_batch):
    """One of four candidates is the true camera, the others look from the side: its loss is that of known cameras."""
    batch = full_batch(objects=1, views=4, size=SIZE)
    known, method = (EffectiveLossPC(**SMALL, beta=0.01, pose=pose) for pose in ("known", "ensemble"))
    points = 0.9 * batch.points[:, :200]
    true = camera_quaternion(batch.cameras)
    turned = quaternion_multiply(true, torch.tensor([2**-0.5, 0.0, 2**-0.5, 0.0]))
    candidates = torch.stack([turned, turned, true, turned], dim=2).flatten(0, 1)
    student = true.flatten(0, 1)
    recon = CloudReconstruction(
        points=points.expand(4, -1, -1), code=torch.zeros(4, 32), candidates=candidates, student=student
    )
    losses, expected = method.losses(batch, recon), known.losses(batch, given(points))
    torch.testing.assert_close(losses["unary"], expected["unary"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(losses["pairwise"], expected["pairwise"], rtol=1e-3, atol=1e-5)
    assert losses["student"] < 1e-5


def test_cameras_of_another_distance_are_refused(full_batch):
    method = EffectiveLossPC(**SMALL, pose="ensemble", distance=2.0)
    batch = full_batch(objects=1, views=4, size=SIZE)
    with pytest.raises(ValueError, match=r"distance 2.732, the proposed ones 2.*--model.init_args.distance 2.732"):
        method.losses(batch, method(batch.inputs(3, 4)))


def test_voxels_with_unknown_cameras_are_refused():
    with pytest.raises(ValueError, match="expected pose known"):
        EffectiveLossVoxels(**SMALL, channels=(16, 8, 8), pose="ensemble")


def test_a_voxel_method_made_in_python_is_loaded_from_its_checkpoint(tmp_path):
    method = EffectiveLossVoxels(**SMALL, channels=(16, 8, 8), lr=3e-4)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(method)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    loaded = load_method(tmp_path / "some.ckpt")
    assert loaded.lr == 3e-4 and loaded.n_points == method.n_points


@pytest.mark.parametrize("kind", [EffectiveLossPC, EffectiveLossVoxels])
def test_the_losses_are_in_full_precision_under_autocast(kind, full_batch):
    method = kind(**SMALL, **({"channels": (16, 8, 8)} if kind is EffectiveLossVoxels else {}))
    batch = full_batch(objects=1, views=4, size=SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(batch, method(batch.inputs(3)))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
