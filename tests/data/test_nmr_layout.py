from __future__ import annotations

import logging
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recon3d.data.description import DESCRIPTION_FILE, fingerprint, read_description, write_description
from recon3d.data.nmr_layout import CATEGORIES, SYNSETS, canonical_category, open_split, scan, write_split
from recon3d.data.npz import DataFileError, locate_array, write_npz

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 24, 4, 8, 8), dtype=np.uint8)
VOXELS = RNG.random((3, 32, 32, 32)) < 0.3
POINTS = RNG.uniform(-0.5, 0.5, (3, 10, 3))
IDS = ["a", "b", "c"]


def official(root: Path, synset: str = "02958343", split: str = "train", save=np.savez_compressed) -> None:
    """The files as the official generator writes them: one unnamed array each."""
    save(root / f"{synset}_{split}_images.npz", IMAGES)
    save(root / f"{synset}_{split}_voxels.npz", VOXELS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_official_files_open_as_memory_maps(tmp_path, save):
    official(tmp_path, save=save)
    arrays = open_split(scan(tmp_path).splits["car", "train"])
    for file, truth in ((arrays.images, IMAGES), (arrays.voxels, VOXELS)):
        assert isinstance(file.open(), np.memmap)
        np.testing.assert_array_equal(file.open(), truth)
    assert arrays.ids == ("0000", "0001", "0002")
    assert arrays.points is None


def test_stored_arrays_are_mapped_in_place(tmp_path):
    official(tmp_path, save=np.savez)
    open_split(scan(tmp_path).splits["car", "train"])
    assert len(list(tmp_path.iterdir())) == 2


def test_compressed_arrays_are_unpacked_once_and_again_when_they_change(tmp_path, caplog):
    official(tmp_path)
    path = tmp_path / "02958343_train_images.npz"
    with caplog.at_level(logging.INFO):
        first = locate_array(path)
        assert locate_array(path) == first
    assert caplog.text.count("Unpacking") == 1
    np.savez_compressed(path, IMAGES[::-1])
    np.testing.assert_array_equal(locate_array(path).open(), IMAGES[::-1])
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".part")]


def test_a_read_only_folder_is_unpacked_to_the_cache(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    official(data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    access = os.access  # the tests may run as root, for whom every folder is writable
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != data and access(path, mode))
    file = locate_array(data / "02958343_train_voxels.npz")
    assert file.path.is_relative_to(tmp_path / "cache")
    np.testing.assert_array_equal(file.open(), VOXELS)


def test_a_split_written_from_generators_is_read_by_numpy(tmp_path):
    write_split(tmp_path, "02933112", "val", IDS, iter(IMAGES), iter(VOXELS), iter(POINTS), iter(POINTS))
    with np.load(tmp_path / "cabinet_val_images.npz") as file:
        np.testing.assert_array_equal(file["arr_0"], IMAGES)
    with np.load(tmp_path / "cabinet_val_points.npz") as file:
        np.testing.assert_array_equal(file["points"], POINTS.astype(np.float32))
        np.testing.assert_array_equal(file["normals"], POINTS.astype(np.float16))
    arrays = open_split(scan(tmp_path).splits["cabinet", "val"])
    assert arrays.ids == tuple(IDS)
    np.testing.assert_array_equal(arrays.points.open(), POINTS.astype(np.float32))
    np.testing.assert_array_equal(arrays.voxels.open(), VOXELS)


def test_the_same_objects_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_split(tmp_path / name, "car", "val", IDS, IMAGES, VOXELS)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "b"]}, "expected 2 items, got 3"),
        ({"ids": ["a", "b", "c", "d"]}, "expected 4 items, got 3"),
        ({"ids": ["a", "b", "b"]}, "different ids"),
        ({"ids": ["a", "b c", "d"]}, "white space"),
        ({"images": IMAGES.astype(np.float32)}, "uint8"),
        ({"images": IMAGES[..., :4]}, r"\(V,4,S,S\)"),
        ({"images": IMAGES[:, :, :3]}, r"\(V,4,S,S\)"),
        ({"images": [IMAGES[0], IMAGES[1, :20], IMAGES[2]]}, "item 1"),
        ({"voxels": VOXELS[..., :16]}, r"\(32,32,32\)"),
        ({"voxels": VOXELS.astype(np.uint8)}, "bool"),
        ({"points": POINTS}, "go together"),
        ({"split": "dev"}, "dev"),
        ({"ids": [], "images": [], "voxels": []}, "at least one"),
    ],
)
def test_a_wrong_item_leaves_no_images_file(tmp_path, change, message):
    good = {"category": "car", "split": "train", "ids": IDS, "images": IMAGES, "voxels": VOXELS}
    with pytest.raises(ValueError, match=message):
        write_split(tmp_path, **good | change)
    assert not list(tmp_path.glob("*images*")) and not list(tmp_path.glob(".*"))


def test_names():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == len(SYNSETS) == 13
    assert [canonical_category(name) for name in ("Dresser", "phone", "Watercraft", "03691459", "Mug")] == [
        "cabinet",
        "telephone",
        "vessel",
        "loudspeaker",
        "mug",
    ]


def test_scan_lists_what_is_there(tmp_path):
    official(tmp_path)
    write_split(tmp_path, "mug", "test", IDS, IMAGES, VOXELS)
    np.savez(tmp_path / "02958343_train_masks.npz", IMAGES[:, :, 3])
    np.savez(tmp_path / "something.npz", IMAGES)
    inventory = scan(tmp_path)
    assert inventory.categories == ("car", "mug")
    assert inventory.describe() == "car: train; mug: test"
    assert [path.name for path in inventory.unknown] == ["something.npz"]


def test_missing_files_are_named_with_the_next_step(tmp_path):
    with pytest.raises(DataFileError, match=r"no such folder.*mesh_reconstruction_dataset\.zip.*licence"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="recon3d data render"):
        scan(tmp_path)
    np.savez(tmp_path / "02958343_train_images.npz", IMAGES)
    with pytest.raises(DataFileError, match=r"car_train_voxels\.npz not found"):
        open_split(scan(tmp_path).splits["car", "train"])


def test_two_files_for_one_split_are_refused(tmp_path):
    official(tmp_path)
    write_split(tmp_path, "car", "train", IDS, IMAGES, VOXELS)
    with pytest.raises(DataFileError, match=r"02958343_train_images\.npz and car_train_images\.npz"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("images", IMAGES[:, :, :3], r"uint8 \(N,V,4,S,S\)"),
        ("images", IMAGES.astype(np.float32), "float32"),
        ("images", np.array([{"a": 1}], dtype=object), "object"),
        ("voxels", VOXELS[:2], "3 objects as in"),
        ("voxels", VOXELS.astype(np.float32), "bool"),
    ],
)
def test_wrong_arrays_are_refused_by_file_name(tmp_path, kind, array, message):
    official(tmp_path)
    np.savez(tmp_path / f"02958343_train_{kind}.npz", array)
    with pytest.raises(DataFileError, match=rf"02958343_train_{kind}\.npz.*{message}"):
        open_split(scan(tmp_path).splits["car", "train"])


def test_wrong_ids_and_points_are_refused(tmp_path):
    write_split(tmp_path, "car", "train", IDS, IMAGES, VOXELS, POINTS, POINTS)
    files = scan(tmp_path).splits["car", "train"]
    np.savez(files.points, points=POINTS, normals=POINTS[:, :5])
    with pytest.raises(DataFileError, match="normals"):
        open_split(files)
    np.savez(files.points, points=POINTS)
    with pytest.raises(DataFileError, match=r"an array named 'normals', the archive holds \['points\.npy'\]"):
        open_split(files)
    files.points.unlink()
    files.ids.write_text("a\nb\n")
    with pytest.raises(DataFileError, match="expected 3 different ids, one a line, got 2"):
        open_split(scan(tmp_path).splits["car", "train"])


def test_several_arrays_where_one_is_expected(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES, VOXELS)
    with pytest.raises(DataFileError, match=r"exactly one array.*arr_0\.npy.*arr_1\.npy"):
        locate_array(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files(tmp_path, save):
    path = tmp_path / "car_train_voxels.npz"
    save(path, VOXELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFileError, match="broken-off download"):
        locate_array(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataFileError, match="zip"):
        locate_array(path)


def test_a_flipped_byte_is_found_while_unpacking(tmp_path):
    path = tmp_path / "car_train_images.npz"
    np.savez_compressed(path, IMAGES)  # random bytes: stored blocks inside deflate, so only the checksum can tell
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="damaged while unpacking"):
        locate_array(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "car_train_voxels.npz"
    raw = tmp_path / "raw.npy"
    np.save(raw, VOXELS)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", raw.read_bytes()[:-100])
    with pytest.raises(DataFileError, match=r"needs .* bytes, the archive holds"):
        locate_array(path)


def test_offset_is_read_from_the_local_header(tmp_path):
    # The extra field of the local header may be longer than the directory's; numpy's zip64 files are such a case.
    path = tmp_path / "x.npz"
    raw = tmp_path / "raw.npy"
    np.save(raw, VOXELS)
    info = zipfile.ZipInfo("arr_0.npy")
    info.extra = struct.pack("<HH8s", 0xCAFE, 8, b"recon3d!")
    with zipfile.ZipFile(path, "w") as archive, archive.open(info, "w", force_zip64=True) as stream:
        stream.write(raw.read_bytes())
    np.testing.assert_array_equal(locate_array(path).open(), VOXELS)


def test_fortran_order(tmp_path):
    np.savez(tmp_path / "x.npz", np.asfortranarray(VOXELS))
    np.testing.assert_array_equal(locate_array(tmp_path / "x.npz").open(), VOXELS)


def test_fingerprint_follows_content_not_compression_or_names(tmp_path):
    for name in ("stored", "packed", "named", "other"):
        (tmp_path / name).mkdir()
    official(tmp_path / "stored", save=np.savez)
    official(tmp_path / "packed")
    official(tmp_path / "named", synset="car")
    official(tmp_path / "other")
    changed = IMAGES.copy()
    changed[1, 12, 2, 4, 4] ^= 1  # one bit in the middle
    np.savez(tmp_path / "other" / "02958343_train_images.npz", changed)
    prints = {name: fingerprint(scan(tmp_path / name)) for name in ("stored", "packed", "named", "other")}
    assert prints["stored"] == prints["packed"] == prints["named"] != prints["other"]


def test_description_round_trip(tmp_path):
    assert read_description(tmp_path) is None
    write_split(tmp_path, "car", "train", IDS, IMAGES, VOXELS)
    write_split(tmp_path, "car", "test", IDS[:2], IMAGES[:2], VOXELS[:2])
    written = write_description(tmp_path, "tiny", "longest_side", "random numbers", "1")
    assert read_description(tmp_path) == written
    assert written.categories == {"car": {"train": 3, "test": 2}}
    assert (written.n_views, written.image_size, written.hash) == (24, 8, fingerprint(scan(tmp_path)))
    (tmp_path / DESCRIPTION_FILE).write_text('{"name": "tiny"}')
    with pytest.raises(DataFileError, match="n_views"):
        read_description(tmp_path)


@pytest.mark.slow
def test_writing_needs_no_memory_for_the_whole(tmp_path):
    item = np.zeros((24, 4, 64, 64), np.uint8)

    def peak() -> int:
        return int(next(line for line in Path("/proc/self/status").open() if line.startswith("VmHWM")).split()[1])

    before = peak()
    write_npz(tmp_path / "x.npz", 1000, {"arr_0": (item for _ in range(1000))})
    assert (tmp_path / "x.npz").stat().st_size > 390e6
    assert peak() - before < 50_000  # kB
