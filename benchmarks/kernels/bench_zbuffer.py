"""Speed of `recon3d.kernels.zbuffer`: the compiled backend against PyTorch3D's CPU rasteriser, forward.

One noisy sphere of 20,480 faces at 128 x 128, and 24 of 1,280 faces at 64 x 64 (one object of the NMR data). PyTorch3D
runs with its own defaults, one face a pixel. A row also holds the share of pixels that see the same face. Target: 50
times as fast on the first, equal faces but for ties.

Run ``python -m benchmarks.kernels.bench_zbuffer`` from the repository root; ``--quick`` tries it on small work and
writes nothing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

from benchmarks.kernels.spheres import projected_spheres
from benchmarks.measure import measure, peak_memory, write_result
from recon3d.kernels import zbuffer


@dataclass(frozen=True)
class Size:
    """One workload and how often each backend is timed on it."""

    images: int
    level: int
    image_size: int
    repeats: dict[str, int]


FULL = (Size(1, 5, 128, {"pytorch3d": 3, "numba": 30}), Size(24, 3, 64, {"pytorch3d": 3, "numba": 30}))
QUICK = (Size(2, 1, 16, {"pytorch3d": 1, "numba": 2}),)


def face_index_by_pytorch3d(meshes: Meshes, image_size: int) -> Tensor:
    """Index of the face that each pixel sees within its image, -1 for none."""
    index = rasterize_meshes(meshes, image_size, faces_per_pixel=1, perspective_correct=True)[0][..., 0]
    first = meshes.mesh_to_faces_packed_first_idx().reshape(-1, 1, 1)
    return torch.where(index >= 0, index - first, -1)


def rows(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for size in sizes:
        face_verts = projected_spheres(size.images, size.level)
        b, f = face_verts.shape[:2]
        meshes = Meshes(face_verts.reshape(b, 3 * f, 3), torch.arange(3 * f).reshape(1, f, 3).expand(b, f, 3))
        run: dict[str, Callable[[], Any]] = {
            "pytorch3d": partial(face_index_by_pytorch3d, meshes, size.image_size),
            "numba": partial(zbuffer, face_verts, size.image_size, backend="numba"),
        }
        expected, seen = run["pytorch3d"](), run["numba"]().face_index  # also the warm-up
        work = {
            "work": f"{b} x {f} faces, {size.image_size} px, forward",
            "baseline": "pytorch3d",
            "images": b,
            "faces": f,
            "image_size": size.image_size,
            "covered": float((expected >= 0).double().mean()),
            "equal_faces": float((expected == seen).double().mean()),
        }
        timings = {backend: measure(run[backend], 0, repeats) for backend, repeats in size.repeats.items()}
        for backend, timing in timings.items():
            ratio = timings["pytorch3d"].median_s / timing.median_s
            speed = {"times_reference": ratio, "times_reference_cpu": timings["pytorch3d"].cpu_s / timing.cpu_s}
            found.append(
                {**work, "backend": backend, **speed, **asdict(timing), "peak_bytes": peak_memory(run[backend])}
            )
            logging.info("%s, %s: %.2f ms, %.1fx", work["work"], backend, timing.median_s * 1e3, ratio)
        logging.info("equal faces: %.6f of the pixels", work["equal_faces"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of zbuffer, forward.")
    parser.add_argument("--quick", action="store_true", help="small work, nothing written")
    if parser.parse_args(arguments).quick:
        rows(QUICK)
    else:
        logging.info("wrote %s", write_result("zbuffer", rows(FULL)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
