"""Features of fixed ImageNet networks of torchvision, cut after the last layer asked for.

VGG-16, GoogLeNet, AlexNet and Inception v3. Used where images are compared or dreamed in a feature space: the retrieval
baseline, style transfer, DeepDream, the perceptual and Frechet losses. The weights come from a file that the user
names, or from a seed; nothing is downloaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import (
    AlexNet,
    AlexNet_Weights,
    GoogLeNet,
    GoogLeNet_Weights,
    Inception3,
    Inception_V3_Weights,
    VGG16_Weights,
    vgg16,
)

VGG16_LAYERS = {
    "conv1_2": "features.3",
    "conv2_2": "features.8",
    "conv3_3": "features.15",
    "conv4_3": "features.22",
    "fc6": "classifier.0",
}
"""Layer names of the VGG paper, and the modules of torchvision that give them: ReLUs, but for fc6."""
GOOGLENET_LAYERS = {f"inception_{block}": f"inception{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e")}
ALEXNET_LAYERS = {f"conv{index + 1}": f"features.{step}" for index, step in enumerate((1, 4, 7, 9, 11))}
"""The five convolutions of the AlexNet paper, after their ReLU."""
INCEPTION_LAYERS = {"64": "maxpool1", "192": "maxpool2", "768": "Mixed_6e", "2048": "Mixed_7c"}
"""Channels of the layers that Frechet distances are measured on; "2048" before its average over the pixels."""
INCEPTION_SIZE = 299  # pixels, which Inception v3 was trained on
SHOWN = 5  # names that an error lists; a file of another network differs in hundreds


class FeatureNetwork(nn.Module):
    """Some layers of a fixed network.

    Its weights are buffers that checkpoints leave out: no optimiser finds them, no method saves them, and batch
    normalisation uses its running statistics in training as well. Gradients reach the images.

    Args:
        steps: modules to apply in turn, by name.
        taps: layer name to the step whose output it is.
        mean: subtracted from R, G and B.
        std: R, G and B are then divided by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, steps: Mapping[str, nn.Module], taps: Mapping[str, str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps.values())
        positions = list(steps)
        self.taps = {layer: positions.index(step) for layer, step in taps.items()}
        for module in self.steps.modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, value in own:
                delattr(module, name)
                module.register_buffer(name, value.detach(), persistent=False)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stay in eval mode, whatever the module around it does."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by layer name, in the order asked for, of RGB images (B, 3, H, W) in [0, 1].

        Convolutional layers give (B, C, h, w), fc6 gives (B, 4096). H and W are at least 32.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 32:
            raise ValueError(
                f"FeatureNetwork: expected RGB images (B, 3, H, W), H and W at least 32, got {tuple(images.shape)}."
            )
        value = (images - self.mean) / self.std
        tapped = {}  # and no others: those of VGG-16 are 100 MB for an image of 224x224
        for position, step in enumerate(self.steps):
            value = step(value)
            if position in self.taps.values():
                tapped[position] = value
        return {layer: tapped[position] for layer, position in self.taps.items()}


def vgg16_features(layers: Sequence[str], weights: Path | None = None, seed: int = 0) -> FeatureNetwork:
    """VGG-16 (Simonyan and Zisserman 2015), cut after the last of `layers`.

    Args:
        layers: of "conv1_2", "conv2_2", "conv3_3", "conv4_3", all after their ReLU, and "fc6", before its ReLU. Images
            of any size reach fc6 through torchvision's adaptive pooling to 7x7.
        weights: torchvision's state dict, ``vgg16-397923af.pth`` (IMAGENET1K_V1). None: random, He initialisation.
        seed: of random weights.

    Raises:
        ValueError: an unknown layer, or weights of another network.
        FileNotFoundError: no such weights.
    """
    with torch.device("meta"):
        whole = vgg16(init_weights=False)
    steps = {f"features.{index}": module for index, module in enumerate(whole.features)}
    steps |= {"avgpool": whole.avgpool, "flatten": nn.Flatten(), "classifier.0": whole.classifier[0]}
    kept, taps = _cut(steps, VGG16_LAYERS, layers)
    _fill(kept, whole, weights, seed, VGG16_Weights.IMAGENET1K_V1.url)
    return FeatureNetwork(kept, taps, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def googlenet_features(layers: Sequence[str], weights: Path | None = None, seed: int = 0) -> FeatureNetwork:
    """GoogLeNet (Szegedy et al. 2015) as torchvision builds it, cut after the last of `layers`.

    Args:
        layers: of "inception_3a", "inception_3b", and "inception_4a" to "inception_4e".
        weights: torchvision's state dict, ``googlenet-1378be20.pth`` (IMAGENET1K_V1). None: random, He initialisation.
        seed: of random weights.

    Raises:
        ValueError: an unknown layer, or weights of another network.
        FileNotFoundError: no such weights.
    """
    with torch.device("meta"):
        whole = GoogLeNet(init_weights=False)
    kept, taps = _cut(dict(whole.named_children()), GOOGLENET_LAYERS, layers)
    _fill(kept, whole, weights, seed, GoogLeNet_Weights.IMAGENET1K_V1.url)
    # These weights were ported with their own normalisation to [-1, 1]; torchvision turns ImageNet's into it
    # (`transform_input`), which together is this.
    return FeatureNetwork(kept, taps, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def alexnet_features(layers: Sequence[str], weights: Path | None = None, seed: int = 0) -> FeatureNetwork:
    """AlexNet (Krizhevsky 2014) as torchvision builds it, cut after the last of `layers`.

    Args:
        layers: of "conv1" to "conv5", all after their ReLU.
        weights: torchvision's state dict, ``alexnet-owt-7be5be79.pth`` (IMAGENET1K_V1). None: random, He
            initialisation.
        seed: of random weights.

    Raises:
        ValueError: an unknown layer, or weights of another network.
        FileNotFoundError: no such weights.
    """
    with torch.device("meta"):
        whole = AlexNet()
    steps = {f"features.{index}": module for index, module in enumerate(whole.features)}
    kept, taps = _cut(steps, ALEXNET_LAYERS, layers)
    _fill(kept, whole, weights, seed, AlexNet_Weights.IMAGENET1K_V1.url)
    return FeatureNetwork(kept, taps, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def inception_features(
    layers: Sequence[str], weights: Path | None = None, seed: int = 0, image_size: int = INCEPTION_SIZE
) -> FeatureNetwork:
    """Inception v3 (Szegedy et al. 2016) as torchvision builds it, cut after the last of `layers`.

    Features (B, C, h, w); Frechet distances take their mean over the pixels. With these weights the numbers are not
    those of the Frechet Inception distance of papers, whose network was ported from TensorFlow.

    Args:
        layers: of "64" (first pooling), "192" (second pooling), "768" (before the auxiliary classifier) and "2048"
            (before the average pooling).
        weights: torchvision's state dict, ``inception_v3_google-0cc3c7bd.pth`` (IMAGENET1K_V1). None: random, He
            initialisation.
        seed: of random weights.
        image_size: images are resized to it, bilinearly; at least 75. Less than 299 is quicker, with other features.

    Raises:
        ValueError: an unknown layer, too small an image_size, or weights of another network.
        FileNotFoundError: no such weights.
    """
    if image_size < 75:
        raise ValueError(f"inception_features: expected an image_size of at least 75, got {image_size}.")
    with torch.device("meta"):
        whole = Inception3(init_weights=False)
    resize = nn.Upsample((image_size, image_size), mode="bilinear", align_corners=False)
    trunk = {name: module for name, module in whole.named_children() if name != "AuxLogits"}
    kept, taps = _cut({"resize": resize} | trunk, INCEPTION_LAYERS, layers)
    _fill(kept, whole, weights, seed, Inception_V3_Weights.IMAGENET1K_V1.url)
    # To [-1, 1], as of GoogLeNet. Resizing comes after this, which commutes with it.
    return FeatureNetwork(kept, taps, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _cut(
    steps: dict[str, nn.Module], known: Mapping[str, str], layers: Sequence[str]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The steps up to the last of `layers`, and the step of each layer."""
    if not layers or not known.keys() >= set(layers):
        raise ValueError(f"Expected layers among {', '.join(known)}; got {list(layers)}.")
    taps = {layer: known[layer] for layer in layers}
    names = list(steps)
    last = max(names.index(step) for step in taps.values())
    return {name: steps[name] for name in names[: last + 1]}, taps


def _fill(steps: Mapping[str, nn.Module], whole: nn.Module, weights: Path | None, seed: int, url: str) -> None:
    """Give the steps, which are on the meta device, their weights."""
    if weights is None:
        _initialize(steps, seed)
        return
    state = _read(weights, url)
    counts = {name for name in whole.state_dict() if name.endswith(".num_batches_tracked")}  # no inference reads them
    state = {name: torch.zeros((), dtype=torch.long) for name in counts} | state
    needed = {f"{step}.{name}": value.shape for step, name, value in _tensors(steps)}
    problems = {
        "missing": sorted(needed.keys() - state.keys()),
        "unexpected": sorted(state.keys() - whole.state_dict().keys()),
        "of a wrong shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
            for name, shape in needed.items()
            if name in state and state[name].shape != shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise ValueError(f"{weights} does not hold the weights of {_source(url)}: {listed}.")
    for step, module in steps.items():
        # Copied: the file is mapped, and may hold another floating point type.
        own = {name: state[f"{step}.{name}"].to(value.dtype, copy=True) for name, value in module.state_dict().items()}
        module.load_state_dict(own, assign=True)


def _initialize(steps: Mapping[str, nn.Module], seed: int) -> None:
    """He's normal initialisation by fan-in, zero biases, and batch normalisation that changes nothing.

    Drawn in the order of the steps, so that a network cut earlier has the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in steps.values():
        step.to_empty(device="cpu")
        for module in step.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _read(weights: Path, url: str) -> dict[str, Tensor]:
    if not weights.is_file():
        raise FileNotFoundError(f"No weights at {weights}; expected {_source(url)}.")
    try:
        # torchvision's older files are no zip archives, and only those can be mapped.
        state = torch.load(weights, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(weights))
    except Exception as error:  # a damaged pickle fails in any opcode, with KeyError, IndexError and others
        raise ValueError(f"{weights} cannot be loaded safely: {error}. Expected {_source(url)}.") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights} is no state dict: expected tensors by name, as in {_source(url)}.")
    return state


def _source(url: str) -> str:
    return f"torchvision's {url.rpartition('/')[2]} (from {url})"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _tensors(steps: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, Tensor]]:
    for step, module in steps.items():
        for name, value in module.state_dict().items():
            yield step, name, value
