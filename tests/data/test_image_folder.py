"""One's own pictures: pixels against pinhole arithmetic, splits, content hash, image modes, errors, and training."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from lightning import Trainer
from PIL import Image
from scipy.spatial.transform import Rotation

from recon3d.data.image_folder import ImageFolderDataModule, evaluation_views
from recon3d.data.npz import DataFileError
from recon3d.geometry.cameras import project
from recon3d.kernels.voxelize import voxelize
from recon3d.methods.adaptive_texture import AdaptiveTextureUMR
from recon3d.methods.softras import SoftRasMesh
from tests.conftest import TINY_MESH, TINY_NETWORKS
from tests.data.image_folder_files import HEIGHT, WIDTH, write_folder

SIZE = 64
DOTS = np.array([[0.3, 0.1, 0.2], [-0.3, 0.25, 0.1], [0.05, -0.35, -0.3]])  # red, green, blue
FOCAL, CENTER = (110.0, 110.0), (54.5, 40.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders with and without cameras, prepared once; not to be changed."""
    roots = {}
    for cameras in (True, False):
        roots[cameras] = tmp_path_factory.mktemp("folder") / "photos"
        write_folder(roots[cameras], cameras, objects=3, views=4)
        module = ImageFolderDataModule(roots[cameras])
        module.prepare_data()
    return roots


@pytest.fixture
def views(written, tmp_path):
    return shutil.copytree(written[True], tmp_path / "views")


@pytest.fixture
def photographs(written, tmp_path):
    return shutil.copytree(written[False], tmp_path / "photographs")


def table(root: Path) -> list[list[str]]:
    return list(csv.reader((root / "cameras.csv").open(newline="")))


def write_table(root: Path, rows) -> None:
    csv.writer((root / "cameras.csv").open("w", newline="")).writerows(rows)


def batches(root: Path, stage: str = "fit", **options):
    module = ImageFolderDataModule(root, batch_size=2, **options)
    module.prepare_data()
    module.setup(stage)
    return list(module.train_dataloader() if stage == "fit" else module.test_dataloader())


def prepare(root: Path, **options) -> ImageFolderDataModule:
    module = ImageFolderDataModule(root, **options)
    module.prepare_data()
    return module


# Cameras: dots at known places, painted by pinhole arithmetic.


def look_at(azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """World-to-camera matrix (3, 4) in OpenCV's convention, azimuth 0 on +Z, by SciPy's rotations."""
    upright = Rotation.from_euler("x", 180, degrees=True) * Rotation.from_euler("xy", [elevation, 0], degrees=True)
    rotation = upright * Rotation.from_euler("y", -azimuth, degrees=True)
    return np.concatenate([rotation.as_matrix(), [[0], [0], [distance]]], axis=1)


def paint(root: Path, name: str, matrix: np.ndarray, focal, center, size) -> None:
    """Red, green and blue dots where the camera sees `DOTS`, and a mask of them."""
    seen = DOTS @ matrix[:, :3].T + matrix[:, 3]
    places = seen[:, :2] / seen[:, 2:] * focal + center
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    near = np.stack([np.hypot(columns - x, rows - y) < 4 for x, y in places], axis=2)
    for folder, pixels in (("images", near), ("masks", near.any(axis=2))):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8) * 255).save(path)


ANGLES = [(float(azimuth), 10.0 + 20 * (azimuth % 3), 2.5) for azimuth in (0, 40, 130, 250)]
HEADER = ["image", "convention", *(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3)), "t1", "t2", "t3", "fx", "fy"]


@pytest.mark.parametrize("convention", ["look_at", "opencv", "opengl"])
def test_cameras_see_points_where_the_pictures_show_them(tmp_path, convention):
    fov = 2 * np.degrees(np.arctan(WIDTH / 2 / FOCAL[0]))
    rows = [["image", "convention", "azimuth", "elevation", "distance", "fov"]]
    center = CENTER
    if convention == "look_at":
        center = (WIDTH / 2, HEIGHT / 2)
    else:
        rows = [[*HEADER, "cx", "cy"]]
    for item in "abc":
        for view, angles in enumerate(ANGLES):
            name, matrix = f"things/{item}/{view}", look_at(*angles)
            paint(tmp_path, name, matrix, FOCAL, center, (WIDTH, HEIGHT))
            if convention == "look_at":
                rows.append([f"{name}.png", convention, *angles, fov])
                continue
            if convention == "opengl":
                matrix = matrix * np.array([[1], [-1], [-1]])
            numbers = [*matrix[:, :3].ravel(), *matrix[:, 3], *FOCAL, *center]
            rows.append([f"{name}.png", convention, *numbers])
    write_table(tmp_path, rows)
    (batch,) = batches(tmp_path, "test", image_size=SIZE, test_views=4)[:1]
    seen = project(batch.cameras, torch.from_numpy(DOTS).float())[..., :2]
    places = (1 - seen) * SIZE / 2  # columns, rows from the corner
    middle = torch.arange(SIZE) + 0.5
    for color in range(3):
        weight = batch.images[:, :, color] * batch.masks[:, :, 0]
        total = weight.sum(dim=(2, 3))
        assert total.min() > 3  # the dot is in every picture
        found = torch.stack([(weight.sum(2) * middle).sum(-1) / total, (weight.sum(3) * middle).sum(-1) / total], -1)
        assert (found - places[:, :, color]).norm(dim=-1).max() < 0.35


def test_views_are_framed_as_renders(views):
    batch = batches(views, "test", image_size=SIZE)[0]
    assert (batch.cameras.center == 0).all() or batch.cameras.center.abs().max() < 1e-5
    per_unit = batch.cameras.focal / batch.cameras.T[..., 2:]
    assert torch.allclose(per_unit, torch.tensor(1 / np.tan(np.radians(15)) / 2.732).float(), rtol=1e-5)
    outside = batch.masks.expand_as(batch.images) == 0
    assert (batch.images[outside] == 0).all() and batch.images.max() > 0.5


# Splits, views, hash.


def test_objects_are_in_one_split_each(views):
    module = prepare(views)
    found = {key: {item.name for item in objects} for key, objects in module.folder.splits.items()}
    assert set(found) == {(category, split) for category in ("car", "chair") for split in ("train", "val", "test")}
    assert sorted(name for names in found.values() for name in names) == [
        f"{category}/{number:02d}" for category in ("car", "chair") for number in range(3)
    ]
    train = {name.rsplit("/", 1)[0] for batch in batches(views, train_views=2) for name in batch.sample_id}
    test = {name.rsplit("/", 1)[0] for batch in batches(views, "test") for name in batch.sample_id}
    assert train.isdisjoint(test) and len(test) == 2


def test_a_tenth_of_many_objects_is_held_out(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8))
    (tmp_path / "images").mkdir()
    for number in range(40):
        picture.save(tmp_path / "images" / f"{number}.png")
    splits = ImageFolderDataModule(tmp_path).folder.splits
    assert {split: len(objects) for (_, split), objects in splits.items()} == {"train": 32, "val": 4, "test": 4}


def test_a_list_of_splits_is_followed(photographs):
    rows = [
        f"{category}/{n:02d},{split}"
        for category in ("car", "chair")
        for n, split in enumerate(("test", "train", "val"))
    ]
    (photographs / "splits.csv").write_text("\n".join(["id,split", *rows]) + "\n")
    assert sorted(name for batch in batches(photographs, "test") for name in batch.sample_id) == [
        "car/00/v00",
        "chair/00/v00",
    ]
    (photographs / "splits.csv").write_text("\n".join(["id,split", *rows[:-1]]) + "\n")
    with pytest.raises(DataFileError, match=r"1 of 6 objects have not a split: chair/02"):
        prepare(photographs)


def test_every_view_is_tested_once_whatever_their_number(views):
    for folder in ("images", "masks"):
        for path in sorted((views / folder / "car" / "01").iterdir())[3:]:
            path.unlink()
    write_table(views, [row for row in table(views) if row[0] != "car/01/003.jpg"])
    names = [name for split in ("test",) for batch in batches(views, split, test_views=8) for name in batch.sample_id]
    assert len(set(names)) == len(names)
    plan = evaluation_views(0, views_of=[4, 3], n_views=4, inputs=8)
    own = [(item, tuple(view * (4, 3)[item] // 4 for view in pair)) for item, pair in plan]
    assert own == [
        *((0, (view, (view + 1) % 4)) for view in range(4)),
        *((1, (view, (view + 1) % 3)) for view in range(3)),
    ]
    plan = evaluation_views(0, views_of=[24], n_views=24, inputs=2)
    assert plan == [(0, (0, 6)), (0, (12, 18))]


def test_the_hash_is_of_the_content(written, views, tmp_path):
    stated = prepare(written[True]).data_hash()
    assert len(stated) == 16
    assert prepare(views).data_hash() == stated  # elsewhere
    header, *rows = table(views)
    write_table(views, [header, *rows[::-1]])
    assert prepare(views).data_hash() == stated
    assert prepare(views, image_size=32, batch_size=2).data_hash() == stated
    rows[0][2] = str(float(rows[0][2]) + 1)
    write_table(views, [header, *rows])
    turned = prepare(views).data_hash()
    assert turned != stated
    path = views / "masks" / "car" / "00" / "000.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path)
    assert prepare(views).data_hash() not in (turned, stated)


def test_a_changed_picture_is_prepared_anew(photographs):
    module = prepare(photographs)
    (item, *_) = module.folder.splits["car", "test"]
    before = module.preparation.photographs(item)[0].image
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(item.views[0].image)
    after = prepare(photographs).preparation.photographs(item)[0].image
    assert before != after
    batch = batches(photographs, "test", categories=["car"])[0]
    assert batch.images[0, 0, 0].min() > 0.9 and batch.images[0, 0, 1].max() < 0.1


# Photographs.


def test_photographs_keep_their_surroundings(photographs):
    (batch,) = batches(photographs, "test", image_size=SIZE)
    assert batch.images.shape == (2, 1, 3, SIZE, SIZE) and batch.cameras is None and batch.points is None
    assert batch.category == ("car", "chair")
    outside = batch.images[(batch.masks < 0.01).expand_as(batch.images)]
    assert outside.median() == pytest.approx(120 / 255, abs=0.02)  # the grey behind
    for mask in batch.masks[:, 0, 0] > 0.5:  # the box and 5 % on each side
        extent = max(int(mask.any(0).sum()), int(mask.any(1).sum()))
        assert extent / SIZE == pytest.approx(1 / 1.1, abs=0.05)


def test_cameras_can_be_left_out(views):
    batch = batches(views, "test", cameras=False)[0]
    assert batch.cameras is None and batch.images.shape[1] == 1


def small_folder(root: Path, images: dict[str, Image.Image], masks: bool = True, **save) -> None:
    """Pictures of 40x30 with a square object, three of one category."""
    mask = Image.new("L", (40, 30))
    mask.paste(255, (5, 8, 25, 28))
    for name, image in images.items():
        for folder, picture, suffix in (("images", image, Path(name).suffix), ("masks", mask, ".png")):
            if folder == "masks" and not masks:
                continue
            path = root / folder / Path(name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, **(save if folder == "images" else {}))


def gradient(mode: str) -> Image.Image:
    """Dark left, bright right."""
    ramp = np.tile(np.linspace(40, 220, 40), (30, 1))
    if mode == "I;16":
        return Image.fromarray((ramp * 257).astype(np.uint16))
    grey = Image.fromarray(ramp.astype(np.uint8))
    return grey.quantize(128) if mode == "P" else grey.convert("RGB").convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "png"), ("I;16", "png"), ("CMYK", "jpg"), ("RGB", "webp")]
)
def test_every_mode_of_pictures_is_read(tmp_path, mode, suffix):
    small_folder(tmp_path, {f"{name}.{suffix}": gradient(mode) for name in "abc"})
    (batch,) = batches(tmp_path, "test", image_size=16)
    row = batch.images[0, 0, :, 8]
    assert batch.category == ("object",) and (row[0] - row[1]).abs().max() < 0.03
    # The crop of columns 4 to 25 and rows 7 to 28, 22 wide: 40 + 180 * column / 39.
    assert row[:, 0].mean() == pytest.approx((40 + 180 * 4.2 / 39) / 255, abs=0.03)
    assert row[:, -1].mean() == pytest.approx((40 + 180 * 24.8 / 39) / 255, abs=0.03)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor's right side is the top: turn by 90 degrees clockwise
    upright = gradient("RGB")
    small_folder(tmp_path, {f"{n}.jpg": upright.rotate(90, expand=True) for n in "abc"}, exif=exif, quality=95)
    (batch,) = batches(tmp_path, "test", image_size=16)
    small_folder(tmp_path / "plain", {f"{n}.jpg": upright for n in "abc"}, quality=95)
    (plain,) = batches(tmp_path / "plain", "test", image_size=16)
    assert (batch.images - plain.images).abs().max() < 0.02


def test_an_alpha_channel_is_a_mask(tmp_path):
    rgba = gradient("RGBA")
    alpha = Image.new("L", rgba.size)
    alpha.paste(255, (5, 8, 25, 28))
    rgba.putalpha(alpha)
    small_folder(tmp_path, {f"{name}.png": rgba for name in "abc"}, masks=False)
    (batch,) = batches(tmp_path, "test", image_size=22)
    assert batch.masks.mean() == pytest.approx(20 * 20 / 22**2, abs=0.02)
    assert batch.images[0, 0, :, 0, 0].min() > 0.99  # transparent becomes white


# Ground truth.


def test_meshes_are_the_truth(photographs):
    box = trimesh.creation.box((1.0, 0.4, 0.6))
    for category in ("car", "chair"):
        for number in range(3):
            path = photographs / "meshes" / category / f"{number:02d}.obj"
            path.parent.mkdir(parents=True, exist_ok=True)
            box.export(path)
    (batch,) = batches(photographs, "test")
    half = torch.tensor([0.5, 0.2, 0.3])
    assert (batch.points.abs() <= half + 1e-6).all()
    assert ((batch.points.abs() - half).abs().amin(-1) < 1e-6).all()  # on the faces
    assert torch.allclose(batch.normals.norm(dim=-1), torch.tensor(1.0))
    expected = voxelize(torch.tensor(box.vertices).float(), torch.tensor(np.array(box.faces)))
    assert (batch.voxels[0] == expected).all()
    box.apply_scale(3)
    box.export(photographs / "meshes" / "car" / "01.obj")
    with pytest.raises(DataFileError, match=r"car/01\.obj: expected vertices in the object frame.*divide by 3\b"):
        prepare(photographs)
    (photographs / "meshes" / "car" / "01.obj").unlink()
    with pytest.raises(DataFileError, match=r"meshes: 1 of 6 objects have not a mesh: car/01"):
        prepare(photographs)


# Errors name the file.


def drop_mask(root):
    (root / "masks" / "chair" / "01" / "002.png").unlink()


def empty_mask(root):
    Image.new("L", (WIDTH, HEIGHT)).save(root / "masks" / "chair" / "01" / "002.png")


def small_mask(root):
    Image.new("L", (WIDTH, HEIGHT - 1), 255).save(root / "masks" / "chair" / "01" / "002.png")


def broken_image(root):
    path = root / "images" / "chair" / "01" / "002.jpg"
    path.write_bytes(path.read_bytes()[:300])


def no_row(root):
    write_table(root, [row for row in table(root) if row[0] != "chair/01/002.jpg"])


def row_of_nothing(root):
    write_table(root, [*table(root), ["chair/01/009.jpg", *table(root)[1][1:]]])


def twice(root):
    write_table(root, [*table(root), table(root)[1]])


def phone_format(root):
    (root / "images" / "chair" / "01" / "003.heic").write_bytes(b"")


def two_depths(root):
    shutil.copy(root / "images" / "chair" / "01" / "002.jpg", root / "images" / "chair" / "x.jpg")


def no_number(root):
    write_table(root, [[*row[:4], "far" if row[0] == "chair/01/002.jpg" else row[4], row[5]] for row in table(root)])


def pole(root):
    write_table(root, [[*row[:3], "90" if row[0] == "chair/01/002.jpg" else row[3], *row[4:]] for row in table(root)])


def inside(root):
    write_table(root, [[*row[:4], "0.5" if row[0] == "chair/01/002.jpg" else row[4], row[5]] for row in table(root)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_mask, r"masks: 1 of 24 images have not a mask: chair/01/002\.png"),
        (empty_mask, r"chair/01/002\.png: the mask is empty"),
        (small_mask, r"chair/01/002\.png is 96x71 pixels, its photo .*002\.jpg 96x72"),
        (broken_image, r"chair/01/002\.jpg"),
        (no_row, r"cameras\.csv: 1 of 24 images have not a camera: chair/01/002\.jpg"),
        (row_of_nothing, r"cameras\.csv: a camera for 1 unknown images: chair/01/009\.jpg"),
        (twice, r"line 26: chair/00/000\.jpg has two rows"),
        (phone_format, r"chair/01/003\.heic.*convert"),
        (two_depths, r"chair/x\.jpg"),
        (no_number, r"line 8: expected a number for distance, got 'far'"),
        (pole, r"chair/01/002\.jpg: look_at_camera: elevation"),
        (inside, r"chair/01/002\.jpg: the origin lies at depth 0\.5"),
    ],
)
def test_what_is_wrong_is_named(views, spoil, message):
    spoil(views)
    with pytest.raises(DataFileError, match=message):
        prepare(views)


def test_a_reflecting_matrix_is_refused_by_name(tmp_path):
    rows = [HEADER]
    for item in "abc":
        for view, angles in enumerate(ANGLES):
            matrix = look_at(*angles) * np.array([[-1], [1], [1]])
            paint(tmp_path, f"things/{item}/{view}", look_at(*angles), FOCAL, CENTER, (WIDTH, HEIGHT))
            rows.append([f"things/{item}/{view}.png", "opencv", *matrix[:, :3].ravel(), *matrix[:, 3], *FOCAL])
    write_table(tmp_path, rows)
    with pytest.raises(DataFileError, match=r"things/a/0\.png.*determinant is -1.*left-handed"):
        prepare(tmp_path)


def test_few_objects_need_a_list(tmp_path):
    small_folder(tmp_path, {"a.png": gradient("RGB"), "b.png": gradient("RGB")})
    with pytest.raises(DataFileError, match=r"object has 2 object\(s\), too few.*splits\.csv"):
        prepare(tmp_path)


def test_no_folder_says_where_to_read_on(tmp_path):
    with pytest.raises(DataFileError, match=r"own_photographs\.md"):
        prepare(tmp_path / "nowhere")


def test_methods_of_several_views_need_cameras(photographs):
    module = prepare(photographs, train_views=2)
    with pytest.raises(DataFileError, match=r"without cameras\.csv a picture is a photograph of its own.*2 views"):
        module.setup("fit")


def test_methods_of_photographs_need_surroundings(views):
    module = prepare(views)
    module.setup("fit")
    with pytest.raises(DataFileError, match="cameras false"):
        module.training_pass()


# Loading, training.


def test_a_resumed_epoch_goes_on(views):
    module = prepare(views, train_views=2, batch_size=2, train_steps_per_epoch=3, seed=5)
    module.setup("fit")
    loader = module.train_dataloader()
    everything = [batch.sample_id for batch in loader]
    again = ImageFolderDataModule(views, train_views=2, batch_size=2, train_steps_per_epoch=3, seed=5)
    again.setup("fit")
    loader = again.train_dataloader()
    loader.load_state_dict({"epoch": 0, "batches": 1})
    assert [batch.sample_id for batch in loader] == everything[1:]


def fit(method, module, steps: int, tmp_path: Path) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        default_root_dir=tmp_path,
    )
    trainer.fit(method, module)
    return trainer


def test_softras_trains_on_views(views, tmp_path):
    torch.manual_seed(0)
    method = SoftRasMesh(**TINY_MESH)
    before = [p.detach().clone() for p in method.parameters()]
    module = ImageFolderDataModule(views, image_size=32, train_views=2, batch_size=2, train_steps_per_epoch=2)
    trainer = fit(method, module, 2, tmp_path)
    assert trainer.global_step == 2
    assert any((p != q).any() for p, q in zip(method.parameters(), before, strict=True))
    assert all(p.isfinite().all() for p in method.parameters())


def test_adaptive_texture_trains_on_photographs(photographs, tmp_path):
    torch.manual_seed(0)
    method = AdaptiveTextureUMR(**TINY_NETWORKS["adaptive_texture"])
    before = [p.detach().clone() for p in method.parameters()]
    module = ImageFolderDataModule(photographs, image_size=64, batch_size=2, train_steps_per_epoch=1)
    fit(method, module, 1, tmp_path)
    assert any((p != q).any() for p, q in zip(method.parameters(), before, strict=True))
    assert all(p.isfinite().all() for p in method.parameters())


def test_a_wire_thinner_than_a_pixel_that_is_trained_on_stays_an_object(tmp_path):
    side = 40 * SIZE
    for name in ("a", "b", "c"):
        rgba = np.zeros((side, side, 4), dtype=np.uint8)
        rgba[10, 10:-10, 3] = rgba[10:-10, 10, 3] = 255  # an angle of wire, one pixel thick
        path = tmp_path / "images/wire" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgba).save(path, compress_level=1)
    module = ImageFolderDataModule(tmp_path, image_size=SIZE)
    module.prepare_data()
    module.setup("fit")
    (photograph,) = module.preparation.photographs(module.preparation.folder.objects[0])
    left, top, right, bottom = photograph.box
    assert min(right - left, bottom - top) > 0.95 * photograph.size[0]
