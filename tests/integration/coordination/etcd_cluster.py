"""Real etcd servers on loopback for tests: started as children, killed, frozen and started again by number."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from services.coordination.etcd import EtcdClient, EtcdError, WatchEvent

ETCD = "/usr/bin/etcd"
# Election timing of the tests' servers, milliseconds: etcd's own defaults, which two slow cores still keep.
HEARTBEAT_MS, ELECTION_MS = 100, 1000
READY_S = 20.0
SEEN_S = 15.0
# Below those that the kernel gives to outgoing connections (from 32768), and below the platform's own (from 24000).
PORTS = range(10_000, 20_000)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, and that no outgoing connection can take while their servers are down."""
    found: list[int] = []
    for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports in {PORTS}")


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def followed(client: EtcdClient, key: str, *, prefix: bool = False, start_revision: int) -> Iterator[list[WatchEvent]]:
    """What a watch sees, as a list that grows; the watch ends with the block, whatever happens in it."""
    seen: list[WatchEvent] = []
    stop = threading.Event()

    def follow() -> None:
        for event in client.watch(key, prefix=prefix, start_revision=start_revision, stop=stop):
            seen.append(event)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield seen
    finally:
        stop.set()
        follower.join()


def wait_for(seen: list[WatchEvent], value: str) -> None:
    """Until the watch saw this value."""
    deadline = time.monotonic() + SEEN_S
    while not any(event.kv.value == value for event in seen):
        assert time.monotonic() < deadline, f"the watch never said {value}: {seen}"
        time.sleep(0.02)


class EtcdCluster:
    """`size` etcd servers with their data and logs under `directory`."""

    def __init__(self, directory: Path, size: int) -> None:
        ports = free_ports(2 * size)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:size]]
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[size:]]
        self._directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for number in range(len(self.clients)):
            self.start(number)
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in list(self._processes):
            self.kill(number)

    def start(self, number: int) -> None:
        """Start one server, new or again on its old data."""
        home = self._directory / f"etcd-{number}"
        home.mkdir(parents=True, exist_ok=True)
        initial = ",".join(f"etcd-{index}={url}" for index, url in enumerate(self._peers))
        command = [
            *(ETCD, "--name", f"etcd-{number}", "--data-dir", str(home / "data")),
            *("--listen-client-urls", self.clients[number], "--advertise-client-urls", self.clients[number]),
            *("--listen-peer-urls", self._peers[number], "--initial-advertise-peer-urls", self._peers[number]),
            *("--initial-cluster", initial, "--logger", "zap", "--enable-v2=false"),
            *("--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)),
        ]
        with (home / "log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        process = self._processes.pop(number)
        process.kill()
        process.wait(timeout=10)

    def freeze(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Forget all changes until now, as etcd does every hour; what the keys hold stays."""
        with closing(EtcdClient(self.clients, timeout_s=2.0)) as client:
            client.put("newer", "change")
            revision = client.put("newest", "change")  # a watch may still begin with the oldest that is left
        body = json.dumps({"revision": str(revision), "physical": True}).encode()
        answer = urllib3.request("POST", f"{self.clients[0]}/v3/kv/compaction", body=body)
        assert answer.status == 200, answer.data

    def leader(self) -> int:
        """Number of the server that leads, by asking each one about itself."""
        for number in self._processes:
            status = urllib3.request("POST", f"{self.clients[number]}/v3/maintenance/status", body=b"{}").json()
            if status.get("leader") == status["header"]["member_id"]:
                return number
        raise LookupError(f"no etcd server leads: see {self._directory}/etcd-*/log")

    def wait_ready(self) -> None:
        client = EtcdClient(self.clients, timeout_s=2.0)
        deadline = time.monotonic() + READY_S
        try:
            while True:
                with suppress(EtcdError):
                    client.get("ready?")
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"etcd not ready within {READY_S} s: see {self._directory}/etcd-*/log")
                time.sleep(0.1)
        finally:
            client.close()
