"""Evidence about a member's processes: pidfds, /proc, its shared memory segment and its control file."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.postgres.directory import MEMBER_VARIABLE, MemberDirectory, ProcessIdentity
from services.postgres.errors import EvidenceUnreadable

# Line of postmaster.pid with the key and id of the SysV segment that every process of the server but its logger
# keeps attached (src/include/utils/pidfile.h), counted from 1.
SHMEM_LINE = 7
SYSV_SHM = Path("/proc/sysvipc/shm")
# ControlFileData (src/include/catalog/pg_control.h): uint64 system id, uint32 version, uint32 catalog, int32 state.
CONTROL_STATE = struct.Struct("=16xi")
CONTROL_STATES = range(7)
# States in which no write can be acknowledged yet or any more: shut down (1, 2), archive recovery (5).
STANDBY_STATES = frozenset({1, 2, 5})
# Position of fields after the command's closing parenthesis in /proc/<pid>/stat (proc(5)).
STAT_STATE, STAT_START = 0, 19
STOPPED_STATES = frozenset("Tt")
DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Segment:
    """A SysV shared memory segment, by key and id."""

    key: int
    shmid: int


class ProcessHandle:
    """One process that cannot be mistaken for another: a pidfd, opened and then compared with the start time."""

    def __init__(self, identity: ProcessIdentity, fd: int) -> None:
        self.identity = identity
        self._fd = fd

    @classmethod
    def open(cls, identity: ProcessIdentity) -> Self | None:
        """None when that process has ended, whoever has its pid now."""
        try:
            fd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        handle = cls(identity, fd)
        found = _stat(identity.pid)
        if found is None or found[1] != identity.start_ticks or handle.dead():
            handle.close()
            return None
        return handle

    def fileno(self) -> int:
        """Becomes readable when the process ends."""
        return self._fd

    def dead(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def stopped(self) -> bool:
        found = _stat(self.identity.pid)
        return found is not None and found[0] in STOPPED_STATES

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._fd)


def member_processes(directory: MemberDirectory, *, without: ProcessIdentity | None = None) -> list[ProcessIdentity]:
    """Living processes of this member: Postgres by executable and working directory, others by inherited mark.

    The mark finds what Patroni was just starting when it died; Postgres itself overwrites its environment.
    Only processes of the caller's own account can be the member's; others are not looked at.
    """
    found: list[ProcessIdentity] = []
    data = directory.data.resolve()
    mark = f"\0{MEMBER_VARIABLE}={directory.root}\0".encode()
    own_uid = os.geteuid()
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        if without is not None and pid == without.pid:
            continue
        if not _belongs(pid, own_uid, data, mark):
            continue
        stat = _stat(pid)
        if stat is not None:
            found.append(ProcessIdentity(pid, stat[1]))
    return found


def all_stopped(processes: list[ProcessIdentity]) -> bool:
    """Whether every one of them is stopped by a signal or a tracer, so that none can do anything."""
    states = [_stat(process.pid) for process in processes]
    return all(state is None or state[0] in STOPPED_STATES for state in states)


def kill(processes: list[ProcessIdentity]) -> None:
    """SIGKILL each of them that still is the process it was."""
    for identity in processes:
        handle = ProcessHandle.open(identity)
        if handle is not None:
            handle.kill()
            handle.close()


def read_segment(directory: MemberDirectory) -> Segment | None:
    """The segment that postmaster.pid names; None when there is no such file or it names none yet."""
    try:
        lines = (directory.data / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EvidenceUnreadable(f"{directory.data}/postmaster.pid: {error}: check its owner and mode") from error
    fields = lines[SHMEM_LINE - 1].split() if len(lines) >= SHMEM_LINE else []
    match fields:
        case [key, shmid] if key.isdigit() and shmid.isdigit():
            return Segment(int(key), int(shmid))
        case _:
            return None


def attached(segment: Segment) -> int:
    """How many processes have the segment attached; 0 when it does not exist (any more)."""
    try:
        rows = SYSV_SHM.read_text().splitlines()[1:]
    except OSError as error:
        raise EvidenceUnreadable(
            f"{SYSV_SHM}: {error}: the warden needs the member's IPC namespace and a /proc of the kernel's own"
        ) from error
    for row in rows:
        fields = row.split()
        # key is printed signed here and unsigned in postmaster.pid
        if int(fields[1]) == segment.shmid and int(fields[0]) & 0xFFFFFFFF == segment.key & 0xFFFFFFFF:
            return int(fields[6])
    return 0


def may_acknowledge(directory: MemberDirectory) -> bool:
    """Whether the control file says anything but a standby or a stopped server; crash recovery counts as primary."""
    path = directory.data / "global" / "pg_control"
    try:
        with path.open("rb") as control:
            (state,) = CONTROL_STATE.unpack(control.read(CONTROL_STATE.size))
    except (OSError, struct.error) as error:
        raise EvidenceUnreadable(f"{path}: {error}: check the data directory") from error
    if state not in CONTROL_STATES:
        raise EvidenceUnreadable(f"{path}: state {state} is none that PostgreSQL knows: check the data directory")
    return state not in STANDBY_STATES


@contextmanager
def no_patroni_can_start(directory: MemberDirectory) -> Iterator[bool]:
    """Hold the server lock exclusively if nobody else holds it: True while held, False when a Patroni lives."""
    lock = os.open(directory.server_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _belongs(pid: int, own_uid: int, data: Path, mark: bytes) -> bool:
    """False for a process that ended meanwhile or is a zombie: it has neither memory nor directory any more."""
    home = Path("/proc", str(pid))
    try:
        if home.stat().st_uid != own_uid:
            return False
        if (home / "cwd").readlink() == data and _is_postgres(home / "exe"):
            return True
        return mark in b"\0" + (home / "environ").read_bytes() + b"\0"
    except OSError:
        return False


def _is_postgres(executable: Path) -> bool:
    """Also true when there is no executable: that process is ending, and has not closed everything yet."""
    try:
        # a server whose program was upgraded under it runs "postgres (deleted)"
        return executable.readlink().name.startswith("postgres")
    except OSError:
        return True


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time in clock ticks; None for a process that ended, also if nobody reaped it yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[STAT_STATE] in DEAD_STATES else (fields[STAT_STATE], int(fields[STAT_START]))
