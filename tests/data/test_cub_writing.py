import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy.spatial import ConvexHull

from recon3d.data.cub import CUBDataModule
from recon3d.data.cub_release import PARTS
from recon3d.data.cub_writing import tetrahedra_sides, write_annotations, write_bird
from recon3d.data.photograph_annotations import read_mask
from recon3d.data.synthetic_birds import SPECIES, bird_picture, mean_keypoints
from recon3d.geometry.cameras import project
from recon3d.geometry.shapes.bird import species_name

SEEDS = {"train": (0, 1, 22), "val": (1_000_003,), "test": (2_000_000,)}


def write(root):
    splits = {split: [write_bird(root, bird_picture(seed)) for seed in seeds] for split, seeds in SEEDS.items()}
    write_annotations(root, splits, mean_keypoints(), SPECIES)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("birds"))


def load(path):
    return scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)


def lines(path):
    return [line.split(" ") for line in path.read_text().splitlines()]


def test_files_are_those_of_cub_and_cmr(root):
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    jay = f"001.{species_name(0)}/{species_name(0)}_0000000"
    assert {f"CUB_200_2011/images/{jay}.jpg", f"segmentations/{jay}.png", f"truth/{jay}.npz"} <= names
    tables = ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")
    assert {f"CUB_200_2011/{name}.txt" for name in tables} <= names
    assert {"CUB_200_2011/parts/parts.txt", "CUB_200_2011/parts/part_locs.txt"} <= names
    splits = ("train", "val", "test", "testval")
    assert {f"data/{split}_cub_cleaned.mat" for split in splits} <= names
    assert {f"sfm/anno_{split}.mat" for split in splits} <= names
    assert len(names) == 3 * 5 + 7 + 8


def test_text_files_are_those_of_the_release(root):
    folder = root / "CUB_200_2011"
    images = dict(lines(folder / "images.txt"))
    assert list(images) == ["1", "2", "3", "4", "5"] and list(images.values()) == sorted(images.values())
    classes = dict(lines(folder / "classes.txt"))
    assert len(classes) == SPECIES
    labels = dict(lines(folder / "image_class_labels.txt"))
    assert all(images[k].split("/")[0] == classes[label] for k, label in labels.items())
    assert sorted(flag for _, flag in lines(folder / "train_test_split.txt")) == ["0", "0", "1", "1", "1"]
    assert [" ".join(words[1:]) for words in lines(folder / "parts/parts.txt")] == list(PARTS)
    locations = lines(folder / "parts/part_locs.txt")
    assert [words[:2] for words in locations] == [[str(k), str(p)] for k in range(1, 6) for p in range(1, 16)]
    annotated = {item.rel_path: item for split in ("train", "testval") for item in images_of(root, split)}
    for k, x, y, width, height in lines(folder / "bounding_boxes.txt"):
        item = annotated[images[k]]
        corners = item.bbox.x1, item.bbox.y1, item.bbox.x2 - item.bbox.x1 + 1, item.bbox.y2 - item.bbox.y1 + 1
        assert (float(x), float(y), float(width), float(height)) == corners
    for k, part, x, y, visible in locations:
        place = annotated[images[k]].parts[:, int(part) - 1]
        np.testing.assert_allclose((float(x), float(y)), place[:2], atol=1e-3)
        assert int(visible) == place[2]


def images_of(root, split):
    return np.atleast_1d(load(root / "data" / f"{split}_cub_cleaned.mat")["images"])


@pytest.mark.parametrize("split", ["train", "val", "test", "testval"])
def test_cameras_reproject_the_parts_in_pixels_from_one(root, split):
    poses = np.atleast_1d(load(root / "sfm" / f"anno_{split}.mat")["sfm_anno"])
    for item, pose in zip(images_of(root, split), poses, strict=True):
        picture = Image.open(root / "CUB_200_2011/images" / item.rel_path)
        assert item.mask.shape == picture.size[::-1] and set(np.unique(item.mask)) == {0, 1}
        with np.load(root / "truth" / item.rel_path.replace(".jpg", ".npz")) as truth:
            points = truth["keypoints"].astype(np.float64)
        points = 2 * np.stack([-points[:, 2], -points[:, 0], points[:, 1]])  # CMR's frame
        assert np.linalg.det(pose.rot) == pytest.approx(1)
        seen = pose.scale * pose.rot[:2] @ points + pose.trans[:, None]
        visible = item.parts[2] > 0
        assert np.abs(seen - item.parts[:2])[:, visible].max() < 0.02
        assert not item.parts[:, ~visible].any()
        # The mean shape is seen near them.
        mean = load(root / "sfm/anno_train.mat")["S"]
        off = np.linalg.norm(pose.scale * pose.rot[:2] @ mean + pose.trans[:, None] - item.parts[:2], axis=0)[visible]
        assert off.mean() < 0.12 * pose.scale


def test_segmentations_agree_with_masks_and_boxes(root):
    for item in images_of(root, "train"):
        votes = np.asarray(Image.open(root / "segmentations" / item.rel_path.replace(".jpg", ".png")))
        assert votes.dtype == np.uint8 and set(np.unique(votes)) <= {0, 51, 102, 153, 204, 255}
        assert np.array_equal(votes >= 128, item.mask > 0) and len(np.unique(votes)) > 3
        rows, columns = np.nonzero(item.mask)
        assert abs(columns.min() + 1 - max(item.bbox.x1, 1)) <= 3 and abs(rows.max() + 1 - item.bbox.y2) <= 6


def test_the_mean_shape_and_its_triangles(root):
    for split in ("train", "testval"):
        content = load(root / "sfm" / f"anno_{split}.mat")
        assert np.array_equal(content["S"], mean_keypoints().T)
        triangles = content["conv_tri"]
        assert triangles.dtype == np.uint8 and triangles.min() == 1 and triangles.max() == 15
        volume = 0.0
        for sides in triangles.reshape(-1, 4, 3):
            corners = content["S"].T[np.unique(sides) - 1]
            assert corners.shape == (4, 3), "four sides of one tetrahedron"
            volume += abs(np.linalg.det(corners[1:] - corners[0])) / 6
        assert volume == pytest.approx(ConvexHull(content["S"].T).volume)
    for split in ("val", "test"):
        assert "S" not in load(root / "sfm" / f"anno_{split}.mat")
    cube = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    assert tetrahedra_sides(cube).max() == 8


def test_the_same_seeds_give_the_same_bytes(root, tmp_path):
    write(tmp_path)
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (tmp_path / path).read_bytes() == (root / path).read_bytes(), path


def test_both_readers_find_the_same_boxes_keypoints_and_masks(root):
    released, annotated = (
        {item.id: item for item in CUBDataModule(root, annotations=kind, keep_shared=True).photographs("test")}
        for kind in ("release", "cmr")
    )
    assert annotated and annotated.keys() <= released.keys()
    for name, item in annotated.items():
        assert item.box == released[name].box and item.size == released[name].size
        np.testing.assert_allclose(item.keypoints, released[name].keypoints, atol=1e-3)
        masks = [read_mask(one.mask, one.size, name) for one in (item, released[name])]
        assert np.array_equal(*masks)
        stem = name.split("_")[-1]
        bird = bird_picture(int(stem))
        assert item.box == bird.box
        np.testing.assert_allclose(item.keypoints[:, :2], bird.keypoints[:, :2] * bird.keypoints[:, 2:], atol=1e-9)


@pytest.mark.parametrize("annotations", ["cmr", "release"])
def test_the_module_of_cub_reads_them(root, annotations):
    module = CUBDataModule(root, annotations=annotations, batch_size=2, image_size=64, parts="keypoints")
    module.setup("test")
    batch = next(iter(module.test_dataloader()))
    assert batch.images.shape[2:] == (3, 64, 64) and batch.keypoints.shape[1:] == (1, 15, 3)
    assert batch.parts.shape[2:] == (5, 64, 64) and batch.voxels.any() and batch.points.shape[1:] == (2000, 3)
    assert batch.images.std() > 0.05
    if annotations == "release":
        assert batch.cameras is None
        return
    # True points fall on the mask; CMR's convention costs half a pixel of the picture, some 0.5 % of the crop.
    seen = project(batch.cameras.flatten(), batch.points)
    column, row = (((1 - seen[..., i]) * 32).long().clamp(0, 63) for i in (0, 1))
    on_mask = batch.masks.flatten(1).gather(1, row * 64 + column) > 0.3
    assert on_mask.float().mean() > 0.9
