"""Writes photographs of cars in the layout of Pascal3D+'s release 1.1 and of CMR's annotations; opposite of `pascal3d`.

Between `synthetic_cars` and `synthetic_photographs`. Pictures, records and true shapes are written one by one, by
workers (`write_car`); lists, CAD models and CMR's files at the end (`write_annotations`). `pascal3d_release`,
`pascal3d_cads` and `cmr_files` have the formats; everything in MATLAB's files counts from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon3d.data.cub_writing import JPEG_QUALITY, tetrahedra_sides
from recon3d.data.mat_writing import struct_array, write_mat
from recon3d.data.pascal3d_release import FOLDER
from recon3d.data.photograph_scenes import write_truth
from recon3d.data.synthetic_cars import CarObject, CarPicture, cad_axes
from recon3d.files import write_whole
from recon3d.geometry.shapes.car_keypoints import KEYPOINT_MIRROR, KEYPOINTS, Car
from recon3d.geometry.viewpoints import Viewpoint

CLASS = "car"
LEAST_KEYPOINTS = 4  # visible ones, of the objects in CMR's files
_SUFFIX = {"imagenet": ".JPEG", "pascal": ".jpg"}
_COARSE = 45.0  # degrees between the release's coarse viewpoints
_LISTS = "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"


@dataclass(frozen=True, eq=False)
class WrittenCar:
    """What the lists and CMR's files need of a picture that is written.

    Attributes:
        source: imagenet or pascal.
        id: of the picture.
        size: width and height.
        objects: numbers on the picture and fields in CMR's `images` and `sfm_anno` of the cars that CMR would keep.
    """

    source: str
    id: str
    size: tuple[int, int]
    objects: tuple[tuple[dict[str, Any], dict[str, Any]], ...]


def write_car(root: Path, car: CarPicture, source: str, training: bool) -> WrittenCar:
    """Writes picture, record and true shapes below `root`; `source` is imagenet or pascal, whose half it joins."""
    name = f"n9{car.seed:07d}" if source == "imagenet" else f"2012_{car.seed:07d}"
    height, width = car.picture.shape[:2]
    folder = f"{CLASS}_{source}"
    picture = root / FOLDER / "Images" / folder / f"{name}{_SUFFIX[source]}"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(car.picture).save(picture, "JPEG", quality=JPEG_QUALITY)
    record = {
        "filename": picture.name,
        "imgsize": np.array([width, height, 3.0]),
        "size": {"width": float(width), "height": float(height), "depth": 3.0},
        "segmented": 0.0,
        "objects": struct_array([*map(_object, car.objects)]),
    }
    write_mat(root / FOLDER / "Annotations" / folder / f"{name}.mat", {"record": record})
    kept = [item for item in car.objects if _kept(item)]
    for number, item in enumerate(kept):
        suffix = f"@{number}" if len(kept) > 1 else ""  # as `cmr_files` names them
        write_truth(root / "truth" / folder / f"{name}{suffix}.npz", item.truth)
    path = rf"{folder}\{picture.name}"
    objects = tuple(
        (_image(item, number, path, name, (width, height), training), _pose(item)) for number, item in enumerate(kept)
    )
    return WrittenCar(source, name, (width, height), objects)


def write_annotations(
    root: Path,
    splits: Mapping[str, Sequence[WrittenCar]],
    cads: Sequence[Car],
    mean_keypoints: np.ndarray,
) -> None:
    """Writes the release's lists and CAD models, and CMR's files of every split.

    Args:
        root: as for `write_car`.
        splits: of train, val and test; the lists of the release have test pictures under val.
        cads: the CAD models.
        mean_keypoints: S (12, 3), in CMR's frame.
    """
    release = root / FOLDER
    train, held_out = splits["train"], [*splits["val"], *splits["test"]]
    lists = {
        f"Image_sets/{CLASS}_imagenet_train.txt": _ids(train, "imagenet")[1:],
        f"Image_sets/{CLASS}_imagenet_val.txt": _ids(train, "imagenet")[:1],
        f"{_LISTS}/train.txt": _ids(train, "pascal"),
        f"{_LISTS}/val.txt": _ids(held_out, "pascal"),
    }
    for name, ids in lists.items():
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(release / name, "".join(f"{one}\n" for one in ids).encode())
    write_mat(release / "CAD" / f"{CLASS}.mat", {CLASS: struct_array([*map(_cad, cads)])})
    (release / "CAD" / CLASS).mkdir(exist_ok=True)
    for number, cad in enumerate(cads, 1):
        write_whole(release / "CAD" / CLASS / f"{number:02d}.off", _off(cad).encode())
    names = np.array(KEYPOINTS, dtype=object)
    partners = np.array(KEYPOINT_MIRROR, dtype=np.uint8) + 1
    write_mat(root / "data" / f"{CLASS}_kps.mat", {"kp_names": names, "kp_perm_inds": partners.astype(np.uint8)})
    mean = {"S": np.ascontiguousarray(mean_keypoints.T), "conv_tri": tetrahedra_sides(mean_keypoints)}
    for split, pictures in {**splits, "all": [*train, *held_out]}.items():
        objects = [pair for picture in pictures for pair in picture.objects]
        if not objects:
            continue
        write_mat(root / "data" / f"{CLASS}_{split}.mat", {"images": struct_array([image for image, _ in objects])})
        poses = {"sfm_anno": struct_array([pose for _, pose in objects])}
        write_mat(root / "sfm" / f"{CLASS}_{split}.mat", poses | mean)


def _ids(pictures: Sequence[WrittenCar], source: str) -> list[str]:
    return [picture.id for picture in pictures if picture.source == source]


def _kept(item: CarObject) -> bool:
    """Whether CMR would keep an object."""
    return not item.truncated and not item.occluded and item.keypoints[:, 2].sum() >= LEAST_KEYPOINTS


def _corners(item: CarObject) -> list[float]:
    return [value + 1.0 for value in item.box]


def _object(item: CarObject) -> dict[str, Any]:
    """One of the release's `objects`."""
    anchors = {
        name: {"location": np.array([x + 1.0, y + 1.0]) if visible else np.zeros((0, 0)), "status": 2.0 - visible}
        for name, (x, y, visible) in zip(KEYPOINTS, item.keypoints.tolist(), strict=True)
    }
    view = {field.name: float(getattr(item.viewpoint, field.name)) for field in fields(Viewpoint)}
    view |= {"px": view["px"] + 1.0, "py": view["py"] + 1.0}
    view["azimuth_coarse"] = _COARSE * round(view["azimuth"] / _COARSE) % 360.0
    view["elevation_coarse"] = _COARSE * round(view["elevation"] / _COARSE)
    return {
        "class": CLASS,
        "view": "",
        "bbox": np.array(_corners(item)),
        "truncated": float(item.truncated),
        "occluded": float(item.occluded),
        "difficult": 0.0,
        "cad_index": float(item.cad + 1),
        "anchors": anchors,
        "viewpoint": view,
    }


def _image(item: CarObject, number: int, path: str, name: str, size: tuple[int, int], training: bool) -> dict[str, Any]:
    """One of CMR's `images`."""
    visible = item.keypoints[:, 2:]
    parts = np.concatenate([(item.keypoints[:, :2] + 1.0) * visible, visible], axis=1)
    return {
        "width": size[0],
        "height": size[1],
        "cad_index": item.cad + 1,
        "voc_image_id": name,
        "voc_rec_id": number + 1,
        "is_train": int(training),
        "rel_path": path,
        "bbox": dict(zip(("x1", "y1", "x2", "y2"), _corners(item), strict=True)),
        "parts": np.ascontiguousarray(parts.T),
        "mask": (item.coverage >= 0.5).astype(np.uint8),
    }


def _pose(item: CarObject) -> dict[str, Any]:
    """One of CMR's `sfm_anno`."""
    return {"rot": item.rotation, "scale": item.scale, "trans": item.shift + 1.0, "err_sfm_reproj": item.error}


def _cad(cad: Car) -> dict[str, Any]:
    places = cad_axes(cad.keypoints)
    anchors = {name: place[None] for name, place in zip(KEYPOINTS, places, strict=True)}
    return {
        "vertices": cad_axes(cad.shape.verts),
        "faces": cad.shape.faces.astype(np.float64) + 1.0,
        **anchors,
        "pnames": np.array(KEYPOINTS, dtype=object),
    }


def _off(cad: Car) -> str:
    verts, faces = cad_axes(cad.shape.verts), cad.shape.faces
    lines = ["OFF", f"{len(verts)} {len(faces)} 0"]
    lines += [f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in verts.tolist()]
    lines += [f"3 {a} {b} {c}" for a, b, c in faces.tolist()]
    return "\n".join(lines) + "\n"
