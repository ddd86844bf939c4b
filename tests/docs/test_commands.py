"""Every command of the documentation is run, in a copy of the repository, in the short form of `tests.docs.commands`.

As many at a time as there are cores, but those that write the same files one after the other. Benches run after the
baselines that they share, and what reads their checkpoints and Records after all benches.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest

from tests.docs.commands import Command, commands, shortened
from tests.docs.workplace import CORES, make_workplace, run, server, shorten_suites

Done = subprocess.CompletedProcess[str]

TO_RUN: dict[str, list[Command]] = {}
for one in commands():
    if one.why_not_run is None:
        TO_RUN.setdefault(shortened(one.text), []).append(one)
BENCH = re.compile(r"\b(make|recon3d) bench\b")
CHECKPOINT = re.compile(r"runs/(\w+)/smoke/([\w-]+)--seed(\d+)")

pytestmark = pytest.mark.slow


def stage(text: str) -> int:
    """When a command runs: 0 what compares pages with Records, 1 benches, 2 all that may need one."""
    if "leaderboard" in text:
        return 0
    return 1 if BENCH.search(text) else 2


def option(text: str, name: str, default: str) -> str:
    """The value of a make variable or an option of a bench."""
    found = re.search(rf"\b{name.upper()}=([\w-]+)|--{name}[ =]([\w-]+)", text)
    return (found[1] or found[2]) if found else default


def chain(text: str) -> str:
    """What a command shares with others that write the same files: its cell, or its program and command."""
    if BENCH.search(text):
        return " ".join(
            [option(text, "method", "softras"), option(text, "data", "synthetic"), option(text, "seed", "0")]
        )
    words = Command(text, "").words
    return " ".join(words[:2]).replace("make ", "recon3d ")


def named_checkpoints() -> Iterator[str]:
    """Benches that make the checkpoints which other commands name."""
    for text in TO_RUN:
        for data, method, seed in CHECKPOINT.findall(text):
            yield f"make bench METHOD={method} DATA={data} SEED={seed} PRESET=smoke"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Done]]:
    folder: Path = make_workplace(tmp_path_factory.mktemp("docs"))
    done: dict[str, Done | subprocess.TimeoutExpired] = {}

    def one_after_the_other(texts: Iterable[str]) -> None:
        for text in texts:
            try:
                done[text] = run(text, folder)
            except subprocess.TimeoutExpired as error:
                done[text] = error

    def at_once(texts: Iterable[str]) -> None:
        chains = [list(group) for _, group in groupby(sorted(texts, key=chain), chain)]
        list(pool.map(one_after_the_other, sorted(chains, key=len, reverse=True)))

    benches = [text for text in TO_RUN if stage(text) == 1]
    cells = {chain(text) for text in benches}
    benches += [text for text in dict.fromkeys(named_checkpoints()) if chain(text) not in cells]
    with server(folder), ThreadPoolExecutor(CORES) as pool:
        one_after_the_other(text for text in TO_RUN if stage(text) == 0)
        shorten_suites(folder)  # now: each would have a page of its own
        seeds = {(option(text, "data", "synthetic"), option(text, "seed", "0")) for text in benches}
        # Two benches of one data set would both run its baselines, and write the same files.
        at_once(f"make bench METHOD=template DATA={name} SEED={seed} PRESET=smoke" for name, seed in sorted(seeds))
        at_once(benches)
        at_once(text for text in TO_RUN if stage(text) == 2)

    def outcome(text: str) -> Done:
        result = done[text]
        if isinstance(result, subprocess.TimeoutExpired):
            raise result
        return result

    yield outcome


@pytest.mark.parametrize("text", TO_RUN, ids=lambda text: f"{TO_RUN[text][0].place} {text}")
def test_the_command_works(text: str, outcomes: Callable[[str], Done]) -> None:
    done = outcomes(text)
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
