"""Two processes that share one sample give the results of one process, on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from dataclasses import asdict
import torch
from recon3d.evaluation.evaluator import Evaluator
from recon3d.structures import Reconstruction, ViewBatch

rank, world, store, samples = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
if world > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
evaluator = Evaluator()
evaluator.start()
for k in samples:
    points = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(k))
    masks = torch.ones(1, 1, 1, 8, 8)
    keypoints = torch.cat([0.3 * points[None, :, :5, :2], torch.ones(1, 1, 5, 1)], dim=3)
    flow = (keypoints[:, 0, :, None, :2] + 0.04 * k).expand(-1, -1, 4, -1)
    batch = ViewBatch(masks.expand(-1, -1, 3, -1, -1), masks, (f"shape/{k % 2}/v0{k}",),
                      ("even" if k % 2 == 0 else "odd",), points=points, keypoints=keypoints)
    evaluator.update(Reconstruction(points=points + 0.01 * k, flow=flow), batch)
evaluator.finish()
print(json.dumps([{name: asdict(result) for name, result in evaluator.results.items()}, evaluator.samples.to_json()]))
if world > 1:
    torch.distributed.destroy_process_group()
"""


def run(folder: Path, samples: list[list[int]]) -> list[list[Any]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(len(samples)), str(folder / "store"), json.dumps(part)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank, part in enumerate(samples)
    ]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(samples)
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    (alone,) = run(tmp_path, [[0, 1, 2, 3]])
    first, second = run(tmp_path, [[0, 3], [1, 2, 3]])
    assert first == second == alone
    # Two objects of two views; those of object 0 were measured in different processes. The first moved less.
    results = dict(first[0])
    best, mean = results["chamfer_best"], results["chamfer"]
    assert (best["n"], mean["n"]) == (2, 4)
    assert best["per_category"]["even"] == 0.0 < best["per_category"]["odd"] < best["interval"][1] + 1e-9
    assert best["value"] < mean["value"]
    # The pairs are drawn from the samples of both, each counted once.
    assert 0 < results["pck_flow"]["value"] < 1 and 7000 < results["pck_flow"]["n"] < 8000


@pytest.mark.slow
def test_a_process_without_samples_agrees_too(tmp_path: Path) -> None:
    (alone,) = run(tmp_path, [[2]])
    first, second = run(tmp_path, [[2], []])
    assert first == second == alone
    assert dict(first[0])["chamfer"]["n"] == 1
