from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor, nn

from recon3d.apps.editing.dream import LAYERS, DreamObjective, edge_length_variance
from recon3d.networks.imagenet import GOOGLENET_LAYERS


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pixels": images}


def test_edge_lengths_of_known_triangles() -> None:
    verts = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    lengths = np.array([3, 4, 5])
    face = torch.tensor([[0, 1, 2]])
    assert edge_length_variance(verts, face).item() == pytest.approx(lengths.var())
    assert edge_length_variance(verts, face.repeat(7, 1)).item() == pytest.approx(7 * lengths.var())
    regular = trimesh.creation.icosahedron()
    flat = edge_length_variance(torch.tensor(regular.vertices), torch.tensor(regular.faces))
    assert flat.item() == pytest.approx(0, abs=1e-12)


def test_edge_lengths_count_each_side_of_an_edge() -> None:
    solid = trimesh.creation.box((1, 2, 3))
    found = edge_length_variance(torch.tensor(solid.vertices), torch.tensor(solid.faces))
    sides = solid.vertices[solid.edges]  # three for each face
    expected = np.linalg.norm(sides[:, 0] - sides[:, 1], axis=1).var() * len(solid.faces)
    assert found.item() == pytest.approx(expected)


def test_terms_by_hand() -> None:
    verts, faces = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]]), torch.tensor([[0, 1, 2]])
    objective = DreamObjective(Pixels(), faces, edge_weight=0.1)
    images = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None].expand(2, 3, 4, 4)
    terms = objective.terms(images, torch.zeros(2, 1, 4, 4), verts)
    assert terms["features"].item() == pytest.approx(-14 / 3)
    assert terms["edges"].item() == pytest.approx(0.1 * 2 / 3)


def test_no_shading_and_one_grey_for_the_batch() -> None:
    objective = DreamObjective(Pixels(), torch.tensor([[0, 1, 2]]), 0.0)
    generator = torch.Generator().manual_seed(0)
    greys = []
    for _ in range(50):
        views = objective.views(4, generator)
        assert (views.lights.ambient, views.lights.directional) == (1.0, 0.0)
        assert views.background.shape == (3,) and len(views.background.unique()) == 1
        greys.append(float(views.background[0]))
    assert min(greys) < 0.1 and max(greys) > 0.9


def test_layer_is_one_of_googlenet() -> None:
    assert set(LAYERS) <= GOOGLENET_LAYERS.keys()
