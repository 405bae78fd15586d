"""Watches the machine beside the platform, for stalls of its own: `python -m experiments.probes.machine PLAN`.

A disk or a processor that nobody gets for a second looks to clients as a platform that is slow. This process asks both
for the least there is, and notes when even that took long.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from experiments.probes.watchers import Watcher, watch
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog, monotonic_clock_id

SOURCE: Final = "machine"
STALL_NS: Final = 200_000_000
"""A hundred times what a sleep is late or a write of one block takes while the platform is under a scenario's load."""
SLEEP_S: Final = 0.02
WRITE_EVERY_S: Final = 0.1
"""Ten blocks a second are nothing beside the platform's own; a stall looks shorter than it was by as much at most."""
BLOCK: Final = bytes(4096)


def note_stalls(what: str, ask: Callable[[], int], log: EventLog, stop: threading.Event) -> None:
    """Ask again and again until `stop`; append `stalled` whenever an answer took too long. `ask` returns its ns."""
    while not stop.is_set():
        started_ns = time.monotonic_ns()
        late_ns = ask()
        if late_ns >= STALL_NS:
            log.append(Event(started_ns, monotonic_clock_id(), SOURCE, None, "stalled", {"what": what, "ns": late_ns}))


def processor() -> int:
    """How much later than asked a sleep ended."""
    due_ns = time.monotonic_ns() + round(SLEEP_S * 1e9)
    time.sleep(SLEEP_S)
    return time.monotonic_ns() - due_ns


class Disk:
    """One block of a file that has no name any more, written in place again and again."""

    def __init__(self, directory: Path) -> None:
        path = directory / ".machine"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()
        os.write(self._fd, BLOCK)
        os.fsync(self._fd)

    def ask(self) -> int:
        """How long the block took to the disk, after a pause."""
        time.sleep(WRITE_EVERY_S)
        started_ns = time.monotonic_ns()
        os.pwrite(self._fd, BLOCK, 0)
        os.fdatasync(self._fd)
        return time.monotonic_ns() - started_ns


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    asked = {"disk": Disk(plan.event_log.parent).ask, "processor": processor}
    return [partial(note_stalls, what, ask, log, stop) for what, ask in asked.items()]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.machine", watchers))
