import pytest
import torch

from recon3d.kernels import soft_rgb, soft_silhouette, zbuffer
from recon3d.kernels.dispatch import choose_backend, environment_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BACKENDS = {"compiled": ("cpu",), "dense": ("cuda", "cpu"), "kernel": ("cuda",)}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("RECON3D_BACKEND", raising=False)


def test_the_device_decides_by_the_order_of_preference():
    assert choose_backend("op", CPU, BACKENDS) == "compiled"
    assert choose_backend("op", CUDA, BACKENDS) == "dense"
    assert choose_backend("op", CUDA, dict(reversed(BACKENDS.items()))) == "kernel"


def test_the_environment_beats_the_device_and_the_argument_beats_both(monkeypatch):
    monkeypatch.setenv("RECON3D_BACKEND", "dense")
    assert choose_backend("op", CPU, BACKENDS) == "dense"
    assert choose_backend("op", CPU, BACKENDS, "compiled") == "compiled"


def test_an_empty_variable_asks_for_nothing(monkeypatch):
    monkeypatch.setenv("RECON3D_BACKEND", "")
    assert environment_backend() is None
    assert choose_backend("op", CPU, BACKENDS) == "compiled"


def test_an_unknown_name_lists_what_is_available(monkeypatch):
    with pytest.raises(ValueError, match="op: backend=nmba does not exist; available on cpu: compiled, dense"):
        choose_backend("op", CPU, BACKENDS, "nmba")
    monkeypatch.setenv("RECON3D_BACKEND", "nmba")
    with pytest.raises(ValueError, match="op: RECON3D_BACKEND=nmba does not exist; available on cuda: dense, kernel"):
        choose_backend("op", CUDA, BACKENDS)


def test_a_backend_of_another_device_is_refused():
    with pytest.raises(ValueError, match="backend=kernel does not run on cpu; available on cpu: compiled, dense"):
        choose_backend("op", CPU, BACKENDS, "kernel")


def test_a_device_without_backends_is_refused():
    with pytest.raises(ValueError, match="op has no backend for device type 'mps'"):
        choose_backend("op", torch.device("mps"), BACKENDS)


@pytest.mark.parametrize(
    "call",
    [
        lambda **kw: soft_silhouette(torch.rand(1, 2, 3, 2), 4, 1e-3, **kw),
        lambda **kw: soft_rgb(torch.rand(1, 2, 3, 3) + 1, torch.rand(1, 2, 3, 3), 4, 1e-3, 1e-3, **kw),
        lambda **kw: zbuffer(torch.rand(1, 2, 3, 3) + 1, 4, **kw),
    ],
    ids=["soft_silhouette", "soft_rgb", "zbuffer"],
)
def test_kernels_ask_the_dispatcher(call, monkeypatch):
    with pytest.raises(ValueError, match="backend=triton does not exist; available on cpu: numba"):
        call(backend="triton")
    monkeypatch.setenv("RECON3D_BACKEND", "cuda_kernel")
    with pytest.raises(ValueError, match="RECON3D_BACKEND=cuda_kernel does not exist"):
        call()
    call(backend="reference")
