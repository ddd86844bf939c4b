"""Which runs a gallery shows: Records that may be compared, and the run folders that hold their weights.

Between the benchmark's files and `reconstructions`. The rules of comparison are those of the tables (`bench.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jsonargparse import ArgumentParser

from recon3d.bench.ranking import Standing, standings
from recon3d.bench.record import Record, load_all
from recon3d.data.base import ReconstructionDataModule


@dataclass(frozen=True)
class Run:
    """One trained method.

    Attributes:
        record: its Record.
        folder: with last.ckpt, recon3d.yaml and samples.csv.
    """

    record: Record
    folder: Path

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.record.method

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.folder / "last.ckpt"

    def samples(self) -> pd.DataFrame:
        """`sample_id`, `category` and a column per measure."""
        # Only an empty cell is missing: a sample may be called NA.
        text = {"sample_id": str, "category": str}
        return pd.read_csv(self.folder / "samples.csv", dtype=text, keep_default_na=False, na_values=[""])

    def data_module(self) -> ReconstructionDataModule:
        """The data that the run was tested on, ready to load in this process.

        Raises:
            ValueError: the run's configuration cannot be read, or the data are not those of the Record.
        """
        path = self.folder / "recon3d.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
            arguments = config["init_args"] | {"seed": self.record.seed, "num_workers": 0}
            parser = ArgumentParser(exit_on_error=False)
            parser.add_subclass_arguments(ReconstructionDataModule, "data")
            parsed: Any = parser.parse_object({"data": config | {"init_args": arguments}})
            data: ReconstructionDataModule = parser.instantiate_classes(parsed).data
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the configuration of a run; run the benchmark again: {error}") from error
        data.prepare_data()
        if data.data_hash() != self.record.data.hash:
            raise ValueError(
                f"{path}: the data found have the hash {data.data_hash()[:12]}, the run was tested on "
                f"{self.record.data.hash[:12]}. Point RECON3D_DATA to that data, or run the benchmark again."
            )
        data.setup("test")
        return data


@dataclass(frozen=True)
class RunSet:
    """All runs on one data set with one preset.

    Attributes:
        standing: what the tables say.
        runs: of each method the lowest seed whose weights are there, in the order of the standing.
    """

    standing: Standing
    runs: tuple[Run, ...]

    @property
    def key(self) -> str:
        """Name of the page."""
        return f"{self.standing.name}-{self.standing.preset}"


def find_runs(
    leaderboard: Path, runs: Path, preset: str, data: list[str] | None, methods: list[str] | None
) -> list[RunSet]:
    """Every data set of which there is at least one trained run that its Record names.

    Args:
        leaderboard: folder with ``results/<data>/<preset>/*.json``.
        runs: folder with ``<data>/<preset>/<method>--seed<k>-<hash>``.
        preset: stem of ``configs/presets/<name>.yaml``.
        data: names of data sets; None takes all.
        methods: names of methods; None takes all.

    Raises:
        FileNotFoundError: no run, or none of a data set or method asked for; the message says what makes one.
    """
    records = [record for record in load_all(leaderboard / "results") if record.preset == preset]
    if methods is not None:
        records = [record for record in records if record.method in methods]
    sets = []
    for standing in standings(records):
        if data is None or standing.name in data:
            found = tuple(_trained(standing, runs))
            if found:
                sets.append(RunSet(standing, found))
    there = {(item.standing.name, run.method) for item in sets for run in item.runs}
    missing = [f"data set {name}" for name in data or () if name not in {pair[0] for pair in there}]
    missing += [f"method {name}" for name in methods or () if name not in {pair[1] for pair in there}]
    if missing or not sets:
        what = ", ".join(missing) or "any method"
        one_data, one_method = (data or ["synthetic"])[0], (methods or ["softras"])[0]
        raise FileNotFoundError(
            f"No trained run of {what} below {runs / '*' / preset} that a Record below {leaderboard} names; "
            f"this makes one: make bench METHOD={one_method} DATA={one_data} PRESET={preset}"
        )
    return sets


def _trained(standing: Standing, runs: Path) -> Iterator[Run]:
    for row in standing.rows:
        for record in row.records:
            name = f"{record.method}--seed{record.seed}-{record.provenance.config_hash[:8]}"
            run = Run(record, runs / record.data.name / record.preset / name)
            if all((run.folder / file).is_file() for file in ("last.ckpt", "recon3d.yaml", "samples.csv")):
                yield run
                break
