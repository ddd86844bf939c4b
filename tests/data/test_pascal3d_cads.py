"""CAD models of Pascal3D+ as ground truth; silhouettes against the convex hulls of projected boxes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import torch
from scipy.spatial import Delaunay

from recon3d.data.npz import DataFileError
from recon3d.data.pascal3d_cads import cad_keypoints, mirror_permutation, read_cads, silhouette, write_truth
from recon3d.data.photograph_annotations import read_truth
from recon3d.geometry.viewpoints import Viewpoint, viewpoint_camera
from recon3d.geometry.weak_perspective import cmr_to_object
from tests.data import pascal3d_files as files


@pytest.fixture
def folder(tmp_path):
    files.write_release(tmp_path)
    return tmp_path


def test_faces_count_from_0_and_off_files_are_the_same(folder):
    models = read_cads(folder, "car")
    (folder / "CAD/car.mat").unlink()
    again = read_cads(folder, "car")
    assert len(models) == len(again) == 2
    for number, (model, off) in enumerate(zip(models, again, strict=True)):
        np.testing.assert_allclose(model.verts, files.cad_verts(number))
        np.testing.assert_array_equal(model.faces, files.FACES)
        np.testing.assert_allclose(model.verts[model.faces], off.verts[off.faces], atol=1e-6)
        assert set(model.anchors) == set(files.NAMES) and not off.anchors
    assert cad_keypoints(again) is None


def test_one_model_is_a_class_too(folder):
    model = {"vertices": files.cad_verts(0), "faces": files.FACES + 1, "left_wing": files.EMPTY, "tail": np.ones(3)}
    scipy.io.savemat(folder / "CAD/car.mat", {"car": files.struct_array([model])})
    (only,) = read_cads(folder, "car")
    assert list(only.anchors) == ["tail"]  # the wing is empty: this model has none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faces": files.FACES}, "model 1: faces count from 1 to 8, got 0 to 7"),
        ({"faces": files.FACES + 2}, "faces count from 1 to 8, got 2 to 9"),
        ({"vertices": np.zeros((8, 2))}, r"expected finite vertices \(V,3\), got float64 \(8, 2\)"),
        ({"vertices": np.full((8, 3), np.inf)}, "expected finite vertices"),
        ({"faces": np.ones((4, 4))}, r"expected triangles \(F,3\)"),
    ],
)
def test_bad_models_are_named(folder, changes, message):
    model = {"vertices": files.cad_verts(0), "faces": files.FACES + 1} | changes
    scipy.io.savemat(folder / "CAD/car.mat", {"car": files.struct_array([model])})
    with pytest.raises(DataFileError, match=message):
        read_cads(folder, "car")


def test_missing_models(folder):
    (folder / "CAD/car.mat").unlink()
    (folder / "CAD/car/01.off").unlink()
    with pytest.raises(DataFileError, match=r"expected 01.off to 01.off, found \['02.off'\]"):
        read_cads(folder, "car")
    with pytest.raises(DataFileError, match=r"bus.mat: no such file, nor .*CAD/bus/NN.off"):
        read_cads(folder, "bus")


def test_key_points_are_the_mean_anchors_in_the_object_frame(folder):
    keypoints = cad_keypoints(read_cads(folder, "car"))
    assert keypoints.names == files.NAMES
    assert keypoints.mirror == (1, 0, 3, 2)
    # Front left of a model whose longest side, 1 or 0.8, becomes 1: mean of (y, z, -x) / side of the half sizes.
    expected = np.mean([np.array([y, z, -x]) / (2 * y) for x, y, z in files.SIZES], axis=0)
    np.testing.assert_allclose(cmr_to_object(torch.tensor(keypoints.shape))[0], expected, atol=1e-12)
    assert keypoints.triangles is None  # four points of a plane


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("left_wing", "tail", "right_wing"), (2, 1, 0)),
        (("back_upper_left", "back_upper_right", "left_only"), (1, 0, 2)),
    ],
)
def test_mirror_partners_by_name(names, expected):
    assert mirror_permutation(names) == expected


@pytest.mark.parametrize(("name", "model"), [("n01_1", 0), ("n01_2", 1), ("n01_3_0", 0), ("2008_2", 1)])
def test_silhouette_is_the_hull_of_the_corners(folder, name, model):
    view = files.VIEWS[name]
    cad = read_cads(folder, "car")[model]
    numbers = {key: view[key] for key in ("azimuth", "elevation", "distance", "theta", "focal", "viewport")}
    numbers |= {key: view[key] - 1 for key in ("px", "py")}
    viewpoint = Viewpoint(**{key: torch.tensor(float(value), dtype=torch.float64) for key, value in numbers.items()})
    camera = cad.frame.object_camera(viewpoint_camera(viewpoint))[None]
    mask = silhouette(cad.object_verts(), torch.from_numpy(cad.faces), camera, (files.WIDTH, files.HEIGHT))
    columns, rows = np.meshgrid(np.arange(files.WIDTH), np.arange(files.HEIGHT))
    hull = Delaunay(files.pixels(view, files.cad_verts(model)) - 1)
    expected = hull.find_simplex(np.stack([columns, rows], axis=-1)) >= 0
    assert mask.shape == expected.shape and mask.dtype == np.uint8
    assert expected.sum() > 200
    assert (mask != expected).sum() <= 2  # a pixel centre on an edge may round either way


def test_truth_is_the_model_in_the_object_frame(folder, tmp_path):
    path = tmp_path / "deep/truth.npz"
    model = read_cads(folder, "car")[0]
    write_truth(model, path, seed=0)
    truth = read_truth(path, mirrored=False)
    points, normals = truth["points"][0].numpy(), truth["normals"][0].numpy()
    half = np.array([1.0, 0.3, 0.4]) / 2  # along, up, across
    np.testing.assert_allclose(np.abs(points).max(axis=0), half, atol=1e-2)
    on_face = np.isclose(np.abs(points), half, atol=1e-6)
    assert on_face.any(axis=1).all()
    face = on_face.argmax(axis=1)
    rows = np.arange(len(points))
    single = on_face.sum(axis=1) == 1
    np.testing.assert_allclose(np.abs(normals[rows, face])[single], 1, atol=1e-6)
    y, x, z = np.nonzero(truth["voxels"][0].numpy())
    assert (np.ptp(x), np.ptp(y) < np.ptp(x), np.ptp(z) < np.ptp(x)) == (31, True, True)
    before = path.read_bytes()
    write_truth(model, path, seed=0)
    np.testing.assert_array_equal(read_truth(path, mirrored=False)["points"][0], points)
    assert len(before) == path.stat().st_size
    assert [entry.name for entry in path.parent.iterdir()] == ["truth.npz"]
