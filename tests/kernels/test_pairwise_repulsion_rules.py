import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recon3d.kernels import pairwise_repulsion
from tests.kernels import repulsion_oracle
from tests.kernels.repulsion_oracle import close, cloud, with_gradients

BACKENDS = ["reference", "numba"]
KERNELS = ["exp", "gauss"]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@every_backend
@every_kernel
def test_only_what_is_asked_for_gets_a_gradient(backend, kernel):
    inputs = cloud(2, 15, seed=3)
    expected = with_gradients(inputs, 0.1, kernel, run=repulsion_oracle.matrix, upstream=torch.ones(2).double())
    for wanted in range(3):
        leaves = [tensor.clone().requires_grad_(index == wanted) for index, tensor in enumerate(inputs)]
        pairwise_repulsion(*leaves, 0.1, kernel, backend=backend).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == [index == wanted for index in range(3)]
        close([leaves[wanted].grad], [expected[1 + wanted]], 1e-12)
    value = pairwise_repulsion(*inputs, 0.1, kernel, backend=backend)
    assert not value.requires_grad
    close([value], expected[:1], 1e-12)


def test_a_second_derivative_is_refused_where_there_is_none():
    xy, weight, bias = cloud(1, 6)
    xy.requires_grad_()
    value = pairwise_repulsion(xy, weight, bias, 0.1, backend="numba").square().sum()
    (gradient,) = torch.autograd.grad(value, xy, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.square().sum().backward()


@every_backend
@every_kernel
def test_strided_input_is_read_as_it_is_indexed(backend, kernel):
    xy, weight, bias = cloud(2, 13)
    expected = with_gradients((xy, weight, bias), 0.1, kernel, backend=backend)
    xyz = torch.cat([xy, torch.full((2, 13, 1), 7.0)], dim=-1)
    views = xyz[..., :2], torch.stack([weight, bias], dim=-1)[..., 0], bias.t().contiguous().t()
    assert not any(view.is_contiguous() for view in views)
    value = pairwise_repulsion(*views, 0.1, kernel, backend=backend)
    close([value], expected[:1], 1e-12)
    leaf = xy.transpose(0, 1).contiguous().requires_grad_()
    one_weight = torch.ones(13, dtype=torch.float64)
    swapped = pairwise_repulsion(leaf.transpose(0, 1), one_weight.expand(2, 13), bias, 0.1, kernel, backend=backend)
    swapped.sum().backward()
    plain = with_gradients((xy, torch.ones_like(weight), bias), 0.1, kernel, upstream=1.0, backend=backend)
    close([leaf.grad.transpose(0, 1)], plain[1:2], 1e-12)


@every_backend
def test_inputs_stay_as_they_were(backend):
    inputs = cloud(2, 13)
    copies = [tensor.clone() for tensor in inputs]
    with_gradients(inputs, 0.1, "exp", backend=backend)
    assert all(torch.equal(one, other) for one, other in zip(inputs, copies, strict=True))


@every_backend
@every_kernel
def test_the_same_input_gives_the_same_bits(backend, kernel):
    inputs = cloud(3, 700, dtype=torch.float32)
    first = with_gradients(inputs, 0.05, kernel, backend=backend)
    again = with_gradients(inputs, 0.05, kernel, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    alone = with_gradients([t[1:2] for t in inputs], 0.05, kernel, upstream=1.0, backend=backend)
    close(alone, [tensor[1:2] for tensor in first], 1e-5)


@every_kernel
@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, kernel, count):
    inputs = cloud(count, 301, dtype=torch.float32)
    use_threads(1)
    one = with_gradients(inputs, 0.05, kernel, backend="numba")
    for threads in (2, 5, 400):
        use_threads(threads)
        other = with_gradients(inputs, 0.05, kernel, backend="numba")
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation under it makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@every_backend
def test_memory_is_linear_in_the_number_of_points(backend):
    # What torch allocates at a time, and what it keeps for the backward pass; the benchmark measures the rest.
    largest, kept = {}, {}
    for n in (4200, 6000):  # 2.04 times as many pairs
        leaves = [tensor.requires_grad_() for tensor in cloud(1, n, dtype=torch.float32)]
        saved = []
        with Largest() as seen, saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            pairwise_repulsion(*leaves, 0.05, backend=backend).sum().backward()
        largest[n], kept[n] = seen.elements, sum(saved)
    assert largest[6000] < 1.5 * largest[4200] and largest[6000] < 6000**2
    assert kept[6000] < 20 * 6000


def test_the_backend_is_chosen_as_for_other_kernels(monkeypatch):
    monkeypatch.delenv("RECON3D_BACKEND", raising=False)
    inputs = cloud(2, 50, dtype=torch.float32)
    default = pairwise_repulsion(*inputs, 0.1)
    assert torch.equal(default, pairwise_repulsion(*inputs, 0.1, backend="numba"))
    assert torch.equal(default, pairwise_repulsion(*inputs, 0.1, "exp"))
    with pytest.raises(ValueError, match="backend=triton does not exist; available on cpu: numba, reference"):
        pairwise_repulsion(*inputs, 0.1, backend="triton")
    monkeypatch.setenv("RECON3D_BACKEND", "triton")
    with pytest.raises(ValueError, match="RECON3D_BACKEND=triton does not exist"):
        pairwise_repulsion(*inputs, 0.1)


XY, ROW = torch.zeros(2, 5, 2), torch.zeros(2, 5)


@pytest.mark.parametrize(
    ("inputs", "theta", "kernel", "message"),
    [
        ((torch.zeros(5, 2), ROW, ROW), 0.1, "exp", r"xy.*\(B, N, 2\).*\(5, 2\)"),
        ((torch.zeros(2, 5, 3), ROW, ROW), 0.1, "exp", r"xy.*\(B, N, 2\).*\(2, 5, 3\)"),
        ((XY, torch.zeros(2, 4), ROW), 0.1, "exp", r"weight \(B, N\).*\(2, 4\)"),
        ((XY, torch.zeros(5), ROW), 0.1, "exp", r"weight.*\(5,\)"),
        ((XY, ROW, torch.zeros(2, 5, 1)), 0.1, "exp", r"bias.*\(2, 5, 1\)"),
        ((XY.half(), ROW.half(), ROW.half()), 0.1, "exp", "float32 or .*float64.*got.*float16"),
        ((XY.long(), ROW.long(), ROW.long()), 0.1, "exp", "float32 or .*float64.*got.*int64"),
        ((XY, ROW.double(), ROW), 0.1, "exp", "weight.*got.*float32.*float64"),
        ((XY, ROW, ROW.double()), 0.1, "exp", "bias.*got.*float32.*float64"),
        ((XY, ROW, ROW), 0.0, "exp", "theta.* 0.0"),
        ((XY, ROW, ROW), -0.1, "gauss", "theta.* -0.1"),
        ((XY, ROW, ROW), math.nan, "exp", "theta.* nan"),
        ((XY, ROW, ROW), 0.1, "gaussian", "kernel.*exp.*gauss.*gaussian"),
    ],
)
@every_backend
def test_bad_input_is_refused(inputs, theta, kernel, message, backend):
    with pytest.raises(ValueError, match=message):
        pairwise_repulsion(*inputs, theta, kernel, backend=backend)


@every_backend
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_and_infinity_are_refused(backend, which, value):
    inputs = cloud(4, 5)
    inputs[which][2, 3] = value
    with pytest.raises(ValueError, match=rf"{('xy', 'weight', 'bias')[which]}.*(NaN|inf)"):
        pairwise_repulsion(*inputs, 0.1, backend=backend)
