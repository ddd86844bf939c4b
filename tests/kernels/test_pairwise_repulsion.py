import math

import numpy as np
import pytest
import torch

from recon3d.kernels import pairwise_repulsion
from tests.kernels import repulsion_oracle
from tests.kernels.repulsion_oracle import close, cloud, with_gradients

BACKENDS = ["reference", "numba"]
KERNELS = ["exp", "gauss"]
# Relative to the largest entry. A sum of hundreds of float32 terms is good to some of its last digits.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@every_backend
@every_kernel
@every_dtype
@pytest.mark.parametrize("theta", [0.05, 0.8])
def test_value_and_gradients_in_scalars(backend, kernel, dtype, theta):
    inputs = cloud(3, 40, dtype=dtype)
    found = with_gradients(inputs, theta, kernel, backend=backend)
    assert all(tensor.dtype == dtype for tensor in found)
    each = [repulsion_oracle.loops(*(t[b].double().numpy() for t in inputs), theta, kernel) for b in range(3)]
    value = torch.tensor([one[0] for one in each], dtype=torch.float64)
    assert float(value.abs().min()) > 1e-5
    gradients = [torch.tensor(np.stack([(b + 1) / 2 * each[b][i] for b in range(3)])) for i in (1, 2, 3)]
    close(found, [value, *gradients], TOLERANCE[dtype])


@every_backend
@every_kernel
@pytest.mark.parametrize("n", [2, 3, 1025, 2050])  # the last two: more than one block of rows
def test_value_and_gradients_by_autograd_through_the_matrix_of_pairs(backend, kernel, n):
    inputs = cloud(1, n, seed=n)
    theta = 0.5 if n < 10 else 0.1
    expected = with_gradients(inputs, theta, kernel, run=repulsion_oracle.matrix)
    assert float(expected[0].abs()) > 1e-4 and all(bool(gradient.any()) for gradient in expected[1:])
    close(with_gradients(inputs, theta, kernel, backend=backend), expected, 1e-11)


@every_backend
@every_kernel
def test_gradcheck(backend, kernel):
    inputs = [tensor.requires_grad_() for tensor in cloud(2, 9, seed=4)]
    assert bool((inputs[1] == 0).any()), "weights of 0 have a derivative too"
    assert torch.autograd.gradcheck(
        lambda *leaves: pairwise_repulsion(*leaves, 0.3, kernel, backend=backend), inputs, eps=1e-6, atol=1e-9
    )


@every_backend
@every_kernel
def test_two_points_by_hand(backend, kernel):
    # 3-4-5: distance 0.5, theta 0.25. Point 0 has the bias log 2, so the pair counts 2 + 1 times.
    xy = torch.tensor([[[0.0, 0.0], [0.3, 0.4]]], dtype=torch.float64)
    weight = torch.tensor([[0.5, 0.8]], dtype=torch.float64)
    bias = torch.tensor([[math.log(2), 0.0]], dtype=torch.float64)
    k = math.exp(-2.0) if kernel == "exp" else math.exp(-4.0)
    slope = k / 0.25 if kernel == "exp" else k * 2 * 0.5 / 0.25**2  # -dK/dd
    value, d_xy, d_weight, d_bias = with_gradients(
        (xy, weight, bias), 0.25, kernel, upstream=torch.ones(1), backend=backend
    )
    assert value.item() == pytest.approx(0.4 * 3 * k / 4, rel=1e-12)
    push = 0.4 * 3 * slope / 4
    # The loss falls where the points part: its gradient at point 0 points to point 1.
    assert d_xy[0].flatten().tolist() == pytest.approx([0.6 * push, 0.8 * push, -0.6 * push, -0.8 * push], rel=1e-12)
    assert d_weight[0].tolist() == pytest.approx([0.8 * 3 * k / 4, 0.5 * 3 * k / 4], rel=1e-12)
    assert d_bias[0].tolist() == pytest.approx([0.4 * 2 * k / 4, 0.4 * k / 4], rel=1e-12)


@every_backend
@every_kernel
@every_dtype
def test_coincident_points_count_fully_and_do_not_push_each_other(backend, kernel, dtype):
    ones = torch.ones(1, 2, dtype=dtype)
    pair = torch.full((1, 2, 2), 0.3, dtype=dtype)
    value, d_xy, d_weight, d_bias = with_gradients((pair, ones, 0 * ones), 0.1, kernel, backend=backend)
    assert value.item() == pytest.approx(2 / 4)
    assert not d_xy.any()
    assert d_weight[0].tolist() == pytest.approx([0.25, 0.25]) and d_bias[0].tolist() == pytest.approx([0.125, 0.125])
    # Among others, they are pushed by the others alone.
    xy, weight, bias = cloud(1, 30, seed=2, dtype=dtype)
    xy[:, 11] = xy[:, 10]
    xy[:, 21:25] = xy[:, 20:21]
    found = with_gradients((xy, weight, bias), 0.1, kernel, backend=backend)
    value, *gradients = repulsion_oracle.loops(*(t[0].double().numpy() for t in (xy, weight, bias)), 0.1, kernel)
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    expected = [torch.tensor([value]).double(), *(torch.tensor(gradient)[None] / 2 for gradient in gradients)]
    close(found, expected, TOLERANCE[dtype])


@every_backend
def test_the_whole_cloud_in_one_point(backend):
    xy = torch.full((1, 600, 2), -0.7)
    weight = torch.ones(1, 600)
    value, *gradients = with_gradients((xy, weight, 0 * weight), 0.05, "exp", backend=backend)
    assert value.item() == pytest.approx(599 / 600, rel=1e-5)
    assert not gradients[0].any() and all(bool(gradient.isfinite().all()) for gradient in gradients)


@every_backend
@every_dtype
def test_the_exponential_pushes_with_full_force_at_any_distance_but_zero(backend, dtype):
    # Its slope at 0 is 1 / theta; a distance that is rounded up near 0 would soften it.
    ones = torch.ones(1, 2, dtype=dtype)
    for distance in (1e-3, 1e-5, 1e-7):
        xy = torch.tensor([[[0.0, 0.0], [distance, 0.0]]], dtype=dtype)
        d_xy = with_gradients((xy, ones, 0 * ones), 0.05, "exp", upstream=1.0, backend=backend)[1]
        expected = 2 / 4 / 0.05 * math.exp(-distance / 0.05)
        assert d_xy[0, :, 0].tolist() == pytest.approx([expected, -expected], rel=1e-5)
        assert not d_xy[0, :, 1].any()


@every_backend
@every_kernel
def test_small_distances_far_from_the_origin_in_float32(backend, kernel):
    # |a|^2 + |b|^2 - 2 ab, as fast distance matrices have it, has no correct digit here.
    generator = torch.Generator().manual_seed(8)
    grid = 1 - torch.randint(0, 60, (1, 80, 2), generator=generator) * 2.0**-14
    weight, bias = torch.ones(1, 80), torch.rand(1, 80, generator=generator)
    found = with_gradients((grid, weight, bias), 1e-3, kernel, backend=backend)
    expected = with_gradients(
        (grid.double(), weight.double(), bias.double()), 1e-3, kernel, run=repulsion_oracle.matrix
    )
    close(found, expected, 1e-5)


@every_backend
@every_kernel
def test_far_points_have_no_part_in_it(backend, kernel):
    # Also where the square of their distance leaves the range of float32.
    xy, weight, bias = cloud(1, 20, seed=5, dtype=torch.float32)
    far = torch.tensor([[[1e6, 0.0], [-1e20, 3e19], [1e20, 1e20]]])
    together = torch.cat([xy, far], dim=1), torch.cat([weight, torch.ones(1, 3)], 1), torch.cat([bias, bias[:, :3]], 1)
    value, d_xy, d_weight, d_bias = with_gradients(together, 0.1, kernel, backend=backend)
    alone = with_gradients((xy, weight, bias), 0.1, kernel, backend=backend)
    share = (20 / 23) ** 2
    close((value, d_xy[:, :20], d_weight[:, :20], d_bias[:, :20]), [share * tensor for tensor in alone], 1e-5)
    assert not d_xy[:, 20:].any() and not d_weight[:, 20:].any() and not d_bias[:, 20:].any()


@every_backend
@every_kernel
def test_weights_of_zero_take_points_out_but_have_a_derivative(backend, kernel):
    xy, weight, bias = cloud(1, 24, seed=6)
    gone = weight == 0
    assert 0 < int(gone.sum()) < 24
    value, d_xy, d_weight, d_bias = with_gradients((xy, weight, bias), 0.2, kernel, backend=backend)
    moved = torch.where(gone.unsqueeze(-1), xy + 0.1, xy)
    assert with_gradients((moved, weight, bias), 0.2, kernel, backend=backend)[0].item() == pytest.approx(value.item())
    assert not d_xy[gone].any() and not d_bias[gone].any()
    step = 1e-6 * gone
    ends = [repulsion_oracle.matrix(xy, weight + sign * step, bias, 0.2, kernel) for sign in (1, -1)]
    slope = (ends[0] - ends[1]).item() / 2e-6 / 2  # the upstream gradient is 1/2
    assert abs(slope) > 1e-3 and float(d_weight[gone].sum()) == pytest.approx(slope, rel=1e-6)
    nothing = with_gradients((xy, torch.zeros_like(weight), bias), 0.2, kernel, backend=backend)
    assert not any(bool(tensor.any()) for tensor in nothing)


@every_backend
@every_kernel
@every_dtype
def test_no_points_one_point_and_no_clouds(backend, kernel, dtype):
    for b, n in ((2, 0), (0, 5), (0, 0), (3, 1)):
        inputs = torch.zeros(b, n, 2, dtype=dtype), torch.ones(b, n, dtype=dtype), torch.ones(b, n, dtype=dtype)
        value, *gradients = with_gradients(inputs, 0.1, kernel, backend=backend)
        assert value.shape == (b,) and value.dtype == dtype and not value.any()
        for gradient, tensor in zip(gradients, inputs, strict=True):
            assert gradient.shape == tensor.shape and gradient.dtype == dtype and not gradient.any()


@every_backend
@every_kernel
def test_the_order_of_the_points_does_not_matter(backend, kernel):
    inputs = cloud(2, 70, seed=7)
    value, *gradients = with_gradients(inputs, 0.1, kernel, backend=backend)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    permuted = with_gradients([tensor[:, order] for tensor in inputs], 0.1, kernel, backend=backend)
    close(permuted, [value, *(gradient[:, order] for gradient in gradients)], 1e-12)


@every_backend
@every_kernel
def test_a_common_shift_changes_nothing_and_a_common_scale_only_the_unit(backend, kernel):
    xy, weight, bias = cloud(1, 30, seed=9)
    value, d_xy, *others = with_gradients((xy, weight, bias), 0.1, kernel, backend=backend)
    close(with_gradients((xy + 0.25, weight, bias), 0.1, kernel, backend=backend), [value, d_xy, *others], 1e-12)
    scaled = with_gradients((32 * xy, weight, bias), 3.2, kernel, backend=backend)
    close(scaled, [value, d_xy / 32, *others], 1e-12)
    assert float(d_xy.sum(dim=1).abs().max()) < 1e-15, "action and reaction"


@every_backend
def test_the_mean_does_not_depend_on_how_many_points_there_are_of_one_density(backend):
    theta = 0.2
    # E K of two points of the unit square: for the Gaussian, the square of an integral over the unit interval.
    side = math.sqrt(math.pi) * theta * math.erf(1 / theta) - theta**2 * (1 - math.exp(-1 / theta**2))
    generator = torch.Generator().manual_seed(1)
    means = {}
    for n in (300, 1200):
        xy = torch.rand(16, n, 2, generator=generator)
        ones = torch.ones(16, n)
        value = {kernel: pairwise_repulsion(xy, ones, 0 * ones, theta, kernel, backend=backend) for kernel in KERNELS}
        means[n] = {kernel: float(value[kernel].mean()) for kernel in KERNELS}
        assert means[n]["gauss"] == pytest.approx((1 - 1 / n) * side**2, rel=0.02)
    assert means[300]["exp"] == pytest.approx(means[1200]["exp"], rel=0.02)
