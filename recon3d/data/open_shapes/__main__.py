"""Command line of the open_shapes build: `recon3d data open-shapes [--out DIR]`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track
from rich.table import Table

from recon3d.data.base import resolve_root
from recon3d.data.open_shapes.build import build_open_shapes
from recon3d.data.open_shapes.catalogue import Model
from recon3d.data.open_shapes.packages import PACKAGES

SPLITS = ("train", "val", "test")


def main(argv: list[str] | None = None) -> int:
    """Exit code of the build: 0 if the set was written, 1 with a message on stderr if not.

    Args:
        argv: arguments without the program's name; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="recon3d data open-shapes",
        description="Build open_shapes, openly licensed CAD meshes in ShapeNet's categories, from Debian packages.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=resolve_root(None, "open_shapes"),
        help="folder of the set; a former build there is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--packages",
        type=Path,
        metavar="DIR",
        help="folder with one folder per package as `dpkg -x` unpacks it; otherwise they are fetched (0.9 GB)",
    )
    parser.add_argument("--category", help="build only this category")
    parser.add_argument("--log", type=Path, help="write here what was left out, and which models are near each other")
    arguments = parser.parse_args(argv)

    errors = Console(stderr=True)
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=errors, show_path=False)]
    )
    packages = arguments.packages and {name: arguments.packages / name for name in PACKAGES}

    def progress(models: Sequence[Model], description: str) -> Iterable[Model]:
        return track(models, description, console=errors)

    try:
        table = build_open_shapes(arguments.out, packages, arguments.category, arguments.log, progress)
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        errors.print(f"error: {error}", style="red", markup=False)
        return 1
    Console().print(_summary(table))
    return 0


def _summary(table: pd.DataFrame) -> Table:
    counts = pd.crosstab(table["category"], table["split"]).reindex(columns=SPLITS, fill_value=0)
    counts.loc["all"] = counts.sum()
    summary = Table("category", *SPLITS, "models")
    for category, row in counts.iterrows():
        summary.add_row(str(category), *map(str, row), str(row.sum()))
    return summary


if __name__ == "__main__":
    sys.exit(main())
