"""Speed of `recon3d.kernels.voxelize` at 32^3: the compiled backend against the vectorised torch reference.

Three workloads: a batch of predictions (64 spheres of 1,280 faces, each of its own size), one dense mesh (20,480 faces)
and one mesh with few large faces (a box), solid and surface alone. The backends must agree to the cell before anything
is timed. Both run on one thread and are compared by processor seconds, so the ratio is per core and holds on a busy
machine; over a batch the compiled backend also uses all cores. Target: 20 times the reference, which is itself culled
to the lattice points inside the rectangle around each face.

Run ``python -m benchmarks.kernels.bench_voxelize`` from the repository root.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

import numba
import torch
from torch import Tensor

from benchmarks.measure import measure, peak_memory, write_result
from recon3d.geometry.templates import icosphere
from recon3d.kernels import voxelize

RESOLUTION = 32
REPEATS = {"reference": 5, "numba": 30}


def workloads() -> dict[str, tuple[Tensor, Tensor]]:
    verts, faces = icosphere(3)
    sizes = torch.linspace(0.2, 0.49, 64)[:, None, None] * torch.tensor([1.0, 0.6, 0.8])
    corners = torch.cartesian_prod(*[torch.tensor([-0.45, 0.45])] * 3)
    # fmt: off
    sides = torch.tensor([
        [0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 7, 3], [1, 5, 7],
    ])
    # fmt: on
    return {"64 spheres": (verts * sizes, faces), "dense sphere": icosphere(5, 0.45), "box": (corners, sides)}


def main() -> None:
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (verts, faces) in workloads().items():
        for solid in (True, False):
            run = {
                backend: partial(voxelize, verts, faces, RESOLUTION, solid=solid, backend=backend)
                for backend in REPEATS
            }
            if not torch.equal(run["reference"](), run["numba"]()):
                raise RuntimeError(f"{name}: the backends disagree; times of different results mean nothing.")
            size = {
                "work": f"{name}, {'solid' if solid else 'surface only'}",
                "meshes": len(verts) if verts.ndim == 3 else 1,
                "faces": len(faces),
                "solid": solid,
            }
            timings = {backend: measure(run[backend], 1, repeats) for backend, repeats in REPEATS.items()}
            for backend, timing in timings.items():
                ratio = timings["reference"].cpu_s / timing.cpu_s
                row = {"backend": backend, "resolution": RESOLUTION, "times_reference": ratio}
                rows.append({**size, **row, **asdict(timing), "peak_bytes": peak_memory(run[backend])})
                logging.info("%s solid=%s %s: %.2f ms, %.1fx", name, solid, backend, timing.cpu_s * 1e3, ratio)
    logging.info("wrote %s", write_result("voxelize", rows))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
