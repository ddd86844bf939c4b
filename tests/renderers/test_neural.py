import math

import numpy as np
import pytest
import torch

from recon3d.geometry.cameras import camera_centers, eye_camera, look_at_camera, nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.renderers.hard import render_hard
from recon3d.renderers.neural import Lights, render_neural, render_neural_silhouette
from recon3d.structures import Camera

FRONT = look_at_camera(elevation=0.0, azimuth=0.0).to(dtype=torch.float64)  # on +Z, shows +X on the right
QUAD_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def quad(dtype=torch.float64):
    """A square in the plane z = 0."""
    return torch.tensor([[-0.3, -0.3, 0], [0.3, -0.3, 0], [0.3, 0.3, 0], [-0.3, 0.3, 0]], dtype=dtype)


def plain(color, faces):
    return torch.tensor(color, dtype=torch.float64).expand(len(faces), 2, 2, 2, 3)


def blobs(count, level=1, dtype=torch.float32):
    verts, faces = icosphere(level, 0.35)
    generator = torch.Generator().manual_seed(1)
    return (verts * (1 + 0.2 * torch.randn(count, len(verts), 1, generator=generator))).to(dtype), faces


def cubes(*shape, seed=2, dtype=torch.float32):
    return torch.rand(*shape, 2, 2, 2, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)


def iou(a, b):
    both = (a * b).sum(dim=(-2, -1))
    return (both / (a.sum(dim=(-2, -1)) + b.sum(dim=(-2, -1)) - both)).mean().item()


def colour_in_the_middle(lights, camera=FRONT, color=(0.8, 0.5, 0.2), faces=QUAD_FACES):
    image = render_neural(quad(), faces, plain(color, faces), camera, 9, lights, anti_alias=1).image
    return image[0, :, 4, 4].tolist()


def from_behind(**lights):
    return colour_in_the_middle(Lights(**lights), look_at_camera(elevation=0.0, azimuth=180.0).to(dtype=torch.float64))


def test_light_on_a_quad_in_closed_form():
    towards, away = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
    slanted = (0.0, math.sin(1.0), math.cos(1.0))
    for lights, light in (
        (Lights(direction=towards), 1.0),
        (Lights(direction=away), 0.5),
        (Lights(direction=away, clamp=False), 0.0),
        (Lights(ambient=0.3, directional=0.6, direction=away, clamp=False), -0.3),
        (Lights(ambient=0.3, directional=0.6, direction=slanted), 0.3 + 0.6 * math.cos(1.0)),
        (Lights(ambient=0.3, directional=0.6, direction=tuple(7 * x for x in slanted)), 0.3 + 0.6 * math.cos(1.0)),
        (Lights(), 0.5),
        (Lights(ambient=1.0, directional=0.0), 1.0),
    ):
        assert colour_in_the_middle(lights) == pytest.approx([0.8 * light, 0.5 * light, 0.2 * light], abs=1e-9)
    colored = Lights(0.4, 0.5, (1.0, 0.5, 0.0), (0.0, 0.5, 1.0), direction=towards)
    assert colour_in_the_middle(colored) == pytest.approx([0.8 * 0.4, 0.5 * 0.45, 0.2 * 0.5], abs=1e-9)


def test_a_face_is_lit_on_the_side_that_is_seen():
    for direction, front, back in (((0.0, 0.0, 1.0), 1.0, 0.5), ((0.0, 0.0, -1.0), 0.5, 1.0)):
        lights = Lights(direction=direction)
        for faces in (QUAD_FACES, QUAD_FACES.flip(1), torch.tensor([[0, 1, 2], [3, 2, 0]])):
            assert colour_in_the_middle(lights, faces=faces)[0] == pytest.approx(0.8 * front, abs=1e-9)
        assert from_behind(direction=direction)[0] == pytest.approx(0.8 * back, abs=1e-9)
    assert from_behind(direction=(0.0, 0.0, 1.0), clamp=False)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("eye", [(0.6, 1.1, 2.0), (-1.4, -0.9, 1.5), (0.5, -1.0, -2.2)])
def test_every_face_of_a_solid_is_lit_by_its_outward_normal(eye):
    verts, faces = icosphere(1, 0.4)
    verts = verts.double() * torch.tensor([1.0, 0.6, 0.8])
    direction = np.array([0.4, 0.7, -0.3])
    camera = eye_camera(torch.tensor([eye])).to(dtype=torch.float64)
    lights = Lights(0.35, 0.55, direction=tuple(direction.tolist()))
    image = render_neural(verts, faces, plain((1.0, 1.0, 1.0), faces), camera, 64, lights, anti_alias=1).image[0, 0]
    corners = verts[faces].numpy()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = 0.35 + 0.55 * np.maximum(normals @ direction / np.linalg.norm(direction), 0)
    middle = project(camera, torch.tensor(corners.mean(axis=1)))[0]
    seen = 0
    for face in range(len(faces)):
        if normals[face] @ (np.array(eye) - corners[face].mean(axis=0)) > 0.5:  # of a convex solid: it is in view
            x, y, _ = middle[face].tolist()
            assert image[int((1 - y) * 32), int((1 - x) * 32)].item() == pytest.approx(light[face], abs=1e-6)
            seen += 1
    assert seen > 15 and len(set(light.round(6))) > 20


@pytest.mark.parametrize("clamp", [True, False])
def test_gradients_to_the_lights_are_finite_differences(clamp):
    verts, faces = blobs(1, dtype=torch.float64)
    textures = cubes(1, len(faces), dtype=torch.float64)
    camera = nmr_cameras()[[3]].to(dtype=torch.float64)
    weight = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    values = [0.4, 0.7, [0.9, 0.6, 0.7], [0.5, 1.0, 0.8], [0.5, 0.8, 0.6]]
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]

    def loss(*fields):
        image = render_neural(verts, faces, textures, camera, 16, Lights(*fields, clamp=clamp)).image
        return (image * weight).sum()

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-6, rtol=1e-6)
    assert all(gradient.abs().max() > 0.1 for gradient in torch.autograd.grad(loss(*leaves), leaves))


def test_light_moves_vertices_by_the_exact_derivative():
    # A face without an edge on the image: only its shading depends on its corners.
    verts = torch.tensor([[0.3, 9.0, 0.4], [-9.0, -8.0, -0.3], [8.0, -9.0, 0.2]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    lights = Lights(0.2, 0.7, direction=(0.3, 0.5, 1.0))

    def loss(v):
        image = render_neural(v, faces, plain((0.9, 0.5, 0.7), faces), FRONT, 6, lights).image
        return image.square().sum()

    leaf = verts.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, leaf, eps=1e-5, atol=1e-6)
    assert torch.autograd.grad(loss(leaf), leaf)[0].abs().max() > 0.1


def test_gradients_to_textures_and_background_are_finite_differences():
    verts, faces = blobs(2, dtype=torch.float64)
    textures, background = cubes(2, len(faces), dtype=torch.float64), torch.rand(2, 3).double()
    camera = nmr_cameras()[[3, 10]].to(dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64)

    def loss(textures, background):
        lights = Lights(direction=(0.5, 0.8, 0.3))
        return (render_neural(verts, faces, textures, camera, 12, lights, background).image * weight).sum()

    leaves = textures.requires_grad_(), background.requires_grad_()
    gradients = torch.autograd.grad(loss(*leaves), leaves)
    with torch.no_grad():  # linear in both: finite steps are exact
        for index, gradient in enumerate(gradients):
            step = [torch.zeros_like(leaf) for leaf in leaves]
            step[index] = torch.randn(leaves[index].shape, generator=generator, dtype=torch.float64)
            moved = loss(*(leaf + move for leaf, move in zip(leaves, step, strict=True))) - loss(*leaves)
            assert (gradient * step[index]).sum().item() == pytest.approx(moved.item(), rel=1e-8)
            assert abs(moved) > 0.1


def test_backgrounds():
    verts, faces = blobs(2)
    textures, camera = cubes(2, len(faces)), nmr_cameras()[[0, 4]]
    black = render_neural(verts, faces, textures, camera, 16)
    empty, full = black.mask == 0, black.mask == 1
    assert empty.any() and full.any() and not black.image.permute(0, 2, 3, 1)[empty].any()
    for background in ((0.2, 0.5, 0.9), torch.tensor([0.2, 0.5, 0.9]), torch.rand(2, 3)):
        seen = render_neural(verts, faces, textures, camera, 16, background=background)
        colors = torch.as_tensor(background).expand(2, 3)[:, :, None, None]
        torch.testing.assert_close(seen.image, black.image + (1 - black.mask[:, None]) * colors)
        assert torch.equal(seen.mask, black.mask)


def test_masks_equal_the_hard_renderer():
    verts, faces = blobs(2, level=2)
    camera = nmr_cameras()[[2, 9]]
    for anti_alias in (1, 2):
        hard = render_hard(verts, faces, camera, 32, anti_alias=anti_alias)
        mask = render_neural_silhouette(verts, faces, camera, 32, anti_alias)
        seen = render_neural(verts, faces, cubes(2, len(faces)), camera, 32, anti_alias=anti_alias, with_depth=True)
        assert torch.equal(mask, hard.mask[:, 0]) and torch.equal(seen.mask, mask)
        if anti_alias == 1:
            hit = mask > 0
            torch.testing.assert_close(seen.depth[hit], hard.depth[:, 0][hit])
    default = render_neural_silhouette(verts, faces, camera, 32)
    assert torch.equal(default, mask), "averaged from twice the size unless told otherwise"
    assert render_neural(verts, faces, cubes(2, len(faces)), camera, 8).depth is None


def test_the_red_face_is_seen_where_it_is_projected():
    verts, faces = icosphere(1, 0.4)
    red = int(verts[faces].mean(dim=1)[:, 0].argmax())  # at the side of +X
    textures = torch.full((len(faces), 2, 2, 2, 3), 0.5)
    textures[red] = torch.tensor([1.0, 0.0, 0.0])
    for azimuth in (70.0, 90.0, 140.0):
        camera = look_at_camera(2.732, 25.0, azimuth)
        image = render_neural(verts, faces, textures, camera, 96, Lights(1.0, 0.0)).image[0]
        rows, columns = ((image[0] > 0.9) & (image[1] < 0.1)).nonzero().double().unbind(1)
        assert len(rows) > 20
        corners = project(camera, verts[faces[red]])[0]
        x, y = corners[:, 0].mean(), corners[:, 1].mean()
        assert float((2 * columns.mean() + 1) / 96) == pytest.approx(1 - x.item(), abs=0.03)
        assert float((2 * rows.mean() + 1) / 96) == pytest.approx(1 - y.item(), abs=0.03)
    view = look_at_camera(2.732, 0.0, 60.0)  # from +X and +Z: +X is on the right, as for a person standing there
    image = render_neural(verts, faces, textures, view, 96, Lights(1.0, 0.0)).image[0]
    columns = ((image[0] > 0.9) & (image[1] < 0.1)).nonzero()[:, 1]
    assert len(columns) > 20 and columns.min() > 52


def test_leading_dimensions_broadcast():
    verts, faces = blobs(3)
    textures = cubes(3, len(faces))
    camera = nmr_cameras()[[0, 5]]
    lights = Lights(
        torch.tensor([0.3, 0.5, 0.7])[:, None],
        torch.tensor([0.6, 0.4]),
        torch.rand(3, 1, 3, generator=torch.Generator().manual_seed(0)),
        direction=torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.5]]),
    )
    background = torch.rand(3, 1, 3, generator=torch.Generator().manual_seed(1))
    options = {"anti_alias": 1, "with_depth": True}
    together = render_neural(
        verts[:, None], faces, textures[:, None], camera, 14, lights, background=background, **options
    )
    assert together.mask.shape == together.depth.shape == (3, 2, 14, 14) and together.image.shape == (3, 2, 3, 14, 14)
    masks = render_neural_silhouette(verts[:, None], faces, camera, 14, anti_alias=1)
    assert torch.equal(masks, together.mask)
    for b in range(3):
        for v in range(2):
            own = Lights(
                float(lights.ambient[b, 0]), float(lights.directional[v]), lights.ambient_color[b, 0],
                direction=lights.direction[v],
            )  # fmt: skip
            alone = render_neural(
                verts[b], faces, textures[b], camera[v], 14, own, background=background[b, 0], **options
            )
            assert alone.mask.shape == (14, 14) and alone.image.shape == (3, 14, 14)
            assert torch.equal(alone.mask, together.mask[b, v]) and torch.equal(alone.depth, together.depth[b, v])
            torch.testing.assert_close(alone.image, together.image[b, v])
    assert not torch.equal(together.image[0, 0], together.image[0, 1])
    # One mesh and one set of textures for several cameras; several textures for one mesh.
    shared = render_neural(verts[0], faces, textures[0], camera, 14, anti_alias=1)
    assert shared.image.shape == (2, 3, 14, 14)
    recolored = render_neural(verts[0], faces, textures, camera[0], 14, anti_alias=1)
    assert recolored.image.shape == (3, 3, 14, 14)
    torch.testing.assert_close(recolored.image[0], shared.image[0])


def test_gradients_of_shared_inputs_add_up():
    verts, faces = blobs(1)
    textures, camera = cubes(len(faces)), nmr_cameras()[[0, 5]]
    weight = torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(4))

    def gradients(cameras, weights):
        leaves = verts[0].clone().requires_grad_(), textures.clone().requires_grad_()
        image = render_neural(leaves[0], faces, leaves[1], cameras, 14).image
        return torch.autograd.grad((image * weights).sum(), leaves)

    together = gradients(camera, weight)
    for both, first, second in zip(
        together, gradients(camera[0], weight[0]), gradients(camera[1], weight[1]), strict=True
    ):
        torch.testing.assert_close(both, first + second, rtol=1e-4, atol=1e-4)
        assert both.abs().max() > 0.1


def test_options_are_passed_on():
    verts, faces = blobs(1)
    camera, weight = nmr_cameras()[[3]], torch.randn(12, 12, generator=torch.Generator().manual_seed(4))

    def gradient(image_of, **options):
        leaf = verts.clone().requires_grad_()
        return torch.autograd.grad((image_of(leaf, **options) * weight).sum(), leaf)[0]

    def mask(leaf, **options):
        return render_neural_silhouette(leaf, faces, camera, 12, **options)

    def image(leaf, **options):
        return render_neural(leaf, faces, cubes(len(faces)), camera, 12, **options).image

    for image_of, eps in ((mask, 1e-4), (image, 1e-3)):
        default = gradient(image_of)
        torch.testing.assert_close(gradient(image_of, eps=eps, gradient="code", anti_alias=2), default)
        reference = gradient(image_of, backend="reference")
        assert torch.nn.functional.cosine_similarity(reference.flatten(), default.flatten(), dim=0) > 0.999
        for options in ({"eps": 0.1}, {"gradient": "paper"}, {"anti_alias": 1}):
            assert (gradient(image_of, **options) - default).abs().max() > 1e-3
        with pytest.raises(ValueError, match="neural_rasterize: backend=none does not exist"):
            image_of(verts, backend="none")
        with pytest.raises(ValueError, match=r"gradient.*exact"):
            image_of(verts, gradient="exact")


def test_many_lights_on_one_mesh_are_many_images():
    verts, faces = icosphere(1, 0.5)
    textures = torch.ones(len(faces), 2, 2, 2, 3)
    camera = look_at_camera()[0]
    lights = Lights(ambient=torch.tensor([0.2, 0.9, 0.4]), directional=0.0)
    many = render_neural(verts, faces, textures, camera, 16, lights)
    assert many.image.shape == (3, 3, 16, 16) and many.mask.shape == (3, 16, 16)
    for image, ambient in zip(many.image, (0.2, 0.9, 0.4), strict=True):
        assert torch.equal(image, render_neural(verts, faces, textures, camera, 16, Lights(ambient, 0.0)).image)


def test_a_light_from_nowhere_is_refused():
    verts, faces = icosphere(1, 0.5)
    lights = Lights(direction=torch.zeros(3))
    with pytest.raises(ValueError, match="direction"):
        render_neural(verts, faces, torch.ones(len(faces), 2, 2, 2, 3), look_at_camera()[0], 16, lights)


def test_orthographic_cameras_are_refused():
    verts, faces = blobs(1)
    view = nmr_cameras()[[0]]
    camera = Camera(view.R, view.T, view.focal, view.center, orthographic=True)
    for call in (
        lambda: render_neural_silhouette(verts, faces, camera, 8),
        lambda: render_neural(verts, faces, cubes(len(faces)), camera, 8),
    ):
        with pytest.raises(ValueError, match=r"perspective.*orthographic"):
            call()


def test_textures_of_other_faces_are_refused():
    verts, faces = blobs(1)
    for count in (1, len(faces) - 1):
        with pytest.raises(ValueError, match="textures"):
            render_neural(verts, faces, cubes(count), nmr_cameras()[[0]], 8)


# The optimisation examples of the authors, smaller.
def test_vertices_become_a_square():
    verts, faces = icosphere(2, 0.5)
    camera = look_at_camera(2.732, 0.0, 90.0, 30.0)
    target = torch.zeros(1, 32, 32)
    target[:, 8:24, 8:24] = 1
    leaf = verts.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.01)
    found = []
    for _ in range(60):
        mask = render_neural_silhouette(leaf, faces, camera, 32)
        found.append(iou(mask.detach(), target))
        optimiser.zero_grad()
        (mask - target).square().sum().backward()
        optimiser.step()
    assert found[0] < 0.4 and max(found[-10:]) > 0.95


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_vertices_become_an_off_centre_rectangle_by_either_rule(rule):
    verts, faces = icosphere(2, 0.4)
    camera = look_at_camera(2.732, 0.0, 0.0, 30.0)
    target = torch.zeros(1, 24, 24)
    target[:, 6:14, 8:21] = 1
    leaf = verts.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.01)
    found = []
    for _ in range(60):
        mask = render_neural_silhouette(leaf, faces, camera, 24, gradient=rule)
        found.append(iou(mask.detach(), target))
        optimiser.zero_grad()
        (mask - target).square().sum().backward()
        optimiser.step()
    assert found[0] < 0.5 and max(found[-10:]) > 0.9


def test_textures_become_those_of_the_pictures():
    verts, faces = icosphere(1, 0.4)
    camera = nmr_cameras()[[0, 8, 16]]
    wanted = cubes(len(faces), seed=6)
    target = render_neural(verts, faces, wanted, camera, 24, Lights(1.0, 0.0)).image
    logits = torch.zeros_like(wanted).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1, betas=(0.5, 0.999))
    losses = []
    for _ in range(40):
        image = render_neural(verts, faces, logits.sigmoid(), camera, 24, Lights(1.0, 0.0)).image
        loss = (image - target).square().sum()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize(
    ("start", "rate", "steps", "nearer"), [((-2.0, 2.5, 2.0), 0.05, 80, 0.3), ((6.0, 10.0, 14.0), 0.1, 200, 0.2)]
)
def test_the_camera_returns_to_the_reference_view(start, rate, steps, nearer):
    verts, faces = blobs(1, level=1)
    verts = verts[0] * torch.tensor([1.4, 0.7, 0.9])
    home = camera_centers(look_at_camera(2.732, 30.0, -15.0, 30.0))
    target = render_neural_silhouette(verts, faces, eye_camera(home, 30.0), 32)
    eye = torch.tensor([start]).requires_grad_()
    optimiser = torch.optim.Adam([eye], lr=rate)
    losses, distances = [], []
    for _ in range(steps):
        loss = (render_neural_silhouette(verts, faces, eye_camera(eye, 30.0), 32) - target).square().sum()
        losses.append(loss.item())
        distances.append(float((eye - home).detach().norm()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(losses[-10:]) < 0.1 * losses[0]
    assert distances[-1] < nearer * distances[0]


def test_light_turns_to_where_the_picture_has_it():
    verts, faces = icosphere(2, 0.4)
    textures, camera = torch.full((len(faces), 2, 2, 2, 3), 0.8), nmr_cameras()[[0]]
    wanted = torch.tensor([0.6, 0.5, 0.6])
    target = render_neural(verts, faces, textures, camera, 24, Lights(0.3, 0.6, direction=wanted)).image
    ambient, direction = torch.tensor(0.6).requires_grad_(), torch.tensor([-0.5, 0.8, 0.1]).requires_grad_()
    optimiser = torch.optim.Adam([ambient, direction], lr=0.05)
    for _ in range(80):
        lights = Lights(ambient, 0.6, direction=direction)
        loss = (render_neural(verts, faces, textures, camera, 24, lights).image - target).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ambient.item() == pytest.approx(0.3, abs=0.02)
    assert torch.nn.functional.cosine_similarity(direction, wanted, dim=0) > 0.99
