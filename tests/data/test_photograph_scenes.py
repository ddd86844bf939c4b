from itertools import pairwise

import numpy as np
import pytest
import torch
import trimesh

from recon3d.data.photograph_annotations import read_truth
from recon3d.data.photograph_scenes import Posed, background, photograph, truth, write_truth
from recon3d.structures import Camera


def ball(x=0.0, depth=5.0, radius=0.25, color=(1.0, 0.0, 0.0), pixels=200):
    """A sphere before an orthographic camera of `pixels` to the unit; key points: nearest, farthest, left, right."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    points = torch.tensor([[0, 0, -radius], [0, 0, radius], [radius, 0, 0], [-radius, 0, 0]], dtype=torch.float32)
    focal = torch.full((1, 2), 2.0 * pixels / 100)
    camera = Camera(torch.eye(3)[None], torch.tensor([[x, 0.0, depth]]), focal, torch.zeros(1, 2), True)
    verts = torch.from_numpy(np.asarray(mesh.vertices)).float()
    faces = torch.from_numpy(np.asarray(mesh.faces)).long()
    return Posed(verts, faces, torch.tensor(color).expand(len(faces), 3), points, camera)


def test_a_ball_is_where_its_camera_says():
    picture, (seen,) = photograph([ball()], (100, 80), np.random.default_rng(0))
    assert picture.shape == (80, 100, 3) and picture.dtype == np.uint8
    # Radius 0.25 of 200 pixels, in the middle of the 100 x 100 square: pixel centres are at whole numbers.
    assert seen.coverage[:80].sum() == pytest.approx(np.pi * 50**2 - 50**2 * (np.arccos(0.6) - 0.48), rel=0.005)
    assert seen.box == (0.0, 0.0, 99.0, 79.0)
    np.testing.assert_allclose(seen.keypoints[:2, :2], 49.5, atol=1e-4)
    # +X is left in NDC.
    np.testing.assert_allclose(seen.keypoints[2:, 0], [-0.5, 99.5], atol=1e-3)
    assert seen.keypoints[:2, 2].tolist() == [1, 0], "the far side is hidden"
    assert seen.shown == 1.0
    red = picture[40, 50].astype(int)
    assert red[0] > 100 > red[1] + 40


def test_only_a_part_is_rendered_of_a_ball_on_the_border():
    _, (seen,) = photograph([ball(x=0.4, radius=0.1)], (100, 80), np.random.default_rng(0))
    column, row = np.meshgrid(np.arange(100), np.arange(80))
    disc = np.hypot(column - (49.5 - 80), row - 49.5) < 20
    assert not disc.any() and not seen.coverage.any() and seen.box == (0.0, 0.0, 0.0, 0.0)
    _, (seen,) = photograph([ball(x=0.22, radius=0.1)], (100, 80), np.random.default_rng(0))
    disc = np.hypot(column - (49.5 - 44), row - 49.5) < 20
    assert np.abs(seen.coverage - disc).max(where=np.abs(np.hypot(column - 5.5, row - 49.5) - 20) > 1, initial=0) == 0
    assert seen.box == (0.0, pytest.approx(30, abs=1), pytest.approx(25, abs=1), pytest.approx(69, abs=1))
    assert seen.keypoints[2, 2] == 0, "outside of the picture"


def test_the_nearer_object_hides_the_farther():
    near, far = ball(depth=4.0, radius=0.1), ball(x=0.05, depth=5.0, radius=0.1, color=(0.0, 1.0, 0.0))
    _, (first, second) = photograph([near, far], (100, 80), np.random.default_rng(0))
    assert first.shown == 1.0 and 0.1 < second.shown < 0.7
    assert (first.coverage + second.coverage).max() <= 1 + 1e-6
    assert first.keypoints[0, 2] == 1 and second.keypoints[3, 2] == 0
    assert second.keypoints[2, 2] == 1, "at its outline, free"


def test_backgrounds_are_textured_and_differ():
    pictures = [background((90, 70), np.random.default_rng(seed)) for seed in range(6)]
    for picture in pictures:
        assert picture.shape == (70, 90, 3) and picture.min() > 0 and picture.max() <= 1
        assert picture.std(axis=(0, 1)).min() > 0.02 and picture.mean() > 0.1
    assert all(a.shape == b.shape and np.abs(a - b).mean() > 0.03 for a, b in pairwise(pictures))
    assert np.array_equal(pictures[3], background((90, 70), np.random.default_rng(3)))


def test_truth_is_read_as_written(tmp_path):
    arrays = truth(ball(), torch.Generator().manual_seed(1))
    np.testing.assert_allclose(np.linalg.norm(arrays["points"], axis=1), 0.25, atol=2e-3)
    assert (arrays["points"] * arrays["normals"]).sum(1).min() > 0.24
    volume = arrays["voxels"].sum() / 31**3
    assert volume == pytest.approx(4 / 3 * np.pi * (0.25 + 0.5 / 31) ** 3, rel=0.1)
    write_truth(tmp_path / "a/b.npz", arrays)
    found = read_truth(tmp_path / "a/b.npz", mirrored=False)
    assert np.array_equal(found["points"][0].numpy(), arrays["points"]) and found["voxels"].shape == (1, 32, 32, 32)
