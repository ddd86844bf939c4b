import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from recon3d.methods.voxel import OccupancyReconstruction, PerspectiveTransformerVoxels
from recon3d.renderers.voxels import render_voxel_silhouettes

SIZE = 32
SMALL = {"image_size": SIZE, "width": 4, "hidden": 32, "code": 16, "channels": (16, 8, 8)}


def small(**changes) -> PerspectiveTransformerVoxels:
    torch.manual_seed(0)
    return PerspectiveTransformerVoxels(**SMALL | changes)


def given(occupancy) -> OccupancyReconstruction:
    return OccupancyReconstruction(voxels=occupancy > 0.5, occupancy=occupancy)


def iou(a, b):
    return float((a & b).sum() / (a | b).sum())


def test_defaults_are_the_papers_network_without_batch_norm():
    method = PerspectiveTransformerVoxels()
    encoder = sum(25 * a * b + b for a, b in ((4, 64), (64, 128), (128, 256)))
    encoder += sum(a * b + b for a, b in ((16384, 1024), (1024, 1024), (1024, 512)))
    decoder = 512 * 27 * 512 + 27 * 512
    decoder += sum(a * b * k**3 + b for a, b, k in ((512, 256, 4), (256, 96, 5), (96, 1, 6)))
    assert sum(value.numel() for value in method.parameters()) == encoder + decoder
    assert (method.lr, method.schedule, method.silhouette_size, method.threshold) == (1e-4, "constant", 32, 0.5)


def test_training_starts_from_almost_empty_grids(full_batch):
    """Else the sigmoid saturates before the images are told apart."""
    occupancy = small()(full_batch(size=SIZE).inputs(4)).occupancy
    assert occupancy.min() > 0.05 and occupancy.max() < 0.25


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_cells_above_the_threshold_are_solid(full_batch, threshold):
    method = small(threshold=threshold)
    last = method.decoder[-2]
    last.weight.data.mul_(100)  # a network that has opinions
    last.bias.data.zero_()
    recon = method(full_batch(size=SIZE).inputs(4))
    assert torch.equal(recon.voxels, recon.occupancy > threshold)
    assert 0.02 < recon.voxels.float().mean() < 0.98


def test_the_loss_is_the_mean_squared_difference_of_silhouettes(full_batch):
    """Empty grids: the mean of the squared masks, after averaging 64 pixels to 32."""
    batch, method = full_batch(objects=3, size=64), small(image_size=64)
    losses = method.losses(batch, given(torch.zeros(6, 32, 32, 32)))
    masks = batch.masks[:, :, 0].unflatten(-1, (32, 2)).unflatten(-3, (32, 2)).mean(dim=(-3, -1))
    assert bool(((masks > 0) & (masks < 1)).any()), "borders are averaged"
    torch.testing.assert_close(losses["projection"], masks.square().mean())


def test_each_grid_meets_both_masks_of_its_own_object(full_batch):
    """Four different answers, A and B of two objects, against two different views each."""
    batch, method = full_batch(objects=2, views=3, size=SIZE), small()
    occupancy = torch.rand(4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    occupancy *= torch.tensor([1.0, 0.7, 0.4, 0.1]).reshape(4, 1, 1, 1)
    terms = []
    for answer in range(4):
        for view in range(2):
            camera, mask = batch.cameras[answer // 2, view], batch.masks[answer // 2, view, 0]
            image = render_voxel_silhouettes(occupancy[answer][None, None], camera[None][None], SIZE)
            terms.append((image[0, 0, 0] - mask).square().mean())
    torch.testing.assert_close(method.losses(batch, given(occupancy))["projection"], torch.stack(terms).mean())


def test_the_true_voxels_lose_less_than_wrong_ones(full_batch):
    batch, method = full_batch(objects=2, views=2, size=64), small(image_size=64)
    true = batch.voxels.float()

    def loss(grids):
        return float(method.losses(batch, given(grids.repeat_interleave(2, dim=0)))["projection"])

    right = loss(true)
    assert right < 0.03  # the rule of voxelisation thickens a shape by almost a cell
    for wrong in (true.transpose(1, 2), true.transpose(2, 3), true.transpose(1, 3), true.roll(4, dims=1), 0 * true):
        assert loss(wrong) > 1.3 * right


def test_two_trainings_with_one_seed_give_the_same_bits(full_batch):
    batch = full_batch(objects=1, size=SIZE)

    def weights():
        method = small(lr=1e-3)
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            method.losses(batch, method(batch.inputs(4, 2)))["projection"].backward()
            optimizer.step()
        return [value.detach() for value in method.parameters()]

    assert all(map(torch.equal, weights(), weights()))


def test_one_object_is_learned(full_batch):
    """From two silhouettes: measured 0.59 IoU with the true cells, and a tenth of the loss of empty grids."""
    method, batch = small(batch_norm=True, lr=3e-3), full_batch(objects=1, size=SIZE)
    start = iou(method.eval()(batch.inputs(4)).voxels, batch.voxels)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet)
    trainer.fit(method.train(), DataLoader([batch] * 40, batch_size=None))
    with torch.no_grad():
        recon = method.eval()(batch.inputs(4, 2))
        loss = float(method.losses(batch, recon)["projection"])
    assert start < 0.1 and iou(recon.voxels[:1], batch.voxels) > 0.4
    assert loss < 0.25 * float(batch.masks.square().mean())
