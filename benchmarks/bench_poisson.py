"""Time and quality of `recon3d.geometry.poisson.poisson_surface` on raw clouds of known solids.

Sphere, torus, thin plate, and a sphere whose halves differ five to one in density; N points without normals, with
Gaussian noise of 0.005 object units; R grid cells along the longest side. IoU is of the solids at 128^3 by the rule of
`recon3d.kernels.voxelize`; the Chamfer distance is the sum of both mean distances between 20,000 samples of each
surface, in hundredths of an object unit. Each case also runs without area weights, and with the backend open3d
(screened Poisson) where it can be imported. Times are of one cloud on one thread, from points to mesh.

The result goes to ``benchmarks/results/quality``, beside the speeds of kernels, because its rows are no such speeds.

Run ``python -m benchmarks.bench_poisson`` from the repository root; ``--device cuda`` on a GPU, ``--quick`` for a look.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal
from unittest import mock

import numba
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.measure import measure, peak_memory, write_result
from recon3d.geometry import poisson
from recon3d.geometry.normals import OrientedPoints, oriented_points
from recon3d.geometry.sampling import sample_surface
from recon3d.kernels.voxelize import voxelize
from recon3d.metrics.mesh_health import is_watertight

NOISE, CELLS, SAMPLES = 0.005, 128, 20_000
SOLIDS = {
    "sphere": lambda: trimesh.creation.icosphere(subdivisions=5, radius=0.4),
    "sphere, density 5:1": lambda: trimesh.creation.icosphere(subdivisions=5, radius=0.4),
    "torus": lambda: trimesh.creation.torus(0.35, 0.1, major_sections=128, minor_sections=64),
    "plate 0.05 thick": lambda: trimesh.creation.box((0.9, 0.05, 0.7)),
}


@dataclass(frozen=True)
class Size:
    """What is run."""

    points: tuple[int, ...]
    resolutions: tuple[int, ...]
    repeats: int


FULL, QUICK = Size((500, 2000, 8000, 16000), (64, 96, 128), 3), Size((500,), (64,), 1)


def raw_cloud(name: str, verts: Tensor, faces: Tensor, n: int) -> Tensor:
    """N noisy points of the surface; of the uneven sphere, five of six on the side of +X."""
    generator = torch.Generator().manual_seed(0)
    points = sample_surface(verts, faces, 8 * n, generator)[0]
    if "density" in name:
        dense = points[:, 0] > 0
        points = torch.cat([points[dense][: n - n // 6], points[~dense][: n // 6]])
    points = points[:n] if "density" in name else points[torch.randperm(len(points), generator=generator)[:n]]
    return points + NOISE * torch.randn(points.shape, generator=generator)


def without_weights(points: Tensor, k: int) -> OrientedPoints:
    shell = oriented_points(points, k)
    return shell._replace(areas=torch.ones_like(shell.areas))


def quality(verts: Tensor, faces: Tensor, true_verts: Tensor, true_faces: Tensor) -> dict[str, Any]:
    ours, true = (voxelize(v, f, CELLS) for v, f in ((verts, faces), (true_verts, true_faces)))
    one, other = (
        sample_surface(v, f, SAMPLES, torch.Generator().manual_seed(1))[0].numpy()
        for v, f in ((verts, faces), (true_verts, true_faces))
    )
    distances = cKDTree(one).query(other)[0].mean() + cKDTree(other).query(one)[0].mean()
    return {
        "iou": int((ours & true).sum()) / int((ours | true).sum()),
        "chamfer_x100": 100 * float(distances),
        "watertight": bool(is_watertight(faces.numpy())),
        "faces": len(faces),
    }


def rows(size: Size, device: str = "cpu") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    backends: list[Literal["spectral", "open3d"]] = ["spectral"]
    if importlib.util.find_spec("open3d") is not None:
        backends.append("open3d")
    for name, make in SOLIDS.items():
        solid = make()
        true = torch.tensor(solid.vertices).float(), torch.tensor(solid.faces)
        for n in size.points:
            cloud = raw_cloud(name, *true, n).to(device)
            for resolution in size.resolutions:
                for backend, weighted in [("spectral", False), *((backend, True) for backend in backends)]:
                    run = partial(poisson.poisson_surface, cloud[None], resolution=resolution, backend=backend)
                    with mock.patch.object(
                        poisson, "oriented_points", oriented_points if weighted else without_weights
                    ):
                        mesh = run().cpu()
                        timing = measure(run, 1, size.repeats, device)
                        memory = peak_memory(run, device)
                    row = {"solid": name, "points": n, "resolution": resolution, "backend": backend}
                    row |= {"weights": weighted if backend == "spectral" else None, "peak_bytes": memory}
                    row |= quality(mesh.verts_list()[0], mesh.faces_list()[0], *true) | asdict(timing)
                    found.append(row)
                    logging.info(
                        "%s N=%d R=%d %s%s: IoU %.3f, Chamfer %.2f, %.0f ms",
                        *(name, n, resolution, backend, "" if weighted else " without weights"),
                        *(row["iou"], row["chamfer_x100"], 1e3 * timing.cpu_s),
                    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small size, writes nothing")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    found = rows(QUICK if options.quick else FULL, options.device)
    if not options.quick:
        logging.info("wrote %s", write_result("quality/poisson", found, options.device))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
