"""Gradients of `neural_rasterize` against scalar loops and finite differences."""

import math

import numpy as np
import pytest
import torch

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels.neural_rasterize import neural_rasterize
from tests.kernels import nmr_oracle

BACKENDS = ["reference", "numba"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
both_rules = pytest.mark.parametrize("rule", ["code", "paper"])
CLOSE = {"numba": 1e-9, "reference": 1e-4}  # PyTorch3D rasterises in float32, whatever it is given


def soup(batch, count, seed, reach=1.5):
    generator = torch.Generator().manual_seed(seed)
    xy = (torch.rand(batch, count, 3, 2, generator=generator, dtype=torch.float64) * 2 - 1) * reach
    z = torch.rand(batch, count, 3, 1, generator=generator, dtype=torch.float64) * 4 + 0.5
    return torch.cat([xy, z], dim=-1)


def sphere(level, noise=0.2):
    verts, faces = icosphere(level, 0.4)
    generator = torch.Generator().manual_seed(1)
    verts = verts * (1 + noise * torch.randn(2, len(verts), 1, generator=generator))
    return project(nmr_cameras()[[3, 8]], verts)[:, faces].double()


def from_pixels(corners, depths, size):
    """Faces (1,F,3,3) of ours from pixel coordinates in the frame of NMR: x right, y up."""
    xy = (2 * np.array(corners) + 1 - size) / size * [-1, 1]
    return torch.tensor(np.concatenate([xy, np.broadcast_to(np.reshape(depths, (-1, 1, 1)), (len(xy), 3, 1))], axis=2))[
        None
    ]


# Edges that end less than a pixel beyond the left and the lower border: the authors' truncation visits line 0.
OFF_THE_LEFT = [[-0.9, 2.3], [-0.2, 1.0], [5.2, 3.4]], [[3.3, -0.9], [4.6, -0.3], [4.1, 4.6]]
CASES = {
    "soup": (soup(2, 10, seed=0), 14, {}),
    "seven pixels": (soup(1, 14, seed=1), 7, {"anti_alias": 2}),
    "far off screen": (soup(1, 8, seed=2, reach=5.0), 12, {}),
    "small faces": (soup(1, 30, seed=3, reach=1.0) * torch.tensor([0.9, 0.9, 1.0]), 10, {"eps": 1e-3}),
    "sphere": (sphere(1), 14, {"eps": 1e-3}),
    "sphere averaged": (sphere(1), 7, {"anti_alias": 2}),
    "smooth sphere": (sphere(1, noise=0.01), 12, {}),
    "off the left": (from_pixels(OFF_THE_LEFT, [2.0, 3.0], 8), 8, {}),
}
LOSSES = {
    "mask": ("mask",),
    "image": ("image",),
    "mask and image": ("mask", "image"),
    "all": ("mask", "image", "depth"),
}


def upstream(case, seed=5):
    """Gradients of either sign for every output: what the same generator gives to kernel and oracle."""
    face_verts, size, _ = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    b = len(face_verts)
    shapes = {"mask": (b, size, size), "image": (b, 3, size, size), "depth": (b, size, size)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def scene(case):
    face_verts, size, options = CASES[case]
    generator = torch.Generator().manual_seed(2)
    textures = torch.rand(*face_verts.shape[:2], 3, 3, 3, 3, generator=generator, dtype=torch.float64)
    background = torch.rand(len(face_verts), 3, generator=generator, dtype=torch.float64)
    return face_verts, size, textures, background, options


def gradients(case, backend, rule, losses, dtype=torch.float64):
    face_verts, size, textures, background, options = scene(case)
    leaves = [leaf.to(dtype).requires_grad_() for leaf in (face_verts.clone(), textures, background)]
    seen = neural_rasterize(leaves[0], size, *leaves[1:], True, gradient=rule, backend=backend, **options)
    weights = upstream(case)
    loss = sum((getattr(seen, name) * weights[name].to(dtype)).sum() for name in losses)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def by_loops(case, rule, losses, last=math.trunc, dtype=torch.float64):
    face_verts, size, textures, background, options = scene(case)
    weights = upstream(case)
    images = [
        nmr_oracle.render(
            face_verts[b].to(dtype).double().numpy(), size, textures[b].numpy(), background[b].numpy(), gradient=rule,
            far=100, clip=options.get("eps", 1e-4), last=last,
            **options, **{f"{name}_upstream": weights[name][b].numpy() for name in losses},
        )
        for b in range(len(face_verts))
    ]  # fmt: skip
    zeros = np.zeros_like(textures[0].numpy()), np.zeros(3)
    stacked = (
        np.stack([image.grad_verts for image in images]),
        np.stack([image.grad_textures if "image" in losses else zeros[0] for image in images]),
        np.stack([image.grad_background if "image" in losses else zeros[1] for image in images]),
    )
    return [torch.tensor(value) for value in stacked], images


@pytest.mark.parametrize("case", CASES)
def test_the_cases_are_clear(case):
    """Neither float32 rasterisation nor rounding may decide which pixel or face is meant."""
    for image in by_loops(case, "code", ("mask",))[1]:
        assert image.edge_margin > 2e-5 and image.depth_margin > 1e-5 and image.crossing_margin > 1e-5
        assert 0.05 < image.mask.mean() < 0.99


@every_backend
@both_rules
@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_scalar_loops(case, losses, rule, backend):
    expected, _ = by_loops(case, rule, LOSSES[losses])
    came = gradients(case, backend, rule, LOSSES[losses])
    for a, b in zip(came, expected, strict=True):
        torch.testing.assert_close(a, b, atol=CLOSE[backend] * float(b.abs().max()), rtol=0)
    assert expected[0].abs().max() > 1e-2 and bool((expected[0] > 0).any()) and bool((expected[0] < 0).any())
    if "depth" not in LOSSES[losses]:
        assert not came[0][..., 2].any(), "z gets nothing from colours and mask"


@pytest.mark.parametrize("case", ["soup", "sphere", "smooth sphere"])
def test_the_two_rules_differ_where_they_should(case):
    code, paper = (by_loops(case, rule, ("mask", "image"))[0][0] for rule in ("code", "paper"))
    assert (code - paper).abs().max() > 0.05 * code.abs().max()


@every_backend
def test_an_edge_that_ends_just_off_screen_visits_line_0(backend):
    leaf, size, _ = CASES["off the left"]
    leaf = leaf.clone().requires_grad_()
    (came,) = torch.autograd.grad(neural_rasterize(leaf, size, backend=backend).mask.sum(), leaf)
    ones = np.ones((size, size))
    truncated, floored = (
        torch.tensor(nmr_oracle.render(leaf[0].detach().numpy(), size, mask_upstream=ones, last=last).grad_verts)
        for last in (math.trunc, math.floor)
    )
    torch.testing.assert_close(came[0], truncated, rtol=1e-9, atol=1e-9)
    assert (truncated - floored)[0].abs().max() > 0.1, "line 0 of the left face"
    assert (truncated - floored)[1].abs().max() > 0.1, "line 0 of the lower face"


@every_backend
@both_rules
@pytest.mark.parametrize("case", ["soup", "sphere", "sphere averaged"])
def test_float32_is_near_the_loops(case, rule, backend):
    expected, _ = by_loops(case, rule, ("mask", "image", "depth"), dtype=torch.float32)
    came = gradients(case, backend, rule, ("mask", "image", "depth"), torch.float32)
    for a, b in zip(came, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, atol=2e-3 * float(b.abs().max()), rtol=1e-2)


@every_backend
@both_rules
def test_edges_through_pixel_centres(backend, rule):
    # In pixels: every corner is on a centre; edges along a row, along the diagonal and at slope 1/2.
    size = 16
    corners = [[(2, 3), (10, 3), (2, 11)], [(13, 2), (5, 14), (13, 8)], [(1, 13), (5, 15), (3, 12)]]
    faces = from_pixels(corners, [2.0, 3.0, 1.0], size)[0].numpy()
    for seed in range(3):
        weight = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = nmr_oracle.render(faces, size, gradient=rule, mask_upstream=weight.numpy())
        leaf = torch.tensor(faces)[None].requires_grad_()
        mask = neural_rasterize(leaf, size, gradient=rule, backend=backend).mask[0]
        assert np.array_equal(mask.detach().numpy(), expected.mask)
        (came,) = torch.autograd.grad((mask * weight).sum(), leaf)
        torch.testing.assert_close(came[0], torch.tensor(expected.grad_verts), rtol=1e-9, atol=1e-9)
        assert came.abs().max() > 1e3, "a pixel on the edge itself is eps away"


@every_backend
def test_textures_and_background_have_the_exact_gradient(backend):
    # The image is linear in both, so a finite step of any length is exact.
    face_verts, size, textures, background, _ = scene("soup")
    weight = upstream("soup")["image"]
    generator = torch.Generator().manual_seed(8)
    steps = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (textures, background)]

    def loss(*inputs):
        return (neural_rasterize(face_verts, size, *inputs, anti_alias=2, backend=backend).image * weight).sum()

    leaves = textures.clone().requires_grad_(), background.clone().requires_grad_()
    found = torch.autograd.grad(loss(*leaves), leaves)
    with torch.no_grad():
        start = loss(textures, background)
        slopes = [loss(textures + steps[0], background) - start, loss(textures, background + steps[1]) - start]
    for gradient, step, slope in zip(found, steps, slopes, strict=True):
        assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=1e-9) and abs(slope) > 0.1


@every_backend
def test_one_background_for_all_images_gets_the_sum(backend):
    face_verts, size, textures, _, _ = scene("soup")
    shared = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    seen = neural_rasterize(face_verts, size, textures, shared, backend=backend)
    weight = upstream("soup")["image"]
    (gradient,) = torch.autograd.grad((seen.image * weight).sum(), shared)
    torch.testing.assert_close(gradient, (weight * (1 - seen.mask[:, None])).sum(dim=(0, 2, 3)))


@every_backend
@pytest.mark.parametrize("anti_alias", [1, 2])
def test_depth_has_the_derivative_of_its_values(anti_alias, backend):
    face_verts, size, *_ = scene("soup")
    weight = upstream("soup")["depth"]

    def loss(corners, by=backend):
        depth = neural_rasterize(corners, size, with_depth=True, anti_alias=anti_alias, backend=by).depth
        return (depth * weight).sum()

    leaf = face_verts.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    step = 1e-6
    generator = torch.Generator().manual_seed(9)
    for axis in range(3):
        move = torch.zeros_like(face_verts)
        move[..., axis] = torch.randn(face_verts.shape[:-1], generator=generator, dtype=torch.float64)
        ahead, behind = (loss(face_verts + s * step * move, "numba") for s in (1, -1))  # float64 throughout
        slope = float(ahead - behind) / (2 * step)
        assert float((found * move).sum()) == pytest.approx(slope, rel=1e-5) and abs(slope) > 0.1


@every_backend
@both_rules
def test_faces_that_are_not_seen_get_no_gradient(rule, backend):
    face_verts, size, textures, background, _ = scene("sphere")
    nothing = torch.stack(
        [
            torch.zeros(3, 3),
            torch.full((3, 3), 0.1),
            torch.tensor([[-0.5, 0.0, 2.0], [0.0, 0.0, 2.0], [0.5, 0.0, 2.0]]),
            torch.tensor([[3.0, 3.0, 2.0], [4.0, 3.0, 2.0], [3.0, 4.0, 2.0]]),
            torch.tensor([[1e6, 1e6, 2.0], [1.1e6, 1e6, 2.0], [1e6, 1.1e6, 2.0]]),
            torch.tensor([[0.0, 30.0, -2.0], [-30.0, -30.0, -2.0], [30.0, -30.0, -2.0]]),
            torch.tensor([[0.3, 0.3, 5.0], [-0.3, 0.3, 5.0], [0.0, -0.3, 5.0]]),  # behind the sphere
        ]
    ).double()
    together = torch.cat([nothing.expand(2, -1, -1, -1), face_verts], dim=1).requires_grad_()
    cubes = torch.cat([torch.rand(2, len(nothing), 3, 3, 3, 3).double(), textures], dim=1).requires_grad_()
    seen = neural_rasterize(together, size, cubes, background, gradient=rule, backend=backend)
    weight = upstream("sphere")
    loss = (seen.mask * weight["mask"]).sum() + (seen.image * weight["image"]).sum()
    found, found_cubes = torch.autograd.grad(loss, (together, cubes))
    assert not found[:, : len(nothing)].any() and not found_cubes[:, : len(nothing)].any()
    alone, alone_cubes = face_verts.clone().requires_grad_(), textures.clone().requires_grad_()
    seen = neural_rasterize(alone, size, alone_cubes, background, gradient=rule, backend=backend)
    loss = (seen.mask * weight["mask"]).sum() + (seen.image * weight["image"]).sum()
    expected = torch.autograd.grad(loss, (alone, alone_cubes))
    torch.testing.assert_close(found[:, len(nothing) :], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found_cubes[:, len(nothing) :], expected[1], rtol=1e-9, atol=1e-9)


@every_backend
def test_any_part_of_the_inputs_may_want_gradients(backend):
    face_verts, size, textures, background, _ = scene("soup")
    weight = upstream("soup")
    inputs = {"face_verts": face_verts, "textures": textures, "background": background}

    def found(*wanted):
        leaves = {name: t.clone().requires_grad_(name in wanted) for name, t in inputs.items()}
        seen = neural_rasterize(image_size=size, backend=backend, **leaves)
        loss = (seen.image * weight["image"]).sum()
        if "face_verts" in wanted:
            loss = loss + (seen.mask * weight["mask"]).sum()
        loss.backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    together = found(*inputs)
    for name in inputs:
        alone = found(name)
        assert [other for other, gradient in alone.items() if gradient is not None] == [name]
        assert torch.equal(alone[name], together[name])
