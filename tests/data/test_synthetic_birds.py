import numpy as np
import pytest

from recon3d.data import synthetic_birds
from recon3d.data.synthetic_birds import LEAST_KEYPOINTS, bird_picture, mean_keypoints
from recon3d.geometry.shapes.bird import KEYPOINT_MIRROR, KEYPOINTS

SEEDS = range(12)


@pytest.fixture(scope="module")
def birds():
    return [bird_picture(seed) for seed in SEEDS]


def in_cmr(points):
    """The object frame is (-y, z, -x) / 2 of CMR's."""
    return 2.0 * np.stack([-points[:, 2], -points[:, 0], points[:, 1]], 1).astype(np.float64)


def test_the_mean_shape_is_symmetric_and_spans_two():
    mean = mean_keypoints()
    assert np.array_equal(mean * np.array([-1.0, 1.0, 1.0]), mean[list(KEYPOINT_MIRROR)])
    assert np.linalg.norm(mean[:, None] - mean[None], axis=-1).max() == pytest.approx(2.0, abs=1e-12)
    place = dict(zip(KEYPOINTS, mean, strict=True))
    assert place["beak"][1] < -0.8 and place["tail"][1] > 0.8 and place["back"][2] > place["belly"][2]
    assert place["left eye"][0] > 0.1 > place["right eye"][0]


def test_cameras_see_the_true_shape_where_the_picture_has_it(birds):
    for bird in birds:
        height, width = bird.coverage.shape
        pixels = bird.scale * in_cmr(bird.truth["points"]) @ bird.rotation[:2].T + bird.shift
        inside = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(1)
        assert inside.mean() > 0.6
        column, row = np.rint(pixels[inside]).astype(int).T
        grown = np.max([np.roll(bird.coverage, s, (0, 1)) for s in np.ndindex(2, 2)], axis=0)
        assert (grown[row, column] > 0.1).mean() > 0.985, bird.seed
        points = bird.scale * in_cmr(bird.truth["keypoints"]) @ bird.rotation[:2].T + bird.shift
        np.testing.assert_allclose(points, bird.keypoints[:, :2], atol=1e-4)


def test_true_shapes_lie_in_the_cube_and_fill_it(birds):
    for bird in birds:
        low, high = bird.truth["points"].min(0), bird.truth["points"].max(0)
        assert low.min() > -0.5 and high.max() < 0.5 and 0.85 < (high - low).max() < 1.0
        y, x, z = np.floor(31 * bird.truth["points"][:, [1, 0, 2]].astype(np.float64) + 16).astype(int).T
        assert bird.truth["voxels"][y, x, z].mean() > 0.99


def test_visible_keypoints_are_on_the_bird_and_face_the_camera(birds):
    for bird in birds:
        visible = bird.keypoints[:, 2] > 0
        assert visible.sum() >= LEAST_KEYPOINTS
        column, row = np.rint(bird.keypoints[visible, :2]).astype(int).T
        around = np.pad(bird.coverage, 2)
        near = [around[r : r + 5, c : c + 5].max() for r, c in zip(row, column, strict=True)]
        assert min(near) > 0
        # Of eyes and wings, the side that is nearer to the camera is seen wherever the other is.
        depth = in_cmr(bird.truth["keypoints"]) @ bird.rotation[2]
        for name in ("eye", "wing"):
            left, right = (KEYPOINTS.index(f"{side} {name}") for side in ("left", "right"))
            near_one, far_one = (left, right) if depth[left] < depth[right] else (right, left)
            height, width = bird.coverage.shape
            shown = 0 <= bird.keypoints[near_one, 0] < width - 1 and 0 <= bird.keypoints[near_one, 1] < height - 1
            if depth[far_one] - depth[near_one] > 0.15 and shown:
                assert not visible[far_one] or visible[near_one], (bird.seed, name)


def test_sideways_views_hide_the_far_eye(birds):
    hidden = 0
    for bird in birds:
        left, right = (KEYPOINTS.index(f"{side} eye") for side in ("left", "right"))
        if abs(bird.rotation[2, 0]) > 0.9:  # the camera looks along the axis from left to right
            far, near = (left, right) if bird.rotation[2, 0] > 0 else (right, left)
            assert bird.keypoints[far, 2] == 0
            hidden += int(bird.keypoints[near, 2])
    assert hidden >= 3


def test_rotations_are_proper_and_views_vary(birds):
    for bird in birds:
        np.testing.assert_allclose(bird.rotation @ bird.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(bird.rotation) == pytest.approx(1.0)
        assert bird.rotation[1, 2] < -0.5, "up is up, as v points down"
    aside = [abs(synthetic_birds._look(np.random.default_rng(seed))[2, 0]) for seed in range(400)]
    assert 0.5 < np.mean(np.array(aside) > 0.75) < 0.85 and np.mean(np.array(aside) < 0.4) > 0.05


def test_pictures_are_of_unequal_sizes_some_grey_some_cut_and_repeatable(birds):
    assert len({bird.picture.shape for bird in birds}) > 6
    again = bird_picture(3)
    assert np.array_equal(again.picture, birds[3].picture) and again.box == birds[3].box
    assert all(np.array_equal(again.truth[name], value) for name, value in birds[3].truth.items())
    rng = np.random.default_rng(0)
    corners = np.array([[-1.0, -0.5], [1.0, 0.5]])
    cut = 0
    for _ in range(300):
        (width, height), scale, shift = synthetic_birds._framing(corners, rng)
        pixels = scale * corners + shift
        cut += int((pixels < -0.5).any() or (pixels > [width - 0.5, height - 0.5]).any())
        box = synthetic_birds._annotated_box(pixels, (width, height), rng)
        assert box[0] >= -2 and box[1] >= -2 and box[2] <= width + 1 and box[3] <= height + 1
        assert box[0] < box[2] and box[1] < box[3]
    assert 0.05 < cut / 300 < 0.2
