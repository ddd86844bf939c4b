import pytest
import torch
from pytorch3d.renderer import TexturesAtlas

from recon3d.geometry.cameras import look_at_camera, nmr_cameras
from recon3d.geometry.templates import icosphere
from recon3d.geometry.weak_perspective import weak_perspective_camera
from recon3d.kernels import soft_silhouette
from recon3d.renderers.hard import render_hard
from recon3d.renderers.soft import render_soft_face_pixels, render_soft_rgb, render_soft_silhouette

SIGMA, GAMMA = 1e-4, 1e-4


def iou(a, b):
    both = (a * b).sum(dim=(-2, -1))
    return both / (a.sum(dim=(-2, -1)) + b.sum(dim=(-2, -1)) - both)


def blobs(count, level=1):
    verts, faces = icosphere(level, 0.35)
    generator = torch.Generator().manual_seed(1)
    return verts * (1 + 0.2 * torch.randn(count, len(verts), 1, generator=generator)), faces


def test_the_silhouette_tends_to_the_hard_mask():
    verts, faces = icosphere(3, 0.4)
    camera = nmr_cameras()[[0, 7]]
    hard = render_hard(verts.expand(2, -1, -1), faces, camera, 64).mask[:, 0]
    agreement = [
        iou(render_soft_silhouette(verts, faces, camera, 64, sigma), hard).min() for sigma in (1e-2, 1e-4, 1e-7)
    ]
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[2] > 0.98 and agreement[0] < 0.9
    soft = render_soft_silhouette(verts, faces, camera, 64, 1e-7)
    assert ((soft > 0.5) != (hard > 0.5)).float().mean() < 1e-3


def test_the_colours_tend_to_those_of_the_nearest_faces():
    verts, faces = blobs(2, level=2)
    camera = nmr_cameras()[[2, 9]]
    # One colour per face needs vertices of its own.
    own = verts[:, faces].flatten(1, 2)
    colors = torch.rand(len(faces), 3, generator=torch.Generator().manual_seed(2))
    corner_colors = colors.repeat_interleave(3, dim=0).expand(2, -1, -1)
    triples = torch.arange(3 * len(faces)).reshape(-1, 3)
    image = render_soft_rgb(own, triples, camera, 32, 1e-7, 1e-5, vert_colors=corner_colors)
    hard = render_hard(verts, faces, camera, 32, colors)
    # Undo the shading of the hard renderer, which the soft one does not have.
    shade = render_hard(verts, faces, camera, 32, torch.ones(len(faces), 3)).image
    expected = hard.image / shade.clamp(min=0.4)
    equal = ((image - expected).abs() < 0.02).all(dim=1)
    assert 0.1 < hard.mask.mean() < 0.9
    assert equal.float().mean() > 0.97, "all but pixels on a border"


def test_meshes_broadcast_against_cameras():
    verts, faces = blobs(3)
    camera = nmr_cameras()
    alone = torch.stack(
        [torch.stack([render_soft_silhouette(verts[b], faces, camera[v], 12, SIGMA) for v in (0, 5)]) for b in range(3)]
    )
    assert alone.shape == (3, 2, 12, 12)
    assert not torch.equal(alone[0, 0], alone[0, 1]) and not torch.equal(alone[0, 0], alone[1, 0])
    shared = camera[[0, 5]]
    assert torch.equal(render_soft_silhouette(verts[:, None], faces, shared, 12, SIGMA), alone)
    each = camera[[0, 5]][torch.tensor([[0, 1]] * 3)]
    assert torch.equal(render_soft_silhouette(verts[:, None], faces, each, 12, SIGMA), alone)
    assert torch.equal(render_soft_silhouette(verts, faces, each[:, 1], 12, SIGMA), alone[:, 1])
    assert torch.equal(render_soft_silhouette(verts[0], faces, shared, 12, SIGMA), alone[0])
    across = render_soft_silhouette(verts, faces, each[:2, :1][:, [0, 0, 0]], 12, SIGMA)
    assert torch.equal(across, alone[:, 0].expand(2, -1, -1, -1))


def test_colours_broadcast_like_their_meshes():
    verts, faces = blobs(2)
    colors = torch.rand(verts.shape, generator=torch.Generator().manual_seed(2))
    camera = nmr_cameras()[[0, 5]]
    images = render_soft_rgb(verts[:, None], faces, camera, 10, SIGMA, GAMMA, vert_colors=colors[:, None])
    assert images.shape == (2, 2, 3, 10, 10)
    for b in range(2):
        for v in range(2):
            alone = render_soft_rgb(verts[b], faces, camera[v], 10, SIGMA, GAMMA, vert_colors=colors[b])
            assert torch.equal(images[b, v], alone)


def test_the_orientation_is_that_of_the_hard_renderer():
    verts, faces = blobs(1, level=2)
    verts = verts * torch.tensor([1.3, 0.6, 0.8]) + torch.tensor([0.1, 0.12, 0.0])
    camera = look_at_camera(2.732, 10.0, 20.0)
    soft = render_soft_silhouette(verts, faces, camera, 40, 1e-6)[0]
    hard = render_hard(verts, faces, camera, 40).mask[0, 0]
    assert iou(soft, hard) > 0.97
    for flipped in (hard.flip(0), hard.flip(1), hard.T):
        assert iou(soft, flipped) < 0.9


def test_the_backend_is_passed_on():
    verts, faces = blobs(1)
    camera = nmr_cameras()[[3]]
    default = render_soft_silhouette(verts, faces, camera, 12, SIGMA)
    reference = render_soft_silhouette(verts, faces, camera, 12, SIGMA, backend="reference")
    torch.testing.assert_close(default, reference, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=f"{soft_silhouette.__name__}: backend=none does not exist"):
        render_soft_silhouette(verts, faces, camera, 12, SIGMA, backend="none")
    with pytest.raises(ValueError, match="soft_rgb: backend=none does not exist"):
        render_soft_rgb(verts, faces, camera, 12, SIGMA, GAMMA, backend="none", vert_colors=verts)


def test_descent_on_the_silhouette_brings_a_displaced_sphere_home():
    verts, faces = icosphere(2, 0.3)
    camera = nmr_cameras()[[0, 6]]
    target = render_hard(verts.expand(2, -1, -1), faces, camera, 32).mask[:, 0]
    start = torch.tensor([0.08, -0.06, 0.05])
    shift = start.clone().requires_grad_()
    losses = []
    for _ in range(30):
        loss = 1 - iou(render_soft_silhouette(verts + shift, faces, camera, 32, 3e-4), target).mean()
        (gradient,) = torch.autograd.grad(loss, shift)
        if not losses:
            assert torch.nn.functional.cosine_similarity(gradient, start, dim=0) > 0.7, "downhill is towards the target"
        losses.append(loss.item())
        shift = (shift - 0.01 * gradient).detach().requires_grad_()
    assert losses[-1] < 0.5 * losses[0]
    assert shift.norm() < 0.2 * start.norm()


def test_descent_on_colours_finds_those_of_a_picture():
    verts, faces = icosphere(1, 0.4)
    camera = nmr_cameras()[[0, 8]]
    wanted = verts / 0.8 + 0.5
    target = render_soft_rgb(verts, faces, camera, 16, SIGMA, GAMMA, vert_colors=wanted)
    colors = torch.full_like(verts, 0.5).requires_grad_()
    losses = []
    for _ in range(20):
        loss = (render_soft_rgb(verts, faces, camera, 16, SIGMA, GAMMA, vert_colors=colors) - target).square().sum()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, colors)
        colors = (colors - 0.1 * gradient).detach().requires_grad_()
    assert losses[-1] < 0.05 * losses[0]


def weak_cameras():
    """Two scaled orthographic cameras, off the centre, that stand off by 5."""
    return weak_perspective_camera(
        torch.tensor([[1.4, 0.13, -0.07, 0.9, 0.2, -0.3, 0.1], [1.1, -0.2, 0.11, 0.4, 0.5, 0.6, -0.3]])
    )


@pytest.mark.parametrize("cameras", [nmr_cameras()[[1, 8]], weak_cameras()], ids=["perspective", "orthographic"])
def test_an_atlas_tends_to_what_the_hard_renderer_samples(cameras):
    verts, faces = icosphere(1, 0.45)
    atlas = torch.rand(2, len(faces), 2, 2, 3, generator=torch.Generator().manual_seed(0))
    soft = render_soft_rgb(verts, faces, cameras, 48, 1e-8, 1e-5, atlas=atlas)
    hard = render_hard(verts.expand(2, -1, -1), faces, cameras, 48, lit=False, textures=TexturesAtlas(atlas))
    assert 0.1 < hard.mask.mean() < 0.8
    equal = ((soft - hard.image).abs() < 0.02).all(dim=1)
    # A perspective texture is seen foreshortened by the hard renderer, and linear on the screen by the soft one.
    assert equal.float().mean() > (0.97 if cameras.orthographic else 0.93)
    transposed = render_soft_rgb(verts, faces, cameras, 48, 1e-8, 1e-5, atlas=atlas.transpose(2, 3))
    assert ((transposed - hard.image).abs() < 0.02).all(dim=1).float().mean() < 0.9


def test_orthographic_silhouettes_tend_to_the_hard_mask_and_do_not_read_the_depth():
    verts, faces = blobs(1, level=2)
    camera = weak_cameras()
    hard = render_hard(verts.expand(2, -1, -1), faces, camera, 48).mask[:, 0]
    soft = render_soft_silhouette(verts, faces, camera, 48, 1e-8)
    assert iou(soft, hard).min() > 0.98
    pose = torch.tensor([1.4, 0.13, -0.07, 0.9, 0.2, -0.3, 0.1])
    for depth in (0.0, 300.0):
        other = render_soft_silhouette(verts[0], faces, weak_perspective_camera(pose, depth), 48, 1e-8)
        torch.testing.assert_close(other, soft[0], atol=1e-4, rtol=0)


def test_near_and_far_cut_colours_away():
    verts, faces = icosphere(1, 0.45)
    camera, white = weak_cameras()[0], torch.ones_like(verts)

    def brightness(**limits):
        return render_soft_rgb(verts, faces, camera, 24, 1e-4, 1e-2, vert_colors=white, **limits).mean().item()

    assert brightness() > 0.05
    assert brightness(near=5.0, far=6.0) > 0.05, "the farther half, 5 and beyond"
    assert brightness(near=6.0) == brightness(far=4.0) == 0


def test_an_orthographic_image_has_gradients_to_shape_pose_and_texels():
    verts, faces = icosphere(1, 0.45)
    verts, atlas = verts.clone().requires_grad_(), torch.rand(len(faces), 3, 3, 3).requires_grad_()
    pose = torch.tensor([1.4, 0.13, -0.07, 0.9, 0.2, -0.3, 0.1], requires_grad=True)
    image = render_soft_rgb(verts, faces, weak_perspective_camera(pose), 16, 1e-3, 1e-3, atlas=atlas)
    gradients = torch.autograd.grad(image.square().mean(), (verts, pose, atlas))
    assert all(bool(g.isfinite().all()) and g.abs().sum() > 0 for g in gradients)


def test_the_pixels_of_a_face_lie_at_its_projection():
    verts, faces = icosphere(1, 0.45)
    camera = weak_cameras()
    seen = render_soft_face_pixels(verts, faces, camera, 96, 1e-7, 1e-5)
    assert seen.centers.shape == (2, len(faces), 2) and seen.weight.shape == (2, len(faces))
    view = (verts @ camera.R)[:, faces]
    middle = camera.focal[:, None] * view.mean(dim=2)[..., :2] + camera.center[:, None]
    normal = torch.linalg.cross(view[:, :, 1] - view[:, :, 0], view[:, :, 2] - view[:, :, 0])
    towards = torch.nn.functional.normalize(normal, dim=-1)[..., 2] * view.mean(dim=2).mul(normal).sum(-1).sign()
    # The sphere fits into the image: a face is seen where it is turned to the viewer, and else at most by a soft rim.
    assert bool((seen.weight[towards < -0.3] > 10).all()) and bool((seen.weight[towards > 0.1] < 2).all())
    torch.testing.assert_close(seen.centers[towards < -0.3], middle[towards < -0.3], atol=0.02, rtol=0)
    # Leading shapes, and limits of depth.
    again = render_soft_face_pixels(verts[None, None], faces, camera[:, None], 96, 1e-7, 1e-5)
    assert torch.equal(again.centers[:, 0], seen.centers) and torch.equal(again.weight[:, 0], seen.weight)
    assert not render_soft_face_pixels(verts, faces, camera, 16, 1e-5, 1e-5, near=6.0).weight.any()


def test_a_mesh_has_one_kind_of_colours():
    verts, faces = icosphere(0, 0.4)
    atlas = torch.zeros(len(faces), 1, 1, 3)
    with pytest.raises(ValueError, match="expected vert_colors or an atlas, got both"):
        render_soft_rgb(verts, faces, nmr_cameras()[0], 8, SIGMA, GAMMA, vert_colors=verts, atlas=atlas)
    with pytest.raises(ValueError, match="expected vert_colors or an atlas, got none"):
        render_soft_rgb(verts, faces, nmr_cameras()[0], 8, SIGMA, GAMMA)
