from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from pytorch3d.renderer import TexturesUV
from pytorch3d.renderer.mesh.rasterizer import Fragments
from scipy.ndimage import map_coordinates
from torch import Tensor

from recon3d.apps.mesh_files import (
    FORMATS,
    TEXTURED_FORMATS,
    texture_map,
    textured_mesh_files,
    write_mesh,
    write_textured_mesh,
)
from recon3d.geometry.cameras import object_to_shapenet
from recon3d.geometry.gltf import object_to_gltf, vertex_colors

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


@pytest.fixture
def textured() -> tuple[Tensor, Tensor, Tensor, Tensor, Image.Image]:
    """Two triangles that share an edge and disagree on the texture coordinates of one of its ends."""
    verts = torch.tensor([[0.1, 0.0, 0.0], [1.0, 0.2, 0.0], [0.0, 1.0, 0.3], [1.0, 1.0, 1.0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    uv = torch.tensor([[0.125, 0.25], [0.5, 0.25], [0.125, 0.75], [0.75, 0.25], [0.875, 0.875]])
    face_uv = torch.tensor([[0, 1, 2], [3, 4, 2]])
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    return verts, faces, uv, face_uv, Image.fromarray(pixels)


@pytest.mark.parametrize("kind", TEXTURED_FORMATS)
def test_a_texture_comes_back_the_same(tmp_path: Path, textured, kind: str) -> None:
    verts, faces, uv, face_uv, texture = textured
    path = tmp_path / f"two faces.{kind}"
    written = write_textured_mesh(path, *textured)
    names = {"glb": {"two faces.glb"}, "obj": {"two faces.obj", "two_faces.mtl", "two_faces-texture.png"}}[kind]
    assert written == textured_mesh_files(path)
    assert {file.name for file in written} == names == {file.name for file in tmp_path.iterdir()}
    back = read(path)
    assert np.abs(back.vertices[back.faces] - verts[faces].numpy()).max() < 1e-7  # glTF has float32
    assert np.abs(back.visual.uv[back.faces] - uv[face_uv].numpy()).max() < 1e-7
    assert len(back.vertices) == 5  # only vertex 1 has two texture coordinates
    image = back.visual.material.baseColorTexture if kind == "glb" else back.visual.material.image
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(texture))


def test_the_corner_of_an_image_is_where_uv_says(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0, 3] = (255, 0, 0)  # upper right: u and v near 1
    uv = torch.tensor([[0.875, 0.875]])
    corners = torch.zeros(1, 3, dtype=torch.long)
    for kind in TEXTURED_FORMATS:
        path = tmp_path / f"a.{kind}"
        write_textured_mesh(path, torch.eye(3), torch.tensor([[0, 1, 2]]), uv, corners, Image.fromarray(pixels))
        visual = read(path).visual
        material = visual.material.to_simple() if kind == "glb" else visual.material
        assert material.to_color(visual.uv)[0].tolist() == [255, 0, 0, 255]
    raw = (tmp_path / "a.glb").read_bytes()
    tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
    # In the file itself v points downwards (glTF 2.0, section 3.8.5).
    view = tree["bufferViews"][
        tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]["bufferView"]
    ]
    start = 20 + int.from_bytes(raw[12:16], "little") + 8 + view.get("byteOffset", 0)
    assert np.frombuffer(raw[start : start + 8], "<f4").tolist() == [0.875, 0.125]


def test_a_textured_glb_is_matte_two_sided_and_smooth(tmp_path: Path, mesh: Mesh) -> None:
    verts, faces, _ = mesh
    uv, face_uv = torch.rand(3 * len(faces), 2), torch.arange(3 * len(faces)).reshape(-1, 3)
    path = tmp_path / "egg.glb"
    write_textured_mesh(path, verts, faces, uv, face_uv, Image.new("RGB", (4, 4)))
    raw = path.read_bytes()
    tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
    (material,) = tree["materials"]
    assert material["doubleSided"] is True
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1
    assert tree["images"][0]["mimeType"] == "image/png" and "bufferView" in tree["images"][0]
    # Every corner is a vertex of its own, and has the normal that the surface has there.
    whole = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
    back = read(path)
    assert np.abs(back.vertex_normals[back.faces] - whole.vertex_normals[faces.numpy()]).max() < 1e-5


def test_obj_keeps_the_vertices_and_their_order(tmp_path: Path, textured) -> None:
    verts, faces, uv, face_uv, _ = textured
    write_textured_mesh(tmp_path / "a.obj", *textured)
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    assert [[float(x) for x in line[1:]] for line in lines if line[0] == "v"] == verts.tolist()
    assert [[float(x) for x in line[1:]] for line in lines if line[0] == "vt"] == uv.tolist()
    corners = [[[int(x) - 1 for x in corner.split("/")] for corner in line[1:]] for line in lines if line[0] == "f"]
    assert corners == torch.stack([faces, face_uv], dim=-1).tolist()


def test_textured_meshes_that_cannot_be_written(tmp_path: Path, textured) -> None:
    verts, faces, uv, face_uv, texture = textured
    path = tmp_path / "a.glb"
    for change, message in (
        ({"path": tmp_path / "a.ply"}, r"\.glb, \.obj"),
        ({"verts": verts * torch.nan}, "finite vertices"),
        ({"uv": uv * torch.inf}, "finite texture coordinates"),
        ({"faces": faces[:0]}, "got 0 faces"),
        ({"faces": faces + 1}, r"faces \(2, 3\) with indices below 4, got \(2, 3\) with 1 to 4"),
        ({"face_uv": face_uv[:1]}, r"face_uv \(2, 3\)"),
        ({"texture": texture.convert("RGBA")}, "mode RGBA"),
    ):
        good = {"path": path, "verts": verts, "faces": faces, "uv": uv, "face_uv": face_uv, "texture": texture}
        with pytest.raises(ValueError, match=message):
            write_textured_mesh(**(good | change))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=[True, False], ids=["centres", "edges"])
def uv_textures(textured, request: pytest.FixtureRequest) -> TexturesUV:
    """The two triangles with a map that no turn or mirror leaves as it is, of exact 8-bit values."""
    _, _, uv, face_uv, texture = textured
    maps = torch.from_numpy(np.array(texture)).float() / 255
    return TexturesUV(maps[None], face_uv[None], uv[None].float(), align_corners=request.param)


def sampled(textures: TexturesUV, bary: Tensor) -> Tensor:
    """PyTorch3D's colours (F, N, 3) at barycentric coordinates (N, 3) of each face."""
    faces = len(textures.faces_uvs_list()[0])
    index = torch.arange(faces)[None, :, None, None].expand(1, -1, len(bary), 1)
    coordinates = bary.expand(1, faces, -1, -1).unsqueeze(3)
    return textures.sample_textures(Fragments(index, torch.zeros(index.shape), coordinates, torch.zeros(index.shape)))[
        0, :, :, 0
    ]


@pytest.mark.parametrize("kind", TEXTURED_FORMATS)
def test_a_uv_map_shows_what_pytorch3d_shows(tmp_path: Path, textured, uv_textures: TexturesUV, kind: str) -> None:
    verts, faces = textured[:2]
    path = tmp_path / f"a.{kind}"
    write_textured_mesh(path, verts, faces, *texture_map(uv_textures), unlit=True)
    back = read(path)
    image = back.visual.material.baseColorTexture if kind == "glb" else back.visual.material.image
    pixels = np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels, np.asarray(textured[4]))
    bary = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    bary = bary / bary.sum(dim=1, keepdim=True)
    u, v = np.einsum("nk,fkc->cfn", bary.numpy(), back.visual.uv[back.faces])
    # A texel's centre is at (column + 1/2) / width from the left; trimesh, like OBJ, counts v from the bottom.
    rows, columns = (1 - v) * len(pixels) - 0.5, u * pixels.shape[1] - 0.5
    shown = np.stack(
        [map_coordinates(pixels[..., c] / 255, [rows, columns], order=1, mode="nearest") for c in range(3)], axis=-1
    )
    assert np.abs(shown - sampled(uv_textures, bary).numpy()).max() < 1e-4
    assert len(back.vertices) == 5


def test_coordinates_of_one_value_are_no_seam(tmp_path: Path, textured) -> None:
    verts, faces, uv, _, texture = textured
    own = torch.arange(6).reshape(2, 3)  # every corner has a coordinate of its own
    of_verts = uv[:4]
    write_textured_mesh(tmp_path / "a.glb", verts, faces, of_verts[faces].reshape(-1, 2), own, texture)
    back = read(tmp_path / "a.glb")
    assert np.array_equal(back.faces, faces.numpy()) and len(back.vertices) == 4
    assert np.abs(back.visual.uv - of_verts.numpy()).max() < 1e-7


def test_an_unlit_texture_says_so(tmp_path: Path, textured) -> None:
    for unlit in (True, False):
        write_textured_mesh(tmp_path / "a.glb", *textured, unlit=unlit)
        write_textured_mesh(tmp_path / "a.obj", *textured, unlit=unlit)
        raw = (tmp_path / "a.glb").read_bytes()
        tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
        (material,) = tree["materials"]
        assert material.get("extensions") == ({"KHR_materials_unlit": {}} if unlit else None)
        assert tree.get("extensionsUsed") == (["KHR_materials_unlit"] if unlit else None)
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
        sampler = tree["samplers"][tree["textures"][0]["sampler"]]
        assert sampler["wrapS"] == sampler["wrapT"] == 33071
        assert f"illum {0 if unlit else 1}\n" in (tmp_path / "a.mtl").read_text()


def test_colors_of_vertices_are_those_of_the_map(textured, uv_textures: TexturesUV) -> None:
    faces = textured[1]
    corners = sampled(uv_textures, torch.eye(3))
    colors = vertex_colors(uv_textures, faces, 5)
    assert torch.allclose(colors[0], corners[0, 0]) and torch.allclose(colors[3], corners[1, 1])
    assert torch.allclose(colors[1], (corners[0, 1] + corners[1, 0]) / 2)  # the seam
    assert not torch.allclose(corners[0, 1], corners[1, 0])
    assert (colors[4] == 0).all()


def test_maps_that_cannot_be_written(textured) -> None:
    _, _, uv, face_uv, _ = textured
    for maps, coordinates, message in (
        (torch.zeros(1, 4, 4, 4), uv, r"one map \(1, H, W, 3\), got \(1, 4, 4, 4\)"),
        (torch.zeros(1, 4, 4, 3), uv + 0.5, r"in \[0, 1\], got 0\.625 to 1\.375"),
        (torch.zeros(1, 4, 4, 3), uv * torch.nan, r"in \[0, 1\], got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            texture_map(TexturesUV(maps, face_uv[None], coordinates[None].float()))


def test_an_obj_is_whole_or_not_there(tmp_path: Path, textured) -> None:
    write_textured_mesh(tmp_path / "a.obj", *textured)
    (tmp_path / "a.mtl").unlink()
    (tmp_path / "a.mtl").mkdir()  # what no rename can replace
    before = {path.name: path.read_bytes() for path in tmp_path.glob("a*.[op]*")}
    verts, faces, uv, face_uv, _ = textured
    with pytest.raises(IsADirectoryError, match=r"a\.mtl is a folder"):
        write_textured_mesh(tmp_path / "a.obj", verts + 1, faces, uv, face_uv, Image.new("RGB", (2, 2)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert set(before) == {"a.obj", "a-texture.png"}
