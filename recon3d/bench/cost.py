"""What a run costs on its device: time and memory, measured by `bench.runner` for the `Cost` of a Record."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace

import torch

from recon3d.bench.record import Record
from recon3d.methods.base import ReconstructionMethod
from recon3d.structures import ViewBatch


def ms_per_image(method: ReconstructionMethod, batch: ViewBatch, repeats: int = 20) -> float:
    """Median milliseconds to reconstruct one image, after three warm-up rounds."""
    one = ViewBatch(
        images=batch.images[:1],
        masks=batch.masks[:1],
        sample_id=batch.sample_id[:1],
        category=batch.category[:1],
        cameras=batch.cameras[:1] if batch.cameras is not None else None,
    )
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 3):
            start = time.perf_counter()
            method.reconstruct(one)
            if one.images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return 1e3 * sorted(times[3:])[repeats // 2]


def peak_mib(device: torch.device) -> float:
    """Highest memory in use: of the accelerator, else of this process (Linux counts in KiB, macOS in bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def with_cost_of(earlier: Record, record: Record) -> Record:
    """`record` of a run that was only tested now, with the memory that its training took.

    Of two times of a reconstruction on one device the shorter counts: it was disturbed less by other work.
    """
    kept = [earlier.cost, record.cost]
    peak = max((cost.peak_mem_mib for cost in kept if cost.peak_mem_mib is not None), default=None)
    same_device = earlier.provenance.device == record.provenance.device
    times = [cost.ms_per_image for cost in (kept if same_device else kept[1:]) if cost.ms_per_image is not None]
    return replace(record, cost=replace(record.cost, peak_mem_mib=peak, ms_per_image=min(times, default=None)))
