"""The life of a probe that watches with threads: from its plan to the plan's end, its stop file or SIGTERM."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from loadtests.plan import EXIT_USAGE, LoadError, LoadPlan
from services.contracts.events import EventLog
from services.shutdown import on_shutdown

STOP_POLL_S: Final = 0.1
ENDING_S: Final = 5.0

Watcher = Callable[[], None]
"""Runs in a thread of its own until the probe's stop event is set."""


def watch(
    arguments: list[str], module: str, watchers: Callable[[LoadPlan, EventLog, threading.Event], Iterable[Watcher]]
) -> int:
    """A probe's `main`: start the watchers of the plan in `arguments`, end them in order; returns the exit code."""
    stop = threading.Event()
    on_shutdown(stop.set)
    try:
        (path,) = arguments
        plan = LoadPlan.load(Path(path))
    except (ValueError, LoadError) as error:
        sys.stderr.write(f"usage: python -m {module} PLAN ({error})\n")
        return EXIT_USAGE
    log = EventLog(plan.event_log)
    threads = [threading.Thread(target=watcher, daemon=True) for watcher in watchers(plan, log, stop)]
    for thread in threads:
        thread.start()
    while not stop.wait(STOP_POLL_S):
        if plan.over():
            stop.set()
    give_up = time.monotonic() + ENDING_S
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return 0
