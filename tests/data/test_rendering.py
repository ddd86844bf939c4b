from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from pytorch3d.renderer import FoVPerspectiveCameras, MeshRasterizer, RasterizationSettings, look_at_view_transform
from pytorch3d.structures import Meshes

from recon3d.data import building
from recon3d.data.description import read_description
from recon3d.data.object_views import VERSION, RenderSettings, object_to_views
from recon3d.data.rendering import render_dataset


def lopsided() -> trimesh.Trimesh:
    """A mesh without any symmetry, in .obj axes, off centre and large: a body, a nose to the front (-Z), a horn."""
    body = trimesh.creation.box((1.0, 0.8, 2.0))
    nose = trimesh.creation.cone(0.3, 1.0).apply_transform(trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0]))
    horn = trimesh.creation.icosphere(1, 0.35).apply_translation([0.6, 0.6, 0.5])
    mesh = trimesh.util.concatenate([body, nose.apply_translation([-0.2, 0, -1.0]), horn])
    return mesh.apply_scale(7.0).apply_translation([100, 20, -30])


def write_meshes(src: Path, count: int) -> None:
    for i in range(count):
        folder = src / "car" / f"o{i}"
        folder.mkdir(parents=True)
        lopsided().apply_scale([1, 1 + i / 10, 1]).export(folder / "model.obj")
    (src / "all.csv").write_text(
        "id,split\n" + "".join(f"o{i},{'test' if i == 0 else 'train'}\n" for i in range(count))
    )


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Three good meshes, one broken, one that the split file does not list."""
    src, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("out") / "toys"
    write_meshes(src, 3)
    for name, text in (("broken", "v 0 0 0\nv 0 nan 1\nv 1 0 0\nf 1 2 3\n"), ("unlisted", "v 0 0 0\n")):
        (src / "car" / name).mkdir()
        (src / "car" / name / "model.obj").write_text(text)
    with (src / "all.csv").open("a") as file:
        file.write("broken,train\n")
    report = render_dataset(src, out, n_points=500, workers=2)
    assert report.rendered == 3 and report.counts == {"car": {"train": 2, "test": 1}}
    return out


def test_files_follow_the_layout_and_the_split_file(rendered):
    assert (rendered / "car_train_ids.txt").read_text().split() == ["o1", "o2"]
    assert (rendered / "car_test_ids.txt").read_text().split() == ["o0"]
    images = arrays(rendered / "car_train_images.npz")["arr_0"]
    voxels = arrays(rendered / "car_train_voxels.npz")["arr_0"]
    surface = arrays(rendered / "car_train_points.npz")
    assert images.shape == (2, 24, 4, 64, 64) and images.dtype == np.uint8
    assert voxels.shape == (2, 32, 32, 32) and voxels.dtype == np.bool_
    assert surface["points"].shape == surface["normals"].shape == (2, 500, 3)
    description = read_description(rendered)
    assert (description.name, description.n_views, description.scale) == ("toys", 24, "longest_side")
    assert not (rendered / ".parts").exists()


def test_a_broken_mesh_is_listed_with_its_reason(rendered):
    with (rendered / "failures.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"broken", "unlisted"}
    assert "not finite" in rows["broken"]["reason"] and rows["broken"]["origin"].endswith("broken/model.obj")
    assert "split file" in rows["unlisted"]["reason"]


@pytest.mark.parametrize("view", [0, 3, 11, 18])
def test_silhouettes_agree_with_pytorch3d_on_the_obj_coordinates(rendered, view):
    mesh = lopsided()
    verts = (mesh.vertices - mesh.bounds.mean(0)) / mesh.extents.max()
    # softras_nmr 1.4: straight on .obj coordinates the azimuth is 90 - 15 k; the field of view is 30 degrees.
    rotation, translation = look_at_view_transform(dist=2.732, elev=30.0, azim=90.0 - 15 * view)
    rasterizer = MeshRasterizer(
        FoVPerspectiveCameras(R=rotation, T=translation, fov=30.0, aspect_ratio=1.0),
        RasterizationSettings(image_size=128, bin_size=0),
    )
    pytorch3d = Meshes([torch.tensor(verts, dtype=torch.float32)], [torch.tensor(mesh.faces)])
    fine = (rasterizer(pytorch3d).pix_to_face[0, :, :, 0] >= 0).float()
    expected = torch.nn.functional.avg_pool2d(fine[None], 2)[0].numpy()
    alpha = arrays(rendered / "car_test_images.npz")["arr_0"][0, view, 3] / 255
    assert expected.sum() > 100
    assert np.abs(alpha - expected).sum() < 0.01 * expected.sum(), "at most ties on edges may differ"
    mirrored = np.abs(alpha - expected[:, ::-1]).sum()
    assert mirrored > 0.05 * expected.sum(), "the object is asymmetric, so a mirrored camera would be noticed"


def test_points_lie_on_the_mesh_and_in_the_voxels(rendered):
    surface = arrays(rendered / "car_test_points.npz")
    points, normals = surface["points"][0].astype(np.float64), surface["normals"][0].astype(np.float64)
    mesh = lopsided()
    # Back from the object frame (x, y, z) = (-Z, Y, X), as structures.py states it.
    original = np.stack([points[:, 2], points[:, 1], -points[:, 0]], 1) * mesh.extents.max() + mesh.bounds.mean(0)
    _, distance, face = trimesh.proximity.closest_point_naive(mesh, original)
    assert distance.max() < 1e-4 * mesh.extents.max()
    turned = np.stack([normals[:, 2], normals[:, 1], -normals[:, 0]], 1)
    assert np.median((turned * mesh.face_normals[face]).sum(1)) > 0.999
    cells = np.floor(31 * points + 16).astype(int)
    voxels = arrays(rendered / "car_test_voxels.npz")["arr_0"][0]
    assert voxels[cells[:, 1], cells[:, 0], cells[:, 2]].mean() > 0.995  # [y, x, z]; a point may sit on a cell's face
    assert voxels[cells[:, 0], cells[:, 1], cells[:, 2]].mean() < 0.9


def test_voxels_are_solid_in_the_body(rendered):
    mesh = lopsided()
    inside = 7 * np.random.default_rng(0).uniform([-0.5, -0.4, -1.0], [0.5, 0.4, 1.0], (2000, 3)) + [100, 20, -30]
    x, y, z = ((inside - mesh.bounds.mean(0)) / mesh.extents.max()).T
    row, column, layer = np.floor(31 * np.stack([y, -z, x]) + 16).astype(int)  # [y, x, z] of (-Z, Y, X)
    voxels = arrays(rendered / "car_test_voxels.npz")["arr_0"][0]
    assert voxels[row, column, layer].all()
    assert voxels.mean() < 0.1  # the box that bounds the mesh fills 0.2 of the grid


def test_colours_and_background():
    cube = trimesh.creation.box((1, 1, 1))
    colors = torch.where(
        torch.tensor(cube.face_normals[:, 2:] < -0.5), torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    )
    views = object_to_views(
        torch.tensor(cube.vertices, dtype=torch.float32),
        torch.tensor(cube.faces),
        colors,
        RenderSettings(n_points=10, image_size=32),
        torch.Generator().manual_seed(0),
    ).images.astype(int)
    alpha, red, blue = views[:, 3], views[:, 0], views[:, 2]
    assert (views[:, :3].max(1)[alpha == 0] == 0).all() and (views[:, 1] == 0).all()
    shown = [(alpha[k] == 255)[20] & (red[k] > blue[k])[20] for k in (0, 6, 18)]  # a row below the cube's top face
    # The red side is the front, -Z of the .obj: view 18 looks at it, view 6 at the back, view 0 at the side.
    assert [int(row.sum()) for row in shown][:2] == [0, 0] and shown[2].sum() > 10
    assert ((red + blue)[alpha == 255] >= 127).all(), "straight colours: half of the light is ambient"


def test_the_same_mesh_gives_what_version_1_gave():
    # A change here is a change of every rendered data set: raise `object_views.VERSION` along with these numbers.
    mesh = lopsided()
    views = object_to_views(
        torch.tensor(mesh.vertices, dtype=torch.float32),
        torch.tensor(mesh.faces),
        None,
        RenderSettings(n_points=1000),
        torch.Generator().manual_seed(0),
    )
    seen = views.images.astype(float) / 255
    measured = [seen[:, 3].mean(), seen[:, :3].mean(), views.voxels.mean(), np.abs(views.points).mean()]
    assert VERSION == 1
    assert measured == pytest.approx([0.13710, 0.07525, 0.08002, 0.16540], rel=1e-3)


def test_120_views_and_unknown_numbers():
    cube = trimesh.creation.box((1, 1, 1))
    verts, faces = torch.tensor(cube.vertices, dtype=torch.float32), torch.tensor(cube.faces)
    views = object_to_views(
        verts, faces, None, RenderSettings(views=120, image_size=16, n_points=5), torch.Generator().manual_seed(0)
    )
    assert views.images.shape == (120, 4, 16, 16)
    for wrong in ({"views": 36}, {"image_size": 0}, {"n_points": 0}, {"scale": "unit"}):
        with pytest.raises(ValueError):
            RenderSettings(**wrong)


def test_a_finished_set_is_left_alone_and_another_is_refused(tmp_path):
    src, out = tmp_path / "src", tmp_path / "out"
    write_meshes(src, 1)
    (src / "all.csv").unlink()
    first = render_dataset(src, out, n_points=10, workers=1)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = render_dataset(src, out, n_points=10, workers=1)
    assert (first.rendered, again.rendered) == (1, 0) and again.counts == first.counts
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    with pytest.raises(ValueError, match="other meshes or with other settings"):
        render_dataset(src, out, n_points=11)
    (src / "car/o0/model.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match="other meshes or with other settings"):
        render_dataset(src, out, n_points=10)
    (out / "dataset.json").unlink()
    with pytest.raises(ValueError, match="made elsewhere"):
        render_dataset(src, out, n_points=10)
    with pytest.raises(ValueError, match=r"has no mug; its categories are car"):
        render_dataset(src, tmp_path / "mugs", categories=["mug"])
    (src / "car/o0/model.obj").write_text("")
    with pytest.raises(ValueError, match="not one of 1 objects could be rendered"):
        render_dataset(src, tmp_path / "none", workers=1)


def test_an_interrupted_run_continues_with_the_missing_only(tmp_path, monkeypatch):
    src, whole, broken_off = tmp_path / "src", tmp_path / "whole", tmp_path / "broken_off"
    write_meshes(src, 3)
    render_dataset(src, whole, n_points=10, workers=2, name="toys")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "_assemble", interrupt)
        with pytest.raises(KeyboardInterrupt):
            render_dataset(src, broken_off, n_points=10, workers=2, name="toys")
        with pytest.raises(KeyboardInterrupt):  # parts with other settings lie beside, and are not mixed in
            render_dataset(src, broken_off, n_points=20, workers=2, name="toys")
    parts = sorted((broken_off / ".parts/car").glob("o1.*.npz"))
    assert len(parts) == 2 and not (broken_off / "dataset.json").exists()
    next(part for part in parts if arrays(part)["points"].shape == (10, 3)).unlink()
    assert render_dataset(src, broken_off, n_points=10, workers=2, name="toys").rendered == 1
    for path in whole.glob("*.*"):
        assert (broken_off / path.name).read_bytes() == path.read_bytes(), path.name


def test_two_runs_at_once_make_it_once(tmp_path):
    src, out = tmp_path / "src", tmp_path / "out"
    write_meshes(src, 2)
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(render_dataset(src, out, n_points=10, workers=1)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.rendered for report in reports) == [0, 2]
    assert reports[0].counts == reports[1].counts


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill -9 of the parent", "Ctrl-C"])
def test_a_process_that_is_ended_leaves_no_workers_and_its_parts(tmp_path, end):
    src, out = tmp_path / "src", tmp_path / "out"
    write_meshes(src, 40)
    code = "import sys; from pathlib import Path; from recon3d.data.rendering import render_dataset\n"
    code += "if __name__ == '__main__': render_dataset(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)"
    script = tmp_path / "render_toys.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, src, out], start_new_session=True)
    while len(list(out.glob(".parts/car/o*.npz"))) < 3:
        time.sleep(0.05)
        assert process.poll() is None
    if end == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    else:
        os.kill(process.pid, signal.SIGKILL)  # this process alone; its workers have to notice
    process.wait()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers outlive their parent")
    done = len(list(out.glob(".parts/car/o*.npz")))
    assert 3 <= done < 40
    assert render_dataset(src, out, workers=2).rendered == 40 - done
