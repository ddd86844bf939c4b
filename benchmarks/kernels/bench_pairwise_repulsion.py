"""Speed and memory of `recon3d.kernels.pairwise_repulsion`, forward and backward, on 16 clouds (4 shapes in 4 views).

2,000 points, both forms of the kernel: against autograd through the N x N matrix, as eq. 5 of Zubic and Lio 2021 reads.
8,000 points: against the torch reference, as the matrix would take several times 4 GB; 16,000: by itself, as the
reference takes minutes. All weights are positive, so no pair is left out. A row also says how far it is from its
baseline in values and gradients, and how much memory one call takes in a fresh process beyond what it had. What takes
minutes is timed once, without a warm-up call. Targets: 5 times as fast as the matrix; under 1 GiB of extra memory at
16,000 points.

Run ``python -m benchmarks.kernels.bench_pairwise_repulsion`` from the repository root; ``--quick`` tries it on small
work and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.measure import measure, peak_memory, write_result
from recon3d.kernels import pairwise_repulsion

THETA = 0.05  # of the image width: the default of the Effective Loss
Kernel = Literal["exp", "gauss"]


@dataclass(frozen=True)
class Size:
    """One workload, and how often each backend is timed on it; the first is the baseline; 1 is without a warm-up."""

    points: int
    kernel: Kernel
    repeats: Mapping[str, int]
    clouds: int = 16
    fresh: bool = True  # memory from a process of its own, which has no freed pages to use again


MATRIX = {"matrix": 5, "reference": 3, "numba": 15}
FULL = (
    Size(2_000, "exp", MATRIX),
    Size(2_000, "gauss", MATRIX),
    Size(8_000, "exp", {"reference": 1, "numba": 5}),
    Size(16_000, "exp", {"numba": 3}),
)
QUICK = (
    Size(60, "exp", dict.fromkeys(MATRIX, 2), clouds=2, fresh=False),
    Size(60, "gauss", dict.fromkeys(MATRIX, 2), clouds=2, fresh=False),
    Size(120, "exp", {"reference": 1, "numba": 2}, clouds=2, fresh=False),
)

Results = dict[str, tuple[Tensor, ...]]


def matrix(xy: Tensor, weight: Tensor, bias: Tensor, theta: float, kernel: Kernel) -> Tensor:
    """The same by the matrix of all pairs, as plain torch."""
    n = xy.shape[1]
    squared = (xy[:, :, None] - xy[:, None]).square().sum(dim=-1)
    # The diagonal is left out below; 1 there keeps the derivative of the root finite.
    exponent = squared.add(torch.eye(n)).sqrt() / theta if kernel == "exp" else squared / theta**2
    close = torch.exp(-exponent).masked_fill(torch.eye(n, dtype=torch.bool), 0.0)
    rows = (close @ weight.unsqueeze(-1)).squeeze(-1)
    return (weight * bias.exp() * rows).sum(dim=1) / n**2


def forward_backward(backend: str, kernel: Kernel, clouds: int, points: int, keep: Results) -> Callable[[], None]:
    """A call that takes the values of uniform clouds and the gradients of their sum; keeps both by `backend`."""
    generator = torch.Generator().manual_seed(0)
    xy = (torch.rand(clouds, points, 2, generator=generator) - 0.5).requires_grad_()
    weight = (0.5 + 0.5 * torch.rand(clouds, points, generator=generator)).requires_grad_()
    bias = torch.rand(clouds, points, generator=generator).requires_grad_()

    def call() -> None:
        if backend == "matrix":
            value = matrix(xy, weight, bias, THETA, kernel)
        else:
            value = pairwise_repulsion(xy, weight, bias, THETA, kernel, backend)
        keep[backend] = value.detach(), *torch.autograd.grad(value.sum(), (xy, weight, bias))

    return call


def extra_memory(backend: str, kernel: Kernel, clouds: int, points: int) -> int | None:
    """Bytes that one call takes beyond what the process had after a small one (which compiles); for a fresh process."""
    forward_backward(backend, kernel, 1, 8, {})()
    return peak_memory(forward_backward(backend, kernel, clouds, points, {}))


def agreement(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> dict[str, float]:
    """Largest differences from the baseline, each relative to the largest entry of the baseline."""
    names = ("value", "xy_gradient", "weight_gradient", "bias_gradient")
    return {
        f"{name}_max_difference": float((a - b).abs().max() / b.abs().max())
        for name, a, b in zip(names, found, expected, strict=True)
    }


def rows(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for size in sizes:
        baseline = next(iter(size.repeats))
        work = {
            "work": f"{size.clouds} x {size.points:,} points, {size.kernel}, forward + backward",
            "baseline": baseline,
            "clouds": size.clouds,
            "points": size.points,
            "kernel": size.kernel,
            "theta": THETA,
        }
        results: Results = {}
        timings = {}
        for backend, repeats in size.repeats.items():
            call = forward_backward(backend, size.kernel, size.clouds, size.points, results)
            timings[backend] = measure(call, warmup=0 if repeats == 1 else 1, repeats=repeats)
        for backend, timing in timings.items():
            shape = backend, size.kernel, size.clouds, size.points
            if size.fresh:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    peak = process.submit(extra_memory, *shape).result()
            else:
                peak = extra_memory(*shape)
            ratio = timings[baseline].median_s / timing.median_s
            row = {
                **work,
                "backend": backend,
                "times_reference": ratio,
                "times_reference_cpu": timings[baseline].cpu_s / timing.cpu_s,
                **asdict(timing),
                "peak_bytes": peak,
                **agreement(results[backend], results[baseline]),
            }
            found.append(row)
            logging.info(
                "%s, %s: %.4f s, %.1fx, %.0f MiB",
                work["work"], backend, timing.median_s, ratio, (peak or 0) / 2**20,
            )  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of pairwise_repulsion, forward and backward.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("pairwise_repulsion", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
