"""Which commit of the checkout is at work: what runs, trainings and test results are named after."""

from __future__ import annotations

import subprocess
from typing import Final

DIRTY: Final = "+"
"""Ends the name of a checkout that has changes: what it did, no commit can answer for."""


RESULTS: Final = "docs/results"
"""Rows and figures that runs leave: none of what a run does follows from them."""


def commit() -> str | None:
    """The checkout's commit, abbreviated, `+` when it has changes; None outside a checkout or without git.

    Changes below docs/results are none: a soak appends to tracked files there, and its next run is of the same commit.
    """
    name = _git("describe", "--always", "--exclude=*", "--abbrev=12")
    if not name:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(top,exclude){RESULTS}")
    return f"{name}{DIRTY}" if changed else name


def _git(*words: str) -> str | None:
    """What git says, None when it is not there; it takes no lock, as others may be committing."""
    command = ["/usr/bin/git", "--no-optional-locks", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return None


def same(one: str | None, other: str | None) -> bool:
    """Whether both name one commit without changes; abbreviations may differ in length."""
    if not one or not other or one.endswith(DIRTY) or other.endswith(DIRTY):
        return False
    return one.startswith(other) or other.startswith(one)
