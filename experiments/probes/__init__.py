"""Observers of a run: each in a process of its own, so that watching shares no event loop with load."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def commands(names: Iterable[str], plan_path: Path) -> list[list[str]]:
    """Argument lists of the named probes of a load plan; they end by its end, its stop file or SIGTERM."""
    return [[sys.executable, "-m", f"{__name__}.{name}", str(plan_path)] for name in names]
