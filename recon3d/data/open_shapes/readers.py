"""Text of a Wavefront OBJ or AC3D file to triangles in the file's own frame; cleaning comes later in the build."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recon3d.data.open_shapes.polygons import Triangles, join, triangulate

_POLYGON, _TRIANGLE_STRIP = 0, 4  # low four bits of an AC3D surface's flags; 1 and 2 are lines, 4 is TORCS' own


def decode(raw: bytes) -> str:
    """Text of a file that is UTF-8 or, as older ones are, Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_obj(text: str) -> Triangles:
    """Triangles of a Wavefront OBJ file; groups, materials, normals and texture coordinates are ignored.

    Raises:
        ValueError: a number cannot be read or a face names a vertex that does not exist.
    """
    verts: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    polygons: list[list[int]] = []
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():  # a backslash continues a line
        if line.startswith("v "):
            verts.append([float(word) for word in line.split()[1:4]])
        elif line.startswith("f "):
            indices = [int(word.split("/")[0]) for word in line.split()[1:]]
            loop = [index - 1 if index > 0 else len(verts) + index for index in indices]  # negative: from the end
            if len(loop) == 3:
                triangles.append((loop[0], loop[1], loop[2]))
            elif len(loop) > 3:
                polygons.append(loop)
    points = np.array(verts, float).reshape(-1, 3)
    for loop in polygons:
        _check_indices(loop, len(points), "OBJ polygon")
        triangles += triangulate(points, loop)
    faces = np.array(triangles, np.int64).reshape(-1, 3)
    _check_indices(faces.ravel(), len(points), "OBJ face")
    return Triangles(points, faces)


def read_ac3d(text: str, leave_out: Callable[[str], bool] = lambda name: False) -> tuple[Triangles, list[str]]:
    """Triangles of an AC3D file (.ac, and TORCS' .acc) in world space, nested transforms applied.

    Args:
        text: the file.
        leave_out: told an object's name, whether to skip it together with the objects below it.

    Returns:
        The mesh, and the names of the objects that were left out.

    Raises:
        ValueError: not an AC3D file, or one that ends early or names a vertex that does not exist.
    """
    if not text.startswith("AC3D"):
        raise ValueError(f"expected an AC3D file, which begins with 'AC3D'; got {text[:20]!r}")
    reader = _Ac3dReader(text, leave_out)
    try:
        if reader.seek_object():
            reader.read_object(np.eye(3), np.zeros(3))
    except IndexError as error:
        raise ValueError(f"AC3D file ends early or is damaged near line {reader.position}") from error
    return join(reader.parts), reader.left_out


def _check_indices(indices: list[int] | NDArray[np.int64], count: int, what: str) -> None:
    if len(indices) and not 0 <= min(indices) <= max(indices) < count:
        raise ValueError(f"{what}: expected vertex indices from 0 to {count - 1}; got {min(indices)} to {max(indices)}")


class _Ac3dReader:
    """Cursor over the lines of one AC3D file; gathers the objects' triangles in file order."""

    def __init__(self, text: str, leave_out: Callable[[str], bool]) -> None:
        self.lines = [line.rstrip("\r") for line in text.split("\n")]
        self.position = 1
        self.leave_out = leave_out
        self.parts: list[Triangles] = []
        self.left_out: list[str] = []

    def seek_object(self) -> bool:
        """Moves to the next line that begins an object; False if there is none."""
        while self.position < len(self.lines) and not self.lines[self.position].startswith("OBJECT"):
            self.position += 1
        return self.position < len(self.lines)

    def read_object(self, parent_rotation: NDArray[np.float64], parent_location: NDArray[np.float64]) -> None:
        """Reads the object that begins here and those below it; points are row vectors, p @ rotation + location."""
        is_world = self.lines[self.position].split()[1:2] == ["world"]
        self.position += 1
        name, rotation, location = "", np.eye(3), np.zeros(3)
        mesh = join([])
        while True:
            key, *rest = self._next_line().split(None, 1)
            value = rest[0].strip() if rest else ""
            if key == "name":
                name = value.strip('"')
            elif key == "data":
                self._skip_characters(int(value))
            elif key == "rot":
                rotation = np.array(value.split()[:9], float).reshape(3, 3)
            elif key == "loc":
                location = np.array(value.split()[:3], float)
            elif key == "numvert":
                rows = [self._next_line().split()[:3] for _ in range(int(value))]
                mesh = mesh._replace(verts=np.array(rows, float).reshape(-1, 3))
            elif key == "numsurf":
                mesh = mesh._replace(faces=self._read_surfaces(mesh.verts, int(value)))
            elif key == "kids":
                break
        rotation, location = rotation @ parent_rotation, location @ parent_rotation + parent_location
        before = len(self.parts)
        if len(mesh.faces):
            self.parts.append(Triangles(mesh.verts @ rotation + location, mesh.faces))
        for _ in range(int(value)):
            if not self.seek_object():
                break  # some files announce more children than they have
            self.read_object(rotation, location)
        if not is_world and self.leave_out(name):
            del self.parts[before:]
            self.left_out.append(name)

    def _next_line(self) -> str:
        """The next line that is not blank."""
        while True:
            line = self.lines[self.position].strip()
            self.position += 1
            if line:
                return line

    def _skip_characters(self, count: int) -> None:
        """Skips a `data` block, whose length is given in characters with line ends counted as one."""
        while count > 0:
            count -= len(self.lines[self.position]) + 1
            self.position += 1

    def _read_surfaces(self, verts: NDArray[np.float64], count: int) -> NDArray[np.int64]:
        """Faces (F,3) of `count` surfaces; lines and points give none."""
        triangles: list[tuple[int, int, int]] = []
        for _ in range(count):
            shape = _POLYGON
            while True:
                words = self._next_line().split()
                if words[0] == "SURF":
                    shape = int(words[1], 16) & 0xF
                elif words[0] == "refs":
                    loop = [int(self._next_line().split()[0]) for _ in range(int(words[1]))]
                    break
            _check_indices(loop, len(verts), "AC3D surface")
            if shape == _POLYGON and len(loop) >= 3:
                triangles += triangulate(verts, loop)
            elif shape == _TRIANGLE_STRIP:
                for i, (a, b, c) in enumerate(zip(loop, loop[1:], loop[2:], strict=False)):
                    triangles.append((a, b, c) if i % 2 == 0 else (b, a, c))
        return np.array(triangles, np.int64).reshape(-1, 3)
