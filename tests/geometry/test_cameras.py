import math

import numpy as np
import pytest
import torch
from pytorch3d.renderer import (
    FoVOrthographicCameras,
    FoVPerspectiveCameras,
    OrthographicCameras,
    PerspectiveCameras,
    look_at_view_transform,
)

from recon3d.geometry.cameras import (
    NMR_DISTANCE,
    camera_centers,
    dpc_cameras,
    dpc_extrinsics,
    dpc_positions,
    eye_camera,
    from_pytorch3d,
    look_at_camera,
    look_at_parameters,
    nmr_cameras,
    nmr_to_object,
    object_to_shapenet,
    project,
    shapenet_to_object,
    to_pytorch3d,
)
from recon3d.structures import Camera
from tests.geometry.dpc_oracle import dpc_permuted, dpc_screen

MIRROR = torch.tensor([1.0, 1.0, -1.0])  # NMR's frame is left-handed: z is negated


def some_points(count: int = 50) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 0.5


def some_camera(orthographic: bool) -> Camera:
    """Four cameras with every freedom: not square, off-centre, away from the origin."""
    rotation, translation = look_at_view_transform(dist=3.0, elev=[10, -50, 0, 80], azim=[0, 100, 200, -30])
    shift = torch.tensor([[0.1, -0.2, 0.3]])
    focal = torch.tensor([[2.0, 3.0], [1.0, 1.5], [4.0, 2.0], [1.0, 1.0]])
    return Camera(rotation, translation + shift, focal, 0.1 * focal.flip(1), orthographic)


def nmr_screen(points: np.ndarray, distance: float, elevation: float, azimuth: float, angle: float) -> np.ndarray:
    """Screen x (right), y (up) and depth by the formulas of the NMR renderer, in its own left-handed frame."""
    e, a = math.radians(elevation), math.radians(azimuth)
    eye = distance * np.array([math.cos(e) * math.sin(a), math.sin(e), -math.cos(e) * math.cos(a)])
    z = -eye / np.linalg.norm(eye)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    view = (points - eye) @ np.stack([x, y, z]).T
    return np.column_stack([view[:, :2] / (view[:, 2:] * math.tan(math.radians(angle))), view[:, 2]])


def test_look_at_parameters_come_back():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([1.0, -89.0, -180.0, 1.0]), torch.tensor([5.0, 89.0, 180.0, 80.0])
    given = low + (high - low) * torch.rand(200, 4, generator=generator)
    names = ("distance", "elevation", "azimuth", "viewing_angle")
    back = look_at_parameters(look_at_camera(**dict(zip(names, given.T, strict=True))))
    for column, name in enumerate(names):
        torch.testing.assert_close(back[name], given[:, column], rtol=1e-4, atol=2e-3)


def test_numbers_broadcast_to_a_batch():
    cameras = look_at_camera(azimuth=torch.tensor([0.0, 90.0]), elevation=20.0)
    assert cameras.shape == (2,) and look_at_camera().shape == (1,)
    torch.testing.assert_close(look_at_parameters(cameras)["elevation"], torch.tensor([20.0, 20.0]))


@pytest.mark.parametrize("elevation", [90.0, -90.0, 120.0])
def test_poles_are_refused(elevation):
    with pytest.raises(ValueError, match=r"elevation must lie in \(-90, 90\)"):
        look_at_camera(elevation=elevation)


@pytest.mark.parametrize("angle", [0.0, 90.0, -15.0])
def test_viewing_angles_without_an_image_are_refused(angle):
    with pytest.raises(ValueError, match="half the field of view"):
        look_at_camera(viewing_angle=angle)


@pytest.mark.parametrize("distance", [0.0, -1.0])
def test_distances_without_a_direction_are_refused(distance):
    with pytest.raises(ValueError, match="distance must be positive"):
        look_at_camera(distance=distance)


def test_parameters_of_other_cameras_are_refused():
    with pytest.raises(ValueError, match="does not look at the origin"):
        look_at_parameters(some_camera(orthographic=False))
    with pytest.raises(ValueError, match="orthographic"):
        look_at_parameters(some_camera(orthographic=True))


@pytest.mark.parametrize("orthographic", [False, True])
def test_projection_equals_pytorch3d(orthographic):
    camera, points = some_camera(orthographic), some_points()
    theirs = to_pytorch3d(camera)
    ours = project(camera, points)
    screen = theirs.transform_points(points.expand(4, -1, -1), eps=1e-8)
    torch.testing.assert_close(ours[..., :2], screen[..., :2], rtol=1e-5, atol=1e-5)
    view = theirs.get_world_to_view_transform().transform_points(points.expand(4, -1, -1))
    torch.testing.assert_close(ours[..., 2], view[..., 2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(camera_centers(camera), theirs.get_camera_center(), rtol=1e-5, atol=1e-5)


def test_projection_broadcasts_over_leading_dimensions():
    camera, points = some_camera(orthographic=False), torch.stack([some_points(), 2 * some_points()])
    both = project(camera[None], points[:, None])  # (2,1,P,3) in (1,4)
    assert both.shape == (2, 4, 50, 3)
    torch.testing.assert_close(both[1, 2], project(camera[2], points[1]))


def test_points_behind_the_camera_stay_finite_and_tell_by_their_depth():
    behind = project(look_at_camera(), camera_centers(look_at_camera()) * torch.tensor([[1.0], [2.0]]))
    assert behind.isfinite().all() and bool((behind[..., 2] < 1e-5).all())


@pytest.mark.parametrize("orthographic", [False, True])
def test_to_and_from_pytorch3d(orthographic):
    camera = some_camera(orthographic)
    back = from_pytorch3d(to_pytorch3d(camera))
    assert back.orthographic == orthographic
    for name in ("R", "T", "focal", "center"):
        assert torch.equal(getattr(back, name), getattr(camera, name))
    nested = camera[torch.tensor([[0, 1], [2, 3]])]
    assert torch.equal(to_pytorch3d(nested).T, camera.T)


@pytest.mark.parametrize(
    "theirs",
    [
        lambda pose: FoVPerspectiveCameras(**pose, fov=30.0),
        lambda pose: FoVPerspectiveCameras(**pose, fov=torch.tensor([0.3, 0.8]), degrees=False),
        lambda pose: PerspectiveCameras(**pose, focal_length=2.5),
        lambda pose: PerspectiveCameras(**pose, focal_length=torch.tensor([2.0, 3.0])),
        lambda pose: OrthographicCameras(**pose, focal_length=1.7, principal_point=((0.1, 0.2),)),
    ],
)
def test_pytorch3d_cameras_project_alike_after_conversion(theirs):
    rotation, translation = look_at_view_transform(dist=2.0, elev=[30, -20], azim=[10, 250])
    cameras = theirs({"R": rotation, "T": translation})
    screen = cameras.transform_points(some_points().expand(2, -1, -1))
    torch.testing.assert_close(project(from_pytorch3d(cameras), some_points())[..., :2], screen[..., :2])


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (PerspectiveCameras(in_ndc=False, image_size=((64, 64),)), "screen space"),
        (FoVPerspectiveCameras(aspect_ratio=2.0), "aspect_ratio 1"),
        (FoVOrthographicCameras(), "no rule for FoVOrthographicCameras"),
    ],
)
def test_pytorch3d_cameras_without_an_equivalent_are_refused(cameras, message):
    with pytest.raises(ValueError, match=message):
        from_pytorch3d(cameras)


# Expectations of the NMR test suite (tests/test_look_at.py, tests/test_perspective.py).
@pytest.mark.parametrize(
    ("eye", "expected"),
    [
        ((1, 0, 1), (-math.sqrt(0.5), 0, math.sqrt(0.5))),
        ((0, 0, -10), (1, 0, 10)),
        ((-1, 1, 0), (0, math.sqrt(0.5), 1.5 * math.sqrt(2))),
    ],
)
def test_nmr_look_at_cases(eye, expected):
    x, y, z = (MIRROR * torch.tensor(eye, dtype=torch.float32)).tolist()
    distance = math.hypot(x, y, z)
    camera = look_at_camera(distance, math.degrees(math.asin(y / distance)), math.degrees(math.atan2(x, z)))
    vertex = nmr_to_object(torch.tensor([[1.0, 0.0, 0.0]]))
    view = vertex @ camera.R[0] + camera.T[0]
    # NMR shows +x on the right, PyTorch3D on the left: with z of the world negated, x of the view changes its sign.
    torch.testing.assert_close(view[0], torch.tensor(expected).float() * torch.tensor([-1, 1, 1]), rtol=1e-5, atol=1e-5)


def test_nmr_perspective_case():
    pose = Camera(torch.eye(3), torch.zeros(3), look_at_camera(viewing_angle=30.0).focal[0], torch.zeros(2))
    projected = project(pose, torch.tensor([[1.0, 2.0, 10.0]]))
    torch.testing.assert_close(projected, torch.tensor([[math.sqrt(3) / 10, 2 * math.sqrt(3) / 10, 10.0]]))


# Eyes by the NMR function get_points_from_angles, in its own frame.
@pytest.mark.parametrize(
    ("parameters", "eye"),
    [
        ((2.732, 30, 0), (0.0, 1.366, -2.3659814)),
        ((2.732, 30, -15), (-0.61236105, 1.366, -2.28536254)),
        ((2.732, 30, -90), (-2.3659814, 1.366, 0.0)),
        ((2.732, 0, 90), (2.732, 0.0, 0.0)),
        ((2.732, 30, -345), (0.61236105, 1.366, -2.28536254)),
    ],
)
def test_nmr_eyes(parameters, eye):
    center = camera_centers(look_at_camera(*parameters))[0]
    torch.testing.assert_close(center, torch.tensor(eye) * MIRROR, rtol=0, atol=2e-6)


def test_nmr_views_equal_its_renderer_up_to_the_sign_of_x():
    points = some_points()
    screen = project(nmr_cameras(), nmr_to_object(points))
    for view in range(24):
        expected = nmr_screen(points.double().numpy(), NMR_DISTANCE, 30.0, -15.0 * view, 15.0)
        np.testing.assert_allclose(screen[view] * torch.tensor([-1.0, 1, 1]), expected, atol=2e-5)


def test_the_data_set_is_seen_as_blender_rendered_it():
    # The rendering script, in the axes of the .obj file: d (cos e cos a, sin e, cos e sin a), a = 15 k degrees.
    a, e = torch.deg2rad(15.0 * torch.arange(24)), math.radians(30)
    blender = NMR_DISTANCE * torch.stack(
        [math.cos(e) * a.cos(), torch.full_like(a, math.sin(e)), math.cos(e) * a.sin()], 1
    )
    torch.testing.assert_close(object_to_shapenet(camera_centers(nmr_cameras())), blender, rtol=0, atol=2e-6)


def test_object_frame_is_the_shapenet_frame_turned_by_90_degrees():
    points = some_points()
    direct = look_at_camera(azimuth=90.0 - 15.0 * torch.arange(24))
    ours = project(nmr_cameras(), shapenet_to_object(points))
    torch.testing.assert_close(ours, project(direct, points), rtol=0, atol=2e-6)


def test_frames_are_rotations_except_that_of_nmr():
    axes = torch.eye(3)
    assert torch.linalg.det(shapenet_to_object(axes)) == 1
    assert torch.linalg.det(nmr_to_object(axes)) == -1
    points = some_points()
    assert torch.equal(object_to_shapenet(shapenet_to_object(points)), points)
    assert torch.equal(nmr_to_object(nmr_to_object(points)), points)


def test_layout_of_120_views_is_five_elevations_of_24_azimuths():
    angles = look_at_parameters(nmr_cameras(120))
    torch.testing.assert_close(
        angles["elevation"].reshape(5, 24),
        torch.tensor([-60.0, -30, 0, 30, 60])[:, None].expand(5, 24),
        atol=1e-3,
        rtol=0,
    )
    turns = torch.deg2rad(angles["azimuth"].reshape(5, 24) + 15.0 * torch.arange(24))
    torch.testing.assert_close(turns.cos(), torch.ones(5, 24))
    torch.testing.assert_close(nmr_cameras(120)[72:96].T, nmr_cameras(24).T)
    assert torch.allclose(angles["viewing_angle"], torch.tensor(15.0))


def test_other_layouts_are_refused():
    with pytest.raises(ValueError, match="24 or 120 views, not 36"):
        nmr_cameras(36)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_camera_from_its_eye_is_the_look_at_camera_there(dtype):
    expected = nmr_cameras(120)
    camera = eye_camera(camera_centers(expected).to(dtype))
    assert camera.shape == (120,)
    for name in ("R", "T", "focal", "center"):
        torch.testing.assert_close(getattr(camera, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


def test_an_eye_gets_the_gradient_of_its_projection():
    eye = torch.tensor([[1.0, 1.5, -2.0]])
    point = torch.tensor([[0.3, -0.2, 0.1]])

    def column(eye):
        return project(eye_camera(eye), point)[0, 0, 0]

    leaf = eye.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(column(leaf), leaf)
    for axis in range(3):
        step = torch.zeros_like(eye)
        step[0, axis] = 1e-2
        numeric = (column(eye + step) - column(eye - step)) / 2e-2
        assert float(gradient[0, axis]) == pytest.approx(float(numeric), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("eye", [[[0.0, 2.0, 0.0]], [[1.0, 2.0]]])
def test_an_eye_without_a_direction_is_refused(eye):
    with pytest.raises(ValueError, match="eyes"):
        eye_camera(torch.tensor(eye))


DPC_POSITIONS = np.array(
    [[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0], [1, 1, 1], [-1, 0.5, 0.7], [0.3, -1.2, -0.6], [-0.4, -0.8, 1.7]]
)


@pytest.mark.parametrize("index", range(len(DPC_POSITIONS)))
def test_dpc_cameras_see_what_its_formulas_say(index):
    position = DPC_POSITIONS[index]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    expected = dpc_screen(points, position)
    camera = dpc_cameras(torch.tensor(position))
    ours = project(camera, shapenet_to_object(torch.tensor(points))).numpy()
    np.testing.assert_allclose(np.column_stack([-ours[:, 0] / 2, ours[:, 1] / 2, ours[:, 2]]), expected, atol=1e-12)
    matrix = dpc_permuted(dpc_extrinsics(camera).numpy())
    depth, up, right = matrix @ np.column_stack([points, np.ones(20)]).T
    np.testing.assert_allclose(
        np.column_stack([1.875 * right / depth, 1.875 * up / depth, depth]), expected, atol=1e-12
    )


def test_dpc_cameras_stand_where_blender_says_and_come_back():
    position = torch.tensor(DPC_POSITIONS)
    camera = dpc_cameras(position)
    x, y, z = torch.nn.functional.normalize(position, dim=-1).unbind(-1)
    # Blender imports an .obj file with (x, y, z) = (X, -Z, Y).
    centers = shapenet_to_object(2 * torch.stack([x, z, -y], dim=-1))
    torch.testing.assert_close(camera_centers(camera), centers)
    torch.testing.assert_close(dpc_positions(camera), 2 * torch.nn.functional.normalize(position, dim=-1))
    again = dpc_cameras(dpc_positions(camera))
    torch.testing.assert_close(again.R, camera.R)
    torch.testing.assert_close(torch.linalg.det(camera.R), torch.ones(len(position), dtype=torch.float64))
    origin = project(camera, torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(origin[:, 0], torch.tensor([[0.0, 0, 2]], dtype=torch.float64).expand(len(position), 3))
    extrinsic = dpc_extrinsics(camera)
    torch.testing.assert_close(extrinsic[:, :3, :3] @ extrinsic[:, :3, :3].mT, torch.eye(3).double().expand(8, 3, 3))


def test_dpc_cameras_above_and_below_are_the_limit_along_x():
    for height in (2.0, -2.0):
        pole, near = (dpc_cameras(torch.tensor([x, 0.0, height])) for x in (0.0, 1e-5))
        torch.testing.assert_close(pole.R, near.R, atol=1e-4, rtol=0)
        assert torch.isfinite(pole.R).all()


@pytest.mark.parametrize("position", [[0.0, 0.0, 0.0], [1.0, math.nan, 0.0], [1.0, 2.0]])
def test_positions_without_a_direction_are_refused(position):
    with pytest.raises(ValueError, match="expected finite positions"):
        dpc_cameras(torch.tensor(position))
