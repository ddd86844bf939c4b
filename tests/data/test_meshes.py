from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from recon3d.data.meshes import find_meshes, hash_split, read_mesh, read_splits, to_object_frame


def box(path: Path, **kwargs: object) -> trimesh.Trimesh:
    mesh = trimesh.creation.box((1, 2, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path, **kwargs)
    return mesh


@pytest.mark.parametrize("extension", ["obj", "off", "ply", "glb"])
def test_every_format_gives_the_same_box(tmp_path, extension):
    path = tmp_path / f"model.{extension}"
    box(path)
    mesh = read_mesh(path)
    back = trimesh.Trimesh(mesh.verts.numpy(), mesh.faces.numpy())
    assert mesh.verts.dtype == torch.float32 and mesh.faces.dtype == torch.int64
    assert len(mesh.faces) == 12
    assert back.volume == pytest.approx(6.0, rel=1e-5)
    assert sorted(back.extents) == pytest.approx([1, 2, 3], rel=1e-5)


def test_all_layouts_are_found_and_named(tmp_path):
    for name in (
        "car/a/model.off",
        "02691156/b/model.obj",
        "04379243/c/models/model_normalized.obj",
        "mug/d/model.glb",
    ):
        box(tmp_path / name)
    (tmp_path / "car/no mesh here").mkdir()
    (tmp_path / "readme.txt").touch()
    found = find_meshes(tmp_path)
    assert [(mesh.category, mesh.id) for mesh in found] == [
        ("airplane", "b"),
        ("car", "a"),
        ("mug", "d"),
        ("table", "c"),
    ]
    assert found[3].path == tmp_path / "04379243/c/models/model_normalized.obj"
    assert all(mesh.split == hash_split(mesh.category, mesh.id) for mesh in found)


def test_an_object_in_two_formats_is_one_object_and_ids_hold_no_white_space(tmp_path):
    box(tmp_path / "car/my car/model.ply")
    box(tmp_path / "car/my car/model.obj")
    (mesh,) = find_meshes(tmp_path)
    assert (mesh.id, mesh.path.suffix) == ("my_car", ".obj")


def test_hash_split_is_near_70_10_20_and_fixed():
    splits = [hash_split("chair", str(i)) for i in range(4000)]
    shares = [splits.count(split) / len(splits) for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    # By hashlib alone the fractions are 0.50, 0.03, 0.67, 0.79, 0.84, 0.95; a change would move everybody's test set.
    assert splits[:6] == ["train", "train", "train", "val", "test", "test"]


def test_split_files_of_open_shapes_and_of_shapenet(tmp_path):
    for name in ("car/x/model.obj", "chair/x/model.obj", "car/y/model.obj"):
        box(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("instance_id,category,name,split\nx,car,n,test\nx,chair,n,val\n")
    assert [mesh.split for mesh in find_meshes(tmp_path)] == ["test", None, "val"]

    shapenet = tmp_path / "elsewhere.csv"  # a row number called `id`, a synset without its leading zero, no category
    shapenet.write_text("id,synsetId,subSynsetId,modelId,split\n0,2958343,2958343,x,train\n1,3001627,3001627,x,test\n")
    assert [mesh.split for mesh in find_meshes(tmp_path, shapenet)] == ["train", None, "test"]

    plain = tmp_path / "plain.csv"
    plain.write_text("id,split\nx,val\ny,train\n")
    assert [mesh.split for mesh in find_meshes(tmp_path, plain)] == ["val", "train", "val"]


def test_bad_split_files_and_folders_say_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("name,split\na,train\n")
    with pytest.raises(ValueError, match=r"expected the columns `split`.*got name, split"):
        read_splits(bad)
    bad.write_text("id,split\na,training\n")
    with pytest.raises(ValueError, match="line 2: split 'training'"):
        read_splits(bad)
    with pytest.raises(FileNotFoundError, match="split file"):
        read_splits(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="No meshes in"):
        find_meshes(tmp_path)
    with pytest.raises(FileNotFoundError, match="found none"):
        find_meshes(tmp_path / "none")


def test_scenes_are_joined_with_their_transforms(tmp_path):
    scene = trimesh.Scene()
    ball, cube = trimesh.creation.icosphere(1), trimesh.creation.box((2, 2, 2))
    scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.add_geometry(cube, transform=trimesh.transformations.scale_matrix(2))
    scene.export(tmp_path / "model.glb")
    mesh = read_mesh(tmp_path / "model.glb")
    assert mesh.verts.amin(0).tolist() == pytest.approx([-2, -2, -2])
    assert mesh.verts.amax(0).tolist() == pytest.approx([5 + ball.bounds[1, 0], 2, 2])
    assert len(mesh.faces) == len(ball.faces) + len(cube.faces)


def test_polygons_are_triangulated_and_loose_vertices_dropped(tmp_path):
    path = tmp_path / "model.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 99 99 99\nf 1 2 3 4\n")
    mesh = read_mesh(path)
    assert mesh.faces.shape == (2, 3) and mesh.verts.amax() == 1 and mesh.face_colors is None


def test_material_colours_of_an_obj_reach_its_faces(tmp_path):
    (tmp_path / "model.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl green\nKd 0 0.5 0\n")
    (tmp_path / "model.obj").write_text(
        "mtllib model.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl red\nf 1 2 3\nusemtl green\nf 1 2 4\nf 2 3 4\n"
    )
    mesh = read_mesh(tmp_path / "model.obj")
    on_floor = mesh.verts[mesh.faces][..., 2].eq(0).all(dim=1)  # the red face, whatever the order
    assert on_floor.sum() == 1
    assert mesh.face_colors[on_floor].tolist() == [[1, 0, 0]]
    torch.testing.assert_close(mesh.face_colors[~on_floor], torch.tensor([[0, 0.5, 0]] * 2), atol=1 / 255, rtol=0)


def test_vertex_and_texture_colours_reach_the_faces(tmp_path):
    verts, faces = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]), np.array([[0, 1, 2]])
    colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]], dtype=np.uint8)
    trimesh.Trimesh(verts, faces, vertex_colors=colors, process=False).export(tmp_path / "model.ply")
    torch.testing.assert_close(read_mesh(tmp_path / "model.ply").face_colors, torch.full((1, 3), 1 / 3))

    image = Image.new("RGB", (64, 64), (0, 0, 255))
    image.paste((255, 255, 0), (0, 0, 32, 64))  # left half yellow; the face lies in it
    visual = trimesh.visual.TextureVisuals(
        uv=np.array([[0.1, 0.1], [0.4, 0.1], [0.1, 0.9]]),
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=image),
    )
    trimesh.Trimesh(verts, faces, visual=visual, process=False).export(tmp_path / "model.glb")
    torch.testing.assert_close(read_mesh(tmp_path / "model.glb").face_colors, torch.tensor([[1.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces|not readable"),
        ("", "no faces|not readable"),
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "not readable|names vertex"),
        ("\x00\x01garbage", "no faces|not readable"),
    ],
)
def test_broken_files_raise_and_name_the_file(tmp_path, content, message):
    path = tmp_path / "model.obj"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"model\.obj: .*({message})"):
        read_mesh(path)


def test_object_frame_turns_centres_and_scales():
    verts = torch.tensor([[2.0, 0, 0], [6, 1, 0], [2, 1, 2]])  # sides 4, 1, 2; front is -Z
    moved = to_object_frame(verts)
    # (X, Y, Z) -> (-Z, Y, X), softras_nmr 1.4: the foremost vertices, lowest Z, have the largest x.
    torch.testing.assert_close(moved, torch.tensor([[0.25, -0.125, -0.5], [0.25, 0.125, 0.5], [-0.25, 0.125, -0.5]]))
    diagonal = to_object_frame(verts, "diagonal")
    assert float((diagonal.amax(0) - diagonal.amin(0)).norm()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no extent"):
        to_object_frame(torch.ones(3, 3))
