"""Data sets of configs/data: where each is looked for, whether it is there, and what brings it; and weight files.

The data modules themselves say where they look and how to get what is missing.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.models
import yaml

from recon3d.apps.doctor.finding import Finding, first_line
from recon3d.data.npz import DataFileError
from recon3d.evaluation.evaluator import Evaluator

OWN = "MIT, as recon3d"
# By class, because the licence belongs to what a data module reads, whatever a yaml calls it.
LICENCES: Mapping[str, str] = {
    "SyntheticDataModule": OWN,
    "SyntheticPointsDataModule": OWN,
    "SyntheticBirdsDataModule": OWN,
    "SyntheticCarsDataModule": OWN,
    "MeshFolderDataModule": "every mesh its own, in metadata.csv",
    "MeshFolderPointsDataModule": "every mesh its own, in metadata.csv",
    "ShapeNetDataModule": "ShapeNet's, to be accepted at shapenet.org",
    "ShapeNetPointsDataModule": "ShapeNet's, to be accepted at shapenet.org",
    "CUBDataModule": "non-commercial research and education",
    "Pascal3DDataModule": "pictures belong to their photographers; research",
    "ImageFolderDataModule": "yours",
}
# Parameter of a class of configs/methods, or of the evaluator: the torchvision weights that it is made for.
WEIGHTS: Mapping[str, str] = {
    "Retrieval.weights": "VGG16_Weights",
    "AdaptiveTextureUMR.frechet_weights": "Inception_V3_Weights",
    "AdaptiveTextureUMR.encoder_weights": "ResNet18_Weights",
    "AdaptiveTextureUMR.perceptual_weights": "AlexNet_Weights",
    "CMR.encoder_weights": "ResNet18_Weights",
    "CMR.perceptual_weights": "AlexNet_Weights",
    "Evaluator.fid_weights": "Inception_V3_Weights",
}
EDITS: Mapping[str, str] = {"recon3d edit style": "VGG16_Weights", "recon3d edit dream": "GoogLeNet_Weights"}


def check_data_sets(configs: Path) -> Iterator[Finding]:
    """A line for each yaml of ``configs/data``."""
    for path in sorted((configs / "data").glob("*.yaml")):
        yield _data_set(path)


def _data_set(path: Path) -> Finding:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
        module: Any = class_named(spec["class_path"])(**spec.get("init_args", {}))
    except Exception as error:  # a yaml of the user's may be wrong in any way, and the others still count
        text = f"{path} does not make a data module: {first_line(error)}"
        return Finding("data sets", path.stem, "problem", text, f"recon3d fit --config {path} --print_config")
    licence = LICENCES.get(type(module).__name__, "not known here")
    root: Path | None = getattr(module, "root", None)
    if root is None:
        return Finding("data sets", path.stem, "note", f"names no folder; licence: {licence}")
    if root.is_dir() and any(root.iterdir()):
        text = f"{root}, {_size(root)}; licence: {licence}"
        if wrong := _broken(module):
            return Finding("data sets", path.stem, "problem", f"{text}; {wrong}", f"recon3d data check {root}")
        return Finding("data sets", path.stem, "ok", text)
    text = f"not in {root}; licence: {licence}"
    make = f"make bench METHOD=mean_shape DATA={path.stem}"
    if hasattr(module, "version"):
        return Finding("data sets", path.stem, "ok", f"{text}; made on first use", make)
    meshes: Path | None = getattr(module, "meshes", None)
    if meshes is not None and meshes.is_dir():
        return Finding("data sets", path.stem, "ok", f"{text}; rendered from {meshes} on first use", make)
    page = re.search(r"docs/data/\w+\.md", path.read_text(encoding="utf-8"))
    fallback = f"put it into {root}; {page[0] if page else 'docs/data/README.md'} says what lies where"
    return Finding("data sets", path.stem, "note", text, _how_to_get(module) or fallback)


def class_named(class_path: str) -> Any:
    """The class of a ``class_path`` of a yaml."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _broken(module: Any) -> str:
    """What is wrong with a folder that is there, as far as a glance shows; empty if nothing."""
    try:
        getattr(module, "inventory", None)
    except DataFileError as error:
        return first_line(error)
    return ""


def _how_to_get(module: Any) -> str:
    """What the data module itself says where its files are missing; empty if nothing."""
    if getattr(module, "how_to_get", ""):
        return str(module.how_to_get)
    try:
        if hasattr(module, "meshes"):
            module.prepare_data()  # makes nothing where there are no meshes: it says how to get them
        getattr(module, "inventory", None)
    except DataFileError as error:
        return str(error)
    return ""


def _size(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def weight_parameters(configs: Path) -> dict[str, str]:
    """``Class.parameter`` of every weight file that a method of ``configs``, or the evaluator, takes, and its flag."""
    found = {f"Evaluator.{name}": f"--evaluator.{name}" for name in _path_parameters(Evaluator)}
    for path in sorted((configs / "methods").glob("*.yaml")):
        method = class_named(yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["class_path"])
        found |= {f"{method.__name__}.{name}": f"--model.init_args.{name}" for name in _path_parameters(method)}
    return found


def _path_parameters(method: Any) -> list[str]:
    parameters = inspect.signature(method).parameters.values()
    return [one.name for one in parameters if one.name.endswith("weights") and "Path" in str(one.annotation)]


def check_weights(configs: Path, folders: tuple[Path, ...] | None = None) -> Iterator[Finding]:
    """A line for each file of ImageNet weights: what asks for it and whether it lies where one would look.

    Nothing here needs them to run: without, networks have random weights of a fixed seed, and results are other ones.

    Args:
        configs: folder of the configurations.
        folders: where to look; None is here and torch's own cache.
    """
    folders = (Path(), Path(torch.hub.get_dir()) / "checkpoints") if folders is None else folders
    users: dict[str, list[str]] = {}
    for parameter, flag in weight_parameters(configs).items():
        if parameter in WEIGHTS:
            users.setdefault(WEIGHTS[parameter], []).append(f"{parameter.partition('.')[0]} ({flag})")
    for command, weights in EDITS.items():
        users.setdefault(weights, []).append(f"{command} (--weights)")
    for weights, wanted in sorted(users.items()):
        url = getattr(torchvision.models, weights).IMAGENET1K_V1.url
        name = url.rpartition("/")[2]
        text = f"for {', '.join(wanted)}"
        there = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if there is not None:
            yield Finding("weights", name, "ok", f"{there}; {text}")
        else:
            yield Finding("weights", name, "note", f"not found; {text}", f"curl -LO {url}")
