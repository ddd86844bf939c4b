"""Samples that are damaged, and processes that load them and end: what a training says of them."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from recon3d.data.base import ReconstructionDataModule
from recon3d.data.dpc_layout import read_image, read_voxels
from recon3d.data.npz import DataFileError
from recon3d.data.photograph_annotations import read_truth
from recon3d.structures import ViewBatch


class Pictures(Dataset[ViewBatch]):
    """Pictures of a folder; `exit` in the place of one ends the process that reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, index: int) -> ViewBatch:
        if (self.folder / f"{index}.exit").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        image = torch.from_numpy(read_image(self.folder / f"{index}.png")).float()[None, None] / 255
        return ViewBatch(images=image[:, :, :3], masks=image[:, :, 3:], sample_id=(str(index),), category=("egg",))


class PictureModule(ReconstructionDataModule):
    categories = ("egg",)
    scale = "diagonal"

    def __init__(self, root: Path, num_workers: int) -> None:
        super().__init__("pictures", 2, num_workers, seed=0)
        self.root = root

    def data_hash(self) -> str:
        return "0"

    def train_dataloader(self) -> Any:
        return self._loader(Pictures(self.root), partial(_in_order, count=8))


def _in_order(epoch: int, count: int) -> list[int]:
    return list(range(count))


@pytest.fixture
def pictures(tmp_path) -> Path:
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 255, (16, 16, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_named_with_the_command_that_finds_all(pictures, workers):
    path = pictures / "5.png"
    path.write_bytes(path.read_bytes()[:200])
    batches = iter(PictureModule(pictures, workers).train_dataloader())
    assert [next(batches).sample_id, next(batches).sample_id] == [("0", "1"), ("2", "3")]
    with pytest.raises(DataFileError) as caught:
        next(batches)
    told = str(caught.value)
    assert told.startswith(f"{path}: not readable as an image") and "worker process" not in told
    assert f"`recon3d data check {pictures}` lists every such file" in told


def test_a_worker_that_is_killed_is_an_error_with_a_remedy_and_no_wait_without_end(pictures):
    (pictures / "5.exit").touch()
    with pytest.raises(RuntimeError, match=r"exited unexpectedly.*num_workers 2\), or 0"):
        list(PictureModule(pictures, 2).train_dataloader())


def test_what_a_method_draws_does_not_depend_on_the_workers(pictures):
    drawn = []
    for workers in (0, 2):
        torch.manual_seed(3)
        loader, seen = PictureModule(pictures, workers).train_dataloader(), []
        for _ in range(2):
            seen += [(batch.sample_id, torch.rand(()).item()) for batch in loader]
        drawn.append(seen)
    assert drawn[0] == drawn[1] and len({value for _, value in drawn[0]}) == 8


def test_workers_end_with_a_process_that_is_killed(pictures):
    """Else they would stay for ever, with their memory and the output of the process."""
    code = (
        "import os, pathlib, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_damaged_samples import PictureModule\n"
        "batches = iter(PictureModule(pathlib.Path(sys.argv[1]), 2).train_dataloader())\n"
        "next(batches)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    # The output has its end when the last process that holds it has ended.
    done = subprocess.run(
        [sys.executable, "-c", code, str(pictures), str(Path(__file__).parent)], stdout=subprocess.PIPE, timeout=300
    )
    assert done.returncode == -signal.SIGKILL


def _archive(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


VOXELS = np.random.default_rng(0).random((32, 32, 32)) > 0.5
TRUTH = {"points": np.random.default_rng(0).random((50, 3)), "normals": np.zeros((50, 3)), "voxels": VOXELS}


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("truth.npz", _archive(**TRUTH), lambda path: read_truth(path, mirrored=False)),
        ("voxels.npz", _archive(voxels=VOXELS), lambda path: read_voxels(path.parent)),
    ],
)
def test_whatever_byte_is_wrong_the_file_is_named(tmp_path, name: str, content: bytes, read: Callable[[Path], Any]):
    path, generator, failed = tmp_path / name, random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 8])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged[: generator.randrange(1, len(damaged))] if generator.random() < 0.3 else damaged)
        try:
            read(path)
        except DataFileError as error:
            assert str(path) in str(error)
            failed += 1
    assert failed > 100
