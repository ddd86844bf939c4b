from __future__ import annotations

import pytest
import torch

from recon3d.apps.doctor.kernels import CASES, check_kernels
from recon3d.kernels.listing import backends

TABLE = {"zbuffer": {"cpu": ["numba", "reference"], "cuda": []}}


def cases(numba: object) -> dict:
    def run(device: torch.device, backend: str) -> list[torch.Tensor]:
        if backend == "numba" and isinstance(numba, Exception):
            raise numba
        return [torch.tensor([1.0, 2.0 + (numba if backend == "numba" else 0.0)])]

    return {"zbuffer": run}


def test_every_kernel_is_run() -> None:
    assert CASES.keys() == backends().keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_backends_agree_and_the_case_sees_a_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON3D_BACKEND", raising=False)
    table = {name: {"cpu": backends()[name]["cpu"], "cuda": []}}
    (found,) = check_kernels(table=table)
    assert found.level == "ok" and "numba (default)" in found.text and "reference" in found.text
    # A case whose outputs are all zero would agree with anything.
    assert all(value.abs().max() > 0 for value in CASES[name](torch.device("cpu"), "reference"))


def test_a_backend_whose_library_is_missing_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON3D_BACKEND", raising=False)
    broken, rest = check_kernels(cases(ModuleNotFoundError("No module named 'numba'", name="numba")), TABLE)
    assert (broken.level, broken.essential) == ("problem", True)
    assert broken.remedy.endswith("-m pip install 'numba>=0.62'")
    assert rest.level == "ok" and rest.text == "reference"


def test_a_backend_that_is_wrong_or_crashes_has_its_cache_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON3D_BACKEND", raising=False)
    for fault, said in ((0.5, "differs from the reference by 0.25"), (SystemError("bad cache"), "SystemError")):
        broken, _ = check_kernels(cases(fault), TABLE)
        assert said in broken.text and broken.remedy.startswith("find recon3d -name '*.nb[ci]' -delete")
    broken, _ = check_kernels(cases(float("nan")), TABLE)
    assert broken.level == "problem"


def test_a_backend_that_is_not_asked_for_hinders_no_cpu_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON3D_BACKEND", "reference")
    broken, rest = check_kernels(cases(RuntimeError("no")), TABLE)
    assert not broken.essential and "reference (default)" in rest.text and "RECON3D_BACKEND asks" in rest.text


def test_a_backend_that_does_not_exist_hinders_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON3D_BACKEND", "triton")
    unknown, rest = check_kernels(cases(0.0), TABLE)
    assert unknown.essential and unknown.remedy == "unset RECON3D_BACKEND" and "does not exist" in unknown.text
    assert rest.level == "ok"
