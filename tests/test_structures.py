from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from pytorch3d.structures import Meshes

from recon3d.structures import Camera, Reconstruction, ViewBatch


def camera(*shape: int, orthographic: bool = False) -> Camera:
    """Cameras whose every number differs."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    values = [torch.arange(count * n, dtype=torch.float32) + 1000 * n for n in (9, 3, 2, 2)]
    parts = (values[0].reshape(*shape, 3, 3), *(value.reshape(*shape, -1) for value in values[1:3]))
    return Camera(*parts, center=-values[3].reshape(*shape, 2), orthographic=orthographic)


def tensors(value: Camera) -> list[torch.Tensor]:
    return [value.R, value.T, value.focal, value.center]


@pytest.mark.parametrize("name", ["R", "T", "focal", "center"])
def test_camera_refuses_shapes_that_do_not_agree(name):
    good = camera(4, 2)
    with pytest.raises(ValueError, match=r"Camera: expected shapes .*'R': \(.*3, 3\).*got"):
        replace(good, **{name: getattr(good, name)[:3]})


def test_camera_indexing_takes_leading_dimensions_only():
    cameras = camera(4, 2)
    assert cameras.shape == (4, 2)
    for index, shape in ((1, (2,)), ((1, 0), ()), ((slice(None), 1), (4,)), ((slice(1, 3), slice(None)), (2, 2))):
        part = cameras[index]
        assert part.shape == shape
        for taken, whole in zip(tensors(part), tensors(cameras), strict=True):
            assert torch.equal(taken, whole[index])
    assert cameras[:, None].shape == (4, 1, 2)
    assert torch.equal(cameras[torch.tensor([[3, 0]])].T, cameras.T[torch.tensor([[3, 0]])])
    with pytest.raises(ValueError, match="expected shapes"):
        cameras[..., 0]  # reaches into the matrices


def test_camera_flatten_and_cat_keep_the_order():
    cameras = camera(3, 2, orthographic=True)
    flat = cameras.flatten()
    assert flat.shape == (6,) and flat.orthographic
    assert torch.equal(flat.T[3], cameras.T[1, 1]) and torch.equal(flat.R[3], cameras.R[1, 1])
    assert camera().flatten().shape == (1,)
    joined = Camera.cat([flat[:2], flat[2:]])
    assert joined.orthographic and all(map(torch.equal, tensors(joined), tensors(flat)))


def test_camera_cat_refuses_to_mix_projections():
    with pytest.raises(ValueError, match="perspective and orthographic"):
        Camera.cat([camera(1), camera(1, orthographic=True)])


def test_camera_to_changes_every_tensor():
    moved = camera(2).to(dtype=torch.float64)
    assert {value.dtype for value in tensors(moved)} == {torch.float64}
    assert {value.device.type for value in tensors(camera(2).to("meta"))} == {"meta"}


def test_batch_is_frozen(full_batch):
    with pytest.raises(FrozenInstanceError):
        full_batch().images = torch.zeros(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 3, 32, 32)}, r"expected images \(B,V,3,H,W\).*got \(2, 3, 32, 32\)"),
        ({"images": torch.zeros(2, 2, 4, 32, 32)}, r"expected images \(B,V,3,H,W\)"),
        ({"masks": torch.zeros(2, 2, 1, 32, 31)}, r"masks \(B,V,1,H,W\).*\(2, 2, 1, 32, 31\)"),
        ({"masks": torch.zeros(2, 2, 32, 32)}, r"masks \(B,V,1,H,W\)"),
        ({"sample_id": ("one",)}, "2 objects, 1 sample ids"),
        ({"category": ("a", "b", "c")}, "3 categories"),
        ({"cameras": camera(2, 3)}, r"cameras of shape \(2, 2\), got \(2, 3\)"),
        ({"points": torch.zeros(3, 10, 3)}, "points has 3 objects, images have 2"),
        ({"voxels": torch.zeros(1, 32, 32, 32, dtype=torch.bool)}, "voxels has 1 objects, images have 2"),
    ],
)
def test_batch_refuses_wrong_shapes(full_batch, changes, message):
    with pytest.raises(ValueError, match=message):
        full_batch(**changes)


def test_inputs_are_object_by_object(full_batch):
    batch = full_batch(objects=3, views=3)
    assert torch.equal(batch.inputs(3), batch.images[:, 0])
    seen = batch.inputs(4, views=2)
    assert seen.shape == (6, 4, 32, 32)
    for item in range(3):
        for view in range(2):
            assert torch.equal(seen[2 * item + view, :3], batch.images[item, view])
            assert torch.equal(seen[2 * item + view, 3:], batch.masks[item, view])
    with pytest.raises(ValueError, match=r"3 .* or 4 .* channels, not 1"):
        batch.inputs(1)


def test_collate_is_the_inverse_of_taking_single_objects(full_batch):
    batch = full_batch(objects=3)
    single = [
        ViewBatch(**{f.name: getattr(batch, f.name)[k : k + 1] for f in fields(batch)}) for k in range(len(batch))
    ]
    joined = ViewBatch.collate(single)
    assert len(joined) == 3 and joined.sample_id == batch.sample_id and joined.category == batch.category
    for name in ("images", "masks", "points", "normals", "voxels", "keypoints", "parts"):
        assert torch.equal(getattr(joined, name), getattr(batch, name))
    assert all(map(torch.equal, tensors(joined.cameras), tensors(batch.cameras)))


def test_collate_names_the_field_and_the_sample_that_lack(full_batch):
    one, other = full_batch(objects=1), full_batch(objects=1, sample_id=("bare/0",), normals=None)
    with pytest.raises(ValueError, match=r"'normals' is missing for \[\('bare/0',\)\]"):
        ViewBatch.collate([one, other])
    assert ViewBatch.collate([other, other]).normals is None


def test_to_and_pin_reach_every_tensor(full_batch, monkeypatch):
    batch = full_batch(points=None)
    moved = batch.to("meta")
    values = [getattr(moved, f.name) for f in fields(moved)]
    assert {v.device.type for v in values if isinstance(v, torch.Tensor)} == {"meta"}
    assert {v.device.type for v in tensors(moved.cameras)} == {"meta"}
    assert moved.points is None and moved.sample_id == batch.sample_id
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.shape) or self)
    batch.pin_memory()
    assert len(pinned) == 6 + 4  # images, masks, normals, voxels, keypoints, parts; four tensors of the camera


def test_reconstruction_needs_a_shape_and_counts_it():
    with pytest.raises(ValueError, match="expected a mesh, points or voxels"):
        Reconstruction(camera=camera(1))
    triangle = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert len(Reconstruction(mesh=Meshes([triangle] * 3, [torch.tensor([[0, 1, 2]])] * 3))) == 3
    assert len(Reconstruction(points=torch.zeros(5, 7, 3))) == 5
    assert len(Reconstruction(voxels=torch.zeros(2, 4, 4, 4, dtype=torch.bool))) == 2
