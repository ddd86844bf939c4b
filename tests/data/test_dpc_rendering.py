from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import trimesh
from PIL import Image
from scipy import ndimage

from recon3d.cli import main
from recon3d.data.checking import check
from recon3d.data.description import read_description
from recon3d.data.object_views import DPC_ELEVATIONS, DPCRenderSettings
from recon3d.data.rendering import render_dataset
from recon3d.geometry.cameras import dpc_positions
from tests.geometry.dpc_oracle import dpc_screen


def lopsided() -> trimesh.Trimesh:
    """A mesh without any symmetry, in .obj axes, off centre and large: a body, a nose to the front (-Z), a horn."""
    body = trimesh.creation.box((1.0, 0.8, 2.0))
    nose = trimesh.creation.cone(0.3, 1.0).apply_transform(trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0]))
    horn = trimesh.creation.icosphere(1, 0.35).apply_translation([0.6, 0.6, 0.5])
    mesh = trimesh.util.concatenate([body, nose.apply_translation([-0.2, 0, -1.0]), horn])
    return mesh.apply_scale(7.0).apply_translation([100, 20, -30])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    src, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("out") / "toys"
    rows = ["id,split"]
    for name, split in (("a", "train"), ("b", "val"), ("c", "test")):
        (src / "mug" / name).mkdir(parents=True)
        lopsided().export(src / "mug" / name / "model.obj")
        rows.append(f"{name},{split}")
    (src / "all.csv").write_text("\n".join(rows))
    arguments = ["data", "render", str(src), "--out", str(out), "--layout", "dpc", "--image-size", "64"]
    assert main([*arguments, "--points", "3000", "--workers", "1"]) == 0
    assert main([*arguments, "--points", "3000", "--workers", "1"]) == 0, "nothing left to do"
    with pytest.raises(ValueError, match="Choose another folder"):
        render_dataset(src, out, layout="dpc", image_size=64, n_points=3000, seed=1)
    with pytest.raises(ValueError, match="Choose another folder"):
        render_dataset(src, out, n_points=3000)
    return out


def test_files_follow_the_layout(rendered):
    description = read_description(rendered)
    assert (description.layout, description.n_views, description.image_size) == ("dpc", 5, 64)
    assert (description.scale, description.name) == ("diagonal", "toys")
    assert description.categories == {"mug": {"train": 1, "val": 1, "test": 1}}
    assert sorted(path.name for path in (rendered / "renders/mug/a").iterdir()) == sorted(
        ["voxels.npz", *(f"{kind}_{i}.{end}" for i in range(5) for kind, end in
         (("render", "png"), ("depth", "png"), ("camera", "mat")))]
    )  # fmt: skip
    assert not (rendered / ".parts").exists()
    report = check(rendered)
    assert report.ok and not report.warnings, (report.problems, report.warnings)
    assert report.sheet is not None and [split.n_points for split in report.splits] == [(3000, 3000)] * 3


@pytest.mark.parametrize("view", range(5))
def test_views_and_depths_agree_with_dpcs_formulas_on_the_mesh(rendered, view):
    folder = rendered / "renders/mug/a"
    mesh = lopsided()
    points = trimesh.sample.sample_surface(mesh, 30_000, seed=0)[0]
    points = (points - mesh.bounds.mean(0)) / np.linalg.norm(mesh.extents)
    position = scipy.io.loadmat(folder / f"camera_{view}.mat")["pos"].reshape(-1)
    assert np.linalg.norm(position) == pytest.approx(2)
    screen = dpc_screen(points, position)
    rows, columns = np.floor((0.5 - screen[:, 1]) * 64).astype(int), np.floor((screen[:, 0] + 0.5) * 64).astype(int)
    alpha = np.asarray(Image.open(folder / f"render_{view}.png"))[..., 3]
    near = ndimage.binary_dilation(alpha > 0, np.ones((3, 3)))  # a sliver of a pixel has no sample of the renderer
    assert near[rows, columns].all() and (alpha[rows, columns] > 0).mean() > 0.85
    assert near[rows, 63 - columns].mean() < 0.95, "the object is asymmetric"
    hit = np.zeros((64, 64), bool)
    hit[rows, columns] = True
    assert hit[alpha == 255].mean() > 0.99
    nearest = np.full((64, 64), np.inf)
    np.minimum.at(nearest, (rows, columns), screen[:, 2])
    stored = np.asarray(Image.open(folder / f"depth_{view}.png")) / 65535 * 10
    assert (stored[alpha == 0] == 10).all()
    both = hit & (alpha == 255)
    assert np.median(np.abs(stored - nearest)[both]) < 0.01


def test_the_cloud_is_that_of_the_mesh(rendered):
    points = scipy.io.loadmat(rendered / "gt/downsampled/mug/b.mat")["points"]
    mesh = lopsided()
    original = points * np.linalg.norm(mesh.extents) + mesh.bounds.mean(0)
    assert points.shape == (3000, 3)
    assert trimesh.proximity.closest_point_naive(mesh, original[:300])[1].max() < 1e-4 * mesh.extents.max()
    others = scipy.io.loadmat(rendered / "gt/downsampled/mug/c.mat")["points"]
    assert not np.array_equal(points, others), "the seed is the object's"


def test_directions_are_uniform_in_their_range():
    settings = DPCRenderSettings(views=4000)
    position = dpc_positions(settings.cameras(torch.Generator().manual_seed(0))).numpy()
    np.testing.assert_allclose(np.linalg.norm(position, axis=1), 2)
    elevation = np.rad2deg(np.arcsin(position[:, 2] / 2))
    assert DPC_ELEVATIONS == (-20, 40) and elevation.min() >= -20 and elevation.max() <= 40
    quarters = np.histogram(elevation, 4, (-20, 40))[0]
    assert abs(quarters - 1000).max() < 4 * np.sqrt(750)
    octants = np.histogram(np.arctan2(position[:, 1], position[:, 0]), 8, (-np.pi, np.pi))[0]
    assert abs(octants - 500).max() < 4 * np.sqrt(437.5)
    with pytest.raises(ValueError, match="at least 1 view"):
        DPCRenderSettings(views=0)
