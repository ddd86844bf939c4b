"""Masks of photographs that have none, by a salient object network of the user, run by ONNX Runtime.

An optional step of `recon3d.apps.photo`. Networks of the U²-Net family fit (Qin et al. 2020): one picture in, maps of
the object in [0, 1] out, the first of them the best. Nothing is downloaded; see docs/predict.md for files and licences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from recon3d.networks.resnet import IMAGENET_MEAN, IMAGENET_STD

SIZE = 320  # pixels, of networks that take any: what U²-Net is trained for
FOUND = 0.5  # the network's highest value has to reach this, else there is no object

BackgroundRemover = Callable[[Image.Image], Image.Image]
"""RGB picture to its mask: mode L, of the same size, the object in white."""


class _Session(Protocol):
    """What is used of `onnxruntime.InferenceSession`."""

    def get_inputs(self) -> list[Any]: ...

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]: ...


def background_remover(model: Path) -> BackgroundRemover:
    """The remover of a network file; its pictures are prepared, and its answers read, as in the authors' code.

    That is: resized to the network's input, divided by the highest value of the picture, normalised by ImageNet's mean
    and deviation; the first answer stretched to [0, 1] and resized back.

    Args:
        model: ``.onnx`` with one input (1, 3, H, W) and a first output (1, 1, H', W').

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: ONNX Runtime is not installed.
        ValueError: not a network, or one of other shapes. The remover raises it too, when it finds no object.
    """
    if not model.is_file():
        raise FileNotFoundError(f"No background remover at {model}; docs/predict.md names some that fit.")
    session = _open_session(model)
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or shape[1] != 3:
        came = [entry.shape for entry in inputs]
        raise ValueError(f"{model}: expected a network with one input (1, 3, H, W), got inputs {came}.")
    # Axes that take any size have a name or None.
    height, width = (side if isinstance(side, int) else SIZE for side in shape[2:])

    def remove(picture: Image.Image) -> Image.Image:
        pixels: np.ndarray = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float32)
        pixels = pixels / max(float(pixels.max()), 1.0)
        pixels = (pixels - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
        answer = session.run(None, {inputs[0].name: pixels.transpose(2, 0, 1)[None]})[0]
        if answer.ndim != 4 or answer.shape[:2] != (1, 1):
            raise ValueError(f"{model}: expected a first output (1, 1, H, W), got {answer.shape}.")
        low, high = float(answer.min()), float(answer.max())
        if not high >= FOUND or low >= FOUND:
            raise ValueError(
                f"{model.name} finds no object before a background (its values go from {low:.2f} to {high:.2f}); give "
                "a mask with --mask."
            )
        stretched = (answer[0, 0] - low) / (high - low) * 255
        return Image.fromarray(stretched.round().astype(np.uint8)).resize(picture.size, Image.Resampling.LANCZOS)

    return remove


def _open_session(model: Path) -> _Session:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            "--remove-background runs its network by ONNX Runtime, which is not installed: "
            "`.venv/bin/pip install -e '.[background]'` in the clone. Or make the mask elsewhere and give it with "
            "--mask."
        ) from error
    try:
        session: _Session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class
        raise ValueError(f"{model} is not a network that ONNX Runtime can read: {error}") from error
    return session
