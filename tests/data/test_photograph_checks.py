"""The data doctor on photographs in the layout of Pascal3D+: what is sound passes, what is not is named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image, ImageDraw
from scipy import ndimage

from recon3d.data.checking import check, locate, main
from recon3d.data.cropping import square_crop
from recon3d.data.pascal3d import Pascal3DDataModule
from tests.data import cub_files
from tests.data import pascal3d_files as files

PICTURES = {"train": ["car_imagenet\\n01_1.JPEG", "car_imagenet\\n01_2.JPEG"], "val": ["car_pascal\\2008_2.jpg"]}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("pascal3d")
    folder = root / "PASCAL3D+_release1.1"
    folder.mkdir()
    files.write_release(folder)
    for split, pictures in PICTURES.items():
        files.write_cmr(root, split, pictures)
    (root / "dataset.json").write_text(json.dumps({"name": "boxes", "kind": "cars"}))
    check(root)  # the silhouettes, once for all tests
    return root


@pytest.fixture
def root(official, tmp_path):
    return shutil.copytree(official, tmp_path / "pascal3d")


def of(report, annotations, split):
    (found,) = [one for one in report.photographs if (one.annotations, one.split) == (annotations, split)]
    return found


def change(path, **fields):
    """Rewrite fields of every struct of a file of CMR's."""
    content = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    for name, function in fields.items():
        for structs in content.values():
            for struct in structs.reshape(-1) if structs.dtype.names and name in structs.dtype.names else ():
                struct[name] = function(struct[name])
    scipy.io.savemat(path, content)


def test_a_sound_set(official):
    report = check(official)
    assert report.ok, report.problems
    assert [(one.annotations, one.split, one.objects, one.pictures) for one in report.photographs] == [
        ("cmr", "train", 2, 2),
        ("cmr", "val", 1, 1),
        ("release", "train", 5, 4),
        ("release", "val", 1, 1),
    ]
    cmr, release = of(report, "cmr", "train"), of(report, "release", "train")
    assert cmr.visible == 4 and release.visible == 3
    # Made without noise: the only error is that key points and cameras agree; boxes are those of the masks.
    assert cmr.error < 1e-6 and cmr.box > 0.9 and cmr.on_mask == 1
    assert release.error < 0.1  # the two models differ from their mean
    assert release.fit.inside > 0.8 and release.fit.covered > 0.98 and cmr.fit is None
    hashes = [Pascal3DDataModule(official, annotations=kind).data_hash() for kind in ("cmr", "release")]
    assert report.hash == ", ".join(hashes)


def test_the_contact_sheet_shows_key_points_under_their_projections(official):
    sheet = np.asarray(check(official).sheet).astype(int)
    assert sheet.shape == (4 * 142, 5 * 128, 3)
    options = {"struct_as_record": False, "squeeze_me": True}
    camera, car = (
        scipy.io.loadmat(official / f"{folder}/car_train.mat", **options)[name][0]
        for folder, name in (("sfm", "sfm_anno"), ("data", "images"))
    )
    box = car.bbox
    crop = square_crop(tuple(float(end) - 1 for end in (box.x1, box.y1, box.x2, box.y2)), 128)
    corner, scale = np.array([crop.left, crop.top]), 128 / crop.side
    assert scale > 2.5  # a pixel of the picture is more than the tolerance of a pixel of the tile
    marked = car.parts[:2, car.parts[2] > 0].T - 1
    seen = (camera.scale * camera.rot[:2] @ files.mean_shape()).T + camera.trans
    first = sheet[:128, :128]
    green, red = ((first == color).all(-1) for color in ((0, 255, 0), (255, 0, 0)))
    # Rings count pixels from 0, cameras from 1: every cross is one pixel of the picture right of and below its ring.
    for pixel in (0, 1, -1):
        rings, crosses = marks((marked - corner + pixel) * scale, (seen - corner + pixel) * scale)
        assert agree(green, rings) == agree(red, crosses) == (pixel == 0)
    visible = car.parts[2] > 0
    np.testing.assert_allclose(seen[visible] - marked, 1, atol=1e-9)
    assert ((first == (255, 255, 0)).all(-1)).sum() > 50


def marks(rings, crosses):
    """Pixels of rings and of crosses behind them, by their centres in a tile."""
    tile = Image.new("RGB", (128, 128))
    draw = ImageDraw.Draw(tile)
    for u, v in crosses:
        draw.line((u - 2, v, u + 2, v), fill=(255, 0, 0))
        draw.line((u, v - 2, u, v + 2), fill=(255, 0, 0))
    for u, v in rings:
        draw.ellipse((u - 2, v - 2, u + 2, v + 2), outline=(0, 255, 0))
    pixels = np.asarray(tile)
    return pixels[..., 1] > 0, pixels[..., 0] > 0


def agree(one, other):
    """Each pixel of one has one of the other, itself or a neighbour, and the reverse."""
    wide = [ndimage.binary_dilation(mask, np.ones((3, 3))) for mask in (one, other)]
    return bool(not (one & ~wide[1]).any() and not (other & ~wide[0]).any())


def test_exit_status_table_and_file(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sheet.png"
    assert main(str(root), out) == 0
    text = capsys.readouterr().out
    assert "release" in text and "green: key points" in text.replace("\n", " ") and "ok" in text
    assert Image.open(out).size == (640, 568)
    (root / "PASCAL3D+_release1.1/Images/car_pascal/2008_2.jpg").write_bytes(b"JFIF")
    assert main(str(root), out) == 1
    assert "2008_2.jpg: not readable as an image" in capsys.readouterr().out.replace("\n", "")
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    assert locate("pascal3d") == root and locate("boxes") == root


def test_official_counts_are_compared_where_nothing_says_that_the_set_is_another(root):
    (root / "dataset.json").unlink()
    report = check(root)
    assert "car cmr train: 2 objects, the official files have 4972." in report.warnings
    assert report.ok


def test_damaged_objects_are_named_and_the_others_examined(root):
    folder = root / "PASCAL3D+_release1.1"
    picture = folder / "Images/car_imagenet/n01_2.JPEG"
    Image.new("RGB", (30, 20)).save(picture)
    report = check(root)
    assert [line.split(": ")[0] for line in report.problems] == ["car_imagenet/n01_2"] * 2
    assert all("n01_2.JPEG: expected 64x48 pixels" in line for line in report.problems)
    assert of(report, "release", "train").visible == 3 and report.sheet is not None
    picture.unlink()
    assert any("n01_2.JPEG: no such picture" in line for line in check(root).problems)


def test_masks_and_boxes_that_are_not_of_one_object(root):
    path = root / "data/car_train.mat"
    change(path, mask=np.zeros_like)
    assert any("n01_1: the mask is empty. Take the object off" in line for line in check(root).problems)

    def corner(mask):
        mask = np.zeros_like(mask)
        mask[:4, :4] = 1
        return mask

    change(path, mask=corner)
    report = check(root)
    assert any("car cmr train: boxes and masks overlap by" in line for line in report.problems)
    assert any("2 objects with boxes unlike those of their masks: car_imagenet/n01_1" in w for w in report.warnings)

    def away(box):
        box["x1"], box["x2"] = 400, 420
        return box

    change(path, bbox=away)
    assert any("lies outside the picture" in line for line in check(root).problems)


def test_cameras_of_other_objects_and_mirrored_names(root):
    path = root / "sfm/car_train.mat"
    change(path, trans=lambda shift: shift + 30)
    assert any("expected 15% or less; are the files in one order" in line for line in check(root).problems)
    files.write_cmr(root, "train", PICTURES["train"])
    mirror = np.array(files.MIRROR) - 1
    change(root / "data/car_train.mat", parts=lambda parts: parts[:, mirror])
    assert any("when left and right change names: one of the two is mirrored" in line for line in check(root).problems)


def test_true_shapes_that_do_not_cover_the_masks(root):
    (mask,) = (root / "derived/masks/car_pascal").glob("2008_2_*.png")
    Image.fromarray(np.roll(np.asarray(Image.open(mask)), 12, axis=0)).save(mask)
    report = check(root)
    assert any("car release val: the projected true shapes cover" in line for line in report.problems)
    assert of(report, "release", "train").problems == []


def test_part_maps_are_read_where_there_is_a_folder_of_them(tmp_path):
    cub_files.write_cmr(tmp_path)
    maps = tmp_path / "scops/002.Beta_Bird"
    maps.mkdir(parents=True)
    values = np.random.default_rng(0).random((16, 16, 5)).astype(np.float32)
    for name in ("Beta_0004_40", "Beta_0005_50"):
        np.save(maps / f"{name}.npy", values)
    report = check(tmp_path)
    assert report.ok, report.problems
    lost = "bird cmr val: 1 objects with no part map, which parts: scops refuses: 002.Beta_Bird/Beta_0006_60."
    assert lost in report.warnings and not any("cmr test" in line and "part map" in line for line in report.warnings)
    np.save(maps / "Beta_0004_40.npy", 9 * values)  # logits
    (maps / "Beta_0005_50.npy").write_bytes(b"torn")
    problems = check(tmp_path).problems
    assert [line.split(": ")[0] for line in problems] == ["002.Beta_Bird/Beta_0004_40", "002.Beta_Bird/Beta_0005_50"]
    assert "are no part maps; take dcrf_prob" in problems[0] and "expected an .npy" in problems[1]


def test_a_part_that_is_missing_does_not_stop_the_rest(root):
    (root / "sfm/car_val.mat").unlink()
    report = check(root)
    assert any("sfm/car_val.mat: no such file" in line for line in report.problems)
    assert of(report, "cmr", "train").objects == 2 and of(report, "release", "val").objects == 1
    empty = root / "elsewhere"
    (empty / "PASCAL3D+_release1.1").mkdir(parents=True)
    assert any("no annotations of CUB or Pascal3D+ here" in line for line in check(empty).problems)


def test_a_damaged_description_of_another_set_does_not_stop_the_search(root, tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_DATA", str(tmp_path))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/dataset.json").write_text("{")
    assert locate("boxes") == root


def test_birds_in_both_kinds_of_files(tmp_path):
    cub_files.write_cmr(tmp_path)
    cub_files.write_release(tmp_path)
    report = check(tmp_path)
    assert report.ok, report.problems
    found = {(one.annotations, one.split): (one.objects, one.pictures) for one in report.photographs}
    assert found["cmr", "train"] == (4, 3) and found["cmr", "test"] == (2, 2)  # two birds on one picture
    assert found["cmr", "val"] == (1, 1)  # the other one is in test too
    assert found["release", "test"] == (3, 3)
    assert of(report, "cmr", "train").error < 1e-6 and of(report, "release", "test").error is None
    assert "bird cmr train: 4 objects, the official files have 5964." in report.warnings
    change(tmp_path / "sfm/anno_train.mat", rot=lambda matrix: matrix @ np.diag([-1.0, -1.0, 1.0]))
    assert any("bird cmr train: the cameras see the mean shape" in line for line in check(tmp_path).problems)
