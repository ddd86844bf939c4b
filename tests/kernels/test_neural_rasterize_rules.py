"""Which edges a pixel pulls, and how far, by hand: one half plane, one pixel, and faces in front of its edge."""

import math

import pytest
import torch

from recon3d.kernels.neural_rasterize import neural_rasterize

BACKENDS = ["reference", "numba"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
both_rules = pytest.mark.parametrize("rule", ["code", "paper"])

# A half plane: the pixel coordinates of its corners are (3.4, -34.5), (3.4, 41.5) and far to the right, at 8 pixels.
SIZE, EDGE, LOW, HIGH, EPS = 8, 3.4, -34.5, 41.5, 1e-4


def ndc(pixel):
    return (2 * pixel + 1 - SIZE) / SIZE


def triangle(*corners):
    """A face from pixel coordinates x, y (right, up) and z."""
    return torch.tensor([[-ndc(x), ndc(y), z] for x, y, z in corners], dtype=torch.float64)


HALF_PLANE = ((EDGE, LOW, 2.0), (EDGE, HIGH, 2.0), (500.0, 3.0, 2.0))


def plain(*colors):
    return torch.tensor(colors, dtype=torch.float64)[None, :, None, None, None].expand(1, -1, 2, 2, 2, 3)


def pulled(column, line, d=1.0):
    """Gradients of x of the lower and upper corner of the edge, when a pixel right or left of it counts `d`."""
    offset = (column - EDGE) * 2 / SIZE
    eps = math.copysign(EPS, offset)
    reach = (HIGH - LOW) / (HIGH - line), (HIGH - LOW) / (line - LOW)
    return [d / (times * offset + eps) for times in reach]  # x points left: the sign of -d / delta turns


def gradient_at(faces, column, line, backend, rule, colors=None, image=None, mask=0.0):
    """Gradient to the faces when only one pixel has upstream gradients."""
    leaf = torch.stack(faces)[None].requires_grad_()
    textures = None if colors is None else plain(*colors)
    seen = neural_rasterize(leaf, SIZE, textures, eps=EPS, gradient=rule, backend=backend)
    row = SIZE - 1 - line
    loss = mask * seen.mask[0, row, column]
    if image is not None:
        loss = loss + (seen.image[0, :, row, column] * torch.tensor(image, dtype=torch.float64)).sum()
    return torch.autograd.grad(loss, leaf)[0][0]


@every_backend
@both_rules
@pytest.mark.parametrize(("column", "sign"), [(0, -1), (3, -1), (4, 1), (7, 1)])
def test_one_pixel_and_one_edge(column, sign, rule, backend):
    for flip in (False, True):
        face = triangle(*HALF_PLANE)
        found = gradient_at([face.flip(0) if flip else face], column, 5, backend, rule, mask=sign * 0.7)[0]
        found = found.flip(0) if flip else found
        assert found[:2, 0].tolist() == pytest.approx(pulled(column, 5, 0.7), rel=1e-9)
        assert not found[2].any() and not found[:, 1:].any()
        wrong = gradient_at([face], column, 5, backend, rule, mask=-sign * 0.7)
        assert not wrong.any(), "the change would raise the loss"


@every_backend
def test_gates_of_the_sum_and_of_each_channel(backend):
    face, yellow = [triangle(*HALF_PLANE)], [(1.0, 1.0, 0.0)]
    # Upstream of red, green, blue and the mask at a pixel left of the edge, whose values would all rise by 1 but blue.
    for red, green, blue, mask, code, paper in (
        (-1.0, 2.0, 5.0, 0.0, 0.0, 1.0),
        (-1.0, 0.25, -5.0, 0.0, 0.75, 1.0),
        (-1.0, -2.0, 0.0, 0.0, 3.0, 3.0),
        (1.0, 0.5, 0.0, -0.5, 0.0, 0.5),
        (1.0, 0.5, 0.0, 0.5, 0.0, 0.0),
    ):
        for rule, d in (("code", code), ("paper", paper)):
            found = gradient_at(face, 1, 4, backend, rule, yellow, (red, green, blue), mask)[0]
            assert found[:2, 0].tolist() == pytest.approx(pulled(1, 4, d), rel=1e-9)


def blade(top, z_top, z=1.0):
    """A sliver in front that covers pixel 4 of line 3 alone of that line, from the upper corner of the half plane."""
    return triangle((EDGE + 0.4, LOW, z), (EDGE + 2.1, LOW, z), (top, HIGH, z_top))


@every_backend
@pytest.mark.parametrize(
    ("occluder", "code", "paper"),
    [
        (None, (True, True), (True, True)),
        (blade(EDGE, 2.0), (False, False), (False, True)),  # contains the upper corner
        (blade(EDGE, 1.9), (False, False), (False, False)),  # the same on the screen, but nearer
        (blade(EDGE + 1e-3, 2.0), (False, False), (False, False)),
    ],
    ids=["nothing", "a face of the corner", "another depth", "another place"],
)
def test_outside_pixels_when_the_crossing_is_hidden(occluder, code, paper, backend):
    faces = [triangle(*HALF_PLANE)] + ([] if occluder is None else [occluder])
    for rule, flows in (("code", code), ("paper", paper)):
        found = gradient_at(faces, 2, 3, backend, rule, mask=-1.0)[0]
        expected = [value if flow else 0.0 for value, flow in zip(pulled(2, 3), flows, strict=True)]
        assert found[:2, 0].tolist() == pytest.approx(expected, rel=1e-9)
        assert not found[2].any() and not found[:, 1:].any()


@every_backend
@pytest.mark.parametrize(
    ("occluder", "paper"),
    [(blade(EDGE, 2.0), (False, True)), (blade(EDGE + 1e-3, 2.0), (False, False))],
    ids=["a face of the corner", "another face"],
)
def test_inside_pixels_when_the_crossing_is_hidden(occluder, paper, backend):
    # Pixel 6 shows the half plane; pixel 4, just inside its edge, shows the blade.
    faces = [triangle(*HALF_PLANE), occluder]
    for rule, flows in (("code", (True, True)), ("paper", paper)):
        found = gradient_at(faces, 6, 3, backend, rule, mask=1.0)[0]
        expected = [value if flow else 0.0 for value, flow in zip(pulled(6, 3), flows, strict=True)]
        assert found[:2, 0].tolist() == pytest.approx(expected, rel=1e-9)


@every_backend
def test_pixels_inside_that_show_another_face_do_not_pull(backend):
    faces = [triangle(*HALF_PLANE), blade(EDGE + 1e-3, 2.0)]
    for rule in ("code", "paper"):
        assert not gradient_at(faces, 4, 3, backend, rule, mask=1.0)[0].any()


@every_backend
@both_rules
def test_a_shared_edge_has_no_gradient_to_the_mask(rule, backend):
    # Two halves of a face with the same colour: moving their common edge changes nothing.
    left = triangle((EDGE, LOW, 2.0), (EDGE, HIGH, 2.0), (-500.0, 3.0, 2.0))
    for column in (1, 6):
        for sign in (-1.0, 1.0):
            found = gradient_at([triangle(*HALF_PLANE), left], column, 3, backend, rule, mask=sign)
            assert not found.any()
