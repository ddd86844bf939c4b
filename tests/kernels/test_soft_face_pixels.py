import math

import pytest
import torch

from recon3d.geometry.cameras import look_at_camera, project
from recon3d.geometry.templates import icosphere
from recon3d.kernels import soft_face_pixels, zbuffer

BACKENDS = ["reference", "numba", "pytorch3d"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
ATOL = {"reference": 1e-10, "numba": 1e-10, "pytorch3d": 1e-4}  # PyTorch3D rasterises in single precision


def soup(batch, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, count, 3, 2, generator=generator, dtype=torch.float64) * 2 - 1
    z = torch.rand(batch, count, 3, 1, generator=generator, dtype=torch.float64) * 1.8 + 1.2
    return torch.cat([xy, z], dim=-1)


def distance_to_segment(p, a, b):
    length = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    t = min(max(((p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1])) / length, 0.0), 1.0)
    return math.hypot(a[0] + t * (b[0] - a[0]) - p[0], a[1] + t * (b[1] - a[1]) - p[1])


def by_the_equation(faces, size, sigma, gamma, near, far, eps):
    """Centres and weights of faces (F,3,3), pixel by pixel in Python numbers: eq. 12 over the weights of SoftRas."""
    sums = [[0.0, 0.0, 0.0] for _ in faces]
    for row in range(size):
        for column in range(size):
            p = 1 - (2 * column + 1) / size, 1 - (2 * row + 1) / size
            terms = {}
            for j, face in enumerate(faces.tolist()):
                (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = face
                area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
                w1 = ((p[0] - x0) * (y2 - y0) - (p[1] - y0) * (x2 - x0)) / area
                w2 = ((x1 - x0) * (p[1] - y0) - (y1 - y0) * (p[0] - x0)) / area
                w = 1 - w1 - w2, w1, w2
                d = min(distance_to_segment(p, face[k], face[(k + 1) % 3]) for k in range(3))
                logit = (d * d if min(w) > 0 else -d * d) / sigma
                w = [min(max(value, 0), 1) for value in w]
                depth = sum(w) / sum(value / z for value, z in zip(w, (z0, z1, z2), strict=True))
                probability = 1 / (1 + math.exp(min(-logit, 500.0)))
                if probability > 1e-10 and near <= depth <= far:
                    terms[j] = probability, (far - depth) / (far - near)
            peak = max([eps, *(score for _, score in terms.values())])
            share = {j: probability * math.exp((score - peak) / gamma) for j, (probability, score) in terms.items()}
            total = sum(share.values()) + math.exp((eps - peak) / gamma)
            for j, value in share.items():
                for k, moment in enumerate((*p, 1.0)):
                    sums[j][k] += value / total * moment
    sums = torch.tensor(sums, dtype=torch.float64)
    return sums[:, :2] / sums[:, 2:], sums[:, 2]


@every_backend
@pytest.mark.parametrize(("sigma", "gamma"), [(0.01, 0.1), (1e-3, 1e-3)])
def test_the_means_are_those_of_the_equation(backend, sigma, gamma):
    faces = soup(2, 6)
    options = {"near": 1.1, "far": 9.0, "eps": 0.02}
    came = soft_face_pixels(faces, 11, sigma, gamma, **options, backend=backend)
    for b in range(2):
        centers, weight = by_the_equation(faces[b], 11, sigma, gamma, **options)
        seen = weight > 1e-4
        assert seen.sum() >= 4 and weight.sum() > 20
        torch.testing.assert_close(came.centers[b][seen], centers[seen], atol=ATOL[backend], rtol=0)
        torch.testing.assert_close(came.weight[b], weight, atol=10 * ATOL[backend], rtol=0)


@every_backend
def test_the_weight_of_one_face_before_nothing_is_its_number_of_pixels(backend):
    # The right half of a 4 x 4 image (x < 0), with a margin beyond its other borders.
    faces = torch.tensor([[[[0.0, 40.0, 2.0], [0.0, -40.0, 2.0], [-40.0, 0.0, 2.0]]]])
    centers, weight = soft_face_pixels(faces, 4, 1e-5, 1e-4, backend=backend)
    assert weight.item() == pytest.approx(8, abs=1e-4)
    assert centers[0, 0].tolist() == pytest.approx([-0.5, 0], abs=1e-5)


@every_backend
def test_hidden_and_unseen_faces_have_no_weight_and_finite_centres(backend):
    wall = torch.tensor([[0.0, 30.0, 2.0], [-30.0, -30.0, 2.0], [30.0, -30.0, 2.0]])
    hidden = wall + torch.tensor([0.0, 0.0, 3.0])
    off, point = wall + torch.tensor([90.0, 0.0, 0.0]), torch.zeros(3, 3)
    centers, weight = soft_face_pixels(torch.stack([hidden, off, wall, point])[None], 6, 1e-4, 1e-4, backend=backend)
    assert weight[0].tolist() == pytest.approx([0, 0, 36, 0], abs=1e-3)
    assert weight[0, 1] == 0 and weight[0, 3] == 0
    assert bool(centers.isfinite().all()) and not centers[0, [0, 1, 3]].any()


@every_backend
def test_the_order_of_faces_does_not_matter(backend):
    faces = soup(1, 15)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    given = soft_face_pixels(faces, 9, 0.01, 0.01, backend=backend)
    changed = soft_face_pixels(faces[:, order], 9, 0.01, 0.01, backend=backend)
    torch.testing.assert_close(changed.centers, given.centers[:, order], atol=ATOL[backend], rtol=0)
    torch.testing.assert_close(changed.weight, given.weight[:, order], atol=ATOL[backend], rtol=0)


def test_when_sharp_they_are_the_pixels_of_the_z_buffer():
    verts, faces = icosphere(1, 0.4)
    corners = project(look_at_camera(azimuth=17.0), verts[None])[:, faces]
    size = 64
    seen = zbuffer(corners, size).face_index[0]
    centers, weight = soft_face_pixels(corners, size, 1e-8, 1e-5)
    for face in seen[seen >= 0].unique().tolist():
        row, column = (seen == face).nonzero().T
        assert weight[0, face].item() == pytest.approx(len(row), abs=2)
        if len(row) > 20:
            assert centers[0, face, 0].item() == pytest.approx((1 - (2 * column + 1) / size).mean().item(), abs=0.02)
            assert centers[0, face, 1].item() == pytest.approx((1 - (2 * row + 1) / size).mean().item(), abs=0.02)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_taken_and_none_is_needed(mode):
    faces = soup(1, 4).requires_grad_()
    expected = soft_face_pixels(faces, 5, 0.01, 0.01)
    assert not expected.centers.requires_grad and not expected.weight.requires_grad
    with mode():
        came = soft_face_pixels(faces * 1, 5, 0.01, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(came, expected, strict=True))


@every_backend
def test_no_faces_and_bad_input(backend):
    centers, weight = soft_face_pixels(torch.zeros(2, 0, 3, 3), 5, 1e-3, 1e-3, backend=backend)
    assert centers.shape == (2, 0, 2) and weight.shape == (2, 0)
    with pytest.raises(ValueError, match="expected face_verts of shape"):
        soft_face_pixels(torch.zeros(2, 4, 3, 2), 5, 1e-3, 1e-3, backend=backend)
    with pytest.raises(ValueError, match="sigma, gamma > 0"):
        soft_face_pixels(torch.ones(2, 4, 3, 3), 5, 0.0, 1e-3, backend=backend)
