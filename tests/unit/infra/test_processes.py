"""Processes by /proc: identity beyond pid reuse, zombies, trees, and who works in a directory; with real processes."""

from __future__ import annotations

import dataclasses
import os
import platform
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.environment import ProcessId
from infra.local import processes

Start = Callable[..., "subprocess.Popen[bytes]"]
SLEEP = "import time; time.sleep(60)"
FORK = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{SLEEP}']).wait()"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python with a program in a session of its own, without a terminal; ended with all below it afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(program: str = SLEEP, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=cwd, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        processes.send(processes.with_descendants([process.pid]), signal.SIGKILL)
        process.wait(timeout=10)


def until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not test():
        assert time.monotonic() < end, "the process did not get there"
        time.sleep(0.005)


def identity(pid: int) -> ProcessId:
    found = processes.read(pid)
    assert found is not None
    return found.id


def test_this_process_is_found_with_its_parent() -> None:
    own = processes.read(os.getpid())
    assert own is not None
    assert own.parent == os.getppid()
    assert processes.is_alive(own.id)


def test_a_pid_that_nobody_has_is_none() -> None:
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())
    assert processes.read(pid_max + 1) is None


def test_a_reused_pid_is_another_process(start: Start) -> None:
    later = identity(start().pid)
    earlier = dataclasses.replace(later, start_ticks=later.start_ticks - 1)
    assert processes.is_alive(later)
    assert not processes.is_alive(earlier)


def test_a_signal_never_reaches_whoever_got_the_pid(start: Start) -> None:
    process = start()
    found = processes.read(process.pid)
    assert found is not None
    earlier = dataclasses.replace(found, id=dataclasses.replace(found.id, start_ticks=found.id.start_ticks - 1))
    processes.send([earlier], signal.SIGKILL)
    time.sleep(0.05)
    assert process.poll() is None


def test_a_zombie_is_gone(start: Start) -> None:
    process = start()
    known = identity(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: (now := processes.read(process.pid)) is not None and now.state == "Z")
    assert not processes.is_alive(known)
    assert processes.wait_gone([known], timeout_s=0) == ()


def test_a_process_whose_other_threads_live_is_not_gone(start: Start) -> None:
    exit_this_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    process = start(
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"ctypes.CDLL(None).syscall({exit_this_thread}, 0)"
    )
    until(lambda: (now := processes.read(process.pid)) is not None and now.state == "Z")
    known = identity(process.pid)
    assert processes.is_alive(known)
    process.kill()
    assert processes.wait_gone([known], timeout_s=10) == ()


def test_names_with_brackets_spaces_and_broken_characters_are_read(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (ä€€€€"  # 15 bytes end within a character
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            until(lambda: (now := processes.read(process.pid)) is not None and now.id.name.startswith("a) S 1 ("))
            found = processes.read(process.pid)
            assert found is not None
            assert found.parent == os.getpid()
            assert process.pid in {entry.pid for entry in processes.every()}
        finally:
            process.kill()


def test_descendants_are_found_and_strangers_are_not(start: Start) -> None:
    tree, stranger = start(FORK), start()
    until(lambda: len(processes.with_descendants([tree.pid])) == 2)
    found = {process.pid for process in processes.with_descendants([tree.pid])}
    assert tree.pid in found
    assert stranger.pid not in found
    assert os.getpid() not in found


def test_who_works_in_a_directory_or_below_it(tmp_path: Path, start: Start) -> None:
    home, below, beside = tmp_path / "member", tmp_path / "member" / "data", tmp_path / "member-2"
    for directory in (home, below, beside):
        directory.mkdir()
    expected = {start(cwd=home).pid, start(cwd=below).pid}
    start(cwd=beside)
    assert {process.pid for process in processes.working_in(home)} == expected


def test_a_directory_behind_a_symbolic_link_is_the_same_directory(tmp_path: Path, start: Start) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    process = start(cwd=tmp_path / "real")
    assert [found.pid for found in processes.working_in(tmp_path / "link")] == [process.pid]


def test_the_caller_and_those_above_it_are_no_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert processes.working_in(tmp_path) == ()


def test_somebody_at_a_terminal_is_no_server(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv("/bin/sleep", ["sleep", "60"])  # noqa: S606 - the child of a fork becomes what it shall be
    try:
        until(lambda: (now := processes.read(pid)) is not None and now.id.name == "sleep")
        assert processes.working_in(tmp_path) == ()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_wait_gone_returns_those_that_live_and_at_once_when_none_does(start: Start) -> None:
    victim, survivor = start(), start()
    known = identity(victim.pid), identity(survivor.pid)
    os.kill(victim.pid, signal.SIGKILL)
    assert processes.wait_gone(known, timeout_s=0.2) == (known[1],)
    assert processes.wait_gone(known[:1], timeout_s=60) == ()
    assert processes.wait_gone([], timeout_s=60) == ()
