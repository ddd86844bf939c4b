"""Pictures of phones and cameras made small, once, so that training does not decode millions of pixels for each crop.

Between `folder_layout` and `image_folder`. What is made lies in ``.recon3d`` of the folder, or in the user's cache
where that cannot be written, in files named by a hash of all that they depend on: a changed picture is prepared anew.

Views with cameras are cut to a square about the origin of the object frame in which a unit is as long as in NMR's
renders, whose framing `recon3d predict` gives to photographs. Photographs keep their surroundings, and are reduced by
whole factors while the object's crop stays larger than what is trained on.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from recon3d.data.camera_table import CameraTable
from recon3d.data.cropping import square_crop
from recon3d.data.folder_layout import LISTED, FolderObject, FolderView, ImageFolder, file_digests
from recon3d.data.meshes import ColoredMesh, read_mesh
from recon3d.data.nmr_layout import VOXEL_RESOLUTION
from recon3d.data.npz import ArrayFile, DataFileError, locate_array, write_npz
from recon3d.data.photograph_annotations import Photograph
from recon3d.data.picture_files import OPAQUE, cut_square, has_mask, mask_box, on_white, open_image, read_mask_of
from recon3d.files import replace_file, write_whole
from recon3d.geometry.cameras import NMR_DISTANCE, NMR_VIEWING_ANGLE
from recon3d.geometry.pixel_cameras import square_camera
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.structures import Camera

logger = logging.getLogger(__name__)

VERSION = 1  # raise when the same files give other pictures or shapes
CACHE = ".recon3d"
UNIT = 1 / math.tan(math.radians(NMR_VIEWING_ANGLE)) / NMR_DISTANCE  # of the object frame in NMR's renders, in NDC
CORNER = math.sqrt(3) / 2  # from the origin to a corner of [-0.5, 0.5]^3
MAX_SIDE = 8  # of a square, in longer sides of its picture
EDGE = 0.5 + 1e-3  # half the side of the cube that holds every object, and rounding
N_POINTS = 10_000
_BOX = "box"


@dataclass(frozen=True)
class PreparedViews:
    """The views of an object on disk: (V, 4, S, S) uint8 RGBA, and their cameras (V,)."""

    images: ArrayFile
    cameras: Camera


class Preparation:
    """What a folder's pictures and shapes become at one size.

    Args:
        folder: what there is.
        size: pixels of the pictures that are trained on.
        cameras: cut views to what cameras see; else photographs.
    """

    def __init__(self, folder: ImageFolder, size: int, cameras: bool) -> None:
        self.folder = folder
        self.size = size
        self.table: CameraTable | None = folder.cameras if cameras else None
        self.cache = _cache_folder(folder.root)

    @cached_property
    def digests(self) -> dict[Path, str]:
        """SHA-256 of the files of the folder."""
        return file_digests(self.folder)

    def prepare(self) -> None:
        """Make what is missing, in threads.

        Raises:
            DataFileError: pictures, masks, cameras or meshes that cannot be used, each with its name and reason.
        """
        # By the file that each makes: two threads must not write one, which equal pictures share.
        jobs: dict[Path, Callable[[], object]] = {}
        shapes: dict[Path, Callable[[], object]] = {}
        for item in self.folder.objects:
            if self.table is not None:
                jobs.setdefault(self._views_file(item), partial(self._make_views, item, self.table))
            else:
                for view in item.views:
                    jobs.setdefault(self._photograph_files(view)[1], partial(self._make_photograph, view))
            truth = self.truth(item)
            if item.mesh is not None and truth is not None:
                shapes.setdefault(truth, partial(_make_truth, item.mesh, truth))
        missing = [job for path, job in jobs.items() if not path.is_file()]
        missing_shapes = [job for path, job in shapes.items() if not path.is_file()]
        if not missing and not missing_shapes:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        logger.info(
            "Preparing %d objects or pictures, and %d meshes, in %s, once.",
            len(missing),
            len(missing_shapes),
            self.cache,
        )
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            problems = [problem for problem in pool.map(_problem, missing) if problem]
        problems += [problem for problem in map(_problem, missing_shapes) if problem]
        if problems:
            more = f"\nand {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            raise DataFileError(
                f"{self.folder.root}: {len(problems)} problem(s); `recon3d data check` shows all.\n"
                + "\n".join(problems[:LISTED])
                + more
            )

    def views(self, item: FolderObject) -> PreparedViews:
        """The prepared views of an object.

        Raises:
            DataFileError: they are not there, or numbers that are no camera.
        """
        assert self.table is not None
        path = self._views_file(item)
        sizes, squares = (np.array(locate_array(path, name).open()) for name in ("sizes", "squares"))
        cameras = self.table.cameras([view.name for view in item.views], sizes.tolist())
        return PreparedViews(locate_array(path, "images"), square_camera(cameras, torch.from_numpy(squares)))

    def photographs(self, item: FolderObject) -> list[Photograph]:
        """A photograph for every view of an object; their id is the view's, without the suffix."""
        found = []
        for view in item.views:
            picture, mask = self._photograph_files(view)
            with Image.open(mask) as file:
                size, box = file.size, json.loads(file.info[_BOX])
            found.append(
                Photograph(
                    id=str(Path(view.name).with_suffix("").as_posix()),
                    category=item.category,
                    image=picture,
                    size=size,
                    box=tuple(box),
                    mask=mask,
                    truth=self.truth(item),
                )
            )
        return found

    def truth(self, item: FolderObject) -> Path | None:
        """File of the points, normals and voxels of an object; None without a mesh."""
        return None if item.mesh is None else self.cache / f"{_key(self.digests[item.mesh])}.truth.npz"

    def _views_file(self, item: FolderObject) -> Path:
        assert self.table is not None
        rows = [sorted(self.table.rows[view.name].items()) for view in item.views]
        key = _key(self.size, self.table.convention, rows, [self._contents(view) for view in item.views])
        return self.cache / f"{key}.views.npz"

    def _photograph_files(self, view: FolderView) -> tuple[Path, Path]:
        """Picture and mask; the mask is written last."""
        key = _key(self.size, self._contents(view))
        return self.cache / f"{key}.png", self.cache / f"{key}.mask.png"

    def _contents(self, view: FolderView) -> tuple[str, str | None]:
        return self.digests[view.image], None if view.mask is None else self.digests[view.mask]

    def _make_views(self, item: FolderObject, table: CameraTable) -> None:
        images, sizes, squares = [], [], []
        for view in item.views:
            rgba, mask = read_view(view)
            rgba.putalpha(mask)
            camera = table.cameras([view.name], [rgba.size])
            square = object_square(camera, rgba.size, view.name)
            squares.append(np.array(square))
            sizes.append(np.array(rgba.size))
            images.append(np.array(cut_square(rgba, *square, self.size)).transpose(2, 0, 1))
        write_npz(self._views_file(item), len(images), {"images": images, "sizes": sizes, "squares": squares})

    def _make_photograph(self, view: FolderView) -> None:
        picture, mask = read_view(view)
        seen = on_white(picture)
        factor = max(square_crop(mask_box(np.asarray(mask) >= OPAQUE), self.size).side // self.size, 1)
        while factor > 1 and np.asarray(mask.reduce(factor)).max() < OPAQUE:  # a wire, thinner than half a new pixel
            factor -= 1
        if factor > 1:  # the crop resizes without a filter, which would let fine patterns through
            seen, mask = seen.reduce(factor), mask.reduce(factor)
        box = PngInfo()
        box.add_text(_BOX, json.dumps(mask_box(np.asarray(mask) >= OPAQUE)))
        picture_file, mask_file = self._photograph_files(view)
        replace_file(picture_file, lambda path: seen.save(path, format="png"))
        replace_file(mask_file, lambda path: mask.save(path, format="png", pnginfo=box))


def read_view(view: FolderView) -> tuple[Image.Image, Image.Image]:
    """An image, upright, as RGBA with its own alpha channel, and its mask, grey.

    Raises:
        DataFileError: unreadable, an alpha channel that is opaque everywhere, or a mask that is empty or of another
            size.
    """
    try:
        picture = open_image(view.image).convert("RGBA")
        if view.mask is None and not has_mask(picture):
            raise ValueError(f"{view.image}: the alpha channel is opaque everywhere, so it is no mask.")
        mask = picture.getchannel("A") if view.mask is None else read_mask_of(view.mask, picture, view.image)
    except (FileNotFoundError, ValueError) as error:
        raise DataFileError(str(error)) from error
    peak = int(np.asarray(mask).max())
    if peak < OPAQUE:
        raise DataFileError(
            f"{view.mask or view.image}: the mask is empty; the object should be 255 (white, opaque), the highest is "
            f"{peak}."
        )
    return picture, mask


def object_square(camera: Camera, size: tuple[int, int], name: str) -> tuple[float, float, float]:
    """Left, top and side, in pixels, of the square about the object frame's origin in which a unit is `UNIT` of NDC.

    Args:
        camera: pixel camera (1,).
        size: of the picture.
        name: of the image, for the errors.

    Raises:
        DataFileError: the cube [-0.5, 0.5]^3 is not in front of the camera, or far from filling the picture.
    """
    depth = float(camera.T[0, 2])
    if depth <= CORNER:
        raise DataFileError(
            f"{name}: the origin lies at depth {depth:.3g} of its camera, so the object, in [-0.5, 0.5]^3 about it, is "
            "not in front. Check the convention, and that the world's unit is the object's longest side."
        )
    x, y = (-(camera.focal * camera.T[:, :2] / depth + camera.center))[0].tolist()
    side = 2 * float(camera.focal.mean()) / (UNIT * depth)
    if not 1 <= side <= MAX_SIDE * max(size):
        raise DataFileError(
            f"{name}: its camera sees a unit {side * UNIT / 2:.3g} pixels long in a picture of {size[0]}x{size[1]}; "
            "the object's longest side should be 1, and focal lengths in pixels of this picture."
        )
    return x - side / 2, y - side / 2, side


def read_true_mesh(mesh: Path) -> ColoredMesh:
    """A mesh in the object frame, as it is.

    Raises:
        DataFileError: unreadable, or not inside [-0.5, 0.5]^3; says what to do.
    """
    try:
        shape = read_mesh(mesh)
    except ValueError as error:
        raise DataFileError(str(error)) from error
    if float(shape.verts.abs().max()) > EDGE:
        low, high = shape.verts.amin(dim=0), shape.verts.amax(dim=0)
        raise DataFileError(
            f"{mesh}: expected vertices in the object frame, inside [-0.5, 0.5]^3, got {_numbers(low)} to "
            f"{_numbers(high)}. Subtract {_numbers((low + high) / 2)} and divide by {float((high - low).max()):.4g}; "
            "if there are cameras, do the same to their world."
        )
    return shape


def _make_truth(mesh: Path, target: Path) -> None:
    shape = read_true_mesh(mesh)
    points, normals, _ = sample_surface(shape.verts, shape.faces, N_POINTS, torch.Generator().manual_seed(0))
    stream = io.BytesIO()
    voxels = voxelize(shape.verts, shape.faces, VOXEL_RESOLUTION)
    np.savez(stream, points=points.numpy(), normals=normals.numpy(), voxels=voxels.numpy())
    write_whole(target, stream.getvalue())


def _numbers(values: torch.Tensor) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values.tolist())})"


def _problem(job: Callable[[], object]) -> str | None:
    try:
        job()
    except DataFileError as error:
        return str(error)
    return None


def _key(*parts: object) -> str:
    return hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:24]


def _cache_folder(root: Path) -> Path:
    if os.access(root, os.W_OK):
        return root / CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recon3d" / "image_folder"
