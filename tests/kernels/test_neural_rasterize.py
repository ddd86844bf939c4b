"""Published figures, closed forms, determinism and refusals; forward and gradients in general have files beside."""

import json
import math
from pathlib import Path

import pytest
import torch

from recon3d.geometry.cameras import nmr_cameras, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels.neural_rasterize import neural_rasterize

BACKENDS = ["reference", "numba"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
VECTORS = json.loads((Path(__file__).parent / "nmr_vectors.json").read_text())
MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)  # NMR shows +x on the right


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def in_slot(case):
    """The vertices of a case in our frame, in a batch whose other slots are all zero, as the authors' tests have it."""
    faces = torch.zeros(case["batch"], 1, 3, 3, dtype=torch.float64)
    faces[case["slot"], 0] = tensor(case["vertices"]) * MIRROR
    faces[..., 2] += case.get("z_shift", 0.0)
    return faces.requires_grad_()


def spheres(count, level=1, dtype=torch.float32):
    verts, faces = icosphere(level, 0.4)
    generator = torch.Generator().manual_seed(1)
    verts = verts * (1 + 0.2 * torch.randn(count, len(verts), 1, generator=generator))
    return project(nmr_cameras()[torch.arange(count) * 5 % 24], verts)[:, faces].to(dtype)


def normal(*shape, seed=5, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@every_backend
@pytest.mark.parametrize("sign", [1, -1])
def test_one_triangle_at_8_pixels(backend, sign):
    case = VECTORS["triangle"]
    face = (tensor([[case["face"]]]) * MIRROR).requires_grad_()
    mask = neural_rasterize(face, case["image_size"], eps=case["eps"], backend=backend).mask
    assert torch.equal(mask[0], tensor(case["derived"]["alpha"]))
    (gradient,) = torch.autograd.grad(sign * mask.sum(), face)
    expected = case["derived"]["grad_of_sum" if sign > 0 else "grad_of_minus_sum"]
    torch.testing.assert_close(gradient[0, 0] * MIRROR, tensor(expected), rtol=1e-8, atol=1e-8)


@every_backend
@pytest.mark.parametrize("case", VECTORS["backward"], ids=lambda case: case["name"])
@pytest.mark.parametrize(("eps", "derived"), [(1e-4, "grad_eps_1e_4"), (1e-3, "grad_eps_1e_3")])
@pytest.mark.parametrize("of", ["mask", "image"])
def test_gradients_published_by_the_authors(backend, case, eps, derived, of):
    faces = in_slot(case)
    textures = torch.ones(case["batch"], 1, 4, 4, 4, 3, dtype=torch.float64) if of == "image" else None
    seen = neural_rasterize(faces, case["image_size"], textures, eps=eps, backend=backend)
    values = seen.mask if seen.image is None else seen.image.mean(dim=1)
    assert seen.mask[case["slot"]].sum() == case["derived"]["covered_pixels"]
    assert values.sum().item() == pytest.approx(case["derived"]["covered_pixels"]), "the other slots are empty"
    loss = (values[:, case["row"], case["col"]] - case["target"]).abs().sum()
    (gradient,) = torch.autograd.grad(loss, faces)
    found = gradient[case["slot"], 0] * MIRROR
    torch.testing.assert_close(found, tensor(case["published"]), rtol=case["published_rtol"], atol=1e-12)
    torch.testing.assert_close(found, tensor(case["derived"][derived]), rtol=1e-7, atol=1e-8)
    gradient[case["slot"]] = 0
    assert not gradient.any()


@every_backend
def test_the_depth_case_of_the_authors_where_its_triangle_is(backend):
    case = VECTORS["depth"]
    faces = in_slot(case)
    depth = neural_rasterize(faces, case["image_size"], with_depth=True, backend=backend).depth
    value = depth[case["slot"], case["row"], case["col"]]
    tolerance = 1e-9 if backend == "numba" else 1e-6
    assert value.item() == pytest.approx(case["derived"]["depth"], rel=tolerance)
    loss = (value - case["target"]).square()
    assert loss.item() == pytest.approx(case["derived"]["loss"], rel=10 * tolerance)
    (gradient,) = torch.autograd.grad(loss, faces)
    expected = tensor(case["derived"]["grad"])
    torch.testing.assert_close(gradient[case["slot"], 0] * MIRROR, expected, rtol=10 * tolerance, atol=1e-8)
    empty = torch.arange(case["batch"]) != case["slot"]
    assert not gradient[empty].any() and bool((depth[empty] == 100).all())


def everything(face_verts, size, backend, background=None, **options):
    """All outputs and, for upstream gradients of either sign, all gradients."""
    b, f = face_verts.shape[:2]
    dtype = face_verts.dtype
    inputs = [face_verts.clone(), torch.rand(b, f, 2, 2, 2, 3, generator=torch.Generator().manual_seed(2)).to(dtype)]
    for tensor_ in inputs:
        tensor_.requires_grad_()
    seen = neural_rasterize(inputs[0], size, inputs[1], background, with_depth=True, backend=backend, **options)
    weights = [normal(*out.shape[1:], seed=seed).to(dtype) for seed, out in enumerate(seen)]  # the same for each image
    loss = sum((out * weight).sum() for out, weight in zip(seen, weights, strict=True))
    return [out.detach() for out in seen] + list(torch.autograd.grad(loss, inputs))


@every_backend
@pytest.mark.parametrize("gradient", ["code", "paper"])
def test_the_same_input_gives_the_same_bits(backend, gradient):
    first, second = (everything(spheres(2), 16, backend, gradient=gradient, anti_alias=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("gradient", ["code", "paper"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_does_not_change_a_bit(use_threads, count, gradient):
    use_threads(1)
    alone = everything(spheres(count), 21, "numba", gradient=gradient)
    for threads in (2, 5, 40):
        use_threads(threads)
        assert all(
            torch.equal(a, b)
            for a, b in zip(alone, everything(spheres(count), 21, "numba", gradient=gradient), strict=True)
        )


@every_backend
def test_images_of_a_batch_do_not_see_each_other(backend):
    face_verts = spheres(3)
    textures = torch.rand(3, face_verts.shape[1], 3, 3, 3, 3)
    background = torch.rand(3, 3)
    weights = normal(3, 3, 14, 14), normal(3, 14, 14)

    def of(which):
        inputs = [t[which].clone().requires_grad_() for t in (face_verts, textures, background)]
        seen = neural_rasterize(inputs[0], 14, *inputs[1:], anti_alias=2, backend=backend)
        loss = (seen.image * weights[0][which]).sum() + (seen.mask * weights[1][which]).sum()
        return [seen.mask.detach(), seen.image.detach(), *torch.autograd.grad(loss, inputs)]

    together, turned = of([0, 1, 2]), of([2, 0, 1])
    for a, b in zip(together, turned, strict=True):
        assert torch.equal(a[[2, 0, 1]], b)
    for index in range(3):
        assert all(torch.equal(a[index : index + 1], b) for a, b in zip(together, of([index]), strict=True))


@every_backend
def test_the_order_of_the_faces_does_not_matter(backend):
    face_verts = spheres(1, dtype=torch.float64).requires_grad_()
    order = torch.randperm(face_verts.shape[1], generator=torch.Generator().manual_seed(0))
    weight = normal(1, 16, 16, dtype=torch.float64)
    for rule in ("code", "paper"):
        gradients = []
        for faces in (face_verts, face_verts[:, order]):
            mask = neural_rasterize(faces, 16, gradient=rule, backend=backend).mask
            gradients.append(torch.autograd.grad((mask * weight).sum(), face_verts)[0])
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
        assert gradients[0].abs().max() > 1


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_stays(backend, dtype):
    found = everything(spheres(1, level=0, dtype=dtype), 9, backend, anti_alias=2)
    assert {value.dtype for value in found} == {dtype}
    assert all(value.isfinite().all() for value in found)


@every_backend
def test_no_faces_no_images_and_one_pixel(backend):
    for b, f in ((0, 4), (2, 0), (0, 0)):
        face_verts = torch.zeros(b, f, 3, 3, requires_grad=True)
        textures = torch.zeros(b, f, 2, 2, 2, 3, requires_grad=True)
        seen = neural_rasterize(
            face_verts, 5, textures, tensor([0.1, 0.2, 0.3], torch.float32), True, anti_alias=2, backend=backend
        )
        assert seen.mask.shape == (b, 5, 5) and not seen.mask.any()
        assert seen.image.shape == (b, 3, 5, 5)
        torch.testing.assert_close(seen.image, tensor([0.1, 0.2, 0.3], torch.float32)[:, None, None].expand(b, 3, 5, 5))
        assert seen.depth.shape == (b, 5, 5) and bool((seen.depth == 100).all())
        (seen.mask.sum() + seen.image.sum() + seen.depth.sum()).backward()
        for leaf in (face_verts, textures):
            assert leaf.grad is not None and leaf.grad.shape == leaf.shape and not leaf.grad.any()
    face = tensor([[[[0.0, 1.0, 2.0], [-1.0, -1.0, 2.0], [1.0, -1.0, 2.0]]]]).requires_grad_()
    mask = neural_rasterize(face, 1, backend=backend).mask
    assert mask.tolist() == [[[1.0]]]
    (gradient,) = torch.autograd.grad(mask.sum(), face)
    assert not gradient.any(), "the pixel beyond the edge is off the image"


@every_backend
def test_strided_input_is_read_as_it_is_indexed(backend):
    face_verts, wide = spheres(2), torch.zeros(2, 80, 3, 4)
    wide[..., :3] = face_verts
    expected = everything(face_verts, 11, backend)
    for view in (wide[..., :3], face_verts.flip(0).flip(0)):
        strided = view.detach().requires_grad_()
        seen = neural_rasterize(strided, 11, backend=backend)
        assert torch.equal(seen.mask, expected[0])
        (seen.mask * normal(11, 11, seed=0)).sum().backward()
        contiguous = face_verts.clone().requires_grad_()
        (neural_rasterize(contiguous, 11, backend=backend).mask * normal(11, 11, seed=0)).sum().backward()
        assert torch.equal(strided.grad, contiguous.grad)


FACES = torch.zeros(2, 4, 3, 3)
TEXTURES = torch.zeros(2, 4, 2, 2, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"face_verts": torch.zeros(4, 3, 3)}, r"neural_rasterize: .*face_verts of shape \(B, F, 3, 3\).*\(4, 3, 3\)"),
        ({"face_verts": torch.zeros(2, 4, 3, 2)}, r"\(B, F, 3, 3\).*\(2, 4, 3, 2\)"),
        ({"face_verts": FACES.half()}, "float32 or float64.*float16"),
        ({"face_verts": FACES.long()}, "float32 or float64.*int64"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"textures": TEXTURES[:, :3]}, r"textures.*\(2, 4, T, T, T, 3\).*\(2, 3, 2, 2, 2, 3\)"),
        ({"textures": TEXTURES[:1]}, r"textures.*\(2, 4, T, T, T, 3\).*\(1, 4, 2, 2, 2, 3\)"),
        ({"textures": TEXTURES[..., :2]}, r"textures.*\(2, 4, 2, 2, 2, 2\)"),
        ({"textures": TEXTURES[:, :, :, :, :1]}, r"textures.*\(2, 4, 2, 2, 1, 3\)"),
        ({"textures": TEXTURES[..., 0]}, r"textures.*\(2, 4, 2, 2, 2\)"),
        ({"textures": torch.zeros(2, 4, 1, 1, 1, 3)}, r"textures.*T.*2.*\(2, 4, 1, 1, 1, 3\)"),
        ({"textures": TEXTURES.double()}, "textures.*float32.*float64"),
        ({"textures": TEXTURES, "background": torch.zeros(2)}, r"background.*\(3,\).*\(2,\)"),
        ({"textures": TEXTURES, "background": torch.zeros(3, 3)}, r"background.*\(3,\).*\(2, 3\).*\(3, 3\)"),
        ({"textures": TEXTURES, "background": torch.zeros(3).double()}, "background.*float32.*float64"),
        ({"anti_alias": 0}, "anti_alias >= 1 .*got 0 and 0.0001"),
        ({"eps": 0.0}, "got 1 and 0.0"),
        ({"eps": -1e-4}, "got 1 and -0.0001"),
        ({"eps": math.nan}, "got 1 and nan"),
        ({"eps": 1.0}, "eps in \\(0, 1\\), got 1 and 1.0"),
        ({"gradient": "exact"}, "gradient.*code.*paper.*exact"),
        ({"backend": "pytorch3d"}, "neural_rasterize: backend=pytorch3d does not exist; available on cpu: .*numba"),
    ],
)
@every_backend
def test_bad_input_is_refused(arguments, message, backend):
    given = {"face_verts": FACES, "image_size": 8, "backend": backend} | arguments
    with pytest.raises(ValueError, match=message):
        neural_rasterize(**given)


@every_backend
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(backend, value):
    face_verts = spheres(4, level=0)
    face_verts[1, 0, 2, 1] = face_verts[3, 1, 0, 2] = value
    with pytest.raises(ValueError, match=r"face_verts holds NaN or inf in images \[1, 3\] of the batch; check the"):
        neural_rasterize(face_verts, 8, backend=backend)
    textures = TEXTURES.clone()
    textures[1, 2, 0, 1, 0, 2] = value
    with pytest.raises(ValueError, match=r"textures .*NaN or inf"):
        neural_rasterize(FACES, 8, textures, backend=backend)
    with pytest.raises(ValueError, match=r"background .*NaN or inf"):
        neural_rasterize(FACES, 8, TEXTURES, torch.tensor([0.0, value, 0.0]), backend=backend)


@every_backend
def test_texels_stay_in_the_cube_where_eps_is_lost_to_rounding(backend):
    """At a corner, with eps below the precision of float32, the sample is the corner's texel."""
    # The centre of pixel (1, 1) of 4 is NDC (0.25, 0.25), and is corner 0.
    face = torch.tensor([[[[0.25, 0.25, 1.0], [0.25, -3.0, 1.0], [-3.0, 0.25, 1.0]]]])
    textures = torch.zeros(1, 1, 2, 2, 2, 3)
    textures[0, 0, 1, 0, 0] = torch.tensor([0.2, 0.5, 0.8])
    textures.requires_grad_()
    image = neural_rasterize(face, 4, textures, eps=1e-12, backend=backend).image
    torch.testing.assert_close(image[0, :, 1, 1], torch.tensor([0.2, 0.5, 0.8]), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(image[0, 0, 1, 1], textures)
    assert float(gradient.detach()[0, 0, 1, 0, 0, 0]) == pytest.approx(1, abs=1e-5)


@every_backend
def test_depth_of_a_sliver_is_between_those_of_its_corners(backend):
    """Twice its area is 2e-7, so products of coordinates in float32 are no more exact than the area itself."""
    face = torch.tensor([[[[0.9, 0.9, 1.0], [-0.9, -0.9, 2.0], [-0.9, -0.9 + 1e-7, 2.0]]]])
    depth = neural_rasterize(face, 8, with_depth=True, backend=backend).depth
    seen = depth[depth < 100]
    assert len(seen) and (seen >= 1).all() and (seen <= 2).all()


def test_the_backend_of_the_environment(monkeypatch):
    monkeypatch.setenv("RECON3D_BACKEND", "abacus")
    with pytest.raises(ValueError, match="neural_rasterize: RECON3D_BACKEND=abacus does not exist"):
        neural_rasterize(FACES, 8)
