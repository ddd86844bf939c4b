from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import trimesh
from pytorch3d.renderer import TexturesUV, TexturesVertex
from pytorch3d.structures import Meshes

from recon3d.apps.gallery.models import NoSurfaceError, predicted_model, splats, true_models
from recon3d.apps.mesh_files import object_to_gltf
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import Reconstruction

SPHERE = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
VERTS, FACES = torch.tensor(SPHERE.vertices).float(), torch.tensor(np.array(SPHERE.faces))


class Fixed(ReconstructionMethod):
    """Answers one mesh, whatever it is shown."""

    def __init__(self, textures=None, faces=FACES) -> None:
        super().__init__()
        self.textures, self.faces = textures, faces

    def forward(self, image):
        return Reconstruction(mesh=Meshes([VERTS], [self.faces], self.textures))


def read(model) -> trimesh.Trimesh:
    scene = trimesh.load(io.BytesIO(model.glb), file_type="glb", process=False)
    (mesh,) = scene.geometry.values()
    return mesh


def test_the_glb_is_the_predicted_mesh(full_batch):
    model = predicted_model("fixed", Fixed(), full_batch(objects=1))
    mesh = read(model)
    np.testing.assert_array_equal(mesh.vertices, object_to_gltf(VERTS).numpy())
    np.testing.assert_array_equal(mesh.faces, FACES.numpy())
    assert (model.verts, model.faces, model.texture) == (len(VERTS), len(FACES), "")


def test_the_preview_is_the_silhouette_in_the_input_view(full_batch):
    model = predicted_model("fixed", Fixed(), full_batch(objects=1))
    alpha = np.asarray(model.preview)[..., 3] / 255
    # A sphere of radius 0.4 at distance 2.732, half the field of view 15 degrees.
    radius = np.tan(np.arcsin(0.4 / 2.732)) / np.tan(np.radians(15))
    assert alpha.mean() == pytest.approx(np.pi * radius**2 / 4, rel=0.03)


def test_colours_and_textures_go_along(full_batch):
    batch = full_batch(objects=1)
    colored = predicted_model("c", Fixed(TexturesVertex(torch.rand(1, len(VERTS), 3))), batch)
    assert colored.texture == "vertex colours" and "color" in read(colored).visual.vertex_attributes
    uv = torch.rand(1, len(VERTS), 2)
    image = torch.zeros(1, 8, 16, 3)
    image[..., 0] = 1.0
    textured = predicted_model("t", Fixed(TexturesUV(image, FACES[None], uv)), batch)
    assert textured.texture == "16 x 8 texture"
    assert read(textured).visual.material.baseColorTexture.size == (16, 8)
    rgba = np.asarray(textured.preview).astype(int)
    assert (rgba[rgba[..., 3] == 255][:, :3] == [255, 0, 0]).all()


def test_no_surface_is_an_error_that_says_so(full_batch):
    with pytest.raises(NoSurfaceError, match="no surface"):
        predicted_model("fixed", Fixed(faces=FACES[:0]), full_batch(objects=1))


def test_the_ground_truth_is_where_the_data_say(full_batch):
    batch = full_batch(objects=1)
    models = true_models(batch)
    assert list(models) == ["points", "voxels"]
    points = read(models["points"])
    centers = points.triangles_center
    np.testing.assert_allclose(centers, object_to_gltf(batch.points[0]).numpy(), atol=1e-6)
    axes = object_to_gltf(torch.tensor([1.0, 0.5, 0.3])).abs().numpy()  # of the ellipsoid, diameters
    np.testing.assert_allclose(read(models["voxels"]).extents, axes, atol=1.5 / 31)
    assert true_models(full_batch(objects=1, points=None, normals=None, voxels=None)) == {}


def test_splats_lie_across_their_normals():
    sphere = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    verts, faces = splats(sphere, sphere)
    mesh = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
    np.testing.assert_allclose((mesh.face_normals * sphere.numpy()).sum(axis=1), 1.0, atol=1e-4)
    assert 0.5 < mesh.area / (4 * np.pi) < 2.5
