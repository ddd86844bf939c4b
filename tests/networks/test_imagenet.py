from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from recon3d.networks.imagenet import (
    ALEXNET_LAYERS,
    GOOGLENET_LAYERS,
    INCEPTION_LAYERS,
    VGG16_LAYERS,
    alexnet_features,
    googlenet_features,
    inception_features,
    vgg16_features,
)

CONV = ["conv1_2", "conv2_2", "conv3_3", "conv4_3"]
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(scope="module")
def vgg() -> nn.Module:
    """torchvision's VGG-16 up to fc6: its other linear layers would take 120 million more numbers."""
    with torch.device("meta"):
        network = torchvision.models.vgg16(init_weights=False)
    network.classifier = network.classifier[:1]
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    for value in network.parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 100
        nn.init.normal_(value, std=(2 / fan_in) ** 0.5, generator=generator)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def vgg_file(vgg, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "conv.pth"
    torch.save({name: value for name, value in vgg.state_dict().items() if name.startswith("features")}, path)
    return path


@pytest.fixture(scope="module")
def googlenet() -> nn.Module:
    return with_statistics(torchvision.models.GoogLeNet(transform_input=True, init_weights=False))


@pytest.fixture(scope="module")
def inception() -> nn.Module:
    return with_statistics(torchvision.models.Inception3(transform_input=True, init_weights=False))


def with_statistics(network: nn.Module) -> nn.Module:
    """In eval mode, with running statistics and biases that are not those of initialisation."""
    generator = torch.Generator().manual_seed(4)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.ndim == 1:
            value.add_(torch.empty_like(value).normal_(std=0.2, generator=generator))
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(5))


def torchvision_outputs(network: nn.Module, images: torch.Tensor, taps: dict[str, str]) -> dict[str, torch.Tensor]:
    """What the modules `taps` give in torchvision's own forward pass."""
    outputs: dict[str, torch.Tensor] = {}
    hooks = []
    for layer, step in taps.items():
        keep = lambda module, args, output, layer=layer: outputs.update({layer: output.clone()})  # noqa: E731
        hooks.append(network.get_submodule(step).register_forward_hook(keep))
    network((images - IMAGENET_MEAN) / IMAGENET_STD)
    for hook in hooks:
        hook.remove()
    return outputs


def assert_equal_features(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for layer, value in ours.items():
        assert value.std() > 0.01
        torch.testing.assert_close(value, theirs[layer], rtol=1e-4, atol=1e-4)


def test_vgg_features_are_those_of_torchvision(vgg, vgg_file, images):
    expected = torchvision_outputs(vgg, images, {layer: VGG16_LAYERS[layer] for layer in CONV})
    assert_equal_features(vgg16_features(CONV, vgg_file)(images), expected)


def test_fc6_is_that_of_torchvision_before_its_relu(vgg, images, tmp_path):
    path = tmp_path / "fc6.pth"
    torch.save(vgg.state_dict(), path)
    ours = vgg16_features(["fc6"], path)(images)
    assert ours["fc6"].shape == (2, 4096) and (ours["fc6"] < 0).any()
    assert_equal_features(ours, torchvision_outputs(vgg, images, {"fc6": "classifier.0"}))


@pytest.mark.parametrize("older", [False, True], ids=["zip archive", "file of before 2020"])
def test_googlenet_features_are_those_of_torchvision(googlenet, images, tmp_path, older):
    path = tmp_path / "googlenet.pth"
    state = {name: value for name, value in googlenet.state_dict().items() if not (older and "num_batches" in name)}
    torch.save(state, path, _use_new_zipfile_serialization=not older)
    expected = torchvision_outputs(googlenet, images, GOOGLENET_LAYERS)
    assert_equal_features(googlenet_features(list(GOOGLENET_LAYERS), path)(images), expected)


def test_alexnet_features_are_those_of_torchvision(images, tmp_path):
    torch.manual_seed(6)
    network = torchvision.models.AlexNet(num_classes=1)
    network.classifier = nn.Sequential(nn.Flatten())  # its linear layers have 58 million numbers
    network.eval().requires_grad_(False)
    path = tmp_path / "alexnet.pth"
    torch.save(network.state_dict(), path)
    images = nn.functional.interpolate(images, (80, 96), mode="bilinear")  # less is too small for its last pooling
    ours = alexnet_features(list(ALEXNET_LAYERS), path)(images)
    assert [value.shape[1] for value in ours.values()] == [64, 192, 384, 256, 256]
    assert all((value >= 0).all() and (value == 0).any() for value in ours.values())
    assert_equal_features(ours, torchvision_outputs(network, images, ALEXNET_LAYERS))


def test_inception_features_are_those_of_torchvision(inception, images, tmp_path):
    path = tmp_path / "inception.pth"
    torch.save(inception.state_dict(), path)
    resized = nn.functional.interpolate(images, (299, 299), mode="bilinear")
    ours = inception_features(list(INCEPTION_LAYERS), path)(images)
    assert [(name, value.shape[1]) for name, value in ours.items()] == [(str(n), n) for n in (64, 192, 768, 2048)]
    theirs = torchvision_outputs(inception, resized, INCEPTION_LAYERS | {"pooled": "avgpool"})
    pooled = theirs.pop("pooled")  # what its classifier sees
    torch.testing.assert_close(ours["2048"].mean(dim=(2, 3), keepdim=True), pooled, rtol=1e-4, atol=1e-4)
    assert_equal_features(ours, theirs)


def test_inception_takes_a_smaller_image_size(images):
    network = inception_features(["2048", "192"], image_size=75)
    assert {name: tuple(value.shape) for name, value in network(images).items()} == {
        "2048": (2, 2048, 1, 1),
        "192": (2, 192, 7, 7),
    }
    with pytest.raises(ValueError, match="at least 75, got 74"):
        inception_features(["64"], image_size=74)


def test_only_the_layers_needed_are_kept():
    assert sum(value.numel() for value in vgg16_features(["conv1_2"]).buffers()) == 3 * 64 * 9 + 64 * 64 * 9 + 128 + 6


def test_random_weights_depend_on_the_seed_alone():
    image = torch.rand(1, 3, 32, 32)
    state = torch.get_rng_state()
    first, again, other = (vgg16_features(["conv2_2"], seed=seed)(image)["conv2_2"] for seed in (1, 1, 2))
    googlenet_features(["inception_3a"])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.allclose(first, other)
    torch.manual_seed(17)
    deeper = vgg16_features(["conv4_3", "conv2_2"], seed=1)(image)
    assert list(deeper) == ["conv4_3", "conv2_2"]
    assert torch.equal(deeper["conv2_2"], first)


def test_random_weights_keep_the_scale_of_activations():
    image = torch.rand(2, 3, 64, 64)
    normal = (image - IMAGENET_MEAN) / IMAGENET_STD
    for network in (
        vgg16_features(CONV),
        googlenet_features(["inception_4c"]),
        alexnet_features(["conv1", "conv5"]),
        inception_features(["192"], image_size=75),
    ):
        for value in network(image).values():
            assert 0.2 < value.square().mean().sqrt() / normal.square().mean().sqrt() < 5


def test_is_frozen_but_lets_gradients_through_to_the_image():
    network = nn.Sequential(googlenet_features(["inception_3b"]))
    assert not list(network.parameters()) and not network.state_dict()
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    before = network.eval()(image)["inception_3b"]
    after = network.train()(image)["inception_3b"]
    assert torch.equal(before, after)
    after.sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_other_weights_are_refused_by_name(vgg, tmp_path):
    path = tmp_path / "odd.pth"
    state = {name: value for name, value in vgg.state_dict().items() if name.startswith("features.0")}
    torch.save(state | {"features.0.bias": torch.zeros(63), "encoder.weight": torch.zeros(1)}, path)
    message = re.escape(f"{path} does not hold the weights of torchvision's vgg16-397923af.pth")
    with pytest.raises(ValueError, match=message) as caught:
        vgg16_features(["conv1_2"], path)
    for part in (
        "missing: features.2.bias, features.2.weight;",
        "unexpected: encoder.weight;",
        "(63,) instead of (64,)",
    ):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="and 7 more; unexpected: encoder"):
        vgg16_features(["conv3_3"], path)
    with pytest.raises(ValueError, match=r"googlenet-1378be20\.pth"):
        googlenet_features(["inception_4c"], path)
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth"):
        alexnet_features(["conv1"], path)
    with pytest.raises(ValueError, match=r"inception_v3_google-0cc3c7bd\.pth"):
        inception_features(["64"], path)


def test_what_is_no_state_dict_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth"):
        vgg16_features(["fc6"], tmp_path / "absent.pth")
    nested = tmp_path / "nested.pth"
    torch.save({"state_dict": {}}, nested)
    with pytest.raises(ValueError, match="is no state dict"):
        vgg16_features(["conv1_2"], nested)
    whole = tmp_path / "module.pth"
    torch.save(nn.Linear(1, 1), whole)
    with pytest.raises(ValueError, match="cannot be loaded safely"):
        vgg16_features(["conv1_2"], whole)


@pytest.mark.parametrize("layers", [[], ["relu9"], ["fc6", "inception_4c"]])
def test_unknown_layers_are_refused(layers):
    with pytest.raises(ValueError, match=r"layers among conv1_2.*fc6; got"):
        vgg16_features(layers)


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32), (1, 3, 31, 64)])
def test_images_of_another_shape_are_refused(shape):
    message = re.escape(f"expected RGB images (B, 3, H, W), H and W at least 32, got {shape}.")
    with pytest.raises(ValueError, match=message):
        vgg16_features(["conv1_2"])(torch.zeros(shape))
