"""What a textured mesh looks like in the input view, where its vertices lie there, and what lacks either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch3d.renderer import TexturesAtlas, TexturesUV, TexturesVertex
from pytorch3d.structures import Meshes
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from recon3d.evaluation.convert import NO_NETWORK, Conversion, NotAvailableError, ground_truth
from recon3d.geometry.cameras import project
from recon3d.geometry.weak_perspective import object_camera, weak_perspective_camera
from recon3d.structures import Camera, Reconstruction, ViewBatch

SIZE = 48


def straight(count: int, scale: float = 0.8) -> Camera:
    """Orthographic cameras along +Z with +X left: an NDC unit is 1 / scale object units."""
    return Camera(
        R=torch.eye(3).expand(count, 3, 3),
        T=torch.tensor([0.0, 0.0, 5.0]).expand(count, 3),
        focal=torch.full((count, 2), scale),
        center=torch.zeros(count, 2),
        orthographic=True,
    )


def squares(count: int, textures: Any = None, depth: float = 0.0) -> Meshes:
    """The square [-0.5, 0.5]^2 in the plane z = depth, `count` times."""
    verts = torch.tensor([[-0.5, -0.5, depth], [0.5, -0.5, depth], [0.5, 0.5, depth], [-0.5, 0.5, depth]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Meshes([verts] * count, [faces] * count, textures)


def photographs(count: int, **changes: Any) -> ViewBatch:
    """One view of each object: a photograph with a background, and a disc as its mask."""
    images = torch.rand(count, 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    grid = torch.linspace(-1, 1, SIZE)
    mask = (grid[:, None].square() + grid.square() < 0.5).float()
    fields: dict[str, Any] = {
        "images": images,
        "masks": mask.expand(count, 1, 1, SIZE, SIZE),
        "sample_id": tuple(f"bird/{index}" for index in range(count)),
        "category": ("bird",) * count,
    }
    return ViewBatch(**fields | changes)


def textures_of(kind: str, colors: Tensor) -> Any:
    """Textures of `squares` that have one colour (B,3) for each mesh."""
    count = len(colors)
    if kind == "vertex":
        return TexturesVertex(colors[:, None].expand(-1, 4, -1))
    if kind == "atlas":
        return TexturesAtlas(colors[:, None, None, None].expand(-1, 2, 3, 3, -1))
    uv = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    maps = colors[:, None, None].expand(-1, 8, 8, -1)
    return TexturesUV(maps, [torch.tensor([[0, 1, 2], [0, 2, 3]])] * count, [uv] * count)


@pytest.mark.parametrize("kind", ["vertex", "atlas", "uv"])
def test_textures_are_rendered_unlit_through_the_predicted_camera(kind: str) -> None:
    colors = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.6, 0.5]])
    plain = textures_of(kind, 1 - colors)
    recon = Reconstruction(mesh=squares(2, textures_of(kind, colors)), camera=straight(2), plain_textures=plain)
    conversion = Conversion(recon, photographs(2))
    # A square of 0.8 NDC around the middle of the image, whose edges lie within pixels: 0.4 * 48 / 2 = 9.6 on a side.
    inside, outside = slice(15, 33), [13, 34]
    for image, expected in ((conversion.input_image, colors), (conversion.plain_image, 1 - colors)):
        assert image.shape == (2, 4, SIZE, SIZE)
        assert (image[:, 3, inside, inside] == 1).all()
        assert (image[:, :, outside] == 0).all() and (image[:, :, :, outside] == 0).all()
        torch.testing.assert_close(image[:, :3, 24, 24], expected, atol=1e-5, rtol=0)
        # Multiplied by the coverage, which is neither 0 nor 1 on the edge.
        edge = image[:, :, 14, 24]
        assert ((edge[:, 3] > 0) & (edge[:, 3] < 1)).all()
        torch.testing.assert_close(edge[:, :3], expected * edge[:, 3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(conversion.soft_input_mask[:, 0, 0], conversion.input_image[:, 3])
    # The mask of hard pixels is that of the centres.
    assert set(conversion.input_mask.unique().tolist()) == {0.0, 1.0}


def test_a_mesh_of_a_batch_keeps_its_own_texture(shapes: Meshes, truth: ViewBatch) -> None:
    colors = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    features = [color.expand(len(verts), 3) for color, verts in zip(colors, shapes.verts_list(), strict=True)]
    mesh = Meshes(shapes.verts_list(), shapes.faces_list(), TexturesVertex(features))
    image = Conversion(Reconstruction(mesh=mesh), truth).input_image
    for index in range(3):
        seen = image[index, :3, image[index, 3] == 1]
        torch.testing.assert_close(seen, colors[index][:, None].expand_as(seen), atol=1e-5, rtol=0)


def test_the_data_camera_is_used_where_none_is_predicted() -> None:
    mesh = squares(1, textures_of("vertex", torch.ones(1, 3)))
    batch = photographs(1)
    with pytest.raises(NotAvailableError, match="neither the data nor the method"):
        _ = Conversion(Reconstruction(mesh=mesh), batch).input_image
    cameras = straight(1, scale=1.6)
    ours = Conversion(Reconstruction(mesh=mesh), replace(batch, cameras=cameras[None]))
    assert float(ours.soft_input_mask.mean()) == pytest.approx(0.8**2, abs=0.02)
    predicted = Conversion(Reconstruction(mesh=mesh, camera=straight(1)), replace(batch, cameras=cameras[None]))
    assert float(predicted.soft_input_mask.mean()) == pytest.approx(0.4**2, abs=0.02)


def test_the_camera_of_cmr_sees_the_object_where_its_formula_says() -> None:
    pose = torch.tensor([[0.6, 0.1, -0.2, 1.0, 0.0, 0.0, 0.0]])
    camera = object_camera(weak_perspective_camera(pose))
    # A small square of CMR's frame around (0.3, 0.4, 0): u = 0.6 * 0.3 + 0.1, v = 0.6 * 0.4 - 0.2, v down.
    corners = torch.tensor([[0.25, 0.35, 0], [0.35, 0.35, 0], [0.35, 0.45, 0], [0.25, 0.45, 0]])
    verts = 0.5 * torch.stack([-corners[:, 1], corners[:, 2], -corners[:, 0]], dim=1)
    mesh = Meshes([verts], [torch.tensor([[0, 1, 2], [0, 2, 3]])])
    mask = Conversion(Reconstruction(mesh=mesh, camera=camera), photographs(1)).soft_input_mask[0, 0, 0]
    rows, columns = mask.nonzero().float().mean(dim=0)
    assert float(columns) == pytest.approx((0.28 + 1) / 2 * SIZE - 0.5, abs=0.5)
    assert float(rows) == pytest.approx((0.04 + 1) / 2 * SIZE - 0.5, abs=0.5)


def test_the_true_image_lies_on_black() -> None:
    batch = photographs(2)
    image = ground_truth(batch, "input_image")
    assert isinstance(image, Tensor)
    assert torch.equal(image[:, 3:], batch.masks[:, 0])
    assert torch.equal(image[:, :3], batch.images[:, 0] * batch.masks[:, 0])


def test_a_failed_mesh_has_no_image_and_black_features() -> None:
    mesh = squares(2, textures_of("vertex", torch.ones(2, 3)))
    verts = mesh.verts_padded().clone()
    verts[1, 0, 0] = torch.nan
    broken = mesh.update_padded(verts)
    recon = Reconstruction(mesh=broken, camera=straight(2), plain_textures=mesh.textures)
    conversion = Conversion(recon, photographs(2), torch.nn.Flatten())
    assert conversion.input_image[1].isnan().all() and not conversion.input_image[0].isnan().any()
    for features in (conversion.image_features, conversion.plain_image_features):
        assert (features[1] == 0).all() and features[0].any()
    assert (conversion.soft_input_mask[1] == 0).all()


def test_features_are_those_of_the_colours_on_black() -> None:
    batch = photographs(2)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    features = ground_truth(batch, "image_features", network)
    torch.testing.assert_close(features, (batch.images * batch.masks)[:, 0].mean(dim=(2, 3)))
    with pytest.raises(NotAvailableError) as error:
        ground_truth(batch, "image_features")
    assert str(error.value) == NO_NETWORK


def test_vertices_are_seen_where_they_project_and_snapped_to_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    # A strip whose ends are out of the image: their nearest pixels lie on its border.
    verts = torch.rand(1, 60, 3, generator=generator) * torch.tensor([3.0, 0.5, 0.5]) - torch.tensor([1.5, 0.25, 0.25])
    faces = torch.arange(60).reshape(20, 3)
    camera = straight(1)
    recon = Reconstruction(mesh=Meshes(verts, faces[None]), camera=camera)
    conversion = Conversion(recon, photographs(1))
    seen = conversion.vertices
    torch.testing.assert_close(seen.xy, project(camera, verts)[..., :2])
    mask = conversion.input_mask[0, 0, 0].numpy() > 0.5
    rows, columns = np.nonzero(mask)
    centers = np.stack([1 - (2 * columns + 1) / SIZE, 1 - (2 * rows + 1) / SIZE], axis=1)
    distances = np.linalg.norm(seen.xy[0].numpy()[:, None] - centers, axis=-1)
    got = np.linalg.norm(seen.xy[0].numpy() - seen.snapped[0].numpy(), axis=-1)
    np.testing.assert_allclose(got, distances.min(axis=1), atol=1e-6)
    on_pixel = np.linalg.norm(seen.snapped[0].numpy()[:, None] - centers, axis=-1).min(axis=1)
    np.testing.assert_allclose(on_pixel, 0, atol=1e-6)
    assert (seen.xy.abs() > 1).any()
    # Some lie in pixels whose centre is not covered.
    assert distance_transform_edt(~mask).max() > 1 and (distances.min(axis=1) > 1 / SIZE).any()


def test_vertices_belong_together_where_the_faces_are_the_same(shapes: Meshes, truth: ViewBatch) -> None:
    with pytest.raises(NotAvailableError, match="same vertices and faces"):
        _ = Conversion(Reconstruction(mesh=shapes), truth).vertices
    with pytest.raises(NotAvailableError, match="no mesh of its own"):
        _ = Conversion(Reconstruction(voxels=truth.voxels), truth).vertices
    recon = Reconstruction(mesh=squares(2), camera=straight(2))
    one, same = (Conversion(recon, photographs(2)).vertices.topology for _ in range(2))
    flipped = Meshes(squares(2).verts_list(), [faces.flip(0) for faces in squares(2).faces_list()])
    other = Conversion(Reconstruction(mesh=flipped, camera=straight(2)), photographs(2)).vertices.topology
    assert one == same != other


def test_a_failed_mesh_has_no_vertices() -> None:
    verts = squares(2).verts_padded().clone()
    verts[0] = 1e9
    seen = Conversion(Reconstruction(mesh=squares(2).update_padded(verts), camera=straight(2)), photographs(2)).vertices
    assert seen.xy[0].isnan().all() and seen.snapped[0].isnan().all()
    assert seen.xy[1].isfinite().all() and seen.snapped[1].isfinite().all()


def test_what_a_method_does_not_give_is_not_available(
    shapes: Meshes, truth: ViewBatch, part: Callable[..., ViewBatch]
) -> None:
    conversion = Conversion(Reconstruction(mesh=shapes), truth)
    for name, message in {
        "input_image": "no texture", "plain_image": "no plain texture", "flow": "no texture flow",
        "image_features": "no texture",
    }.items():  # fmt: skip
        with pytest.raises(NotAvailableError, match=message):
            getattr(conversion, name)
    with pytest.raises(NotAvailableError, match="no key points"):
        ground_truth(truth, "keypoints")
    keypoints = torch.rand(3, 3, 5, 3)
    assert torch.equal(ground_truth(replace(truth, keypoints=keypoints), "keypoints"), keypoints[:, 0])  # type: ignore[arg-type]
