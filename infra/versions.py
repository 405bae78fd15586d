"""Versions by their own word: a package's from its metadata, a server's from what it answers to `--version`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from typing import Final

ANSWER_S: Final = 5.0
"""A JVM says its version within a second, also on a crowded machine."""
UNKNOWN: Final = "not known"
_VERSION: Final = re.compile(r"\d[\w.+~-]*")


def of_package(name: str) -> str:
    """An installed package's version; why it cannot be told otherwise."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{UNKNOWN}: no package {name} is installed"


def of_server(command: Sequence[str]) -> str:
    """The first version that a server's program names in its answer; why it cannot be told otherwise. Never raises."""
    program = command[0]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{UNKNOWN}: {program} did not answer within {ANSWER_S:.0f} s"
    except OSError as error:
        return f"{UNKNOWN}: {program} does not start: {error.strerror}"
    found = _VERSION.search(done.stdout.decode(errors="replace"))
    if done.returncode or found is None:
        return f"{UNKNOWN}: {' '.join(command)} ended with {done.returncode} and named none"
    return found.group()
