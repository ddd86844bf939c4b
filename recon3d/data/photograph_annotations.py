"""What is known of a photograph: picture, box, mask, key points, camera, truth; and the readers of its files.

Below `recon3d.data.photographs`; the modules of the data sets fill these in. All in full-image pixels, 0-based, the
centre of the first pixel at 0.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pytorch3d.transforms import matrix_to_quaternion
from torch import Tensor

from recon3d.data.cropping import Box, mirror_points
from recon3d.data.nmr_layout import VOXEL_RESOLUTION
from recon3d.data.npz import DataFileError, reading
from recon3d.geometry.weak_perspective import object_camera, weak_perspective_camera
from recon3d.structures import Camera


@dataclass(frozen=True, eq=False)
class SfMPose:
    """A camera of CMR's annotations: key points are ``scale * rotation[:2] @ S + translation`` in full-image pixels.

    Attributes:
        rotation: (3, 3), proper.
        scale: pixels of one unit of CMR's frame.
        translation: (2,), as it stands in the file: it belongs to 1-based pixels, and CMR does not shift it.
    """

    rotation: np.ndarray
    scale: float
    translation: np.ndarray

    def camera(self) -> Camera:
        """The camera (1,), as `sfm_cameras` gives it."""
        return sfm_cameras([self])


@dataclass(frozen=True, eq=False)
class Photograph:
    """One object on one picture, in full-image pixels, 0-based. A field is there for a whole split or for none of it.

    Attributes:
        id: unique: path of the picture without suffix, and a number where it shows several objects.
        category: name.
        image: file of the picture.
        size: its width and height.
        box: of the object, inclusive.
        mask: file of a segmentation, the object is where it is half white or more; or such a PNG in bytes (`mask_png`).
        keypoints: (K, 3): x, y, visible 0 or 1; x and y mean nothing where it is 0.
        pose: camera by structure from motion.
        camera: any other full-image camera (1,), in the units that `cropping.crop_camera` takes; not with `pose`.
        parts: file of a part map, see `part_maps.read_part_map`; where it should be, if it is not there.
        truth: .npz of points (P, 3), normals (P, 3) and voxels (32, 32, 32) bool, in the object frame.
    """

    id: str
    category: str
    image: Path
    size: tuple[int, int]
    box: Box
    mask: bytes | Path
    keypoints: np.ndarray | None = None
    pose: SfMPose | None = None
    camera: Camera | None = None
    parts: Path | None = None
    truth: Path | None = None

    def content(self) -> tuple[object, ...]:
        """What tells this photograph from another: annotations and file sizes, not where the files lie; no part map."""
        pose = self.pose and (self.pose.rotation.tolist(), float(self.pose.scale), self.pose.translation.tolist())
        camera = self.camera and [
            value.tolist() for value in (self.camera.R, self.camera.T, self.camera.focal, self.camera.center)
        ]
        points = None if self.keypoints is None else self.keypoints.tolist()
        files = [path and path.stat().st_size for path in (self.image, self.truth)]
        if isinstance(self.mask, Path):
            mask: object = self.mask.stat().st_size
        else:  # its pixels: PNGs of them differ between versions of zlib
            mask = hashlib.sha256(np.packbits(read_mask(self.mask, self.size, self.id)).tobytes()).hexdigest()
        return (self.id, self.category, self.size, tuple(map(float, self.box)), points, pose, camera, files, mask)


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """The key points of a category.

    Attributes:
        names: of the K key points.
        mirror: 0-based permutation: key point i of a mirrored picture is number mirror[i] of the picture.
        shape: (K, 3) mean key points in CMR's frame.
        triangles: (T, 3) 0-based triangles of `shape`.
        parts: {part: names of its key points}, for `part_maps.keypoint_parts`; empty where there are none.
    """

    names: tuple[str, ...]
    mirror: tuple[int, ...]
    shape: np.ndarray | None = None
    triangles: np.ndarray | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def sfm_cameras(poses: Sequence[SfMPose]) -> Camera:
    """Full-image cameras (N,) of the object frame, float64, in the units that `cropping.crop_camera` takes."""
    rotations = torch.from_numpy(np.stack([pose.rotation for pose in poses]).astype(np.float64))
    places = torch.tensor([[pose.scale, *pose.translation] for pose in poses], dtype=torch.float64)
    return object_camera(weak_perspective_camera(torch.cat([places, matrix_to_quaternion(rotations)], dim=1)))


def mask_png(mask: np.ndarray) -> bytes:
    """A mask (H, W), anything but 0 the object, as a PNG: a hundredth of the memory."""
    stream = io.BytesIO()
    Image.fromarray(mask != 0).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def read_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """RGB of a picture, uint8 (H, W, 3); grey ones repeated, transparency dropped.

    Raises:
        DataFileError: missing, damaged, or not of the size that the annotations say.
    """
    return _read(path, "RGB", size, str(path))


def read_mask(mask: bytes | Path, size: tuple[int, int], name: str) -> np.ndarray:
    """A mask, uint8 (H, W, 1) of 0 and 255, thresholded at half; `name` is for the errors.

    Raises:
        DataFileError: as `read_picture`.
    """
    if isinstance(mask, bytes):
        pixels = _read(io.BytesIO(mask), "L", size, f"mask of {name}")
    else:
        pixels = _read(mask, "L", size, str(mask))
    return (pixels >= 128).astype(np.uint8)[..., None] * np.uint8(255)


def _read(source: Path | io.BytesIO, mode: str, size: tuple[int, int], name: str) -> np.ndarray:
    try:
        with Image.open(source) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataFileError(f"{name}: not readable as an image ({error}). Fetch it again.") from error
    if pixels.shape[1::-1] != size:
        raise DataFileError(
            f"{name}: expected {size[0]}x{size[1]} pixels, as the annotations have, got {pixels.shape[1]}x"
            f"{pixels.shape[0]}. Fetch the picture that was annotated."
        )
    return pixels


def read_truth(path: Path, mirrored: bool) -> dict[str, Tensor]:
    """The fields points (1, P, 3), normals (1, P, 3) and voxels (1, 32, 32, 32) of a `ViewBatch`, in the object frame.

    Args:
        path: an .npz of the three.
        mirrored: reflect them, as `cropping.crop_camera` reflects the object.

    Raises:
        DataFileError: missing, damaged, or arrays of other shapes.
    """
    with reading(path, "arrays points, normals and voxels"), np.load(path, allow_pickle=False) as arrays:
        points, normals, voxels = (arrays[name] for name in ("points", "normals", "voxels"))
    if (
        points.ndim != 2
        or points.shape[1:] != (3,)
        or normals.shape != points.shape
        or voxels.dtype != np.bool_
        or voxels.shape != (VOXEL_RESOLUTION,) * 3
    ):
        raise DataFileError(
            f"{path}: expected points (P, 3), normals (P, 3) and bool voxels (32, 32, 32), got {points.shape}, "
            f"{normals.shape} and {voxels.dtype} {voxels.shape}."
        )
    truth = {"points": torch.from_numpy(points).float(), "normals": torch.from_numpy(normals).float()}
    solid = torch.from_numpy(voxels)
    if mirrored:
        truth = {name: mirror_points(value) for name, value in truth.items()}
        solid = solid.flip(2)  # [y, x, z]: cells are symmetric about z = 0
    return {name: value[None] for name, value in (truth | {"voxels": solid}).items()}
