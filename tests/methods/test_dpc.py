import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from recon3d.geometry.poses import camera_quaternion
from recon3d.methods.dpc import DifferentiablePointClouds
from recon3d.methods.point_cloud import CloudReconstruction
from recon3d.renderers.points import render_point_silhouettes

SIZE = 32
SMALL = {"image_size": SIZE, "width": 4, "hidden": 32, "n_points": 200, "resolution": 16}


def small(**changes) -> DifferentiablePointClouds:
    torch.manual_seed(0)
    return DifferentiablePointClouds(**SMALL | changes)


def given(points, scale=None) -> CloudReconstruction:
    """For methods whose scale is the sigmoid of the code's first number (`read_scale`)."""
    code = torch.full((len(points), SMALL["hidden"]), 50.0)
    if scale is not None:
        code[:, 0] = scale.logit()
    return CloudReconstruction(points=points, code=code)


def read_scale(method) -> DifferentiablePointClouds:
    method.scale.weight.data.zero_()[0, 0] = 1.0
    return method.eval()


def trained(method, batch, steps) -> DifferentiablePointClouds:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet)
    trainer.fit(method.train(), DataLoader([batch] * steps, batch_size=None))
    return method.eval()


def test_defaults_are_the_authors_network_and_schedules():
    method = DifferentiablePointClouds()
    encoder = 25 * 3 * 16 + 16
    encoder += sum(9 * a * b + b for a, b in ((16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)))
    encoder += 2048 * 1024 + 1024 + 2 * (1024 * 1024 + 1024)
    decoder = 1024 * 6000 + 6000 + 1024 + 1
    assert sum(value.numel() for value in method.parameters()) == encoder + decoder
    assert (method.sigma, method.keep, method.taps, method.min_views, method.lr) == ((3, 0.2), (0.07, 1), 21, 4, 1e-4)
    assert method.loss_weights == {"projection": 1.0, "weights": 0.001, "student": 20.0}


def test_training_starts_from_a_wide_cloud_at_half_the_scale(full_batch):
    method = small(width=16, hidden=256)
    recon = method(full_batch(size=SIZE).inputs(3))
    assert recon.points.shape == (2, 200, 3) and 0.05 < float(recon.points.detach().std()) < 0.3
    assert (method.scale(recon.code).sigmoid() - 0.5).abs().max() < 0.2


def test_the_loss_is_half_the_squared_error_summed_over_pixels_and_averaged_over_views(full_batch):
    """Points that no camera sees: half the squared masks, after averaging 32 pixels to 16."""
    batch, method = full_batch(objects=3, views=4), small().eval()
    losses = read_scale(method).losses(batch, given(torch.full((3, 5, 3), 9.0)))
    masks = batch.masks[:, :, 0].unflatten(-1, (16, 2)).unflatten(-3, (16, 2)).mean(dim=(-3, -1))
    assert bool(((masks > 0) & (masks < 1)).any()), "borders are averaged"
    expected = 0.5 * masks.square().sum() / (3 * 4)
    torch.testing.assert_close(losses["projection"], expected, rtol=2e-3, atol=0)  # empty rays give a little light


def test_each_cloud_meets_the_masks_of_its_own_object_in_all_its_views(full_batch):
    batch, method = full_batch(objects=2, views=5), small(views=4).eval()
    points = torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    scale = torch.tensor([0.9, 0.3])
    terms = []
    for b in range(2):
        for view in range(4):
            mask = torch.nn.functional.avg_pool2d(batch.masks[b, view], 2)[0]
            image = render_point_silhouettes(points[b], batch.cameras[b, view], 16, 3.0, scale[b])
            terms.append(0.5 * (image - mask).square().sum())
    torch.testing.assert_close(
        read_scale(method).losses(batch, given(points, scale))["projection"], torch.stack(terms).mean()
    )


def test_the_true_cloud_loses_less_than_wrong_ones(full_batch):
    batch, method = full_batch(objects=2, views=4, size=64), small(sigma=(0.5, 0.5), resolution=32).eval()

    def loss(points):
        return float(read_scale(method).losses(batch, given(points))["projection"].detach())

    true = torch.cat([batch.points * share for share in torch.linspace(0.2, 1.0, 9)], dim=1)  # filled
    right = loss(true)
    for wrong in (true[..., [1, 0, 2]], true[..., [2, 1, 0]], true + 0.1, 0.5 * true, 1.5 * true):
        assert loss(wrong) > 3 * right


def test_weights_but_no_biases_are_penalised():
    method = small()
    for name, value in method.named_parameters():
        value.data.fill_(2.0 if name.endswith("weight") else 100.0)
    count = sum(value.numel() for name, value in method.named_parameters() if name.endswith("weight"))
    assert float(method.squared_weights().detach()) == pytest.approx(2.0 * count)
    method.squared_weights().backward()
    assert method.decoder.layer.weight.grad.unique() == pytest.approx(2.0) and method.decoder.layer.bias.grad is None


def at(done) -> DifferentiablePointClouds:
    """A method that has a trainer, which is as far as `done` says."""
    method = small()
    method._trainer, method.progress = object(), lambda: done
    return method


@pytest.mark.parametrize(("done", "kept", "sigma"), [(0.0, 14, 3.0), (0.25, 60, 2.3), (1.0, 200, 0.2)])
def test_sigma_and_the_share_of_points_go_linearly(done, kept, sigma):
    method = at(done)
    assert method.draw(torch.rand(2, 1, 200, 3), (2, 4)).shape == (2, 4, kept, 3)
    assert method.current(method.sigma) == pytest.approx(sigma)
    assert method.eval().draw(torch.rand(2, 1, 200, 3), (2, 4)).shape == (2, 4, 200, 3)


def test_each_view_draws_its_own_points_once_each():
    method, points = at(0.25), torch.rand(2, 200, 3)
    torch.manual_seed(3)
    drawn = method.draw(points[:, None], (2, 3))
    for b in range(2):
        lots = []
        for view in range(3):
            same = (drawn[b, view][:, None] == points[b][None]).all(dim=2)
            assert same.sum(dim=1).tolist() == [1] * 60 and same.sum(dim=0).max() == 1
            lots.append(same.any(dim=0))
        assert not torch.equal(lots[0], lots[1]) and not torch.equal(lots[1], lots[2])
    torch.manual_seed(3)
    assert torch.equal(method.draw(points[:, None], (2, 3)), drawn)
    assert not torch.equal(method.draw(points[:, None], (2, 3)), drawn)


def test_points_are_drawn_evenly():
    method, points = at(0.5), torch.arange(20.0).reshape(1, 20, 1).expand(1, 20, 3)
    torch.manual_seed(0)
    counts = method.draw(points, (4000,))[..., 0].flatten().long().bincount(minlength=20) / 4000
    assert (counts - 0.5).abs().max() < 0.05  # 10 of 20


def test_schedules_run_from_their_start_to_their_end_in_a_training(full_batch):
    seen = []

    class Watched(DifferentiablePointClouds):
        def current(self, span):
            seen.append(super().current(span))
            return seen[-1]

    trained(Watched(**SMALL, sigma=(3.0, 0.5)), full_batch(objects=1, views=4, size=SIZE), 5)
    keep, sigma = seen[0::2], seen[1::2]
    assert keep == pytest.approx([0.07 + 0.93 * step / 5 for step in range(5)])
    assert sigma == pytest.approx([3.0 - 2.5 * step / 5 for step in range(5)])


def test_bad_settings_and_small_masks_are_refused(full_batch):
    for wrong in ({"keep": (0.0, 1.0)}, {"keep": (0.5, 1.5)}, {"sigma": (3.0, 0.0)}):
        with pytest.raises(ValueError, match=r"expected keep in \(0, 1\] and sigma > 0"):
            small(**wrong)
    batch, method = full_batch(objects=1, views=4, size=SIZE), small(resolution=64)
    with pytest.raises(ValueError, match=r"masks of at least 64 pixels, as its resolution, got \(32, 32\)"):
        method.losses(batch, method(batch.inputs(3)))


def test_with_unknown_cameras_the_best_candidate_counts(full_batch):
    """Three candidates for each view, of which one is true, at another place each time."""
    batch, method = full_batch(objects=1, views=3, size=64), small(pose="ensemble", candidates=3, views=3)
    method.resolution, method.sigma = 32, (0.5, 0.5)
    assert method.needs == {"masks"} and method.encoded_views == 3
    true = camera_quaternion(batch.cameras[0])  # (3,4) of views
    candidates = torch.stack([true.roll(view, dims=0) for view in range(3)])  # (view,K,4): true for one k each
    points = torch.cat([batch.points * share for share in torch.linspace(0.2, 1.0, 9)], dim=1).expand(3, -1, -1)
    code, student = torch.full((3, SMALL["hidden"]), 50.0), true.clone()
    recon = CloudReconstruction(points=points, code=code, candidates=candidates, student=student)
    losses = read_scale(method).losses(batch, recon)
    known = read_scale(small(views=3, resolution=32, sigma=(0.5, 0.5))).losses(batch, given(points[:1]))
    assert losses.keys() == {"projection", "student", "weights"}
    torch.testing.assert_close(losses["projection"], known["projection"], rtol=1e-3, atol=0)
    assert losses["student"] < 1e-5


def test_training_with_unknown_cameras_needs_no_cameras_and_trains_every_part(full_batch):
    batch, method = full_batch(objects=2, views=4, size=SIZE, cameras=None), small(pose="ensemble", hidden=256)
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    trained(method, batch, 3)
    still = {name for name, value in method.named_parameters() if torch.equal(value, before[name])}
    winners = [k for k in range(4) if f"ensemble.candidates.{k}.0.weight" not in still]
    assert winners and all(name.startswith("ensemble.candidates.") for name in still)
    recon = method(batch.inputs(3))
    assert recon.camera.shape == (2,) and recon.points.isfinite().all()


def test_two_trainings_with_one_seed_give_the_same_bits(full_batch):
    batch = full_batch(objects=1, views=4, size=SIZE)
    first, second = ([value.detach() for value in trained(small(), batch, 3).parameters()] for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_one_object_is_learned(full_batch):
    batch = full_batch(objects=1, views=4, size=SIZE)
    method = small(lr=2e-3)

    def distance():
        """Between the nearest points of answer and truth, both ways, added."""
        with torch.no_grad():
            apart = torch.cdist(method.eval()(batch.inputs(3)).points, batch.points)
        return float(apart.min(dim=1).values.mean() + apart.min(dim=2).values.mean())

    start = distance()
    trained(method, batch, 60)
    assert distance() < 0.6 * start, (start, distance())
