"""One H2O server of its own for tests that need no cloud: started as a child, ended with the block."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3

from services.h2o.server import H2OServer, log_tail, prepare

START_S = 60.0
END_S = 20.0


class NotStarted(Exception):
    """The server ended, or was not healthy in time; says what its log says."""


@contextmanager
def running(server: H2OServer) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process while the block runs, once its cloud is healthy."""
    prepare(server)
    with server.log.open("ab") as log, subprocess.Popen(server.command(), stdout=log, stderr=log) as process:
        try:
            _wait_healthy(server, process)
            yield process
        finally:
            process.kill()
            process.wait(END_S)


def _wait_healthy(server: H2OServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not _is_healthy(server):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStarted(f"H2O did not start: {log_tail(server)}")
        time.sleep(0.1)


def _is_healthy(server: H2OServer) -> bool:
    try:
        answer = urllib3.request("GET", f"{server.url}/3/Cloud?skip_ticks=true", timeout=2.0, retries=False)
        return answer.status == 200 and bool(json.loads(answer.data)["cloud_healthy"])
    except (urllib3.exceptions.HTTPError, ValueError):
        return False
