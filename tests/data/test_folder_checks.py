"""The data doctor on one's own pictures: what is sound passes; wrong masks, splits and cameras are found and named."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from recon3d.data.checking import check, main
from recon3d.data.image_folder import ImageFolderDataModule
from recon3d.data.visual_hull import carve
from recon3d.geometry.cameras import look_at_camera
from recon3d.renderers.hard import render_hard
from tests.data.image_folder_files import DISTANCE, FOV, HEIGHT, WIDTH, shape, view_angles, write_folder

VIEWS = 8
COLUMNS = ["image", "convention", *(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3)), "t1", "t2", "t3", "fx", "fy"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder") / "photos"
    write_folder(root, cameras=True, objects=3, views=VIEWS)
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "photos")


def rows(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((root / "cameras.csv").open(newline="")))


def write(root: Path, content: list[dict[str, object]]) -> None:
    with (root / "cameras.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)


def matrices(root: Path) -> list[tuple[str, np.ndarray]]:
    """The names and world-to-camera matrices (4, 4), OpenCV, of the look-at rows, by vectors."""
    found = []
    for row in rows(root):
        azimuth, elevation = np.radians(float(row["azimuth"])), np.radians(float(row["elevation"]))
        ahead = -np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
        right = np.cross(ahead, [0, 1, 0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3, :3] = [right, np.cross(ahead, right), ahead]
        matrix[2, 3] = float(row["distance"])
        found.append((row["image"], matrix))
    return found


def write_matrices(root: Path, convention: str, change=lambda matrix: matrix) -> None:
    focal = WIDTH / 2 / np.tan(np.radians(FOV / 2))
    content = []
    for name, matrix in matrices(root):
        changed = change(matrix)
        numbers = [name, convention, *changed[:3, :3].ravel(), *changed[:3, 3], focal, focal]
        content.append(dict(zip(COLUMNS, numbers, strict=True)))
    write(root, content)


GL = np.diag([1.0, -1, -1, 1])


def transposed(matrix):
    return np.block([[matrix[:3, :3].T, matrix[:3, 3:]], [matrix[3:]]])


def only_problem(root: Path) -> str:
    report = check(root)
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def test_a_sound_folder(root, tmp_path):
    report = check(root)
    assert report.ok and not report.splits, report.problems
    assert [(one.category, one.split, one.objects, one.images) for one in report.pictures] == [
        (category, split, 1, VIEWS) for category in ("car", "chair") for split in ("test", "train", "val")
    ]
    assert all(one.overlap is not None and one.overlap > 0.95 for one in report.pictures)
    assert all(one.sizes == ((WIDTH, HEIGHT),) * 2 and 0.05 < one.foreground < 0.3 for one in report.pictures)
    assert report.hash == ImageFolderDataModule(root).data_hash()
    assert report.sheet is not None
    assert main(str(root), tmp_path / "sheet.png") == 0
    assert Image.open(tmp_path / "sheet.png").size == report.sheet.size


def test_photographs(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos", cameras=False, objects=3)
    monkeypatch.chdir(tmp_path)
    assert main("photos/") == 0
    report = check(tmp_path / "photos")
    assert all(one.overlap is None for one in report.pictures) and not report.warnings
    assert (tmp_path / "photos_contact_sheet.png").is_file()


@pytest.mark.parametrize(
    ("convention", "change"), [("opencv", lambda matrix: matrix), ("opengl", lambda matrix: GL @ matrix)]
)
def test_matrices_are_as_good_as_angles(root, convention, change):
    write_matrices(root, convention, change)
    report = check(root)
    assert report.ok, report.problems
    assert all(one.overlap > 0.95 for one in report.pictures)


@pytest.mark.parametrize(
    ("convention", "change", "cause"),
    [
        ("opencv", lambda matrix: GL @ matrix, "from world to camera, opengl"),
        ("opengl", lambda matrix: matrix, "from world to camera, opencv"),
        ("opencv", np.linalg.inv, "from camera to world, opencv"),
        ("opencv", lambda matrix: np.linalg.inv(GL @ matrix), "from camera to world, opengl"),  # NeRF's files
        ("opencv", transposed, "transposed in their rotation, opencv"),
    ],
)
def test_a_wrong_convention_is_found_and_named(root, convention, change, cause):
    write_matrices(root, convention, change)
    problems = check(root).problems
    assert any("Cameras and masks disagree" in line and cause in line for line in problems), problems


def test_a_left_handed_world_is_refused(root):
    write_matrices(root, "opencv", lambda matrix: matrix @ np.diag([-1.0, 1, 1, 1]))
    assert "determinant is -1" in only_problem(root)


def test_left_handed_angles_are_found(root):
    write(root, [row | {"azimuth": -float(row["azimuth"])} for row in rows(root)])
    assert "mirrored, or the world is left-handed" in only_problem(root)


def test_elevations_that_count_downwards_are_found(root):
    write(root, [row | {"elevation": -float(row["elevation"])} for row in rows(root)])
    assert "elevations (the up axis) count downwards" in only_problem(root)


def test_a_view_with_another_camera_is_named(root):
    content = rows(root)
    wrong = next(row for row in content if row["image"] == "car/01/003.jpg")
    wrong["azimuth"] = str(float(wrong["azimuth"]) + 90)
    write(root, content)
    line = only_problem(root)
    assert line.startswith("car/01") and "Without car/01/003.jpg the others agree" in line


def test_rows_of_other_images_are_found(root):
    content = rows(root)
    names = [row["image"] for row in content]
    order = np.random.default_rng(0).permutation(len(names))
    write(root, [row | {"image": names[i]} for row, i in zip(content, order, strict=True)])
    assert any("No few views explain it" in line for line in check(root).problems)


def test_a_world_of_another_scale_is_found(root):
    write(root, [row | {"distance": 3 * DISTANCE} for row in rows(root)])
    problems = check(root).problems
    assert any(
        "In the cameras' world the objects lie about" in line and "expected the origin and 1" in line
        for line in problems
    )


def test_the_numbers_of_another_world_are_right(root):
    shift, size = np.array([2.0, -1.0, 0.5]), 4.0

    def change(matrix):  # x' = size x + shift
        moved = matrix.copy()
        moved[:3, 3] = size * matrix[:3, 3] - matrix[:3, :3] @ shift
        return moved

    write_matrices(root, "opencv", change)
    (line,) = [line for line in check(root).problems if "cameras' world" in line]
    place = [float(value) for value in line.split("about (")[1].split(")")[0].split(",")]
    assert np.abs(np.array(place) - shift).max() < 0.1 * size
    assert float(line.split("side of about ")[1].split(";")[0]) == pytest.approx(size, rel=0.15)


def test_what_is_trained_on_is_not_tested_on(root):
    splits = {
        item.name: split for (_, split), items in ImageFolderDataModule(root).folder.splits.items() for item in items
    }
    test, train = (
        next(n for n, s in splits.items() if s == split and n.startswith("car")) for split in ("test", "train")
    )
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(root / folder / train / f"000.{suffix}", root / folder / test / f"000.{suffix}")
    assert any("The same picture is in test and train" in line for line in check(root).problems)


def test_masks_that_are_empty_full_or_cut_are_named(root):
    folder = root / "masks" / "chair" / "01"
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "000.png")
    Image.new("L", (WIDTH, HEIGHT), 255).save(folder / "001.png")
    cut = Image.open(folder / "002.png")
    cut.paste(255, (0, 30, 40, 40))
    cut.save(folder / "002.png")
    report = check(root)
    assert any("chair/01/000.png: the mask is empty" in line for line in report.problems)
    assert any("chair/01/001.png: the mask covers the whole picture" in line for line in report.problems)
    assert any("touch the border" in line and "chair/01/002.jpg" in line for line in report.warnings)


def write_meshes(root: Path, change=lambda verts: verts) -> None:
    for category in ("car", "chair"):
        for number in range(3):
            verts, faces, _ = shape(category, number)
            path = root / "meshes" / category / f"{number:02d}.ply"
            path.parent.mkdir(parents=True, exist_ok=True)
            trimesh.Trimesh(change(verts.numpy()), faces.numpy(), process=False).export(path)


def test_true_meshes_fit(root):
    write_meshes(root)
    report = check(root)
    assert report.ok and all(one.covered > 0.97 for one in report.pictures), report.problems


def test_turned_meshes_are_found(root):
    write_meshes(root, lambda verts: verts[:, [2, 1, 0]] * [1, 1, -1])
    assert "turned by" in only_problem(root)


def test_the_hull_of_a_ball_is_a_little_larger():
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    azimuth, elevation = view_angles(12)
    cameras = look_at_camera(DISTANCE, elevation, azimuth, FOV / 2)
    verts = torch.tensor(ball.vertices).float().expand(12, -1, -1)
    masks = render_hard(verts, torch.tensor(np.array(ball.faces)), cameras, 64).mask[:, 0].numpy() >= 0.5
    hull = carve(masks, cameras)
    assert hull.overlap.min() > 0.97
    radius = hull.points.norm(dim=1)
    assert 0.4 <= radius.max() < 0.62  # above and below no view limits it
    assert radius[hull.points[:, 1].abs() < 0.1].max() < 0.45


def test_a_folder_without_masks_says_so(root):
    shutil.rmtree(root / "masks")
    assert "48 of 48 images have no mask" in only_problem(root)
