from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from recon3d.losses.frechet import FeatureStatistics, FrechetLoss, covariance_root, feature_moments, frechet_distance


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    """Features (n, d) whose numbers are correlated, with means and scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + torch.randn(d, generator=generator)


def by_scipy(real: Tensor, fake: Tensor) -> float:
    """The distance by a matrix square root, for covariances of full rank."""
    a, b = real.numpy(), fake.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


def fitted(real: Tensor, **settings: object) -> FrechetLoss:
    loss = FrechetLoss(real.shape[1], **settings)  # type: ignore[arg-type]
    loss.fit(real.split(7))
    return loss


def test_is_that_of_scipy_by_samples_and_by_covariance():
    real, fake = normal(60, 6), normal(40, 6, seed=1)
    expected = by_scipy(real, fake)
    assert frechet_distance(fake, *feature_moments(real)).item() == pytest.approx(expected, rel=1e-9)
    root = covariance_root(real.T.cov())
    assert frechet_distance(fake, real.mean(dim=0), root).item() == pytest.approx(expected, rel=1e-9)
    assert fitted(real, normalized=False)(fake).item() == pytest.approx(expected, rel=1e-9)
    assert fitted(real)(fake).item() == pytest.approx(expected / real.T.cov().trace().item(), rel=1e-9)


def test_is_that_of_torchmetrics():
    class Flat(nn.Module):
        num_features = 12

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).double()

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(50, 3, 2, 2, generator=generator) * scale for scale in (1.0, 0.7))
    metric = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    ours = fitted(real.flatten(1), normalized=False)(fake.flatten(1))
    assert ours.item() == pytest.approx(metric.compute().item(), rel=1e-4)


def test_of_fewer_samples_than_features_is_that_of_the_symmetric_form():
    real, fake = normal(9, 20), normal(5, 20, seed=1)
    cov_r, cov_f = real.T.cov().numpy(), fake.T.cov().numpy()
    values, vectors = np.linalg.eigh(cov_r)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ cov_f @ root).clip(0)).sum()
    shift = (real.mean(dim=0) - fake.mean(dim=0)).square().sum().item()
    expected = shift + np.trace(cov_r) + np.trace(cov_f) - 2 * trace
    assert frechet_distance(fake, *feature_moments(real)).item() == pytest.approx(expected, rel=1e-5)
    assert fitted(real, normalized=False)(fake).item() == pytest.approx(expected, rel=1e-5)


def test_of_independent_features_is_the_closed_form():
    # Features with covariances diag(s^2) exactly: |mu|^2 + sum (s_1 - s_2)^2.
    white = normal(30, 4)
    white = torch.linalg.qr(white - white.mean(dim=0)).Q * 29**0.5
    here, there = torch.tensor([1.0, 2.0, 0.5, 0.0]), torch.tensor([3.0, 0.0, 0.5, 1.0])
    shift = torch.tensor([0.0, 1.0, 0.0, -2.0])
    found = frechet_distance(white * here + shift, *feature_moments(white * there))
    assert found.item() == pytest.approx(5 + 4 + 4 + 0 + 1)


def test_of_features_to_themselves_is_zero():
    for features in (normal(50, 8), normal(5, 30)):
        assert abs(fitted(features, shrinkage=0.1)(features).item()) < 1e-12
        assert abs(frechet_distance(features, *feature_moments(features)).item()) < 1e-12


def test_small_batches_are_biased_as_measured():
    # The fact sheet's figure for 192 independent features of variance 1, 16 samples of each side: 321.
    generator = torch.Generator().manual_seed(0)
    found = [
        frechet_distance(a, *feature_moments(b)).item() for a, b in torch.randn(8, 2, 16, 192, generator=generator)
    ]
    assert np.mean(found) == pytest.approx(321, rel=0.03)


@pytest.mark.parametrize(("m", "d", "shrinkage"), [(8, 3, 0.0), (4, 6, 0.0), (4, 6, 0.3), (8, 3, 1.0)])
def test_gradients_are_exact_at_every_rank(m, d, shrinkage):
    features, real = normal(m, d, seed=2).requires_grad_(), normal(5, d).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, r: frechet_distance(f, *feature_moments(r), shrinkage), (features, real))


def test_gradients_of_equal_features_are_finite():
    features = torch.ones(6, 4, requires_grad=True)
    for shrinkage in (0.0, 0.2):
        (gradient,) = torch.autograd.grad(fitted(normal(30, 4), shrinkage=shrinkage)(features), features)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.any()


def test_distances_refuse_what_does_not_fit():
    mean, root = feature_moments(normal(5, 3))
    with pytest.raises(ValueError, match=r"at least 2 rows, .* got \(1, 3\), \(3,\) and \(3, 5\)"):
        frechet_distance(normal(1, 3), mean, root)
    with pytest.raises(ValueError, match=r"got \(4, 3\), \(3,\) and \(5, 3\)"):
        frechet_distance(normal(4, 3), mean, root.T)


def test_covariance_roots_are_as_wide_as_the_rank():
    features = normal(5, 9)
    covariance = features.T.cov()
    root = covariance_root(covariance)
    assert root.shape == (9, 4)
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-12)
    assert covariance_root(covariance.float()).shape == (9, 4)
    shrunk = covariance_root(covariance, 0.25)
    expected = 0.75 * covariance + 0.25 * covariance.trace() / 9 * torch.eye(9)
    np.testing.assert_allclose(shrunk @ shrunk.T, expected, atol=1e-12)
    with pytest.raises(ValueError, match="the eigenvalue -1 "):
        covariance_root(torch.diag(torch.tensor([-1.0, 2.0])))
    with pytest.raises(ValueError, match=r"finite covariance \(d, d\)"):
        covariance_root(torch.full((2, 2), float("nan")))


def test_shrinkage_is_that_of_both_covariances():
    real, fake = normal(60, 5), normal(40, 5, seed=1)

    def shrunk(features: Tensor) -> np.ndarray:
        covariance = np.cov(features.numpy(), rowvar=False)
        return 0.8 * covariance + 0.2 * np.trace(covariance) / 5 * np.eye(5)

    a, b = shrunk(real), shrunk(fake)
    shift = (real.mean(dim=0) - fake.mean(dim=0)).square().sum().item()
    expected = shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert fitted(real, shrinkage=0.2, normalized=False)(fake).item() == pytest.approx(expected, rel=1e-9)


def test_statistics_of_batches_are_those_of_numpy():
    features = normal(50, 4) + 1e6  # where the mean of squares minus the square of the mean has lost its digits
    first, second = FeatureStatistics(4), FeatureStatistics(4)
    for batch in features[:30].split(7):
        first.update(batch)
    second.update(features[30:])
    second.update(features[:0])
    first.merge(second)
    assert first.count == 50
    np.testing.assert_allclose(first.mean, features.mean(dim=0), rtol=1e-14)
    np.testing.assert_allclose(first.covariance, np.cov(features.numpy() - 1e6, rowvar=False), rtol=1e-7, atol=1e-9)


def test_statistics_refuse_what_they_cannot_use():
    statistics = FeatureStatistics(3)
    statistics.update(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 features, got 1"):
        _ = statistics.covariance
    with pytest.raises(ValueError, match=r"finite features \(n, 3\), got \(2, 4\)"):
        statistics.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="finite features"):
        statistics.update(torch.full((2, 3), float("inf")))
    with pytest.raises(ValueError, match="of 3 features, got 4"):
        statistics.merge(FeatureStatistics(4))


def test_the_bank_holds_the_latest_rows_in_training():
    real, fake = normal(60, 4), normal(23, 4, seed=1).float()
    loss = fitted(real, bank=10, normalized=False)
    start = 0
    for size in (4, 5, 6, 8):  # wraps around within the third batch
        batch = fake[start : start + size]
        known = fake[max(0, start - 10) : start]
        expected = by_scipy(real, torch.cat([known, batch]).double()) if start + size > 4 else None
        found = loss(batch).item()
        assert expected is None or found == pytest.approx(expected, rel=1e-9)
        start += size
    loss.eval()
    values = [loss(fake[:5]).item() for _ in range(2)]
    assert values[0] == values[1] == pytest.approx(by_scipy(real, torch.cat([fake[13:23], fake[:5]]).double()))


def test_a_batch_larger_than_the_bank_leaves_its_end():
    loss = fitted(normal(30, 2), bank=3)
    loss(normal(4, 2))
    batch = normal(8, 2, seed=1).float()
    loss(batch)
    assert {tuple(row) for row in loss.rows.tolist()} == {tuple(row) for row in batch[-3:].tolist()}


def test_gradients_reach_the_live_rows_alone():
    loss = fitted(normal(60, 4), bank=8)
    early, late = normal(6, 4, seed=1).requires_grad_(), normal(6, 4, seed=2).requires_grad_()
    loss(early)
    loss(late).backward()
    assert early.grad is None and late.grad is not None and late.grad.any()
    # As that of these rows of the whole.
    whole = torch.cat([early.detach().float().double(), late.detach()]).requires_grad_()
    fitted(normal(60, 4))(whole).backward()
    assert whole.grad is not None
    torch.testing.assert_close(late.grad, whole.grad[6:], rtol=1e-9, atol=1e-12)


def test_few_rows_count_by_their_mean_alone():
    real, fake = normal(60, 4), normal(6, 4, seed=1)
    loss = fitted(real, covariance_from=5, normalized=False)
    expected = (real.mean(dim=0) - fake[:4].mean(dim=0)).square().sum().item()
    assert loss(fake[:4]).item() == pytest.approx(expected)
    assert loss(fake[:5]).item() > expected * 1.01
    single = fake[:1].requires_grad_()
    loss(single).backward()
    assert single.grad is not None and single.grad.isfinite().all()


def test_checkpoints_hold_the_statistics_and_the_bank():
    loss = fitted(normal(4, 6), bank=5)  # of rank 3
    loss(normal(4, 6, seed=1))
    other = FrechetLoss(6, bank=5)
    assert not other.is_fitted
    other.load_state_dict(loss.state_dict())
    fake = normal(3, 6, seed=2)
    assert other.is_fitted and other(fake).item() == loss(fake).item()


def test_new_statistics_empty_the_bank():
    loss = fitted(normal(30, 4), bank=5)
    loss(normal(4, 4, seed=1))
    real, fake = normal(30, 4, seed=3), normal(6, 4, seed=2)
    loss.set_statistics(real.mean(dim=0), real.T.cov())
    assert loss(fake).item() == pytest.approx(fitted(real)(fake).item())


def test_descending_it_moves_features_to_the_real_ones():
    real = normal(200, 3)
    loss = fitted(real)
    features = torch.zeros(32, 3, requires_grad=True)
    start = loss(features).item()
    optimizer = torch.optim.SGD([features], lr=3.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss(features).backward()
        optimizer.step()
    assert loss(features).item() < 1e-3 * start
    np.testing.assert_allclose(features.detach().T.cov(), real.T.cov(), atol=0.05)


def test_misuse_is_refused():
    with pytest.raises(RuntimeError, match=r"call fit\(\) with the features of the training images"):
        FrechetLoss(3)(normal(4, 3))
    with pytest.raises(ValueError, match=r"features \(m, 3\), got \(4, 5\)"):
        fitted(normal(9, 3))(normal(4, 5))
    with pytest.raises(ValueError, match="features that vary"):
        fitted(torch.ones(9, 3), shrinkage=0.5)
    with pytest.raises(ValueError, match=r"mean \(3,\) and a covariance \(3, 3\), got \(3,\) and \(2, 2\)"):
        FrechetLoss(3).set_statistics(torch.zeros(3), torch.eye(2))
    with pytest.raises(ValueError, match="at least 2 features, got 1"):
        FrechetLoss(3).fit([torch.zeros(1, 3)])
    for settings in ({"dim": 0}, {"bank": -1}, {"shrinkage": 1.5}, {"covariance_from": 1}):
        with pytest.raises(ValueError, match="FrechetLoss: expected dim >= 1"):
            FrechetLoss(**({"dim": 3} | settings))  # type: ignore[arg-type]


PROCESS = """
import sys, torch, torch.distributed as dist
from recon3d.losses.frechet import FrechetLoss
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
real, fake = torch.load(f"{folder}/features.pt")
loss = FrechetLoss(4, bank=6)
loss.fit([real])
rows = fake[3 * rank : 3 * rank + 3].requires_grad_()
value = loss(rows)
value.backward()
try:
    loss(fake[: 2 + rank])
except ValueError as error:
    message = str(error)
torch.save((value.detach(), rows.grad, loss.rows, message), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_rows_of_all_processes_count(tmp_path):
    real, fake = normal(40, 4), normal(6, 4, seed=1)
    torch.save((real, fake), tmp_path / "features.pt")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    live = fake.clone().requires_grad_()
    whole = fitted(real, bank=6)
    expected = whole(live)
    expected.backward()
    for rank in range(2):
        value, gradient, rows, message = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(value, expected.detach(), rtol=1e-9, atol=0)
        # Twice: DistributedDataParallel divides the sum over the processes by 2.
        torch.testing.assert_close(gradient, 2 * live.grad[3 * rank : 3 * rank + 3], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(rows, whole.rows)
        assert message.endswith("as many rows in each process, got [2, 3].")
