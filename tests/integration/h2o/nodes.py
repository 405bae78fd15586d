"""Real H2O nodes as real processes for tests: started as children, their JVMs killed and frozen by pid."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import urllib3

from services.contracts.events import Event, read_events
from services.h2o.encryption import Certificates, scheme
from services.h2o.node import EVENTS, NodeConfig, Peer
from services.h2o.server import PORTS_USED
from tests.integration.coordination.etcd_cluster import free_ports

ENVIRONMENT = "test"
END_S = 30.0


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def free_block(count: int) -> int:
    """First of `count` neighbouring loopback ports that are free now."""
    while True:
        [first] = free_ports(1)
        if first + count < 65536 and len(_free(first, count)) == count:
            return first


def _free(first: int, count: int) -> list[int]:
    found = []
    for port in range(first, first + count):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


class Nodes:
    """`size` nodes with their directories under `directory`. A context manager; leaves nothing running."""

    def __init__(
        self,
        directory: Path,
        etcd: list[str],
        size: int,
        *,
        memory_mb: int = 768,
        heap_mb: int = 512,
        certificates: Certificates | None = None,
    ) -> None:
        self.directory = directory
        first = free_block(size * (PORTS_USED + 1))
        self._peers = tuple(Peer(name=f"h2o-{i}", host="127.0.0.1", port=first + PORTS_USED * i) for i in range(size))
        self.names = [peer.name for peer in self._peers]
        self._status_ports = {peer.name: first + PORTS_USED * size + i for i, peer in enumerate(self._peers)}
        self._etcd, self._memory = etcd, (memory_mb, heap_mb)
        self.certificates = certificates
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in self.names:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_S)

    def start(self, name: str) -> None:
        """Start one node's process, new or again in its directory."""
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        config = NodeConfig(
            environment=ENVIRONMENT, name=name, nodes=self._peers, etcd=tuple(self._etcd), directory=home,
            status_port=self._status_ports[name], memory_mb=self._memory[0], heap_mb=self._memory[1],
            certificates=self.certificates,
        )  # fmt: skip
        path = home / "node.json"
        path.write_text(config.model_dump_json())
        with (home / "node.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "services.h2o.node", str(path)], stdout=log, stderr=log
            )

    def url(self, name: str) -> str:
        protocol = scheme(self.certificates)
        return next(f"{protocol}://{peer.host}:{peer.port}" for peer in self._peers if peer.name == name)

    def ask(self, name: str, path: str) -> tuple[int, dict[str, Any]]:
        """GET /ready or /status of a node's own process; 0 when it does not answer."""
        try:
            answer = urllib3.request(
                "GET", f"http://127.0.0.1:{self._status_ports[name]}{path}", timeout=2.0, retries=False
            )
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return answer.status, json.loads(answer.data)

    def ready(self) -> bool:
        return all(self.ask(name, "/ready")[0] == 200 for name in self.names)

    def wait_ready(self, seconds: float = 90.0) -> None:
        wait_until(self.ready, seconds, f"the cloud is whole (logs in {self.directory})")

    def epoch(self) -> int:
        return int(self.ask(self.names[0], "/status")[1]["epoch"])

    def keeper(self) -> str:
        return str(self.ask(self.names[0], "/status")[1]["keeper"])

    def jvm(self, name: str) -> int:
        return int(self.ask(name, "/status")[1]["pid"])

    def signal_jvm(self, name: str, number: signal.Signals) -> None:
        os.kill(self.jvm(name), number)

    def events(self, source: str, kind: str) -> list[Event]:
        """What all nodes' keepers or agents said, in order of time."""
        found = [
            event
            for name in self.names
            for event in read_events(self.directory / name / EVENTS)
            if (event.source, event.kind) == (source, kind)
        ]
        return sorted(found, key=lambda event: event.t_ns)
