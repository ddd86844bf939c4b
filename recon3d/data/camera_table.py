"""cameras.csv of a folder of one's own pictures: a camera for each of them, in one of three conventions.

Below `folder_layout`. One row an image; ``image`` is its path below ``images/``, ``convention`` the same in all rows:

- ``look_at``: azimuth, elevation (degrees), distance (object units), fov (degrees, of the picture's longer side). The
  camera looks at the origin with +Y up, azimuth 0 on +Z, 90 on +X (`geometry.cameras.look_at_camera`).
- ``opencv``, ``opengl``: r11 to r33 (row by row), t1, t2, t3 of the world-to-camera matrix, fx, fy in pixels, and cx,
  cy, else the middle of the picture (`geometry.pixel_cameras.matrix_cameras`).

The world is the object frame: the object's centre at the origin, +Y up, its longest side 1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch

from recon3d.data.npz import DataFileError
from recon3d.geometry.cameras import look_at_camera
from recon3d.geometry.pixel_cameras import MatrixConvention, matrix_cameras, pixel_camera
from recon3d.structures import Camera

CAMERA_FILE = "cameras.csv"
LOOK_AT = ("azimuth", "elevation", "distance", "fov")
_ROTATION = tuple(f"r{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))
MATRIX = (*_ROTATION, "t1", "t2", "t3", "fx", "fy")
CENTER = ("cx", "cy")
Convention = Literal["look_at", MatrixConvention]
COLUMNS: dict[Convention, tuple[str, ...]] = {"look_at": LOOK_AT, "opencv": MATRIX, "opengl": MATRIX}


@dataclass(frozen=True)
class CameraTable:
    """The rows of cameras.csv.

    Attributes:
        path: the file.
        convention: of all rows.
        rows: by image, the numbers of its columns.
    """

    path: Path
    convention: Convention
    rows: Mapping[str, Mapping[str, float]]

    def cameras(self, images: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Camera:
        """Pixel cameras (N,) of some images, float32; see `geometry.pixel_cameras`.

        Args:
            images: their names.
            sizes: width and height of each, in pixels.

        Raises:
            DataFileError: numbers that are no camera, or no rotation.
        """
        rows = [self.rows[image] for image in images]
        extent = torch.tensor(sizes, dtype=torch.float64).reshape(-1, 2)
        try:
            return self._cameras(rows, extent).to(dtype=torch.float32)
        except ValueError as error:
            raise DataFileError(f"{self.path}: {self._culprit(images, extent)}: {error}") from error

    def _cameras(self, rows: Sequence[Mapping[str, float]], sizes: torch.Tensor) -> Camera:
        def columns(*names: str) -> torch.Tensor:
            return torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)

        if self.convention == "look_at":
            azimuth, elevation, distance, fov = columns(*LOOK_AT).unbind(dim=1)
            return pixel_camera(look_at_camera(distance, elevation, azimuth, fov / 2), sizes)
        matrices = torch.cat([columns(*_ROTATION).reshape(-1, 3, 3), columns("t1", "t2", "t3")[..., None]], dim=2)
        given = "cx" in rows[0]
        center = columns(*CENTER) if given else sizes / 2
        return matrix_cameras(matrices, columns("fx", "fy"), center, self.convention)

    def _culprit(self, images: Sequence[str], sizes: torch.Tensor) -> str:
        """The first image whose row alone is refused."""
        for index, image in enumerate(images):
            try:
                self._cameras([self.rows[image]], sizes[index : index + 1])
            except ValueError:
                return image
        return "some rows"


def read_cameras(path: Path) -> CameraTable:
    """Read cameras.csv.

    Raises:
        DataFileError: columns that are missing, several conventions, an image twice, or what is no number.
    """
    rows: dict[str, dict[str, float]] = {}
    conventions: set[Convention] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = tuple(reader.fieldnames or ())
            if not {"image", "convention"} <= set(header):
                raise DataFileError(
                    f"{path}: expected the columns image, convention and those of the convention, got "
                    f"{', '.join(header) or 'nothing'}."
                )
            for line in reader:
                where = f"{path}, line {reader.line_num}"
                convention = cast(Convention, (line["convention"] or "").strip())
                if convention not in COLUMNS:
                    raise DataFileError(f"{where}: convention {convention!r} is none of {', '.join(COLUMNS)}.")
                needed = COLUMNS[convention]
                if missing := [name for name in needed if name not in header]:
                    raise DataFileError(
                        f"{path}: {convention} needs the columns {', '.join(needed)}; {', '.join(missing)} missing."
                    )
                if len(set(CENTER) & set(header)) == 1:
                    raise DataFileError(f"{path}: cx and cy go together; got one of them.")
                conventions.add(convention)
                if len(conventions) > 1:
                    raise DataFileError(f"{where}: expected one convention in all rows, got {sorted(conventions)}.")
                optional = CENTER if convention != "look_at" and "cx" in header else ()
                image = (line["image"] or "").strip()
                if image in rows:
                    raise DataFileError(f"{where}: {image} has two rows.")
                rows[image] = {name: _number(line[name], name, where) for name in (*needed, *optional)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path}: not readable as a table ({error}).") from error
    if not rows:
        raise DataFileError(f"{path}: no rows. Take the file away to read the pictures as single photographs.")
    return CameraTable(path, conventions.pop(), rows)


def _number(text: str | None, name: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataFileError(f"{where}: expected a number for {name}, got {text!r}.")
    return value
