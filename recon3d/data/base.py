"""What every data module shares: where its files are, its name and hash for the Record, and how it loads batches.

Between the data sets of this package and Lightning: a data module gives loaders of `ViewBatch`; the runner and the
evaluator read `name`, `categories`, `scale`, `test_split` and `data_hash` and know no data set by class.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from recon3d.data.npz import DataFileError
from recon3d.data.view_sampling import PlannedSampler, world_size
from recon3d.structures import ViewBatch

DATA_VARIABLE = "RECON3D_DATA"


def resolve_root(root: Path | None, name: str) -> Path:
    """Folder of a data set: `root` if given, else ``$RECON3D_DATA/<name>``, else ``./datasets/<name>``."""
    if root is not None:
        return Path(root)
    return Path(os.environ.get(DATA_VARIABLE) or "datasets") / name


class ResumableLoader(DataLoader[ViewBatch]):
    """A loader over a `PlannedSampler` whose position Lightning keeps in checkpoints, as for any loader with a state.

    A run resumed in the middle of an epoch goes on with the batch that would have come next.
    """

    sampler: PlannedSampler
    source = "NAME"  # of the data, for `recon3d data check`
    _given = 0

    def __iter__(self) -> Iterator[ViewBatch]:  # type: ignore[override]
        self._given = self.sampler.skipped
        # A loader of torch draws a seed in every pass, but one whose workers stay in the first only. Ours draws that
        # from a generator of its own, and one for every pass here: what methods draw does not depend on workers.
        torch.empty((), dtype=torch.int64).random_()
        try:
            for batch in super().__iter__():
                self._given += 1
                yield batch
        except DataFileError as error:
            # As it was raised, without the stack of the worker that torch puts before it.
            told = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
            raise DataFileError(f"{told} `recon3d data check {self.source}` lists every such file.") from error
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
                raise
            raise RuntimeError(
                f"{error}. A process that loads data was ended, as the system does when memory runs out. Take fewer "
                "(--data.init_args.num_workers 2), or 0, which loads in the main process."
            ) from error

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that were given out."""
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where `state_dict` was taken; call before iterating."""
        self.sampler.skip_batches(**state_dict)


class ReconstructionDataModule(LightningDataModule, ABC):
    """Loaders of `ViewBatch` and the facts about a data set that its Records keep.

    A subclass fills in `categories`, `scale`, `data_hash` and Lightning's hooks, and makes its loaders with `_loader`.

    Args:
        name: of the data set, in Records and tables.
        batch_size: objects in a batch, over all processes of a distributed run together.
        num_workers: processes that load data; 0 loads in the main process.
        seed: of the training order.
    """

    def __init__(self, name: str, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"Expected batch_size >= 1 and num_workers >= 0, got {batch_size} and {num_workers}.")
        self.name = name
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    @property
    def batch_size_each(self) -> int:
        """Objects in a batch of one process.

        Raises:
            ValueError: `batch_size` cannot be shared evenly.
        """
        each, rest = divmod(self.batch_size, world_size())
        if rest or not each:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {world_size()} processes; take a multiple."
            )
        return each

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """Categories in use, in table order."""

    @property
    @abstractmethod
    def scale(self) -> str:
        """The length that is 1: ``longest_side`` or ``diagonal`` of every object, or of the mean ``keypoints``."""

    @property
    def test_split(self) -> str:
        """The split that `test_dataloader` shows."""
        return "test"

    @abstractmethod
    def data_hash(self) -> str:
        """Hash of the content of the data set, or of its test split, equal on every machine."""

    def _loader(
        self, dataset: Dataset[ViewBatch], plan: Callable[[int], Sequence[Any]], whole_batches: bool = False
    ) -> ResumableLoader:
        """Batches in the order of `plan`; `whole_batches` leaves out a last one that is not full, if others are."""
        sampler = PlannedSampler(plan, self.batch_size_each)
        context = None
        if self.num_workers > 0:
            # A forked copy of a process whose OpenMP runtime has started (numba, torch) may hang; a fork server is
            # clean. It imports the data set's module once, instead of each worker.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([type(dataset).__module__])
        loader = ResumableLoader(
            dataset,
            self.batch_size_each,
            sampler=sampler,
            drop_last=whole_batches and len(sampler) >= self.batch_size_each,
            num_workers=self.num_workers,
            generator=torch.Generator(),
            worker_init_fn=_end_with_parent,
            collate_fn=ViewBatch.collate,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=context,
            persistent_workers=self.num_workers > 0,
        )
        loader.source = str(getattr(self, "root", self.name))
        return loader


def _end_with_parent(_: int) -> None:
    """Have this worker end when the training is killed. Torch's workers watch the fork server, which waits for them."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
