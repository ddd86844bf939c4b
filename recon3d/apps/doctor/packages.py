"""Installed versions against what the project's metadata asks for: dependencies, extras, Python, PyTorch3D's library.

All names and bounds come from the metadata that pip wrote from pyproject.toml.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recon3d.apps.doctor.finding import Finding, first_line

PROJECT = "recon3d"
# Releases of a stolen account, withdrawn from the index. A machine that ran one has given its secrets away.
MALICIOUS: Mapping[str, frozenset[str]] = {"lightning": frozenset({"2.6.2", "2.6.3"})}
PURPOSE: Mapping[str, str] = {
    "wandb": "logging to W&B and `recon3d dashboard`",
    "tensorboard": "the logger of configs/logger/tensorboard.yaml",
    "poisson": "Open3D's Poisson reconstruction beside ours",
    "background": "`recon3d predict --remove-background`",
    "open-shapes": "`recon3d data open-shapes`",
}

Installed = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def python_command() -> str:
    """The running interpreter as one would type it here."""
    executable = Path(sys.executable)
    here = Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else str(executable)


def check_packages(
    requirements: Iterable[str] | None = None, installed: Installed = installed_version
) -> Iterator[Finding]:
    """Python, every dependency and every extra.

    Args:
        requirements: lines as in the metadata (PEP 508); None reads them.
        installed: version by distribution name.
    """
    if requirements is None:
        try:
            requirements = metadata.requires(PROJECT) or []
        except metadata.PackageNotFoundError:
            yield Finding("versions", PROJECT, "problem", "is not installed: no metadata", "make setup", True)
            return
        yield _python(metadata.metadata(PROJECT)["Requires-Python"])
    parsed = [Requirement(line) for line in requirements]
    for requirement in parsed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _dependency(requirement, installed)
    for extra in sorted({name for requirement in parsed for name in _extras(requirement)}):
        yield _extra(extra, [one for one in parsed if extra in _extras(one)], installed)


def _python(asked: str) -> Finding:
    version = platform.python_version()
    if SpecifierSet(asked).contains(version, prereleases=True):
        return Finding("versions", "python", "ok", f"{version}, in {asked}")
    remedy = "make clean && make setup PYTHON=python3.11"
    return Finding("versions", "python", "problem", f"{version}, expected {asked}", remedy, True)


def _extras(requirement: Requirement) -> set[str]:
    """Names of the extras that bring the requirement on this platform."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return set()
    quoted = str(requirement.marker).split('extra == "')[1:]
    names = {text.split('"')[0] for text in quoted}
    return {name for name in names if requirement.marker.evaluate({"extra": name})}


def _bounds(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _dependency(requirement: Requirement, installed: Installed) -> Finding:
    name, version = requirement.name, installed(requirement.name)
    constraints = "-c constraints.txt " if Path("constraints.txt").exists() else ""
    remedy = f"{python_command()} -m pip install {constraints}'{_bounds(requirement)}'"
    if version is None:
        return Finding("versions", name, "problem", f"not installed, expected {_bounds(requirement)}", remedy, True)
    if version in MALICIOUS.get(name, ()):
        text = f"{version} is a malicious release; change every key and token that this machine could read"
        return Finding("versions", name, "problem", text, remedy, True)
    if not requirement.specifier.contains(version, prereleases=True):
        text = f"{version}, expected {requirement.specifier}"
        return Finding("versions", name, "problem", text, remedy, True)
    return Finding("versions", name, "ok", f"{version}, in {requirement.specifier}")


def _extra(extra: str, requirements: list[Requirement], installed: Installed) -> Finding:
    remedy = f"{python_command()} -m pip install -e '.[{extra}]'"
    versions = {requirement: installed(requirement.name) for requirement in requirements}
    found = ", ".join(f"{one.name} {version}" for one, version in versions.items() if version)
    purpose = PURPOSE.get(extra, "")
    absent = [one.name for one, version in versions.items() if version is None]
    if absent:
        text = f"{', '.join(absent)} not installed{f'; for {purpose}' if purpose else ''}"
        return Finding("extras", extra, "note", text, remedy)
    outside = [one for one, version in versions.items() if not one.specifier.contains(version or "", prereleases=True)]
    if outside:
        text = f"{found}, expected {', '.join(_bounds(one) for one in outside)}"
        return Finding("extras", extra, "problem", text, remedy)
    return Finding("extras", extra, "ok", found)


def check_libraries(load: Callable[[str], object] = importlib.import_module) -> Iterator[Finding]:
    """Compiled libraries that may be installed and yet not load, and what torch brings along."""
    for name, package in (("torch", "torch"), ("pytorch3d._C", "easypytorch3d"), ("numba", "numba")):
        try:
            load(name)
        except (ImportError, OSError) as error:
            remedy = f"{python_command()} -m pip install --force-reinstall --no-deps {package}=={_pin(package)}"
            yield Finding("versions", name, "problem", f"does not load: {first_line(error)}", remedy, True)
        else:
            yield Finding("versions", name, "ok", "loads")
    triton = installed_version("triton")
    text = f"{triton}, as torch brought it" if triton else "not installed; no kernel here needs it"
    yield Finding("versions", "triton", "ok", text)


def _pin(package: str) -> str:
    """The version to install: the one that is there, else the one of the metadata."""
    found = installed_version(package)
    if found:
        return found
    pins = [Requirement(line) for line in metadata.requires(PROJECT) or []]
    return next((str(pin.specifier).removeprefix("==") for pin in pins if pin.name == package), "*")


def check_environment(environment: Mapping[str, str] = os.environ, cores: int | None = None) -> Iterator[Finding]:
    """Environment variables that change what runs do, and those that are likely mistakes."""
    cores = cores or len(os.sched_getaffinity(0))
    topic = "environment"
    for name, absent in {
        "RECON3D_DATA": "not set: data sets lie in ./datasets",
        "RECON3D_BACKEND": "not set: the default backends",
        "WANDB_MODE": "not set: `make bench WANDB=1` is online where W&B finds a key, else offline",
        "CUDA_VISIBLE_DEVICES": "not set: all GPUs",
    }.items():
        value = environment.get(name)
        yield Finding(topic, name, "ok", value if value else absent)
    data = environment.get("RECON3D_DATA")
    if data and not Path(data).is_dir():
        remedy = f"mkdir -p {data}"
        yield Finding(topic, "RECON3D_DATA", "problem", f"{data} is no folder", remedy)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = environment.get(name)
        if value is None:
            yield Finding(topic, name, "ok", f"not set: {cores} threads")
        elif not value.isdigit() or not 1 <= int(value) <= cores:
            text = f"{value}, but this process may use {cores} cores"
            yield Finding(topic, name, "note", text, f"export {name}={cores}")
        else:
            yield Finding(topic, name, "ok", f"{value} of {cores} cores")
    if environment.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        text = "set: the compiled kernels run as Python, a thousand times slower"
        yield Finding(topic, "NUMBA_DISABLE_JIT", "problem", text, "unset NUMBA_DISABLE_JIT")
