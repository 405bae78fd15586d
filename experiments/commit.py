"""Which commit of the checkout is at work: what runs, trainings and test results are named after."""

from __future__ import annotations

import subprocess
from typing import Final

DIRTY: Final = "+"
"""Ends the name of a checkout that has changes: what it did, no commit can answer for."""


def commit() -> str | None:
    """The checkout's commit, abbreviated, `+` when it has changes; None outside a checkout or without git."""
    try:
        answer = subprocess.run(
            ["/usr/bin/git", "describe", "--always", f"--dirty={DIRTY}", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None


def same(one: str | None, other: str | None) -> bool:
    """Whether both name one commit without changes; abbreviations may differ in length."""
    if not one or not other or one.endswith(DIRTY) or other.endswith(DIRTY):
        return False
    return one.startswith(other) or other.startswith(one)
