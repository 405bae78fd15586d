"""Where a Postgres member keeps what: the names inside its directory that launcher, warden and operators share."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from services.postgres.errors import EvidenceUnreadable

# Set for Patroni and inherited by all it starts, so that even a half-started Postgres can be told as this member's.
MEMBER_VARIABLE = "BREAKWATER_MEMBER_DIRECTORY"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process and when it started (clock ticks since boot): a pid alone may be somebody else's by now."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class MemberDirectory:
    """The directory of one member; makes nothing."""

    root: Path

    @property
    def patroni_config(self) -> Path:
        return self.root / "patroni.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def run(self) -> Path:
        """Unix socket, pid file, lock and Patroni's passfile."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def hold(self) -> Path:
        """While this file exists the launcher waits: a killed server stays down."""
        return self.root / "hold"

    @property
    def server_lock(self) -> Path:
        """Held shared by a running Patroni, exclusively by a warden that decides over a dead one."""
        return self.run / "server.lock"

    @property
    def patroni_pid(self) -> Path:
        return self.run / "patroni.pid"

    @property
    def warden_events(self) -> Path:
        return self.root / "warden-events.jsonl"

    def write_patroni_identity(self, identity: ProcessIdentity) -> None:
        """Name the running Patroni, whole or not at all."""
        partial = self.patroni_pid.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"pid": identity.pid, "start_ticks": identity.start_ticks}))
        partial.replace(self.patroni_pid)

    def read_patroni_identity(self) -> ProcessIdentity | None:
        """Which Patroni was launched last; None when none ever was."""
        try:
            record = json.loads(self.patroni_pid.read_text())
            return ProcessIdentity(int(record["pid"]), int(record["start_ticks"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvidenceUnreadable(
                f"{self.patroni_pid} does not name a process ({error!r}): restart the member's server to write it anew"
            ) from error
