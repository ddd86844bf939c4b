from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from recon3d.data.checking import check, locate, main
from recon3d.data.description import DESCRIPTION_FILE, write_description
from recon3d.data.nmr_layout import write_split
from recon3d.data.npz import DataFileError

IDS = ["a", "b"]


def corner(seed: int) -> np.ndarray:
    """Three arms of different length and thickness from one corner: no symmetry at all. Points fill the volume."""
    generator = np.random.default_rng(seed)
    arms = [((0.9, 0.15, 0.2), (0, 0, 0)), ((0.2, 0.6, 0.2), (0, 0, 0)), ((0.15, 0.2, 0.7), (0.1, 0, 0))]
    points = np.concatenate([generator.uniform(size=(2000, 3)) * size + start for size, start in arms])
    points -= (points.max(0) + points.min(0)) / 2
    return (points / np.ptp(points, axis=0).max()).astype(np.float32)


def nmr_image(points: np.ndarray, view: int, elevation: float = 30.0, size: int = 64) -> np.ndarray:
    """RGBA of a cloud by the official camera: NMR's own left-handed formulas, written out from its paper and code."""
    points = points * [1, 1, -1]  # object frame to NMR's
    e, a = np.deg2rad(elevation), np.deg2rad(-15 * view)
    eye = 2.732 * np.array([np.cos(e) * np.sin(a), np.sin(e), -np.cos(e) * np.cos(a)])
    z = -eye / np.linalg.norm(eye)
    x = np.cross([0, 1, 0], z)
    x /= np.linalg.norm(x)
    seen = (points - eye) @ np.stack([x, np.cross(z, x), z]).T
    screen = seen[:, :2] / seen[:, 2:] / np.tan(np.deg2rad(15))
    columns, rows = np.floor((1 + screen[:, 0]) * size / 2), np.floor((1 - screen[:, 1]) * size / 2)
    mask = np.zeros((size, size), bool)
    mask[rows.astype(int), columns.astype(int)] = True
    mask = ndimage.binary_closing(mask)
    return np.stack([mask * 200, mask * 120, mask * 80, mask * 255]).astype(np.uint8)


def voxels_of(points: np.ndarray) -> np.ndarray:
    grid = np.zeros((32, 32, 32), bool)
    x, y, z = np.floor(31 * points + 16).astype(int).T
    grid[y, x, z] = True
    return grid


CLOUDS = np.stack([corner(0), corner(1)])
IMAGES = np.stack([[nmr_image(cloud, view) for view in range(24)] for cloud in CLOUDS])
VOXELS = np.stack([voxels_of(cloud) for cloud in CLOUDS])
WHITE_BEHIND = np.where(IMAGES[:, :, 3:] == 0, np.uint8([255, 255, 255, 0])[:, None, None], IMAGES)
NORMALS = CLOUDS / np.linalg.norm(CLOUDS, axis=-1, keepdims=True)


def write(root: Path, split: str = "train", category: str = "chair", **changes) -> None:
    arrays = {"images": IMAGES, "voxels": VOXELS, "points": CLOUDS, "normals": NORMALS} | changes
    write_split(root, category, split, IDS, **arrays)


@pytest.fixture
def complete(tmp_path) -> Path:
    for split in ("train", "val", "test"):
        write(tmp_path, split)
    return tmp_path


def test_a_sound_data_set_has_no_findings(complete):
    write_description(complete, "corners", "longest_side", "made up", "1")
    report = check(complete)
    assert report.ok and not report.warnings
    assert [(row.category, row.split, row.objects) for row in report.splits] == [
        ("chair", split, 2) for split in ("train", "val", "test")
    ]
    row = report.splits[0]
    assert min(row.fits["points"].inside, row.fits["points"].covered) > 0.99
    assert min(row.fits["voxels"].inside, row.fits["voxels"].covered) > 0.98
    assert row.occupied == (VOXELS.sum((1, 2, 3)).min(), VOXELS.sum((1, 2, 3)).mean(), VOXELS.sum((1, 2, 3)).max())
    assert row.foreground == pytest.approx((IMAGES[:, :, 3] > 0).mean())


def test_a_sound_data_set_in_the_official_files(tmp_path):
    for split in ("train", "val", "test"):
        np.savez_compressed(tmp_path / f"03001627_{split}_images.npz", IMAGES)
        np.savez_compressed(tmp_path / f"03001627_{split}_voxels.npz", VOXELS)
    report = check(tmp_path)
    assert report.ok
    assert len(report.warnings) == 1 and "02691156 (airplane)" in report.warnings[0]


def test_120_views(tmp_path):
    images = np.stack([[nmr_image(CLOUDS[0], v, e) for e in (-60, -30, 0, 30, 60) for v in range(24)]])
    for split in ("train", "val", "test"):
        write_split(tmp_path, "chair", split, ["a"], images, VOXELS[:1])
    assert check(tmp_path).problems == []


REVERSED = [-view % 24 for view in range(24)]
MISTAKES: dict[str, tuple[str, Callable[[], dict[str, np.ndarray]]]] = {
    "mirrored images": ("images are mirrored", lambda: {"images": IMAGES[..., ::-1]}),
    "azimuth sign": ("azimuth runs the other way", lambda: {"images": IMAGES[:, REVERSED]}),
    "NMR's frame": (
        "z of the shapes is negated",
        lambda: {
            "points": CLOUDS * np.float32([1, 1, -1]),
            "voxels": np.stack([voxels_of(cloud * [1, 1, -1]) for cloud in CLOUDS]),
        },
    ),
    "ShapeNet's frame": (
        "turned by (90|270) degrees",
        lambda: {
            "points": CLOUDS[..., [2, 1, 0]] * np.float32([1, 1, -1]),
            "voxels": np.stack([voxels_of(cloud[:, [2, 1, 0]] * [1, 1, -1]) for cloud in CLOUDS]),
        },
    ),
    "voxels x y z": (r"indexed \[x, y, z\]", lambda: {"voxels": VOXELS.transpose(0, 2, 1, 3)}),
    "voxels z y x": (r"indexed \[z, y, x\]", lambda: {"voxels": VOXELS.transpose(0, 3, 1, 2)}),
    "shapes too small": ("check the scale", lambda: {"points": CLOUDS / 2}),
    "stray points": (
        "cover 100% of it.*check the scale",
        lambda: {
            "points": np.concatenate([CLOUDS, np.random.default_rng(2).uniform(-0.5, 0.5, CLOUDS.shape)], axis=1),
            "normals": np.tile(NORMALS, (1, 2, 1)),
        },
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_camera_or_frame_is_found_and_named(tmp_path, name):
    message, change = MISTAKES[name]
    write(tmp_path, **change())
    problems = [line for line in check(tmp_path).problems if not line.startswith("Missing")]
    kinds = change().keys() & {"points", "voxels"} or {"points", "voxels"}
    assert len(problems) == len(kinds)
    for kind in kinds:
        assert any(re.search(f"chair train: .*projected {kind} .*{message}", line) for line in problems), problems


def test_missing_files_by_name(complete):
    (complete / "chair_val_voxels.npz").unlink()
    (complete / "chair_test_points.npz").unlink()
    missing = check(complete).problems[0]
    assert missing.startswith("Missing") and {"chair_val_voxels.npz", "chair_test_points.npz"} <= set(
        missing.rstrip(".").replace(",", "").split()
    )
    for path in complete.glob("chair_val*"):
        path.unlink()
    assert "chair_val_images.npz, chair_val_voxels.npz" in check(complete).problems[0]


def test_missing_official_files_have_official_names(tmp_path):
    np.savez(tmp_path / "03001627_train_images.npz", IMAGES)
    np.savez(tmp_path / "03001627_train_voxels.npz", VOXELS)
    assert "03001627_val_images.npz, 03001627_val_voxels.npz" in check(tmp_path).problems[0]


def test_promises_of_the_description(complete):
    write_description(complete, "corners", "longest_side", "made up", "1")
    path = complete / DESCRIPTION_FILE
    written = json.loads(path.read_text())
    written["categories"]["sofa"] = {"train": 2}
    path.write_text(json.dumps(written))
    write(complete, "val", images=IMAGES[::-1], voxels=VOXELS[::-1], points=CLOUDS[::-1])
    problems = "\n".join(check(complete).problems)
    assert "sofa_train_images.npz" in problems and "changed after it was written" in problems


def test_mismatched_counts_and_damage_do_not_stop_the_check(complete):
    np.savez(complete / "chair_val_voxels.npz", VOXELS[:1])
    content = bytearray((complete / "chair_test_images.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (complete / "chair_test_images.npz").write_bytes(content)
    report = check(complete)
    problems = "\n".join(report.problems)
    assert "chair_val_voxels.npz: expected bool (2, 32, 32, 32) (2 objects" in problems
    assert "chair_test_images.npz: the content does not match its checksum" in problems
    assert [row.split for row in report.splits] == ["train"]


def changed(array: np.ndarray, index, value) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        ({"images": changed(IMAGES, (1, 3), 0)}, "warnings", "1 empty masks: chair/b/v03"),
        ({"images": changed(IMAGES, (1, slice(None), 3), 255)}, "problems", "no background in b;"),
        ({"images": IMAGES // 255}, "problems", "the largest are 0 and 1"),
        ({"images": WHITE_BEHIND}, "warnings", "255 of 255"),
        ({"voxels": changed(VOXELS, 0, False)}, "problems", "empty or full: a"),
        ({"voxels": changed(VOXELS, 1, True)}, "problems", "empty or full: b"),
        ({"points": changed(CLOUDS, (1, 5), 0.6)}, "problems", r"outside \[-0.5, 0.5\]\^3 or not finite: b"),
        ({"points": changed(CLOUDS, (0, 5), np.nan)}, "problems", "or not finite: a"),
        ({"normals": NORMALS * 2}, "problems", "not of length 1: a, b"),
        ({"images": IMAGES[:, :20]}, "problems", "expected 24 or 120 views, got 20"),
    ],
)  # fmt: skip
def test_values(tmp_path, change, where, message):
    write(tmp_path, **change)
    lines = [line for line in getattr(check(tmp_path), where) if not line.startswith("Missing")]
    assert any(re.search(f"chair train: .*{message}", line) for line in lines), lines


def test_files_that_do_not_go_together(complete):
    write(complete, "val", images=IMAGES[..., ::2, ::2])
    assert any("image_size differs between the files: [32, 64]" in line for line in check(complete).problems)


def test_contact_sheet_shows_the_outline_on_the_object(complete, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sheet.png"
    assert main(str(complete), out) == 0
    pixels = np.asarray(Image.open(out).convert("RGB")).astype(int)[
        :128, :128
    ]  # first picture: view 1 of the first object
    green = (pixels == (0, 255, 0)).all(-1)
    mask = np.kron(IMAGES[0, 1, 3] > 0, np.ones((2, 2), bool))
    edge = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask, iterations=3)
    assert green.sum() > 100 and (green & edge).sum() > 0.97 * green.sum()
    output = capsys.readouterr().out
    assert "sheet.png" in output and "ok" in output


def test_exit_status_and_name(complete, monkeypatch, capsys):
    monkeypatch.setenv("RECON3D_DATA", str(complete.parent))
    monkeypatch.chdir(complete)
    (complete / "chair_val_images.npz").unlink()
    assert main(complete.name) == 1
    assert "chair_val_images.npz" in capsys.readouterr().out.replace("\n", "")
    assert (complete / f"{complete.name}_contact_sheet.png").is_file()
    assert main("nowhere") == 1
    assert "no such folder" in capsys.readouterr().out.replace("\n", " ")


def test_a_data_set_is_found_by_the_name_in_its_description(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    folder = tmp_path / "mine-1-abc"
    folder.mkdir()
    (folder / "car_test_images.npz").touch()
    fields = {"layout": "nmr", "n_views": 24, "image_size": 64, "scale": "longest_side", "source": "", "version": "1"}
    description = {"name": "mine", "hash": "0", "categories": {}} | fields
    (folder / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "mine").mkdir()  # raw meshes lie under the plain name
    assert locate("mine") == folder
    assert locate(folder) == folder
    shutil.copytree(folder, tmp_path / "mine-2-def")
    with pytest.raises(DataFileError, match=r"2 data sets are named mine: .*mine-1-abc, .*mine-2-def"):
        locate("mine")
