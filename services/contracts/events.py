"""The event line: what anybody observed, when, on a clock that can be compared within one machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@cache
def monotonic_clock_id() -> str:
    """Name of this machine's CLOCK_MONOTONIC since its boot; timestamps compare only under one name."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"monotonic:{boot[:8]}"


@dataclass(frozen=True, slots=True)
class Event:
    """One observation. `t_ns` is nanoseconds of the clock that `clock_id` names."""

    t_ns: int
    clock_id: str
    source: str
    member: str | None
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls, source: str, kind: str, member: str | None = None, **data: Any) -> Event:
        return cls(time.monotonic_ns(), monotonic_clock_id(), source, member, kind, data)

    def to_line(self) -> bytes:
        record = {
            "t_ns": self.t_ns,
            "clock_id": self.clock_id,
            "source": self.source,
            "member": self.member,
            "kind": self.kind,
            "data": dict(self.data),
        }
        return json.dumps(record, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str) -> Event:
        """Parse one line; raises ValueError naming the missing field when it is no event."""
        record = json.loads(line)
        try:
            return cls(
                int(record["t_ns"]),
                str(record["clock_id"]),
                str(record["source"]),
                record["member"],
                str(record["kind"]),
                record["data"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an event line, missing or wrong field {error}: {line!r:.200}") from error


class EventLog:
    """Appends event lines to a file, one write(2) each, so that processes can share it and a kill tears no line.

    `aloud`: on standard error as well, so that the server's log tells them too.
    """

    def __init__(self, path: Path, *, aloud: bool = False) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._aloud = aloud

    def append(self, event: Event) -> None:
        line = event.to_line()
        os.write(self._fd, line)
        if self._aloud:
            os.write(sys.stderr.fileno(), line)

    def close(self) -> None:
        os.close(self._fd)


def read_events(path: Path) -> Iterator[Event]:
    """Events of a file in file order; a torn last line (power cut) is left out."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield Event.from_line(line)
