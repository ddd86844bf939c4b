from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon3d.apps.mesh_files import FORMATS, object_to_gltf, write_mesh
from recon3d.geometry.cameras import object_to_shapenet

Mesh = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def mesh() -> Mesh:
    """An egg without any symmetry, coloured at random."""
    solid = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    generator = torch.Generator().manual_seed(0)
    verts = torch.tensor(solid.vertices).float() * torch.tensor([1.0, 0.6, 0.3])
    return (
        verts + 0.01 * torch.rand(verts.shape, generator=generator),
        torch.tensor(solid.faces),
        torch.rand(verts.shape, generator=generator),
    )


def read(path: Path) -> trimesh.Trimesh:
    loaded = trimesh.load_scene(path, process=False)
    (geometry,) = loaded.geometry.values()
    return geometry


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("colored", [True, False])
def test_a_mesh_comes_back_the_same(tmp_path: Path, mesh: Mesh, kind: str, colored: bool) -> None:
    verts, faces, colors = mesh
    path = tmp_path / f"egg.{kind}"
    write_mesh(path, verts, faces, colors if colored else None)
    back = read(path)
    assert np.array_equal(back.faces, faces.numpy())
    expected = np.stack([-verts[:, 2], verts[:, 1], verts[:, 0]], axis=1)
    assert np.abs(back.vertices - expected).max() < 1e-6
    assert back.is_watertight and back.volume > 0  # a mirrored mesh would have a negative volume
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_front_faces_plus_z() -> None:
    axes = torch.eye(3)  # front, up, and the third axis of the object frame
    assert torch.equal(object_to_gltf(axes)[:2], torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert torch.linalg.det(object_to_gltf(axes)) == pytest.approx(1.0)
    half_turn = torch.tensor([-1.0, 1.0, -1.0])  # ShapeNet's front is -Z
    assert torch.equal(object_to_gltf(axes), object_to_shapenet(axes) * half_turn)


@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_colors_are_kept(tmp_path: Path, mesh: Mesh, kind: str) -> None:
    write_mesh(tmp_path / f"egg.{kind}", *mesh)
    colors = read(tmp_path / f"egg.{kind}").visual.vertex_colors
    assert np.abs(colors[:, :3] / 255 - mesh[2].numpy()).max() <= 0.51 / 255
    assert (colors[:, 3] == 255).all()


def test_colors_of_glb_are_linear(tmp_path: Path, mesh: Mesh) -> None:
    verts, faces, _ = mesh
    colors = torch.zeros_like(verts)
    colors[0], colors[1], colors[2] = 1.0, 0.5, 0.04
    write_mesh(tmp_path / "egg.glb", verts, faces, colors)
    stored = read(tmp_path / "egg.glb").visual.vertex_attributes["color"]
    # sRGB 0.5 is 0.2140 in linear light; below 0.04045 the curve is a line of slope 1 / 12.92.
    assert stored[:4, 0].tolist() == [255, round(255 * 0.2140), round(255 * 0.04 / 12.92), 0]


@pytest.mark.parametrize("colored", [True, False])
def test_glb_is_matte_and_smooth(tmp_path: Path, mesh: Mesh, colored: bool) -> None:
    verts, faces, colors = mesh
    path = tmp_path / "egg.glb"
    write_mesh(path, verts, faces, colors if colored else None)
    raw = path.read_bytes()
    assert raw[:4] == b"glTF" and int.from_bytes(raw[8:12], "little") == len(raw)
    tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
    (primitive,) = tree["meshes"][0]["primitives"]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL"} | ({"COLOR_0"} if colored else set())
    material = tree["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    base = material["pbrMetallicRoughness"]["baseColorFactor"]
    assert base == [1, 1, 1, 1] if colored else base[0] == pytest.approx(0.4479, abs=1e-4)  # sRGB 0.7


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, mesh: Mesh) -> None:
    verts, faces, colors = mesh
    path = tmp_path / "egg.glb"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="finite vertices"):
        write_mesh(path, torch.full_like(verts, torch.nan), faces)
    with pytest.raises(ValueError, match="got 0 faces"):
        write_mesh(path, verts, faces[:0])
    with pytest.raises(ValueError, match="expected colours"):
        write_mesh(path, verts, faces, colors[:5])
    with pytest.raises(ValueError, match=r"\.glb, \.obj, \.ply"):
        write_mesh(tmp_path / "egg.stl", verts, faces)
    assert [file.name for file in tmp_path.iterdir()] == ["egg.glb"]
    assert path.read_bytes() == b"old"


def test_a_failing_disk_leaves_nothing(tmp_path: Path, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        write_mesh(tmp_path / "egg.glb", *mesh)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_vertices_at_one_place_stay_apart(tmp_path: Path, kind: str) -> None:
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [-1, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    write_mesh(tmp_path / f"seam.{kind}", verts, faces)
    back = read(tmp_path / f"seam.{kind}")
    assert len(back.vertices) == 6 and np.array_equal(back.faces, faces.numpy())
