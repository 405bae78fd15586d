"""Evidence from /proc, from shared memory and from the control file, with processes of the test's own."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.postgres.directory import MEMBER_VARIABLE, MemberDirectory, ProcessIdentity
from services.postgres.errors import EvidenceUnreadable
from services.postgres.launcher import own_start_ticks
from services.postgres.processes import (
    CONTROL_STATE,
    ProcessHandle,
    Segment,
    all_stopped,
    attached,
    kill,
    may_acknowledge,
    member_processes,
    no_patroni_can_start,
    read_segment,
)

IPC_PRIVATE, IPC_CREAT, IPC_RMID = 0, 0o1000, 0


@pytest.fixture
def directory(tmp_path: Path) -> MemberDirectory:
    directory = MemberDirectory(tmp_path.resolve())
    (directory.data / "global").mkdir(parents=True)
    directory.run.mkdir()
    return directory


@contextmanager
def sleeper(directory: MemberDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the member's mark, as one that Patroni just started does."""
    environment = {**os.environ, MEMBER_VARIABLE: str(directory.root)}
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_member_has_its_own_processes_and_no_others(directory: MemberDirectory, tmp_path: Path) -> None:
    other = MemberDirectory(tmp_path / "other")
    with sleeper(directory) as process:
        (found,) = member_processes(directory)
        assert found.pid == process.pid
        assert member_processes(directory, without=found) == []
        assert member_processes(other) == []
        assert not all_stopped([found])
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert all_stopped([found])
        kill([found])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert member_processes(directory) == [], "a zombie can do nothing any more"


def test_a_pid_that_somebody_else_has_by_now_is_not_the_process(directory: MemberDirectory) -> None:
    me = ProcessIdentity(os.getpid(), own_start_ticks())
    handle = ProcessHandle.open(me)
    assert handle is not None
    assert not handle.dead()
    handle.close()
    earlier = ProcessIdentity(me.pid, me.start_ticks - 1)
    assert ProcessHandle.open(earlier) is None
    kill([earlier])


def test_a_handle_knows_at_once_that_its_process_ended(directory: MemberDirectory) -> None:
    with sleeper(directory) as process:
        handle = ProcessHandle.open(member_processes(directory)[0])
        assert handle is not None
        handle.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert handle.dead()
        handle.close()


def test_who_is_attached_to_shared_memory_is_counted() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = [ctypes.c_void_p]
    key = 0x7F000000 | os.getpid() & 0xFFFFFF
    shmid = libc.shmget(key, 4096, IPC_CREAT | 0o600)
    try:
        segment = Segment(key, shmid)
        assert attached(segment) == 0
        address = libc.shmat(shmid, None, 0)
        assert attached(segment) == 1
        assert attached(Segment(key + 1, shmid)) == 0, "the same id with another key is another segment"
        libc.shmdt(address)
        assert attached(segment) == 0
    finally:
        libc.shmctl(shmid, IPC_RMID, None)
    assert attached(segment) == 0


@pytest.mark.parametrize(
    ("content", "segment"),
    [
        ("42\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  1234567     98304\nready   \n", Segment(1234567, 98304)),
        ("42\n/data\n1700000000\n5432\n/run\n127.0.0.1\n", None),
        ("", None),
    ],
)
def test_the_segment_is_named_by_postmaster_pid(
    directory: MemberDirectory, content: str, segment: Segment | None
) -> None:
    assert read_segment(directory) is None
    (directory.data / "postmaster.pid").write_text(content)
    assert read_segment(directory) == segment


@pytest.mark.parametrize(
    ("state", "primary"), [(0, True), (1, False), (2, False), (3, True), (4, True), (5, False), (6, True)]
)
def test_the_control_file_says_whether_writes_are_possible(
    directory: MemberDirectory, state: int, primary: bool
) -> None:
    (directory.data / "global" / "pg_control").write_bytes(CONTROL_STATE.pack(state) + bytes(64))
    assert may_acknowledge(directory) is primary


@pytest.mark.parametrize("content", [None, b"short", CONTROL_STATE.pack(99)])
def test_a_control_file_that_says_nothing_is_no_evidence(directory: MemberDirectory, content: bytes | None) -> None:
    if content is not None:
        (directory.data / "global" / "pg_control").write_bytes(content)
    with pytest.raises(EvidenceUnreadable, match="check the data directory"):
        may_acknowledge(directory)


def test_the_lock_is_refused_while_a_patroni_holds_it(directory: MemberDirectory) -> None:
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_SH); "
        "print(flush=True); sys.stdin.read()"
    )
    with no_patroni_can_start(directory) as alone:
        assert alone
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(directory.server_lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with no_patroni_can_start(directory) as alone:
        assert not alone
    holder.communicate()
    with no_patroni_can_start(directory) as alone:
        assert alone


def test_who_patroni_is_is_written_whole_and_a_torn_file_is_no_evidence(directory: MemberDirectory) -> None:
    assert directory.read_patroni_identity() is None
    identity = ProcessIdentity(4711, 123456)
    directory.write_patroni_identity(identity)
    assert directory.read_patroni_identity() == identity
    assert [path.name for path in directory.run.iterdir()] == ["patroni.pid"]
    directory.patroni_pid.write_text('{"pid": 4711')
    with pytest.raises(EvidenceUnreadable, match="restart the member's server"):
        directory.read_patroni_identity()
