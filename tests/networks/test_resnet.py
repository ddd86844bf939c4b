"""The encoder of the methods on photographs: torchvision's trunk, and weights by path."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18

from recon3d.networks.resnet import ResNetEncoder


def test_codes_of_images():
    encoder = ResNetEncoder(64, code=12, width=8).eval()
    assert encoder(torch.rand(3, 3, 64, 64)).shape == (3, 12)
    assert ResNetEncoder(128, code=12, width=8).eval()(torch.rand(2, 3, 128, 128)).shape == (2, 12)


def test_trunk_is_torchvisions_with_the_weights_of_the_file(tmp_path):
    torch.manual_seed(0)
    whole = resnet18().eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    encoder = ResNetEncoder(64, code=12, width=8, weights=tmp_path / "resnet18.pth").eval()
    image = torch.rand(2, 3, 64, 64)
    normal = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    # torchvision's whole network is trunk, mean and one linear layer.
    pooled = encoder.trunk(normal).mean(dim=(2, 3))
    assert torch.allclose(whole.fc(pooled), whole(normal), atol=1e-5)
    assert torch.equal(encoder.head(encoder.trunk(normal)), encoder(image))


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="multiple of 64, got 100"):
        ResNetEncoder(100)
    with pytest.raises(ValueError, match=r"images \(B, 3, 64, 64\), got \(1, 3, 128, 128\)"):
        ResNetEncoder(64, 12, 8)(torch.rand(1, 3, 128, 128))
    with pytest.raises(FileNotFoundError, match=r"resnet18-f37072fd\.pth"):
        ResNetEncoder(64, weights=tmp_path / "none.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of torchvision's resnet18"):
        ResNetEncoder(64, weights=tmp_path / "other.pth")
