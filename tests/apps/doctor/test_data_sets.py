from __future__ import annotations

from pathlib import Path

import pytest
import torchvision.models
import yaml

from recon3d.apps.doctor.data_sets import LICENCES, WEIGHTS, check_data_sets, check_weights, weight_parameters

CONFIGS = Path(__file__).parents[3] / "configs"


def test_absent_data_sets_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    found = {one.subject: one for one in check_data_sets(CONFIGS)}
    assert set(found) == {path.stem for path in (CONFIGS / "data").glob("*.yaml")}
    assert not any(one.level == "problem" for one in found.values())
    assert found["synthetic"].level == "ok" and found["synthetic"].remedy.endswith("DATA=synthetic")
    assert "recon3d data open-shapes" in found["open_shapes"].remedy
    assert "docs/data/cub.md" in found["cub"].remedy and str(tmp_path / "cub") in found["cub"].text
    assert "shapenet.org" in found["shapenet"].remedy
    assert "differentiable-point-clouds" in found["shapenet_points"].remedy
    assert "docs/data/own_photographs.md" in found["image_folder"].remedy
    assert not any(tmp_path.iterdir())  # looking makes nothing


def test_every_data_set_has_a_licence() -> None:
    for path in (CONFIGS / "data").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["data"]["class_path"].rpartition(".")[2] in LICENCES, path.name


def test_a_data_set_that_is_there_and_one_that_is_broken(tmp_path: Path, nmr_root: Path) -> None:
    (tmp_path / "data").mkdir()
    folder = tmp_path / "empty_splits"
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing else")
    for name, root in (("there", nmr_root), ("broken", folder)):
        spec = {"class_path": "recon3d.data.shapenet.ShapeNetDataModule", "init_args": {"root": str(root)}}
        (tmp_path / "data" / f"{name}.yaml").write_text(yaml.safe_dump({"data": spec}))
    (tmp_path / "data" / "typo.yaml").write_text("data: {class_path: recon3d.data.shapenet.ShapeNetDataModul}")
    found = {one.subject: one for one in check_data_sets(tmp_path)}
    size = sum(path.stat().st_size for path in nmr_root.rglob("*") if path.is_file()) / 2**20
    assert found["there"].level == "ok" and f"{size:.1f} MiB" in found["there"].text
    assert found["broken"].level == "problem" and found["broken"].remedy == f"recon3d data check {folder}"
    assert found["typo"].level == "problem" and "ShapeNetDataModul" in found["typo"].text


def test_every_weight_file_that_the_configs_take_is_known() -> None:
    assert weight_parameters(CONFIGS).keys() == WEIGHTS.keys()


def test_weights_are_looked_for_and_named_with_their_source(tmp_path: Path) -> None:
    absent = {one.subject: one for one in check_weights(CONFIGS, (tmp_path,))}
    url = torchvision.models.VGG16_Weights.IMAGENET1K_V1.url
    vgg = absent[url.rpartition("/")[2]]
    assert vgg.level == "note" and vgg.remedy == f"curl -LO {url}"
    assert "Retrieval (--model.init_args.weights)" in vgg.text and "recon3d edit style" in vgg.text
    (tmp_path / vgg.subject).write_bytes(b"weights")
    there = {one.subject: one for one in check_weights(CONFIGS, (tmp_path,))}
    assert there[vgg.subject].level == "ok" and str(tmp_path / vgg.subject) in there[vgg.subject].text
