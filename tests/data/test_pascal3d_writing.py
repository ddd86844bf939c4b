import numpy as np
import pytest
import scipy.io
import trimesh
from PIL import Image

from recon3d.data.pascal3d import Pascal3DDataModule
from recon3d.data.pascal3d_writing import write_annotations, write_car
from recon3d.data.synthetic_cars import cad_models, car_picture, cmr_size, mean_keypoints
from recon3d.geometry.shapes.car_keypoints import KEYPOINTS

RELEASE = "PASCAL3D+_release1.1"


@pytest.fixture(scope="module")
def pictures():
    """Numbers of pictures by what they show."""
    found = {}
    for seed in range(60):
        picture = car_picture(seed)
        kinds = {"two" if len(picture.objects) == 2 else "cut" if picture.objects[0].truncated else "one"}
        for kind in kinds:
            found.setdefault(kind, []).append(picture)
        if len(found) == 3 and len(found["one"]) > 3:
            return found
    raise AssertionError(f"60 pictures show only {sorted(found)}")


@pytest.fixture(scope="module")
def root(tmp_path_factory, pictures):
    return write(tmp_path_factory.mktemp("cars"), pictures)


def write(root, pictures):
    one, two, cut = pictures["one"], pictures["two"], pictures["cut"]
    splits = {
        "train": [write_car(root, picture, "imagenet", True) for picture in (one[0], two[0], cut[0])]
        + [write_car(root, one[1], "pascal", True)],
        "val": [write_car(root, one[2], "pascal", False)],
        "test": [write_car(root, one[3], "pascal", False)],
    }
    write_annotations(root, splits, cad_models(), mean_keypoints())
    return root


def load(path):
    return scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)


def records(root):
    for path in sorted((root / RELEASE / "Annotations").rglob("*.mat")):
        record = load(path)["record"]
        yield path, record, np.atleast_1d(record.objects)


def test_records_are_those_of_the_release(root, pictures):
    by_name = {picture.seed: picture for kind in pictures.values() for picture in kind}
    assert len(list(records(root))) == 6
    for path, record, objects in records(root):
        picture = Image.open(root / RELEASE / "Images" / path.parent.name / record.filename)
        assert record.imgsize.tolist() == [*picture.size, 3]
        made = by_name[int(path.stem[-7:])]
        assert len(objects) == len(made.objects)
        for item, true in zip(objects, made.objects, strict=True):
            assert getattr(item, "class") == "car" and 1 <= item.cad_index <= len(cad_models())
            assert item.truncated == true.truncated and item.occluded == true.occluded and item.difficult == 0
            assert item.bbox.tolist() == [value + 1 for value in true.box]
            assert item.viewpoint.distance == float(true.viewpoint.distance) and item.viewpoint.focal == 1
            assert (item.viewpoint.px, item.viewpoint.py) == (true.viewpoint.px + 1, true.viewpoint.py + 1)
            for name, (x, y, visible) in zip(KEYPOINTS, true.keypoints, strict=True):
                anchor = getattr(item.anchors, name)
                assert (anchor.status == 1) == bool(visible)
                assert np.allclose(anchor.location, (x + 1, y + 1)) if visible else anchor.location.size == 0


def test_cad_models_are_the_same_in_both_files(root):
    models = load(root / RELEASE / "CAD/car.mat")["car"]
    assert len(models) == 10
    for number, model in enumerate(models, 1):
        mesh = trimesh.load(root / RELEASE / f"CAD/car/{number:02d}.off", process=False)
        np.testing.assert_allclose(mesh.vertices, model.vertices, atol=1e-5)
        assert np.array_equal(mesh.faces, model.faces - 1) and model.faces.min() == 1
        assert mesh.volume > 0, "wound outwards in the frame of CAD models, so that is right-handed"
        # Front at -y, left at +x, up +z.
        assert model.left_front_light[1] < -0.4 and model.left_front_light[0] > 0
        assert model.upper_left_rearwindow[2] > model.left_back_wheel[2]


def test_lists_name_the_pictures(root):
    release = root / RELEASE
    voc = release / "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"
    listed = {name: (voc / f"{name}.txt").read_text().split() for name in ("train", "val")}
    assert len(listed["train"]) == 1 and len(listed["val"]) == 2
    imagenet = [(release / f"Image_sets/car_imagenet_{name}.txt").read_text().split() for name in ("train", "val")]
    there = {path.stem for path in (release / "Annotations/car_imagenet").iterdir()}
    assert set(imagenet[0]) | set(imagenet[1]) == there and not set(imagenet[0]) & set(imagenet[1])
    assert {path.suffix for path in (release / "Images/car_imagenet").iterdir()} == {".JPEG"}


def test_files_of_cmr_belong_together(root, pictures):
    kps = load(root / "data/car_kps.mat")
    assert tuple(kps["kp_names"]) == KEYPOINTS and kps["kp_perm_inds"].dtype == np.uint8
    assert kps["kp_perm_inds"].tolist() == [5, 6, 7, 8, 1, 2, 3, 4, 11, 12, 9, 10]
    for split in ("train", "val", "test", "all"):
        images = np.atleast_1d(load(root / f"data/car_{split}.mat")["images"])
        content = load(root / f"sfm/car_{split}.mat")
        poses = np.atleast_1d(content["sfm_anno"])
        assert len(images) == len(poses)
        assert np.array_equal(content["S"], mean_keypoints().T) and content["conv_tri"].dtype == np.uint8
        for image, pose in zip(images, poses, strict=True):
            folder, name = image.rel_path.split("\\")
            assert (root / RELEASE / "Images" / folder / name).is_file()
            assert image.mask.shape == (image.height, image.width) and image.mask.dtype == np.uint8
            assert image.is_train == (split == "train" or "imagenet" in folder or name == train_pascal(pictures))
            rows, columns = np.nonzero(image.mask)
            assert columns.min() + 1 == image.bbox.x1 and rows.max() + 1 == image.bbox.y2
            visible = image.parts[2] > 0
            assert visible.sum() > 3
            same = [path for path in (root / "truth" / folder).glob(f"{name.split('.')[0]}*.npz")]
            off = [np.abs(reproject(pose, path) - image.parts[:2])[:, visible].max() for path in same]
            longer = max(image.mask.shape)
            assert min(off) < 5 * pose.err_sfm_reproj * longer + 0.02 and pose.err_sfm_reproj < 0.05


def train_pascal(pictures):
    return f"2012_{pictures['one'][1].seed:07d}.jpg"


def reproject(pose, path):
    with np.load(path) as truth:
        points = truth["keypoints"].astype(np.float64)
    points = 2 * np.stack([-points[:, 2], -points[:, 0], points[:, 1]])
    return pose.scale * pose.rot[:2] @ points + pose.trans[:, None]


def test_cmr_has_both_cars_of_a_picture_and_none_that_is_cut(root, pictures):
    images = load(root / "data/car_train.mat")["images"]
    paths = [image.rel_path for image in images]
    two = [path for path in paths if f"{pictures['two'][0].seed:07d}" in path]
    kept = sum(not o.occluded and o.keypoints[:, 2].sum() > 3 for o in pictures["two"][0].objects)
    assert len(two) == kept and not any(f"{pictures['cut'][0].seed:07d}" in path for path in paths)


def test_the_same_seeds_give_the_same_bytes(root, tmp_path, pictures):
    again = {kind: [car_picture(picture.seed) for picture in some[:4]] for kind, some in pictures.items()}
    write(tmp_path, again)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes(), path


@pytest.mark.parametrize(("annotations", "points"), [("cmr", 2000), ("release", 10_000)])
def test_the_module_of_pascal3d_reads_them(root, tmp_path, annotations, points):
    module = Pascal3DDataModule(
        root, annotations=annotations, batch_size=2, image_size=64, cache=tmp_path, mirror=False
    )
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (2, 1, 3, 64, 64) and batch.keypoints.shape == (2, 1, 12, 3)
    assert batch.points.shape == (2, points, 3) and batch.voxels.any() and batch.cameras.shape == (2, 1)
    assert batch.cameras.orthographic == (annotations == "cmr")
    assert cmr_size() == pytest.approx(2, abs=0.1)
