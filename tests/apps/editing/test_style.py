from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from recon3d.apps.editing.style import LAYERS, StyleObjective, read_style_image
from recon3d.losses.style import gram_matrix


class Pixels(nn.Module):
    """Features that are the pixels themselves, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pixels": self.factor * images}


VERTS = torch.zeros(5, 3)


def objective(style: Tensor, factor: float = 1.0, weights: tuple[float, float, float] = (2.0, 3.0, 5.0)):
    return StyleObjective(Pixels(factor), style, VERTS, *weights)


def test_terms_by_hand() -> None:
    # A style of red: its Gram matrix is 1/3 at (0, 0). A render whose left half is the object, half red and half
    # black pixels: 1/6. (1/6 - 1/3)^2 / (1/3)^2 = 1/4.
    red = torch.zeros(3, 4, 4)
    red[0] = 1
    images, mask = torch.ones(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1
    images[..., :2] = 0
    images[:, 0, :, 0] = 1
    moved = VERTS.clone()
    moved[1] = torch.tensor([3.0, 0.0, 4.0])
    terms = objective(red).terms(images, mask, moved)
    assert terms["content"].item() == 2 * 25
    assert terms["style"].item() == pytest.approx(3 / 4)
    assert terms["variation"].item() == 5 * 4  # in each image, 4 pairs of red beside black


def test_style_is_0_for_itself_1_for_nothing_and_blind_to_the_scale_of_features() -> None:
    style = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 8, 8)
    for factor in (0.01, 1.0, 50.0):
        losses = [
            objective(style, factor).terms(image, mask, VERTS)["style"].item()
            for image in (style[None], torch.zeros(1, 3, 8, 8), 0.5 * style[None])
        ]
        assert losses == pytest.approx([0, 3, 3 * 0.75**2], abs=1e-6)


def test_a_style_without_features_is_refused() -> None:
    with pytest.raises(ValueError, match="another image"):
        objective(torch.zeros(3, 4, 4))


def test_lights_and_background() -> None:
    style = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    views = objective(style).views(2000, torch.Generator().manual_seed(0))
    assert torch.equal(views.background, style.mean(dim=(1, 2)))
    assert (views.lights.ambient, views.lights.directional) == (0.5, 0.5)
    direction = views.lights.direction
    assert isinstance(direction, Tensor)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(2000))
    torch.testing.assert_close(direction[:, 1], torch.full((2000,), math.cos(math.radians(30))))
    assert direction[:, [0, 2]].mean(dim=0).abs().max() < 0.03  # from all sides
    assert len(views.camera.T) == 2000


def test_gradient_reaches_images_and_vertices() -> None:
    style = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    images, verts = torch.rand(2, 3, 8, 8).requires_grad_(), torch.ones(5, 3).requires_grad_()
    torch.stack(list(objective(style).terms(images, torch.ones(2, 1, 8, 8), verts).values())).sum().backward()
    assert images.grad is not None and images.grad.abs().min() > 0
    assert verts.grad is not None and verts.grad.tolist() == [[4.0] * 3] * 5  # 2 lambda_c (v - v0)


def test_layers_are_those_of_vgg() -> None:
    from recon3d.networks.imagenet import VGG16_LAYERS

    assert set(LAYERS) <= VGG16_LAYERS.keys()
    assert gram_matrix(torch.ones(1, 2, 2, 2)).shape == (1, 2, 2)


def test_images_of_every_mode(tmp_path: Path) -> None:
    colors = np.zeros((20, 30, 4), dtype=np.uint8)
    colors[:, :15] = (255, 0, 0, 255)
    colors[:, 15:] = (0, 0, 255, 0)  # transparent
    Image.fromarray(colors).save(tmp_path / "a.png")
    image = read_style_image(tmp_path / "a.png", 16)
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32
    assert image[:, 8, 1].tolist() == [1, 0, 0] and image[:, 8, 14].tolist() == [1, 1, 1]
    for mode in ("L", "RGB", "P", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.fromarray(colors).convert("RGB").convert(mode).save(tmp_path / f"b.{suffix}")
        assert read_style_image(tmp_path / f"b.{suffix}", 8).shape == (3, 8, 8)


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No style image"):
        read_style_image(tmp_path / "nowhere.png", 8)
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="expected PNG, JPEG"):
        read_style_image(tmp_path / "a.png", 8)
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read"):
        read_style_image(tmp_path / "b.png", 8)
