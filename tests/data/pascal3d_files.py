"""A small Pascal3D+ release in its official layout: boxes as cars, seen from known viewpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT = 64, 48
CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
FACES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)
SIZES = ((0.4, 1.0, 0.3), (0.5, 0.8, 0.5))  # of the two CAD models: across, along, up
OFFSET = (0.0, 0.05, 0.1)  # the boxes do not lie at the origin of their frame
NAMES = ("left_front_light", "right_front_light", "left_back_trunk", "right_back_trunk")
SIGNS = {
    "left_front_light": (1, -1),
    "right_front_light": (-1, -1),
    "left_back_trunk": (1, 1),
    "right_back_trunk": (-1, 1),
}
EMPTY = np.zeros((0, 0))


def cad_verts(model: int) -> np.ndarray:
    return CORNERS * SIZES[model] + OFFSET


def cad_anchors(model: int) -> dict[str, np.ndarray]:
    x, y, z = np.array(SIZES[model]) / 2
    return {name: np.array([a * x, b * y, z]) + OFFSET for name, (a, b) in SIGNS.items()}


def viewpoint(azimuth, elevation=20.0, distance=60.0, theta=0.0, px=32.0, py=24.0):
    """A small car in a small picture: 3000 pixels of focal length, 60 away, 50 pixels a unit."""
    return {
        "azimuth": azimuth,
        "elevation": elevation,
        "azimuth_coarse": azimuth,
        "elevation_coarse": elevation,
        "distance": distance,
        "focal": 1,
        "px": px,
        "py": py,
        "theta": theta,
        "viewport": 3000,
    }


def pixels(view: dict[str, float], points: np.ndarray) -> np.ndarray:
    """Where MATLAB sees points (N,3) of the CAD frame, counting from 1: the release's equations."""
    a, e, t = (math.radians(view[name]) for name in ("azimuth", "elevation", "theta"))
    d = view["distance"]
    center = d * np.array([math.cos(e) * math.sin(a), -math.cos(e) * math.cos(a), math.sin(e)])
    a, e = -a, e - math.pi / 2
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(e), -math.sin(e)], [0, math.sin(e), math.cos(e)]])
    seen = (about_x @ about_z @ (points - center).T).T
    plane = view["viewport"] * view["focal"] * seen[:, :2] / -seen[:, 2:]
    plane = plane @ np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])
    return np.stack([view["px"] + plane[:, 0], view["py"] - plane[:, 1]], axis=1)


def struct_array(rows: list[dict[str, Any]]) -> np.ndarray:
    array = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        array[0, index] = tuple(row.values())
    return array


def car(view: Any, model: int = 0, **changes: Any) -> dict[str, Any]:
    """An object of a record, its key points and box as the viewpoint has them; the last key point is not visible."""
    row = {
        "class": "car",
        "bbox": np.array([10.0, 10.0, 50.0, 40.0]),
        "truncated": 0,
        "occluded": 0,
        "difficult": 0,
        "cad_index": model + 1,
        "anchors": EMPTY,
        "viewpoint": view if isinstance(view, dict) else EMPTY,
    }
    if isinstance(view, dict) and view["distance"] > 0:
        corners = pixels(view, cad_verts(model))
        row["bbox"] = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        places = {name: pixels(view, place[None])[0] for name, place in cad_anchors(model).items()}
        row["anchors"] = {name: {"location": place, "status": 1} for name, place in places.items()}
        row["anchors"][NAMES[-1]] = {"location": EMPTY, "status": 2}
    return row | changes


def write_record(folder: Path, source: str, name: str, objects: list[dict[str, Any]], mode: str = "RGB") -> None:
    annotations, images = folder / "Annotations" / f"car_{source}", folder / "Images" / f"car_{source}"
    annotations.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    suffix = "JPEG" if source == "imagenet" else "jpg"
    generator = np.random.default_rng(len(name))
    picture = Image.fromarray(generator.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).convert(mode)
    picture.save(images / f"{name}.{suffix}")
    record = {
        "filename": f"{name}.{suffix}",
        "imgsize": np.array([WIDTH, HEIGHT, 3], dtype=np.uint16),
        "objects": struct_array(objects),
    }
    scipy.io.savemat(annotations / f"{name}.mat", {"record": record})


VIEWS = {
    "n01_1": viewpoint(30.0),
    "n01_2": viewpoint(200.0, 10.0, 50.0, 12.0, 30.5, 25.5),
    "n01_3_0": viewpoint(75.0, px=15.0),  # the box reaches over the left border
    "n01_3_2": viewpoint(300.0, 5.0, 90.0, -8.0, 48.0, 30.0),
    "2008_1": viewpoint(120.0),
    "2008_2": viewpoint(250.0, -5.0, 70.0, 3.0),
}


def write_release(folder: Path) -> None:
    """6 usable cars on 5 pictures; 4 that are not, and a person."""
    views = VIEWS
    person = car(views["n01_1"]) | {"class": "person", "viewpoint": EMPTY}
    write_record(folder, "imagenet", "n01_1", [car(views["n01_1"])])
    write_record(folder, "imagenet", "n01_2", [car(views["n01_2"], 1)], mode="L")
    several = [car(views["n01_3_0"]), person, car(views["n01_3_2"], 1), car(None)]
    several += [car(viewpoint(0.0, distance=0.0)), car(views["n01_1"], truncated=1, occluded=1)]
    write_record(folder, "imagenet", "n01_3", several)
    write_record(folder, "imagenet", "n01_4", [car(views["n01_1"], difficult=1)])
    write_record(folder, "pascal", "2008_1", [car(views["2008_1"])])
    write_record(folder, "pascal", "2008_2", [car(views["2008_2"], 1)])
    lists = folder / "Image_sets"
    lists.mkdir()
    (lists / "car_imagenet_train.txt").write_text("n01_1\nn01_3\nn01_4\n")
    (lists / "car_imagenet_val.txt").write_text("n01_2\n")
    voc = folder / "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"
    voc.mkdir(parents=True)
    (voc / "train.txt").write_text("2007_9\n2008_1\n")
    (voc / "val.txt").write_text("2008_2\n2009_9\n")
    (folder / "CAD/car").mkdir(parents=True)
    models = [
        {"vertices": cad_verts(model), "faces": (FACES + 1).astype(np.float64), **cad_anchors(model), "pnames": "x"}
        for model in range(2)
    ]
    scipy.io.savemat(folder / "CAD/car.mat", {"car": struct_array(models)})
    for model in range(2):
        rows = [f"{len(CORNERS)} {len(FACES)} 0", *(" ".join(map(str, v)) for v in cad_verts(model).tolist())]
        rows += [f"3 {a} {b} {c}" for a, b, c in FACES.tolist()]
        (folder / f"CAD/car/{model + 1:02d}.off").write_text("\n".join(["OFF", *rows]) + "\n")


KEYPOINTS = (*NAMES, "roof")
MIRROR = (2, 1, 4, 3, 5)  # counting from 1


def mean_shape() -> np.ndarray:
    """(3, 5) in CMR's frame, mirrored in x = 0, the largest distance 2."""
    shape = np.array([[0.4, -0.8, 0.1], [-0.4, -0.8, 0.1], [0.4, 0.8, 0.3], [-0.4, 0.8, 0.3], [0.0, 0.1, 0.6]])
    return shape.T * (2 / np.linalg.norm(shape[0] - shape[3]))


def write_cmr(root: Path, split: str, pictures: list[str], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """CMR's two files of a split, the key points where the cameras see the mean shape; gives the cameras.

    Masks are the boxes around the key points, which may reach over the border.
    """
    generator = np.random.default_rng([seed, len(split)])
    images, cameras = [], []
    for number, picture in enumerate(pictures):
        rotation = Rotation.random(random_state=number).as_matrix()
        camera = {"rot": rotation, "scale": generator.uniform(9, 14), "trans": generator.uniform((20, 15), (44, 33))}
        places = camera["scale"] * rotation[:2] @ mean_shape() + camera["trans"][:, None]
        visible = np.ones(5)
        visible[number % 5] = 0
        (x1, y1), (x2, y2) = np.floor(places.min(axis=1)).astype(int), np.ceil(places.max(axis=1)).astype(int)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[max(y1 - 1, 0) : y2, max(x1 - 1, 0) : x2] = 1
        box = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        parts = np.vstack([places * visible, visible])
        images.append({"rel_path": picture, "bbox": box, "parts": parts, "mask": mask, "voc_rec_id": number + 1})
        cameras.append(camera | {"err_sfm_reproj": 0.001})
    (root / "data").mkdir(exist_ok=True)
    (root / "sfm").mkdir(exist_ok=True)
    scipy.io.savemat(root / f"data/car_{split}.mat", {"images": struct_array(images)})
    anno = {
        "sfm_anno": struct_array(cameras),
        "S": mean_shape(),
        "conv_tri": np.array([[1, 2, 5], [3, 4, 5]], np.uint8),
    }
    scipy.io.savemat(root / f"sfm/car_{split}.mat", anno)
    names = np.array(KEYPOINTS, dtype=object)
    scipy.io.savemat(root / "data/car_kps.mat", {"kp_names": names, "kp_perm_inds": np.array(MIRROR, np.uint8)})
    return cameras
