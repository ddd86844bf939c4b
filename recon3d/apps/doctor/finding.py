"""What the doctor says: one line with a level and, where something is to be done, the command that does it.

Used by the checks beside this file; imports nothing of the project, so that it works where nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: heading under which it stands.
        subject: what was looked at.
        level: `ok`; `note`, of what is absent and may be wanted; `problem`, of what will fail when it is used.
        text: what was found.
        remedy: command, or what to do; empty where nothing is.
        essential: a problem without whose remedy no run on the CPU works.
    """

    topic: str
    subject: str
    level: Level
    text: str
    remedy: str = ""
    essential: bool = False


def first_line(error: BaseException) -> str:
    """The error in one line, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
