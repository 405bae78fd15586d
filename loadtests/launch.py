"""How the load processes are started: their numbers in the history, argument lists and environment."""

from __future__ import annotations

import sys
import time
from enum import IntEnum
from pathlib import Path
from typing import Final

from loadtests.plan import PLAN_VARIABLE, LoadPlan

SHUTDOWN_GRACE_S: Final = 30
"""Locust's own time limit lies this far behind the plan's end: a backstop only, the streams end by the plan."""
NS_PER_S: Final = 1_000_000_000


class Process(IntEnum):
    """Number of each load process in the history's `process` column and in the high bits of its keys."""

    LOCUST = 1
    WRITERS = 2

    def part(self, out_dir: Path) -> Path:
        """The Arrow stream that this process writes."""
        return out_dir / f"{self.name.lower()}.arrow"


def http_streams(plan: LoadPlan) -> int:
    """How many streams go through the edge: predictions, and the API's writes and reads per shard."""
    of_a_shard = (plan.rates.write_api > 0) + (plan.rates.read_api > 0)
    return (plan.rates.predict > 0) + len(plan.shards) * of_a_shard


def commands(plan_path: Path) -> list[list[str]]:
    """Argument lists of all load processes of a plan; start each now, with `environment(plan_path)` in its environment.

    They wait for the plan's start by themselves and end by its end or stop file. LoadError when the plan is not valid.
    """
    plan = LoadPlan.load(plan_path)
    found: list[list[str]] = []
    if http_streams(plan):
        limit_s = max(0, plan.end_ns - time.monotonic_ns()) // NS_PER_S + SHUTDOWN_GRACE_S
        locustfile = Path(__file__).with_name("locustfile.py")
        found.append(
            [
                *[sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--host", plan.edge_url],
                *["--run-time", f"{limit_s}s"],
                *["--loglevel", "WARNING", "--only-summary", "--exit-code-on-error", "0"],
            ]
        )
    if plan.rates.write > 0 or plan.rates.read > 0:
        found.append([sys.executable, "-m", "loadtests.writers"])
    return found


def environment(plan_path: Path) -> dict[str, str]:
    """What to add to the environment of every load process."""
    return {PLAN_VARIABLE: str(plan_path)}
