"""Processes of this machine as /proc tells them: identity beyond pid reuse, trees, and who works in a directory."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.environment import ProcessId

GONE_POLL_S: Final = 0.005
"""How often a killed process is looked at; the proof's time is that exact."""

STAT_STATE, STAT_PPID, STAT_TTY, STAT_THREADS, STAT_START = 0, 1, 4, 17, 19
"""Fields of /proc/<pid>/stat counted from the one after the closing bracket of the name (proc(5))."""


@dataclass(frozen=True, slots=True)
class Process:
    id: ProcessId
    parent: int
    state: str
    terminal: int
    """Device number of the controlling terminal, 0 for none."""
    threads: int

    @property
    def pid(self) -> int:
        return self.id.pid


def read(pid: int) -> Process | None:
    """The process with this pid now, or None when there is none."""
    try:
        # A name is any 15 bytes, so a longer one may end within a character.
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    opening, closing = stat.index("("), stat.rindex(")")
    fields = stat[closing + 2 :].split()
    return Process(
        ProcessId(pid, int(fields[STAT_START]), stat[opening + 1 : closing]),
        int(fields[STAT_PPID]),
        fields[STAT_STATE],
        int(fields[STAT_TTY]),
        int(fields[STAT_THREADS]),
    )


def arguments(pid: int) -> tuple[str, ...]:
    """The process's command line; empty for one that is gone."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(word.decode(errors="replace") for word in line.split(b"\0") if word)


def every() -> Iterator[Process]:
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and this is on the path of a fault
        if entry.isdigit() and (process := read(int(entry))) is not None:
            yield process


def is_alive(identity: ProcessId) -> bool:
    """False when the process has exited; a zombie has (it holds nothing but its number).

    A process whose first thread is a zombie while others still exit holds its files and ports: it lives.
    """
    current = read(identity.pid)
    if current is None or current.id.start_ticks != identity.start_ticks:
        return False
    return current.state not in "ZX" or current.threads > 1


def working_in(directory: Path) -> tuple[Process, ...]:
    """Processes whose working directory is `directory` or below it: every server starts in its member's directory.

    Not those on a terminal, nor the caller and those above it: somebody who looks around there is no server.
    """
    prefix = os.path.realpath(directory)  # the kernel names no symbolic links
    everything = tuple(every())
    spared = _with_ancestors(os.getpid(), everything)
    found = []
    for process in everything:
        if process.terminal or process.pid in spared:
            continue
        try:
            cwd = os.readlink(f"/proc/{process.pid}/cwd")  # noqa: PTH115 - as above
        except OSError:
            continue  # gone meanwhile, a zombie, or another user's: in none of these cases one of ours
        if cwd == prefix or cwd.startswith(prefix + "/"):
            found.append(process)
    return tuple(found)


def _with_ancestors(pid: int, everything: Iterable[Process]) -> frozenset[int]:
    parents = {process.pid: process.parent for process in everything}
    found = {pid}
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return frozenset(found)


def with_descendants(roots: Iterable[int]) -> tuple[Process, ...]:
    """The processes `roots` and all below them."""
    everything = list(every())
    wanted = set(roots)
    grew = True
    while grew:
        below = {p.pid for p in everything if p.parent in wanted} - wanted
        wanted |= below
        grew = bool(below)
    return tuple(p for p in everything if p.pid in wanted)


def send(processes: Iterable[Process], sig: signal.Signals) -> None:
    """Signal each; one that is gone already is what was wanted."""
    for process in processes:
        if is_alive(process.id):
            try:
                os.kill(process.pid, sig)
            except ProcessLookupError:
                continue


def wait_gone(identities: Iterable[ProcessId], *, timeout_s: float) -> tuple[ProcessId, ...]:
    """Wait until all are gone; returns those that still live when time is up (empty is good)."""
    remaining = tuple(identities)
    end = time.monotonic() + timeout_s
    while True:
        remaining = tuple(identity for identity in remaining if is_alive(identity))
        if not remaining or time.monotonic() >= end:
            return remaining
        time.sleep(GONE_POLL_S)
