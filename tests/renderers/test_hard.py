import math
from dataclasses import replace

import pytest
import torch
from pytorch3d.renderer import (
    FoVPerspectiveCameras,
    MeshRasterizer,
    RasterizationSettings,
    TexturesAtlas,
    TexturesUV,
    TexturesVertex,
    look_at_view_transform,
)
from pytorch3d.structures import Meshes

from recon3d.geometry.cameras import look_at_camera, to_pytorch3d
from recon3d.geometry.templates import icosphere
from recon3d.renderers.hard import gather_faces, render_hard

VIEWS = [(2.732, 30.0, 0.0), (2.732, 30.0, -105.0), (1.9, -20.0, 75.0)]  # distance, elevation, azimuth
LIGHT = torch.tensor([0.4, 0.8, -0.6]) / math.sqrt(0.4**2 + 0.8**2 + 0.6**2)  # in view space, as documented


def blob():
    """An asymmetrical closed mesh."""
    verts, faces = icosphere(2, 0.3)
    generator = torch.Generator().manual_seed(3)
    verts = verts * (1 + 0.25 * torch.randn(len(verts), 1, generator=generator))
    return verts * torch.tensor([1.4, 0.8, 1.0]) + torch.tensor([0.05, 0.02, -0.04]), faces


def cameras(views=VIEWS):
    distance, elevation, azimuth = torch.tensor(views).T
    return look_at_camera(distance, elevation, azimuth)


def frontal(distance=2.0):
    """Looks along -z of the world: +x of the world is right on the image, +y up."""
    return look_at_camera(distance, 0.0, 0.0)


def quad(x, y, z=0.0):
    """The rectangle [x0, x1] x [y0, y1] of a plane, two faces."""
    (x0, x1), (y0, y1) = x, y
    verts = torch.tensor([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
    return verts.unsqueeze(0), torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("size", [64, 33])
def test_masks_and_depths_are_those_of_pytorch3d_with_its_own_cameras(size):
    verts, faces = blob()
    rotation, translation = look_at_view_transform(*torch.tensor(VIEWS).T)
    rasterizer = MeshRasterizer(
        FoVPerspectiveCameras(R=rotation, T=translation, fov=30.0),
        RasterizationSettings(image_size=size, faces_per_pixel=1, bin_size=0),
    )
    fragments = rasterizer(Meshes([verts] * 3, [faces] * 3))
    render = render_hard(verts.expand(3, -1, -1), faces, cameras(), size)
    expected = fragments.pix_to_face[..., 0] >= 0
    assert 0.05 < expected.float().mean() < 0.6
    assert torch.equal(render.mask[:, 0] > 0, expected)
    assert torch.equal(render.mask, expected.unsqueeze(1).float())
    torch.testing.assert_close(render.depth[:, 0][expected], fragments.zbuf[..., 0][expected], atol=1e-4, rtol=0)
    assert bool((render.depth[:, 0][~expected] == math.inf).all())


def test_row_0_is_the_top_and_plus_x_of_the_view_is_left():
    # World +x is to the right of a viewer on +z, so -X of view space: the last columns. World +y: the first rows.
    right = render_hard(*quad((0.1, 0.4), (-0.1, 0.1)), frontal(), 16).mask[0, 0]
    assert right[:, 8:].any() and not right[:, :8].any()
    up = render_hard(*quad((-0.1, 0.1), (0.1, 0.4)), frontal(), 16).mask[0, 0]
    assert up[:8].any() and not up[8:].any()


def test_a_rectangle_covers_the_pixels_of_the_pinhole_formula():
    x, y, z, distance, size = (-0.31, 0.12), (-0.05, 0.27), 0.2, 2.0, 24
    mask = render_hard(*quad(x, y, z), frontal(distance), size).mask[0, 0]
    scale = 1 / math.tan(math.radians(15)) / (distance - z)
    centres = (2 * torch.arange(size) + 1) / size - 1  # to the right, and down
    columns = (centres > x[0] * scale) & (centres < x[1] * scale)
    rows = (-centres > y[0] * scale) & (-centres < y[1] * scale)
    assert torch.equal(mask.bool(), rows[:, None] & columns[None])


def test_the_depth_of_a_plane():
    depth = render_hard(*quad((-0.2, 0.2), (-0.2, 0.2), z=0.3), frontal(2.0), 16).depth
    assert depth[depth.isfinite()].tolist() == pytest.approx([1.7] * int(depth.isfinite().sum()), abs=1e-6)
    # A floor seen from above: depth of the plane y = 0 along the ray of each pixel, in closed form.
    elevation, size = math.radians(40), 16
    verts = torch.tensor([[[-3.0, 0.0, -3.0], [3.0, 0.0, -3.0], [3.0, 0.0, 1.0], [-3.0, 0.0, 1.0]]])
    floor = render_hard(verts, torch.tensor([[0, 1, 2], [0, 2, 3]]), look_at_camera(2.0, 40.0, 0.0), size)
    ndc_y = 1 - (2 * torch.arange(size) + 1) / size
    down = math.sin(elevation) - ndc_y * math.tan(math.radians(15)) * math.cos(elevation)
    expected = (2.0 * math.sin(elevation) / down).unsqueeze(1).expand(size, size)
    assert bool(floor.mask.all())
    torch.testing.assert_close(floor.depth[0, 0], expected, atol=1e-4, rtol=0)


def test_a_nearer_mesh_part_hides_a_farther_one():
    (near, faces), (far, _) = quad((-0.1, 0.1), (-0.1, 0.1), z=0.2), quad((-0.3, 0.3), (-0.3, 0.3), z=-0.2)
    colors = torch.tensor([[1.0, 0, 0]] * 2 + [[0, 1.0, 0]] * 2)
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        both = torch.cat([faces, faces + 4])[order]
        image = render_hard(torch.cat([near, far], 1), both, frontal(), 32, colors[order]).image[0]
        assert image[0, 16, 16] > 0.4 and image[1, 16, 16] == 0
        assert image[1, 16, 8] > 0.4 and image[0, 16, 8] == 0


def test_anti_aliasing_averages_blocks_of_subpixels():
    verts, faces = blob()
    colors = torch.rand(len(faces), 3, generator=torch.Generator().manual_seed(0))
    fine = render_hard(verts.expand(3, -1, -1), faces, cameras(), 32, colors)
    smooth = render_hard(verts.expand(3, -1, -1), faces, cameras(), 16, colors, anti_alias=2)

    def blocks(image):
        return image.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)

    coverage = blocks(fine.mask).mean(-1)
    assert {0.0, 0.25, 0.5, 0.75, 1.0} == set(coverage.unique().tolist())
    assert torch.equal(smooth.mask, coverage)
    # Straight colours: the mean over the covered subpixels alone.
    mean = blocks(fine.image).sum(-1) / (4 * coverage).clamp(min=1)
    torch.testing.assert_close(smooth.image, mean, atol=1e-6, rtol=0)
    assert torch.equal(smooth.depth, blocks(fine.depth).amin(-1))


def test_a_face_turned_to_the_light_has_its_full_colour_and_one_turned_away_half():
    camera = frontal()
    rotation = camera.R[0]  # X_view = X_world @ R + T
    color = torch.tensor([[0.9, 0.5, 0.1]])

    def shade(normal_in_view):
        """Shade of a triangle around the origin with this normal."""
        normal = torch.nn.functional.normalize(normal_in_view, dim=0)
        first = torch.nn.functional.normalize(torch.linalg.cross(normal, torch.tensor([0.1, 0.2, 0.97])), dim=0)
        second = torch.linalg.cross(normal, first)
        corners = torch.stack([first, second - first, -second - first]) * 0.2
        verts = (corners @ rotation.T).unsqueeze(0)
        image = render_hard(verts, torch.tensor([[0, 1, 2]]), camera, 32, color).image[0, :, 16, 16]
        assert torch.equal(render_hard(verts, torch.tensor([[2, 1, 0]]), camera, 32, color).image[0, :, 16, 16], image)
        return image / color[0]

    torch.testing.assert_close(shade(LIGHT), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(shade(LIGHT * torch.tensor([-1, -1, 1.0])), torch.full((3,), 0.5), atol=1e-5, rtol=0)
    # A face towards the viewer: normal (0, 0, -1), so 0.5 + 0.5 * 0.6 / |(0.4, 0.8, 0.6)|.
    straight = 0.5 + 0.5 * 0.6 / math.sqrt(1.16)
    torch.testing.assert_close(shade(torch.tensor([0, 0, -1.0])), torch.full((3,), straight), atol=1e-5, rtol=0)
    # The normal is turned towards the viewer, whichever way it came.
    torch.testing.assert_close(shade(torch.tensor([0, 0, 1.0])), torch.full((3,), straight), atol=1e-5, rtol=0)


def test_shading_lies_between_ambient_and_full_and_follows_the_camera():
    verts, faces = icosphere(3, 0.4)
    render = render_hard(verts.expand(3, -1, -1), faces, cameras(), 48, torch.ones(len(faces), 3))
    shade = render.image[render.mask.expand_as(render.image) > 0]
    assert shade.min() == pytest.approx(0.5, abs=1e-6)
    assert 0.99 < shade.max() <= 1
    assert bool((render.image[render.mask.expand_as(render.image) == 0] == 0).all())
    # The light is fixed to the camera: a sphere looks alike from everywhere, bright at the upper left.
    assert (render.image[0] - render.image[1])[:, 16:32, 16:32].abs().max() < 0.06
    row, column = divmod(int(render.image[0, 0].argmax()), 48)
    assert row < 20 and column < 24


def test_colours_per_face_per_batch_and_the_default_grey():
    verts, faces = quad((-0.3, 0.3), (-0.3, 0.3))
    verts, camera = verts.expand(2, -1, -1), frontal()[[0, 0]]
    full = render_hard(verts, faces, camera, 16, torch.ones(2, 3)).image
    grey = render_hard(verts, faces, camera, 16).image
    torch.testing.assert_close(grey, 0.7 * full)
    colors = torch.tensor([[[1.0, 0, 0]] * 2, [[0, 1.0, 0]] * 2])
    image = render_hard(verts, faces, camera, 16, colors).image
    assert torch.equal(image[0, 0], full[0, 0]) and not image[0, 1:].any()
    assert torch.equal(image[1, 1], full[1, 1]) and not image[1, [0, 2]].any()
    # Faces of the quad: below and above its diagonal, which rises to the right.
    two = render_hard(verts, faces, camera, 16, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])).image[0]
    assert two[0, 10, 11] > 0.5 and two[1, 10, 11] == 0 and two[1, 5, 4] > 0.5 and two[0, 5, 4] == 0


def test_colours_per_corner_are_interpolated_in_space():
    # Colour = position along a plane tilted in depth, so that interpolation on the screen would be visibly wrong.
    verts = torch.tensor([[[-0.5, -0.5, 0.5], [0.5, -0.5, -0.5], [0.0, 0.6, 0.0]]])
    camera, size = frontal(), 32
    position = torch.stack([verts[0, :, 0] + 0.5, verts[0, :, 1] * 0.5 + 0.5, verts[0, :, 2] + 0.5], dim=-1)
    render = render_hard(verts, torch.tensor([[0, 1, 2]]), camera, size, position[None, None])
    shade = render_hard(verts, torch.tensor([[0, 1, 2]]), camera, size, torch.ones(1, 3))
    hit = render.mask[0, 0] > 0
    x, y, z = (render.image[0] / shade.image[0])[:, hit] - 0.5
    ndc = 1 - (2 * hit.nonzero() + 1) / size
    depth, scale = render.depth[0, 0][hit], math.tan(math.radians(15))
    assert int(hit.sum()) > 100
    torch.testing.assert_close(x, -ndc[:, 1] * scale * depth, atol=1e-5, rtol=0)  # +X of the view is -x of the world
    torch.testing.assert_close(2 * y, ndc[:, 0] * scale * depth, atol=1e-5, rtol=0)
    torch.testing.assert_close(z, 2.0 - depth, atol=1e-5, rtol=0)


def test_padded_faces_draw_nothing_and_shift_nothing():
    verts, faces = blob()
    padded = torch.full((2, len(faces) + 3, 3), -1)
    padded[0, : len(faces)] = faces
    padded[1, 3 : 3 + 50] = faces[:50]  # padding may come first
    colors = torch.rand(2, len(faces) + 3, 3, generator=torch.Generator().manual_seed(0))
    both = render_hard(verts.expand(2, -1, -1), padded, cameras()[:2], 24, colors)
    for b, (kept, first) in enumerate(((faces, 0), (faces[:50], 3))):
        alone = render_hard(verts[None], kept, cameras()[b : b + 1], 24, colors[b, first : first + len(kept)])
        assert all(torch.equal(x[b], y[0]) for x, y in zip(both, alone, strict=True))


@pytest.mark.parametrize("faces", [torch.zeros(0, 3, dtype=torch.int64), torch.full((2, 4, 3), -1)])
def test_nothing_to_draw(faces):
    render = render_hard(torch.rand(2, 5, 3), faces, frontal()[[0, 0]], 8, anti_alias=2)
    assert render.mask.shape == (2, 1, 8, 8) and render.image.shape == (2, 3, 8, 8)
    assert not render.mask.any() and not render.image.any() and bool((render.depth == math.inf).all())


def test_gather_faces_shares_or_pads():
    values = torch.arange(24.0).reshape(2, 4, 3)
    shared = gather_faces(values, torch.tensor([[0, 2, 1], [3, 3, 0]]))
    assert torch.equal(shared, values[:, [[0, 2, 1], [3, 3, 0]]])
    own = gather_faces(values, torch.tensor([[[0, 1, 2]], [[-1, -1, -1]]]))
    assert torch.equal(own[0, 0], values[0, :3]) and not own[1].any()


def test_the_result_carries_no_gradient():
    verts, faces = blob()
    render = render_hard(verts[None].requires_grad_(), faces, frontal(), 8)
    assert not render.mask.requires_grad and not render.image.requires_grad


def weak(views=VIEWS):
    """The same views through orthographic cameras, with an anisotropic scale and off centre."""
    camera = cameras(views)
    n = len(camera.T)
    return replace(
        camera,
        focal=torch.tensor([[1.5, 1.3]]).expand(n, 2),
        center=torch.tensor([[0.103, -0.057]]).expand(n, 2),
        orthographic=True,
    )


def by_pytorch3d(camera, verts, faces, size, textures=None):
    """Fragments, and the colours that PyTorch3D samples with them."""
    settings = RasterizationSettings(image_size=size, faces_per_pixel=1, bin_size=0)
    meshes = Meshes(verts, faces, textures)
    fragments = MeshRasterizer(to_pytorch3d(camera), settings)(meshes)
    return fragments, None if textures is None else meshes.sample_textures(fragments)[..., 0, :].permute(0, 3, 1, 2)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_orthographic_masks_and_depths_are_those_of_pytorch3d(backend):
    verts, faces = blob()
    render = render_hard(verts.expand(3, -1, -1), faces, weak(), 48, backend=backend)
    fragments, _ = by_pytorch3d(weak(), [verts] * 3, [faces] * 3, 48)
    expected = fragments.pix_to_face[..., 0] >= 0
    assert 0.05 < expected.float().mean() < 0.6
    assert torch.equal(render.mask[:, 0], expected.float())
    error = (render.depth[:, 0][expected] - fragments.zbuf[..., 0][expected]).abs()
    assert error.quantile(0.95) < 1e-5 and error.max() < 5e-4, "the single precision of faces seen edge on"
    assert bool((render.depth[:, 0][~expected] == math.inf).all())


def test_orthographic_depth_and_colours_are_linear_on_the_screen():
    # A plane z = 0.4 x through a camera at 2: depth 2 - z, colours of its corners are their x.
    verts = torch.tensor([[[-0.5, -0.5, -0.2], [0.5, -0.5, 0.2], [0.5, 0.5, 0.2], [-0.5, 0.5, -0.2]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = replace(frontal(), focal=torch.full((1, 2), 2.0), orthographic=True)
    colors = (verts[:, faces][..., :1] + 0.5).expand(-1, -1, -1, 3)
    render = render_hard(verts, faces, camera, 16, colors, lit=False)
    x = (((2 * torch.arange(16) + 1) / 16 - 1) / 2).expand(16, 16)  # to the right
    assert bool(render.mask.all())
    torch.testing.assert_close(render.depth[0, 0], 2 - 0.4 * x, atol=1e-6, rtol=0)
    torch.testing.assert_close(render.image[0], (x + 0.5).expand(3, 16, 16), atol=1e-6, rtol=0)
    # A flat mesh has no depth to normalise by; and an orthographic camera has nothing behind it.
    flat = render_hard(verts * torch.tensor([1.0, 1, 0]) + torch.tensor([0, 0, 5.0]), faces, camera, 8)
    assert bool((flat.depth == -3.0).all())


def test_orthographic_shading_is_turned_towards_the_axis():
    # Far from the centre: seen along the axis it faces the viewer, from a point at the origin it would face away.
    verts = torch.tensor([[[0.4, -0.2, 0.0], [0.4, 0.2, 0.0], [0.5, 0.0, -1.0]]])
    camera = replace(frontal(), focal=torch.full((1, 2), 1.5), orthographic=True)
    for turned in ([[0, 1, 2]], [[0, 2, 1]]):
        image = render_hard(verts, torch.tensor(turned), camera, 64, torch.ones(1, 3)).image
        normal = torch.nn.functional.normalize(
            torch.tensor([-1.0, 0.0, -0.1]), dim=0
        )  # in view space, -z to the viewer
        assert image.max().item() == pytest.approx(0.5 + 0.5 * max(0.0, float(normal @ LIGHT)), abs=1e-5)


@pytest.mark.parametrize("camera", [cameras()[:2], weak()[:2]], ids=["perspective", "orthographic"])
@pytest.mark.parametrize("kind", ["vertex", "atlas", "uv"])
def test_textures_are_sampled_as_by_pytorch3d(camera, kind):
    verts, faces = blob()
    generator = torch.Generator().manual_seed(0)
    half = len(faces) // 2
    lists = [faces[:half], faces]  # padding before the last mesh shifts its packed numbers

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    def textures():
        generator.manual_seed(0)
        if kind == "vertex":
            return TexturesVertex([uniform(len(verts), 3) for _ in range(2)])
        if kind == "atlas":
            return TexturesAtlas([uniform(len(own), 4, 4, 3) for own in lists])
        corners = torch.arange(3 * len(faces)).reshape(-1, 3)
        uvs = [uniform(3 * len(own), 2) for own in lists]
        return TexturesUV(uniform(2, 9, 7, 3), [corners[:half], corners], uvs)

    _, expected = by_pytorch3d(camera, [verts] * 2, lists, 40, textures())
    padded = torch.stack([torch.cat([faces[:half], torch.full((len(faces) - half, 3), -1)]), faces])
    given, untouched = textures(), textures()
    came = render_hard(verts.expand(2, -1, -1), padded, camera, 40, lit=False, textures=given)
    assert 0.1 < came.mask.mean() < 0.6
    error = ((came.image - expected) * came.mask).abs().amax(dim=1)
    assert error.quantile(0.99) < 1e-4, "single precision chooses another texel on a border, or shifts a sliver's"
    assert error.max() < 0.01 or kind == "atlas"
    # Shading multiplies, and what was given is not written to.
    lit = render_hard(verts.expand(2, -1, -1), padded, camera, 40, textures=given)
    shade = render_hard(verts.expand(2, -1, -1), padded, camera, 40, torch.ones(len(faces), 3))
    torch.testing.assert_close(lit.image, came.image * shade.image)
    counts = ("_num_faces_per_mesh", "_num_verts_per_mesh")
    assert all(vars(given).get(name) == vars(untouched).get(name) for name in counts)


def test_colours_without_light_are_as_given():
    verts, faces = blob()
    colors = torch.tensor([[0.2, 0.5, 0.9]]).expand(len(faces), 3)
    render = render_hard(verts[None], faces, frontal(), 16, colors, lit=False)
    assert torch.equal(render.image, render.mask * torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1))


def test_a_surface_has_one_colour_of_three_channels():
    verts, faces = blob()
    textures = TexturesVertex(torch.rand(1, len(verts), 3))
    with pytest.raises(ValueError, match="expected face_colors or textures, got both"):
        render_hard(verts[None], faces, frontal(), 8, torch.ones(len(faces), 3), textures=textures)
    with pytest.raises(ValueError, match="expected colours of 3 channels, got 5"):
        render_hard(verts[None], faces, frontal(), 8, textures=TexturesVertex(torch.rand(1, len(verts), 5)))
