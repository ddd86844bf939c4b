"""Speed of `recon3d.kernels.soft_silhouette`, forward and backward: the compiled backend against PyTorch3D's CPU path.

64 noisy spheres of 1,280 faces at 64 x 64, at both values of sigma of SoftRas. A row holds, besides the times, how far
the two agree (values, and the direction of the gradient), how the time of the compiled backend grows with the number
of images, and the memory that it takes beyond its input. PyTorch3D keeps 100 faces a pixel (its backend in
`recon3d.kernels`); this work has about 50 at most, so nothing is truncated. As it takes most of a minute, it is timed
once, without a warm-up call. Targets: 300 times as fast; mean difference under 1e-3, largest under 2e-2, cosine of the
gradients at least 0.999.

Run ``python -m benchmarks.kernels.bench_soft_silhouette`` from the repository root; ``--quick`` tries it on small work
and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.spheres import projected_spheres
from benchmarks.measure import Timing, measure, peak_memory, write_result
from recon3d.kernels import soft_silhouette

SIGMAS = (1e-4, 3e-5)


@dataclass(frozen=True)
class Size:
    """How much work is measured; `image_counts` ends with the largest, on which the backends are compared."""

    level: int
    image_size: int
    image_counts: tuple[int, ...]
    repeats: int


FULL = Size(level=3, image_size=64, image_counts=(8, 16, 32, 64), repeats=15)
QUICK = Size(level=1, image_size=16, image_counts=(1, 2), repeats=2)


def forward_backward(
    face_xy: Tensor, weight: Tensor, sigma: float, backend: str, keep: dict[str, tuple[Tensor, Tensor]]
) -> Callable[[], None]:
    """A call that renders and differentiates ``sum(image * weight)``, and keeps image and gradient under `backend`."""
    inputs = face_xy.clone().requires_grad_()

    def call() -> None:
        image = soft_silhouette(inputs, weight.shape[-1], sigma, backend=backend)
        (gradient,) = torch.autograd.grad((image * weight).sum(), inputs)
        keep[backend] = image.detach(), gradient

    return call


def agreement(results: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    (image, gradient), (expected, expected_gradient) = results["numba"], results["pytorch3d"]
    difference = (image - expected).abs()
    return {
        "mean_abs_difference": float(difference.mean()),
        "max_abs_difference": float(difference.max()),
        "gradient_cosine": float(
            torch.nn.functional.cosine_similarity(gradient.double().flatten(), expected_gradient.double().flatten(), 0)
        ),
        "mean_silhouette": float(expected.mean()),
    }


def time_once(call: Callable[[], None]) -> tuple[Timing, int | None]:
    """Seconds and peak memory of the one call that a slow backend gets."""
    timings: list[Timing] = []
    memory = peak_memory(lambda: timings.append(measure(call, warmup=0, repeats=1)))
    return timings[0], memory


def rows(size: Size) -> list[dict[str, Any]]:
    count = size.image_counts[-1]
    face_xy = projected_spheres(count, size.level)[..., :2].contiguous()
    shape = (count, size.image_size, size.image_size)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found: list[dict[str, Any]] = []
    for sigma in SIGMAS:
        results: dict[str, tuple[Tensor, Tensor]] = {}
        by_images = {
            images: measure(
                forward_backward(face_xy[:images], weight[:images], sigma, "numba", results), 1, size.repeats
            )
            for images in size.image_counts
        }
        once, once_memory = time_once(forward_backward(face_xy, weight, sigma, "pytorch3d", results))
        timings = {"pytorch3d": once, "numba": by_images[count]}
        memory = {
            "pytorch3d": once_memory,
            "numba": peak_memory(forward_backward(face_xy, weight, sigma, "numba", results)),
        }
        work = {
            "work": f"{count} x {face_xy.shape[1]} faces, {size.image_size} px, sigma {sigma:g}, forward + backward",
            "baseline": "pytorch3d",
            "images": count,
            "faces": face_xy.shape[1],
            "image_size": size.image_size,
            "sigma": sigma,
            "input_bytes": face_xy.nbytes,
            "output_bytes": weight.nbytes,
        }
        for backend, timing in timings.items():
            ratio = timings["pytorch3d"].median_s / timing.median_s
            speed = {"times_reference": ratio, "times_reference_cpu": timings["pytorch3d"].cpu_s / timing.cpu_s}
            row = {**work, "backend": backend, **speed, **asdict(timing), "peak_bytes": memory[backend]}
            if backend == "numba":
                row |= agreement(results)
                row["median_s_by_images"] = {str(images): timing.median_s for images, timing in by_images.items()}
            found.append(row)
            logging.info("sigma %g %s: %.4f s, %.1fx", sigma, backend, timing.median_s, ratio)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of soft_silhouette, forward and backward.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("soft_silhouette", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
