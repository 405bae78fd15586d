"""Observers of a run: each in a process of its own, so that watching shares no event loop with load."""

from __future__ import annotations

import sys
from pathlib import Path


def commands(plan_path: Path) -> list[list[str]]:
    """Argument lists of the probes of a load plan; they end by its end, its stop file or SIGTERM."""
    modules = ("experiments.probes.postgres", "experiments.probes.etcd", "experiments.probes.machine")
    return [[sys.executable, "-m", module, str(plan_path)] for module in modules]
