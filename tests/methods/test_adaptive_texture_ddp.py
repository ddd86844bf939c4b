"""The adversarial training in two processes, by Lightning's plain `ddp`: it refuses parameters without a gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from lightning import Trainer
from torch.utils.data import DataLoader
from recon3d.methods.adaptive_texture import AdaptiveTextureUMR
from recon3d.structures import Camera, ViewBatch
from tests.conftest import TINY_NETWORKS

def main():
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(4, 1, 1, 64, 64)
    masks[..., 16:48, 12:52] = 1
    images = torch.rand(4, 1, 3, 64, 64, generator=generator)
    batches = [ViewBatch(images + 0.01 * n, masks, ("a", "b", "c", "d"), ("x",) * 4) for n in range(4)]
    torch.manual_seed(0)
    method = AdaptiveTextureUMR(**TINY_NETWORKS["adaptive_texture"], template_epochs=1, template_every=1, lr=1e-3)
    before = {name: value.clone() for name, value in method.named_parameters()}
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=True,
    )
    trainer.fit(method, DataLoader(batches, batch_size=None))
    still = [name for name, value in method.named_parameters() if torch.equal(value, before[name])]
    total = {name: float(value.double().sum()) for name, value in method.state_dict().items()}
    Path(sys.argv[1], f"rank{trainer.global_rank}.json").write_text(json.dumps([still, total, trainer.global_step]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_two_processes_train_one_method(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (still, first, steps), (_, second, _) = (
        json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)
    )
    assert still == [] and steps == 6  # of 4 batches each process sees 2 in an epoch
    # Running statistics of batch norm are each process's own, as DDP leaves them to the first in its next step.
    alike = [name for name in first if "running_" not in name and "num_batches" not in name]
    assert {name: first[name] for name in alike} == {name: second[name] for name in alike}
