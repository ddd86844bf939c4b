from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recon3d.apps.gallery.command import main
from recon3d.bench.runner import Cell, run

METHODS = ("mean_shape", "softras", "template")


def value(path: Path) -> Any:
    """What a data script hands to the page."""
    text = path.read_text(encoding="ascii")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


class Board(NamedTuple):
    """Where the files of some tiny runs are."""

    configs: Path
    leaderboard: Path
    runs: Path


@pytest.fixture(scope="session")
def board(tiny_configs, tmp_path_factory) -> Board:
    """Runs of three methods on the tiny data: two categories of two objects."""
    root = tmp_path_factory.mktemp("board")
    made = Board(tiny_configs, root / "leaderboard", root / "runs")
    for method in METHODS:
        record = run(
            Cell(
                method=method,
                data="tiny",
                preset="tiny",
                configs=made.configs,
                results=made.leaderboard / "results",
                runs=made.runs,
            )
        )
        assert record.error is None, record.error
    return made


@pytest.fixture
def own_board(board, tmp_path) -> Board:
    """A copy of the runs to spoil."""
    root = tmp_path / "own"
    shutil.copytree(board.leaderboard, root / "leaderboard")
    shutil.copytree(board.runs, root / "runs")
    return Board(board.configs, root / "leaderboard", root / "runs")


@pytest.fixture(scope="session")
def build() -> Callable[..., int]:
    """`recon3d gallery` on a board."""

    def call(out: Path, board: Board, **changes: Any) -> int:
        arguments: dict[str, Any] = {"data": None, "methods": None, "preset": "tiny", "n_samples": 4} | changes
        return main(out, **arguments, **board._asdict())

    return call


@pytest.fixture(scope="session")
def page(board, build, tmp_path_factory) -> Path:
    """The gallery of the tiny runs."""
    out = tmp_path_factory.mktemp("page") / "gallery"
    assert build(out, board) == 0
    return out
