from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from recon3d.apps.doctor.finding import Finding
from recon3d.apps.doctor.packages import MALICIOUS, PURPOSE, check_environment, check_libraries, check_packages

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
LINES = ["numpy<2.4,>=2.0", "lightning<3,>=2.6.6", 'onnxruntime>=1.20; extra == "background"']


def findings(versions: Mapping[str, str | None]) -> dict[str, Finding]:
    return {one.subject: one for one in check_packages(LINES, versions.get)}


def test_versions_in_their_bounds_are_well() -> None:
    found = findings({"numpy": "2.3.5", "lightning": "2.6.6", "onnxruntime": "1.31"})
    assert {one.level for one in found.values()} == {"ok"}
    assert set(found) == {"numpy", "lightning", "background"}


@pytest.mark.parametrize(("version", "said"), [("2.4.0", "2.4.0, expected"), ("1.26", "1.26, expected"), (None, "not")])
def test_a_wrong_version_comes_with_the_command_that_mends_it(version: str | None, said: str) -> None:
    found = findings({"numpy": version, "lightning": "2.6.6"})["numpy"]
    assert (found.level, found.essential) == ("problem", True)
    assert found.text.startswith(said)
    asked = re.search(r"-m pip install (?:-c constraints.txt )?'(.+)'$", found.remedy)
    assert asked is not None
    assert Requirement(asked[1]).specifier == Requirement(LINES[0]).specifier


@pytest.mark.parametrize("version", sorted(MALICIOUS["lightning"]))
def test_a_malicious_release_is_called_one(version: str) -> None:
    found = findings({"numpy": "2.3.5", "lightning": version})["lightning"]
    assert found.level == "problem" and "malicious" in found.text and "key" in found.text
    # Our own bounds never let it in.
    bounds = [Requirement(line) for line in PYPROJECT["dependencies"]]
    assert all(not one.specifier.contains(version) for one in bounds if one.name == "lightning")


def test_an_absent_extra_is_a_note_and_an_outdated_one_a_problem() -> None:
    absent = findings({"numpy": "2.3.5", "lightning": "2.6.6"})["background"]
    assert absent.level == "note" and absent.remedy.endswith("-m pip install -e '.[background]'")
    assert "--remove-background" in absent.text
    old = findings({"numpy": "2.3.5", "lightning": "2.6.6", "onnxruntime": "1.19"})["background"]
    assert (old.level, old.essential) == ("problem", False) and "1.19, expected onnxruntime>=1.20" in old.text


def test_the_installed_metadata_is_what_is_read() -> None:
    found = {one.subject for one in check_packages()}
    names = {Requirement(line).name for line in PYPROJECT["dependencies"]}
    assert found == names | set(PYPROJECT["optional-dependencies"]) | {"python"}


def test_every_extra_has_a_purpose() -> None:
    assert set(PURPOSE) == set(PYPROJECT["optional-dependencies"])


def test_a_library_that_does_not_load_is_installed_again() -> None:
    def load(name: str) -> object:
        if name == "pytorch3d._C":
            raise ImportError("_C.so: undefined symbol: _ZN2at4meanE\nand more")
        return object()

    found = {one.subject: one for one in check_libraries(load)}
    broken = found["pytorch3d._C"]
    assert broken.essential and broken.text == "does not load: ImportError: _C.so: undefined symbol: _ZN2at4meanE"
    assert re.search(r"pip install --force-reinstall --no-deps easypytorch3d==\d", broken.remedy)
    assert found["torch"].level == "ok"


def test_environment_variables_that_hurt(tmp_path: Path) -> None:
    environment = {
        "RECON3D_DATA": str(tmp_path / "gone"),
        "OMP_NUM_THREADS": "64",
        "NUMBA_NUM_THREADS": "2",
        "NUMBA_DISABLE_JIT": "1",
    }
    found = [one for one in check_environment(environment, cores=4) if one.level != "ok"]
    assert {one.subject: one.remedy for one in found} == {
        "RECON3D_DATA": f"mkdir -p {tmp_path / 'gone'}",
        "OMP_NUM_THREADS": "export OMP_NUM_THREADS=4",
        "NUMBA_DISABLE_JIT": "unset NUMBA_DISABLE_JIT",
    }
    assert all(one.level == "ok" for one in check_environment({}, cores=4))
