"""Speed of `recon3d.kernels.soft_rgb`, forward and backward: the compiled backend against PyTorch3D's CPU rasteriser.

64 noisy spheres of 1,280 faces at 64 x 64, with corner colours and with an atlas of 6 x 6 texels a face, at the two
values of sigma in use (1e-4 of SoftRas, 1e-5 of UMR). A row holds, besides the times, how far the two agree (values,
and the direction of the gradients to corners and colours) and the memory that a call takes beyond its input. As
PyTorch3D takes most of a minute, it is timed once, without a warm-up call. Targets: at most 0.2 s for the compiled
backend on one core; mean difference under 1e-4; cosine of the gradients at least 0.999.

Run ``python -m benchmarks.kernels.bench_soft_rgb`` from the repository root; ``--quick`` tries it on small work and
writes nothing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.bench_soft_silhouette import time_once
from benchmarks.kernels.spheres import projected_spheres
from benchmarks.measure import measure, peak_memory, write_result
from recon3d.kernels import soft_rgb

SIGMAS = (1e-4, 1e-5)
GAMMA = 1e-4
TEXELS = 6


@dataclass(frozen=True)
class Size:
    """How much work is measured."""

    images: int
    level: int
    image_size: int
    repeats: int


FULL = Size(images=64, level=3, image_size=64, repeats=15)
QUICK = Size(images=2, level=1, image_size=16, repeats=2)


def forward_backward(
    face_verts: Tensor, colors: Tensor, weight: Tensor, sigma: float, backend: str, keep: dict[str, tuple[Tensor, ...]]
) -> Callable[[], None]:
    """A call that renders and differentiates ``sum(image * weight)``, and keeps image and gradients under `backend`."""
    inputs = face_verts.clone().requires_grad_(), colors.clone().requires_grad_()

    def call() -> None:
        image = soft_rgb(*inputs, weight.shape[-1], sigma, GAMMA, backend=backend)
        keep[backend] = image.detach(), *torch.autograd.grad((image * weight).sum(), inputs)

    return call


def agreement(results: dict[str, tuple[Tensor, ...]]) -> dict[str, float]:
    difference = (results["numba"][0] - results["pytorch3d"][0]).abs()
    cosines = [
        float(torch.nn.functional.cosine_similarity(came.double().flatten(), expected.double().flatten(), 0))
        for came, expected in zip(results["numba"][1:], results["pytorch3d"][1:], strict=True)
    ]
    return {
        "mean_abs_difference": float(difference.mean()),
        "max_abs_difference": float(difference.max()),
        "gradient_cosine_verts": cosines[0],
        "gradient_cosine_colors": cosines[1],
    }


def rows(size: Size) -> list[dict[str, Any]]:
    face_verts = projected_spheres(size.images, size.level)
    b, f = face_verts.shape[:2]
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(b, 3, size.image_size, size.image_size, generator=generator)
    kinds = {
        "corner colours": torch.rand(b, f, 3, 3, generator=generator),
        f"atlas of {TEXELS} x {TEXELS}": torch.rand(b, f, TEXELS, TEXELS, 3, generator=generator),
    }
    found: list[dict[str, Any]] = []
    for kind, colors in kinds.items():
        for sigma in SIGMAS:
            results: dict[str, tuple[Tensor, ...]] = {}
            compiled = forward_backward(face_verts, colors, weight, sigma, "numba", results)
            slow = forward_backward(face_verts, colors, weight, sigma, "pytorch3d", results)
            once, once_memory = time_once(slow)
            timings = {"pytorch3d": once, "numba": measure(compiled, 1, size.repeats)}
            memory = {"pytorch3d": once_memory, "numba": peak_memory(compiled)}
            for backend, timing in timings.items():
                ratio = timings["pytorch3d"].median_s / timing.median_s
                row = {
                    "work": f"{b} x {f} faces, {kind}, {size.image_size} px, sigma {sigma:g}, forward + backward",
                    "baseline": "pytorch3d",
                    "images": b,
                    "faces": f,
                    "image_size": size.image_size,
                    "sigma": sigma,
                    "backend": backend,
                    "times_reference": ratio,
                    "times_reference_cpu": timings["pytorch3d"].cpu_s / timing.cpu_s,
                    **asdict(timing),
                    "peak_bytes": memory[backend],
                }
                found.append(row | (agreement(results) if backend == "numba" else {}))
                logging.info("%s, %s: %.4f s, %.1fx", row["work"], backend, timing.median_s, ratio)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of soft_rgb, forward and backward.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("soft_rgb", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
