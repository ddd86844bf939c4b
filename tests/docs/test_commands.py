"""Every command of the documentation is run, in a copy of the repository, in the short form of `tests.docs.commands`.

Two at a time on two cores: benches of one data set after the baselines that they share, and after all benches what
reads their checkpoints and Records.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.commands import Command, commands, shortened
from tests.docs.workplace import CORES, make_workplace, run, shorten_suites

TO_RUN: dict[str, list[Command]] = {}
for one in commands():
    if one.why_not_run is None:
        TO_RUN.setdefault(shortened(one.text), []).append(one)
BENCH = re.compile(r"\b(make|recon3d) bench\b")
CHECKPOINT = re.compile(r"runs/(\w+)/smoke/([\w-]+)--seed(\d+)")
Outcomes = Callable[[str], subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def stage(text: str) -> int:
    """When a command runs: 0 what compares pages with Records, 1 benches, 2 all that may need one."""
    if "leaderboard" in text:
        return 0
    return 1 if BENCH.search(text) else 2


def data_of(text: str) -> str:
    """The data set of a bench."""
    found = re.search(r"DATA=(\w+)|--data[ =](\w+)", text)
    return (found[1] or found[2]) if found else "synthetic"


def checkpoints() -> Iterator[str]:
    """Benches that make the checkpoints which other commands name."""
    for text in TO_RUN:
        for data, method, seed in CHECKPOINT.findall(text):
            yield f"make bench METHOD={method} DATA={data}{f' SEED={seed}' if seed != '0' else ''} PRESET=smoke"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    folder: Path = make_workplace(tmp_path_factory.mktemp("docs"))
    benches = dict.fromkeys([*(text for text in TO_RUN if stage(text) == 1), *checkpoints()])
    futures: dict[str, Future[subprocess.CompletedProcess[str]]] = {}
    with ThreadPoolExecutor(max(CORES, 1)) as pool:
        for text in (text for text in TO_RUN if stage(text) == 0):
            futures[text] = pool.submit(run, text, folder)
            futures[text].exception()  # one after the other: they write the same pages
        shorten_suites(folder)  # now: each would have a page of its own
        # Two benches of one data set would both run its baselines, and write the same files.
        floors = [
            f"make bench METHOD=mean_shape DATA={data} PRESET=smoke" for data in {data_of(text): 0 for text in benches}
        ]
        for future in [pool.submit(run, text, folder) for text in floors]:
            future.exception()
        for group in (list(benches), [text for text in TO_RUN if stage(text) == 2]):
            for text in group:
                futures[text] = pool.submit(run, text, folder)
            for text in group:
                futures[text].exception()
    yield lambda text: futures[text].result()


@pytest.mark.parametrize("text", TO_RUN, ids=lambda text: f"{TO_RUN[text][0].place} {text}")
def test_the_command_works(text: str, outcomes: Outcomes) -> None:
    done = outcomes(text)
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
