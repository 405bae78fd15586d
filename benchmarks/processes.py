"""Processes under measurement: servers that the benchmark starts, and what any process costs in CPU and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measured import BenchmarkError

LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 60.0
POLL_S: Final = 0.1
END_S: Final = 10.0
KB_PER_MB: Final = 1024
CPU_FIELDS: Final = slice(11, 15)
"""utime, stime, cutime and cstime in /proc/PID/stat, counted from the parenthesis that ends the name (proc(5))."""


@contextlib.contextmanager
def server(name: str, command: Sequence[str], port: int, directory: Path, extra: Mapping[str, str]) -> Iterator[int]:
    """Run until the end of the block; the pid, once the port answers. Its output goes to `directory`/NAME.log."""
    log = directory / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **extra},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_open(name, process, port, log)
        yield process.pid
    finally:
        _end(process)


def _wait_until_open(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(POLL_S)
    tail = log.read_text(errors="replace")[-2000:]
    raise BenchmarkError(f"{name} ended, or did not open port {port} in {READY_S:.0f} s; the end of {log}:\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The session that was started, workers included."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            if how is signal.SIGTERM:
                continue  # whoever of its session outlives it is killed
            return


def cpu_seconds(pid: int) -> float:
    """CPU time that the process has used, user and system, all threads, with that of its ended children."""
    return parse_cpu(Path(f"/proc/{pid}/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def parse_cpu(stat: str) -> int:
    """Clock ticks, from the one line of /proc/PID/stat; the name in it may hold anything."""
    return sum(map(int, stat.rpartition(")")[2].split()[CPU_FIELDS]))


def memory_mb(pid: int) -> float:
    """Resident memory."""
    return parse_memory(Path(f"/proc/{pid}/status").read_text()) / KB_PER_MB


def parse_memory(status: str) -> int:
    """kB of VmRSS, from /proc/PID/status."""
    [line] = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])
