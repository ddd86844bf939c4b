"""Models of the catalogue as triangles in their package's frame: archives, TORCS wheels, which parts to leave out."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from recon3d.data.open_shapes.catalogue import Model
from recon3d.data.open_shapes.packages import PACKAGES
from recon3d.data.open_shapes.polygons import Triangles, join
from recon3d.data.open_shapes.readers import decode, read_ac3d, read_obj

MAX_MEMBER_BYTES = 64 * 2**20  # the largest mesh in the packages' archives has 9 MB
_PROPERTIES = ("PluginFurnitureCatalog.properties", "DefaultFurnitureCatalog.properties")  # of a .sh3f, of the .jar

# Parts of an AC3D file that are not the object itself, by name: propeller discs, light halos, flames, shadows, crew
_NOT_THE_OBJECT = re.compile(
    r"(prop|prplr)\w*[._-]?dis[ck]|dis(c|k|que)[._-]?(helice|prop)|giro-?helice|blur|(fast|slow)[._-]?prop|"
    r"prop\w*[._-]?(fast|slow)|flame|burner|halo|glow|flare|beam|light-?cone|(?<!no)shadow|contrail|condensation|smoke|"
    r"^(co)?pilot(?!house|e|seat)|helmet|crew|driver|passenger|wake|sillage|spray|foam|^hose|^drogue$|^chute$|"
    r"^ladder|^recog|^flash\d",
    re.IGNORECASE,
)


class FurnitureArchive:
    """A Sweet Home 3D catalogue (.sh3f, or the program's .jar): a zip of OBJ files and a list of their rotations.

    Args:
        path: the archive.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a zip, a member's name that leads out of the archive, or no catalogue in it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path}: expected a zip archive; {error}") from error
        self.path = path
        names = self._zip.namelist()
        for name in names:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in parts or parts[:1] == ("/",) or ":" in name:
                raise ValueError(f"{path}: expected names inside the archive; got {name!r}. Do not use this file")
        properties = [name for name in names if PurePosixPath(name).name in _PROPERTIES]
        if not properties:
            raise ValueError(f"{path}: expected a member named {' or '.join(_PROPERTIES)}; is this a catalogue?")
        self._rotations = _model_rotations(decode(self._read(properties[0])))

    def read(self, member: str) -> Triangles:
        """The mesh of one member, turned as the catalogue's `modelRotation` says.

        Raises:
            FileNotFoundError: no such member.
            ValueError: not a readable OBJ file, or larger than `MAX_MEMBER_BYTES`.
        """
        mesh = read_obj(decode(self._read(member)))
        return mesh._replace(verts=mesh.verts @ self._rotations.get(member, np.eye(3)).T)

    def close(self) -> None:
        """Closes the archive."""
        self._zip.close()

    def _read(self, member: str) -> bytes:
        try:
            size = self._zip.getinfo(member).file_size
        except KeyError as error:
            raise FileNotFoundError(f"{self.path}: no member {member}") from error
        if size > MAX_MEMBER_BYTES:
            raise ValueError(f"{self.path}: expected at most {MAX_MEMBER_BYTES} bytes; {member} has {size}")
        try:
            return self._zip.read(member)  # stops at file_size, so a false size in the header gives no more
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.path}: {member} is damaged; {error}") from error


def _model_rotations(properties: str) -> dict[str, NDArray[np.float64]]:
    """Rotation (3,3) of each model of a catalogue, by member name; the first entry of a model counts."""
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(model|modelRotation)#(\d+)=(.*)$", properties, re.MULTILINE):
        entries.setdefault(int(number), {})[key] = value.strip()
    rotations: dict[str, NDArray[np.float64]] = {}
    for _, entry in sorted(entries.items()):
        rotation = np.array(entry["modelRotation"].split(), float) if "modelRotation" in entry else np.eye(3)
        if "model" in entry:
            rotations.setdefault(entry["model"].lstrip("/"), rotation.reshape(3, 3))
    return rotations


class ModelReader:
    """Reads models of the catalogue out of unpacked packages; a context manager, as it keeps archives open.

    Args:
        packages: folder of each unpacked package by name.
    """

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = packages
        self._archives: dict[Path, FurnitureArchive] = {}

    def __enter__(self) -> ModelReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for archive in self._archives.values():
            archive.close()

    def read(self, model: Model) -> tuple[Triangles, list[str]]:
        """Mesh of a model in its package's frame, +Y up, and the names of AC3D objects that were left out.

        Raises:
            FileNotFoundError: the package does not have the file.
            ValueError: the file cannot be read.
        """
        path, _, member = model.original_file.partition(":")
        file = self._packages[model.source_package] / PACKAGES[model.source_package].root / path
        if member:
            if file not in self._archives:
                self._archives[file] = FurnitureArchive(file)
            return self._archives[file].read(member), []

        def is_left_out(name: str) -> bool:
            further = model.leave_out and re.search(model.leave_out, name, re.IGNORECASE)
            return bool(further or _NOT_THE_OBJECT.search(name))

        mesh, left_out = read_ac3d(decode(file.read_bytes()), is_left_out)
        if model.source_package == "torcs-data":
            mesh = join([mesh, *torcs_wheels(decode(file.with_suffix(".xml").read_bytes()))])
        return mesh, left_out


def torcs_wheels(setup: str) -> list[Triangles]:
    """Four closed cylinders where a TORCS car has its wheels, since its body comes without them.

    TORCS draws the same for a car without 3-D wheel models. Car frame: metres, nose +X, up +Y.

    Args:
        setup: text of the car's XML. It is searched, not parsed: its entities point to files that are not beside it.

    Raises:
        ValueError: a section or a value is missing.
    """
    wheels = []
    for axle in ("Front", "Rear"):
        for side in ("Right", "Left"):
            wheel = f"{axle} {side} Wheel"
            width = _torcs_value(setup, wheel, "tire width") / 1000  # millimetres
            rim = _torcs_value(setup, wheel, "rim diameter") * 0.0254  # inches
            radius = rim / 2 + width * _torcs_value(setup, wheel, "tire height-width ratio")
            height = radius - _torcs_value(setup, wheel, "ride height") / 1000  # the body's origin is `ride height` up
            centre = [_torcs_value(setup, f"{axle} Axle", "xpos"), height, -_torcs_value(setup, wheel, "ypos")]
            cylinder = _cylinder(radius, width)
            wheels.append(cylinder._replace(verts=cylinder.verts + centre))
    return wheels


def _torcs_value(setup: str, section: str, name: str) -> float:
    body = re.search(rf'<section name="{section}">(.*?)</section>', setup, re.DOTALL)
    tag = re.search(rf'<attnum\b(?=[^>]*\bname="{name}")[^>]*\bval="([-\d.]+)"', body[1]) if body else None
    if tag is None:
        raise ValueError(f"expected a number named {name!r} in section {section!r} of the car's XML; got none")
    return float(tag[1])


def _cylinder(radius: float, width: float, sides: int = 24) -> Triangles:
    """A closed cylinder about Z, centred, wound outwards."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angle) * radius, np.sin(angle) * radius], 1)
    near, far = np.full((sides, 1), -width / 2), np.full((sides, 1), width / 2)
    verts = np.concatenate([np.hstack([ring, near]), np.hstack([ring, far]), [[0, 0, -width / 2], [0, 0, width / 2]]])
    faces = []
    for i in range(sides):
        j = (i + 1) % sides
        faces += [
            (i, j, sides + j),
            (i, sides + j, sides + i),
            (j, i, 2 * sides),
            (sides + i, sides + j, 2 * sides + 1),
        ]
    return Triangles(verts, np.array(faces, np.int64))
