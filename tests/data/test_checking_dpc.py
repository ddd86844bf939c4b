from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from recon3d.data.checking import check, main
from tests.data import dpc_files


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dpc")
    dpc_files.write_set(root, size=64)
    return root


@pytest.fixture
def root(official, tmp_path) -> Path:
    return shutil.copytree(official, tmp_path / "set")


def test_a_sound_set_in_the_official_files(official, tmp_path, capsys):
    report = check(official)
    assert report.ok
    assert [(row.category, row.split, row.objects, row.n_views, row.image_size) for row in report.splits] == [
        (name, split, count, 5, 64)
        for name, counts in (("airplane", (2, 1, 1)), ("car", (1, 1, 1)))
        for split, count in zip(("train", "val", "test"), counts, strict=True)
    ]
    assert all(min(row.fits["points"].inside, row.fits["points"].covered) > 0.98 for row in report.splits)
    assert report.splits[0].n_points == (9000, 9030)
    assert len(report.warnings) == 2 and all("the official ones" in line for line in report.warnings)
    assert "'train': 2831" in report.warnings[0]
    assert main(str(official), tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").is_file() and "ok" in capsys.readouterr().out


def rewrite(root: Path, change) -> None:
    for path in root.rglob("gt/**/*.mat"):
        scipy.io.savemat(path, {"points": change(scipy.io.loadmat(path)["points"])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points * [-1, 1, 1], "z of the shapes is negated"),
        (lambda points: points[:, [2, 1, 0]] * [1, 1, -1], "turned by (90|270) degrees"),
        (lambda points: points * [-1, 1, -1], "turned by 180 degrees"),
        (lambda points: points / 2, "check the scale"),
    ],
)
def test_a_wrong_frame_is_found_and_named(root, change, message):
    rewrite(root, change)
    problems = check(root).problems
    assert len(problems) == 6
    assert all(re.search(f"projected points .*({message})", line) for line in problems), problems


def test_mirrored_images_are_found(root):
    for path in root.rglob("render_*.png"):
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)
    assert all("images are mirrored" in line for line in check(root).problems) and not check(root).ok


def test_damage_is_listed_and_does_not_stop_the_check(root):
    (root / "renders/02691156/a0/render_1.png").write_bytes(b"no picture")
    (root / "renders/02958343/c1/camera_2.mat").unlink()
    (root / "gt/downsampled/02958343/c2.mat").unlink()
    report = check(root)
    problems = "\n".join(report.problems)
    assert len(report.problems) == 2
    assert "a0/render_1.png: not readable as an image" in problems and "c1: camera_2.mat is missing" in problems
    assert any("car test: 1 of 1 models have no ground-truth cloud, such as c2" in line for line in report.warnings)
    assert report.sheet is not None


def test_models_that_are_not_there(root):
    shutil.rmtree(root / "renders/02691156/a3")
    (problem,) = check(root).problems
    assert "1 of the 1 models on the test list are not there: a3" in problem
