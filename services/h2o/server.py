"""One H2O node: what its process is started from, and (for a single one) start it, wait until it is ready, stop it.

H2O has no log-in here and runs what its clients ask for, so locally it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import urllib3

from services.h2o.errors import PortInUse, ServerFailed
from services.h2o.genmodel import server_jar

LOOPBACK = "127.0.0.1"
PORTS_USED = 2
"""H2O serves REST on its port and talks to its peers on the next one."""

START_TIMEOUT_S = 60.0
"""A start takes 2 s on two idle cores; the rest is room for a busy machine."""

STOP_TIMEOUT_S = 10.0
"""H2O ends within a second of SIGTERM; after this it is killed."""

PROBE_TIMEOUT = urllib3.Timeout(connect=0.5, read=2.0)
"""Seconds; the first answer comes while the JVM is still loading classes."""

PROBE_EVERY_S = 0.1
HTTP_OK = 200
LOG_TAIL_BYTES = 2000
"""How much of the log a failure message quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class H2OServer:
    """What one server is started from. `directory` is its own: data, temporary files, log, pid file.

    `peers` are the cloud's nodes as host:port, this one included; none means a cloud of its own.
    """

    directory: Path
    port: int
    heap_mb: int
    threads: int = 2
    cloud: str = "breakwater-training"
    host: str = LOOPBACK
    peers: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def pidfile(self) -> Path:
        return self.directory / "h2o.pid"

    @property
    def log(self) -> Path:
        return self.directory / "h2o.log"

    def command(self) -> list[str]:
        """The process to run. The flat file keeps it from looking for peers by multicast."""
        return [
            shutil.which("java") or "java",
            f"-Xmx{self.heap_mb}m",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            "-Dsys.ai.h2o.ext.core.toggle.XGBoost=False",  # unpacks native code that nothing here uses
            "-jar",
            str(server_jar()),
            *("-ip", self.host),
            *("-web_ip", self.host),
            *("-port", str(self.port)),
            *("-name", self.cloud),
            *("-flatfile", str(self.directory / "flatfile")),
            *("-ice_root", str(self.directory / "ice")),
            *("-nthreads", str(self.threads)),
        ]


def start(server: H2OServer, *, timeout_s: float = START_TIMEOUT_S) -> int:
    """Start the server in a session of its own and return its pid once its cloud is healthy.

    Raises PortInUse before anything starts, ServerFailed (with the end of the log) when it does not get ready;
    nothing is left running then.
    """
    prepare(server)
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            server.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    server.pidfile.write_text(json.dumps({"pid": process.pid, "start_ticks": _start_ticks(process.pid)}))
    try:
        _wait_ready(server, process, time.monotonic() + timeout_s)
    except BaseException:
        stop(server)
        raise
    return process.pid


def prepare(server: H2OServer) -> None:
    """Make what the process needs on disk. Raises PortInUse when it could not listen."""
    _refuse_taken_ports(server)
    for name in ("tmp", "ice"):
        (server.directory / name).mkdir(parents=True, exist_ok=True)
    peers = server.peers or (f"{server.host}:{server.port}",)
    (server.directory / "flatfile").write_text("".join(f"{peer}\n" for peer in peers))


def stop(server: H2OServer, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """End the server that the pid file names: SIGTERM, then SIGKILL. False when there was none."""
    try:
        recorded = json.loads(server.pidfile.read_text())
        pid, start_ticks = int(recorded["pid"]), recorded["start_ticks"]
        handle = os.pidfd_open(pid)
    except (FileNotFoundError, ProcessLookupError):
        server.pidfile.unlink(missing_ok=True)
        return False
    try:
        # The handle was taken first: from here on the number cannot pass to another process.
        if _start_ticks(pid) != start_ticks:
            server.pidfile.unlink(missing_ok=True)
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], timeout_s)[0]:
                break
        else:
            raise ServerFailed(f"H2O, pid {pid}, did not end within {timeout_s} s of SIGKILL; see {server.log}")
    finally:
        os.close(handle)
    with contextlib.suppress(ChildProcessError):  # another process may have started it
        os.waitpid(pid, os.WNOHANG)
    server.pidfile.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def running(server: H2OServer) -> Iterator[str]:
    """The server's URL while the block runs."""
    start(server)
    try:
        yield server.url
    finally:
        stop(server)


def _refuse_taken_ports(server: H2OServer) -> None:
    port = server.port
    for number in range(port, port + PORTS_USED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((server.host, number))
            except OSError as error:
                raise PortInUse(
                    f"H2O needs ports {port} and {port + 1} on {server.host}; {number} is taken ({error.strerror}): "
                    "choose another port or end what listens there"
                ) from error


def _wait_ready(server: H2OServer, process: subprocess.Popen[bytes], deadline: float) -> None:
    with urllib3.PoolManager(retries=False, timeout=PROBE_TIMEOUT) as http:
        while time.monotonic() < deadline:
            if (code := process.poll()) is not None:
                raise ServerFailed(f"H2O ended with {code} while starting; {server.log} ends: {log_tail(server)}")
            if _is_healthy(http, server):
                return
            time.sleep(PROBE_EVERY_S)
    raise ServerFailed(f"H2O on {server.url} was not healthy in time; {server.log} ends: {log_tail(server)}")


def _is_healthy(http: urllib3.PoolManager, server: H2OServer) -> bool:
    try:
        answer = http.request("GET", f"{server.url}/3/Cloud?skip_ticks=true")
        cloud = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError):
        return False
    return answer.status == HTTP_OK and cloud["cloud_name"] == server.cloud and bool(cloud["cloud_healthy"])


def log_tail(server: H2OServer) -> str:
    """The end of its log, for a message."""
    return server.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _start_ticks(pid: int) -> int | None:
    """The kernel's start time of a process in clock ticks since boot; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])
