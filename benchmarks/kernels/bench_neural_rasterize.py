"""Speed of `recon3d.kernels.neural_rasterize`, forward and backward: the compiled backend against the torch reference.

64 noisy spheres of 1,280 faces at 128 x 128 (what the Neural 3D Mesh Renderer rasterises for 64 x 64 training images):
silhouettes, with gradients to the corners, and colours of 2 x 2 x 2 textures, with gradients to corners and textures.
`soft_silhouette` on the same faces and pixels, at its training sigma, stands beside them. A row of the compiled backend
also says how far the two agree in values and in gradients. As the reference takes minutes, it is timed once, without a
warm-up call. Targets: 100 times as fast as the reference; silhouettes within 4 times the time of `soft_silhouette`.

Run ``python -m benchmarks.kernels.bench_neural_rasterize`` from the repository root; ``--quick`` tries it on small work
and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.bench_soft_silhouette import time_once
from benchmarks.kernels.spheres import projected_spheres
from benchmarks.measure import Timing, measure, peak_memory, write_result
from recon3d.kernels import neural_rasterize, soft_silhouette

SOFT_SIGMA = 1e-4
TEXTURE_SIZE = 2
EPS = {"silhouettes": 1e-4, "colours": 1e-3}  # as the authors' code


@dataclass(frozen=True)
class Size:
    """How much work is measured, and how often the compiled backend is timed on it."""

    images: int
    level: int
    image_size: int
    repeats: int


FULL = Size(images=64, level=3, image_size=128, repeats=15)
QUICK = Size(images=2, level=1, image_size=16, repeats=2)

Results = dict[str, tuple[Tensor, ...]]


def forward_backward(
    render: Callable[..., Tensor], inputs: Sequence[Tensor], weight: Tensor, name: str, keep: Results
) -> Callable[[], None]:
    """A call that renders and differentiates ``sum(image * weight)``; keeps the image and the gradients by `name`."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]

    def call() -> None:
        image = render(*leaves)
        keep[name] = image.detach(), *torch.autograd.grad((image * weight).sum(), leaves)

    return call


def silhouettes(backend: str, image_size: int, face_verts: Tensor) -> Tensor:
    return neural_rasterize(face_verts, image_size, eps=EPS["silhouettes"], backend=backend).mask


def colours(backend: str, image_size: int, face_verts: Tensor, textures: Tensor) -> Tensor:
    image = neural_rasterize(face_verts, image_size, textures, eps=EPS["colours"], backend=backend).image
    assert image is not None  # it has textures
    return image


def agreement(results: Results) -> dict[str, float]:
    """How far the compiled backend is from the reference; gradients are of the corners, then of the textures."""
    (image, *gradients), (expected, *expected_gradients) = results["numba"], results["reference"]
    found = {"max_abs_difference": float((image - expected).abs().max()), "mean_value": float(expected.mean())}
    for name, a, b in zip(("gradient", "texture_gradient"), gradients, expected_gradients, strict=False):
        a, b = a.double().flatten(), b.double().flatten()
        found[f"{name}_cosine"] = float(torch.nn.functional.cosine_similarity(a, b, 0))
        found[f"{name}_max_abs_difference"] = float((a - b).abs().max())
        found[f"{name}_max_abs"] = float(b.abs().max())
    return found


def rows(size: Size) -> list[dict[str, Any]]:
    face_verts = projected_spheres(size.images, size.level)
    b, f = face_verts.shape[:2]
    generator = torch.Generator().manual_seed(1)
    square = size.image_size, size.image_size
    mask_weight = torch.randn(b, *square, generator=generator)
    image_weight = torch.randn(b, 3, *square, generator=generator)
    textures = torch.rand(b, f, *[TEXTURE_SIZE] * 3, 3, generator=generator)
    face_xy = face_verts[..., :2].contiguous()
    soft_render = partial(soft_silhouette, image_size=size.image_size, sigma=SOFT_SIGMA, backend="numba")
    soft_call = forward_backward(soft_render, [face_xy], mask_weight, "soft", {})
    soft = measure(soft_call, 1, size.repeats)
    facts = {"baseline": "reference", "images": b, "faces": f, "image_size": size.image_size}
    found: list[dict[str, Any]] = []

    def add(timing: Timing, reference: Timing, **fields: Any) -> None:
        ratio = reference.median_s / timing.median_s
        speed = {"times_reference": ratio, "times_reference_cpu": reference.cpu_s / timing.cpu_s}
        found.append({**facts, **fields, **speed, **asdict(timing)})
        logging.info("%s, %s: %.4f s, %.1fx", fields["work"], fields["backend"], timing.median_s, ratio)

    for name, render, inputs, weight in (
        ("silhouettes", silhouettes, [face_verts], mask_weight),
        ("colours", colours, [face_verts, textures], image_weight),
    ):
        results: Results = {}
        call = {
            backend: forward_backward(partial(render, backend, size.image_size), inputs, weight, backend, results)
            for backend in ("reference", "numba")
        }
        compiled = measure(call["numba"], 1, size.repeats)
        reference, reference_memory = time_once(call["reference"])
        label = f"{b} x {f} faces, {size.image_size} px"
        work = {
            "work": f"{label}, {name}, forward + backward",
            "eps": EPS[name],
            "input_bytes": sum(tensor.nbytes for tensor in inputs),
            "output_bytes": weight.nbytes,
        }
        add(reference, reference, **work, backend="reference", peak_bytes=reference_memory)
        compared = agreement(results) | {"times_as_fast_as_soft_silhouette": soft.median_s / compiled.median_s}
        add(compiled, reference, **work, backend="numba", peak_bytes=peak_memory(call["numba"]), **compared)
        if name == "silhouettes":
            beside = f"{label}, soft_silhouette at sigma {SOFT_SIGMA:g}, forward + backward"
            add(soft, reference, work=beside, sigma=SOFT_SIGMA, backend="numba", peak_bytes=peak_memory(soft_call))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of neural_rasterize, forward and backward.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("neural_rasterize", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
