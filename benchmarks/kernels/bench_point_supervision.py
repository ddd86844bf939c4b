"""Time of one training signal for point clouds: by rendering (`dpc`) and without it (`effective_loss`).

The question of table 3 of Zubic and Lio 2021, for one iteration: 16 clouds (4 objects in 4 views) at the three sizes of
the paper. Both methods run as they train, with their defaults: once the losses alone, from clouds to their gradients,
and once the whole step, with network and optimiser. The clouds are balls inside their silhouettes, so that the
Effective Loss leaves no pair out; DPC smooths and draws points as halfway through its training. A row also holds the
memory that a call takes beyond what was in use. What takes seconds is timed few times.

Run ``python -m benchmarks.kernels.bench_point_supervision`` from the repository root; ``--quick`` tries it on small
work and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import measure, peak_memory, write_result
from recon3d.geometry.cameras import NMR_DISTANCE, NMR_VIEWS, nmr_cameras
from recon3d.methods.dpc import DifferentiablePointClouds
from recon3d.methods.effective_loss import EffectiveLossPC
from recon3d.methods.point_cloud import SilhouettePointCloud
from recon3d.structures import Camera, ViewBatch

OBJECTS, VIEWS = 4, 4  # of a step, in the paper
SIGMA, KEEP = 1.6, 0.535  # halfway from 3 to 0.2 cells, and from 7 % of the points to all
BALL, DISC = 0.3, 0.33  # radii of the clouds and of the balls that were seen


@dataclass(frozen=True)
class Size:
    """One workload and how often each side is timed on it."""

    resolution: int
    points: int
    repeats: int
    image_size: int = 64  # of images and masks
    width: int = 16
    hidden: int = 1024


FULL = (Size(32, 2_000, 25), Size(64, 8_000, 7), Size(128, 16_000, 3, image_size=128))
QUICK = (Size(16, 60, 2, image_size=16, width=2, hidden=8),)


def both_methods(size: Size) -> dict[str, SilhouettePointCloud]:
    """The baseline first; on the same network."""
    torch.manual_seed(0)
    shared: dict[str, Any] = {
        "n_points": size.points, "resolution": size.resolution, "views": VIEWS, "image_size": size.image_size,
        "width": size.width, "hidden": size.hidden,
    }  # fmt: skip
    halfway: dict[str, Any] = {"sigma": (SIGMA, SIGMA), "keep": (KEEP, KEEP)}
    return {"dpc": DifferentiablePointClouds(**shared, **halfway), "effective_loss": EffectiveLossPC(**shared)}


def balls(size: int) -> ViewBatch:
    """Objects that are seen as discs from everywhere; noise as colours."""
    camera = nmr_cameras()[:: NMR_VIEWS // VIEWS]
    ndc = 1 - (2 * torch.arange(size) + 1) / size
    radius = float(camera.focal[0, 0]) * DISC / math.sqrt(NMR_DISTANCE**2 - DISC**2)
    disc = (ndc[:, None].square() + ndc.square() < radius**2).float()
    return ViewBatch(
        images=torch.rand(OBJECTS, VIEWS, 3, size, size, generator=torch.Generator().manual_seed(0)),
        masks=disc.repeat(OBJECTS, VIEWS, 1, 1, 1),
        sample_id=tuple(f"ball/{index}" for index in range(OBJECTS)),
        category=("ball",) * OBJECTS,
        cameras=Camera.cat([camera[None]] * OBJECTS),
    )


def weighted_sum(method: SilhouettePointCloud, losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([method.loss_weights[name] * value.mean() for name, value in losses.items()]).sum()


def signal(method: SilhouettePointCloud, batch: ViewBatch, size: Size) -> Callable[[], None]:
    """A call that judges balls of points and differentiates the losses with respect to them."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(OBJECTS, 1, size.points, 3, generator=generator), dim=-1)
    radius = BALL * torch.rand(OBJECTS, 1, size.points, 1, generator=generator) ** (1 / 3)
    clouds = (direction * radius).requires_grad_()
    code = torch.zeros(OBJECTS, 1, size.hidden)

    def call() -> None:
        assert batch.cameras is not None
        losses = method.view_losses(method.silhouettes(batch), clouds, code, batch.cameras)
        torch.autograd.grad(weighted_sum(method, losses), clouds)

    return call


def step(method: SilhouettePointCloud, batch: ViewBatch) -> Callable[[], None]:
    """A call that trains the method on the batch once."""
    optimizer = method.configure_optimizers()

    def call() -> None:
        optimizer.zero_grad()
        losses = method.losses(batch, method(batch.inputs(method.in_channels, method.encoded_views)))
        weighted_sum(method, losses).backward()
        optimizer.step()

    return call


def rows(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for size in sizes:
        batch, methods = balls(size.image_size), both_methods(size)
        baseline = next(iter(methods))
        calls = {
            "losses": {name: signal(method, batch, size) for name, method in methods.items()},
            "whole step": {name: step(method, batch) for name, method in methods.items()},
        }
        for what, by_method in calls.items():
            timings = {name: measure(call, 1, size.repeats) for name, call in by_method.items()}
            for name, timing in timings.items():
                row = {
                    "work": f"{OBJECTS * VIEWS} x {size.points:,} points, {size.resolution} px, {what}",
                    "baseline": baseline,
                    "backend": name,
                    "clouds": OBJECTS * VIEWS,
                    "points": size.points,
                    "resolution": size.resolution,
                    "image_size": size.image_size,
                    "times_reference": timings[baseline].median_s / timing.median_s,
                    "times_reference_cpu": timings[baseline].cpu_s / timing.cpu_s,
                    **asdict(timing),
                    "peak_bytes": peak_memory(by_method[name]),
                }
                found.append(row)
                logging.info("%s, %s: %.4f s, %.2fx", row["work"], name, timing.median_s, row["times_reference"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time of a training signal for clouds, by rendering and without.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("point_supervision", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
