"""The real edge in front of two replicas of a test's platform: HAProxy with the local runtime's own configuration."""

from __future__ import annotations

import os
import pwd
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from infra.local import servers, tls
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.topology import Topology
from tests.integration.api.platform import READY_S, Platform, Replica

FIRST_BASE = 25000
LAST_BASE = 26900
STEP = 20
ANSWER_S = 15.0


def free_plan(directory: Path) -> LocalPlan:
    """A plan whose API and edge ports are free now."""
    for base in range(FIRST_BASE, LAST_BASE, STEP):
        plan = LocalPlan(
            Topology.model_validate({"environment": "test", "runtime": "local", "local": {"port_base": base}}),
            directory,
        )
        if all(
            _free(port) for member in (*plan.of("api"), *plan.of("edge")) for port in (member.port, member.aux_port)
        ):
            return plan
    raise RuntimeError("no free ports for an edge")


def _free(port: int | None) -> bool:
    if port is None:
        return True
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class Seen:
    """One answer as its client saw it; status 0 is none."""

    path: str
    began: float
    seconds: float
    status: int
    replica: str


class Edge:
    """HAProxy and two replicas. A context manager; `replicas` may be ended and started again by name."""

    def __init__(self, platform: Platform, directory: Path, **changes: object) -> None:
        self.platform = platform
        self.plan = free_plan(directory)
        self._changes = changes
        self._stack = ExitStack()
        self.replicas: dict[str, Replica] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            account = Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
            self.plan.state.mkdir()
            tls.ensure(self.plan, account)
            edge = self.plan.member("edge-0")
            for directory in (self.plan.members_dir, edge.directory):
                directory.mkdir()
            config = edge.directory / "haproxy.cfg"
            config.write_text(servers.edge_config(self.plan, edge))
            stack.callback(self._stop_all)
            for member in self.plan.of("api"):
                self.start(member.name)
            log = stack.enter_context((edge.directory / "log").open("wb"))
            haproxy = subprocess.Popen([str(servers.HAPROXY), "-db", "-f", str(config)], stdout=log, stderr=log)
            stack.callback(haproxy.wait, READY_S)
            stack.callback(haproxy.kill)
            self.wait_for(lambda: self.up() == {member.name for member in self.plan.of("api")})
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> Replica:
        member = self.plan.member(name)
        replica = Replica(self.platform, replica=name, port=member.port, agent_port=member.aux_port, **self._changes)
        self.replicas[name] = replica  # to be ended also when it does not come up
        replica.__enter__()
        replica.wait_for("/readyz")
        return replica

    def _stop_all(self) -> None:
        for replica in self.replicas.values():
            replica.__exit__()

    def up(self, backend: str = "predict") -> set[str]:
        """Replicas that the edge sends to, as it says itself; empty while it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.connect(str(self.plan.member("edge-0").directory / "admin.sock"))
                admin.sendall(b"show stat\n")
                told = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        except OSError:
            return set()
        rows = [line.split(",") for line in told.splitlines()]
        return {row[1] for row in rows if row[0] == backend and row[1].startswith("api-") and row[17].startswith("UP")}

    def wait_for(self, condition: Callable[[], object]) -> float:
        """Seconds until the condition held."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > READY_S:
                log = (self.plan.member("edge-0").directory / "log").read_text()
                raise AssertionError(f"not within {READY_S} s; the edge says: {log}")
            time.sleep(0.01)
        return time.monotonic() - began

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.plan.edge_url,
            verify=ssl.create_default_context(cafile=self.plan.ca_file),
            headers={"authorization": f"Bearer {self.platform.token}"},
            timeout=ANSWER_S,
            trust_env=False,
        )


@dataclass
class Load:
    """Requests on a schedule, whatever comes back: `rate` a second over `clients` connections."""

    edge: Edge
    rate: float
    clients: int
    request: Callable[[int], tuple[str, dict[str, object]]]
    seen: list[Seen] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Until the block ends; then every request has its answer or none."""
        ended = threading.Event()
        threads = [threading.Thread(target=self._send, args=(number, ended)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _send(self, number: int, ended: threading.Event) -> None:
        pause_s = self.clients / self.rate
        due = time.monotonic() + number / self.rate
        with self.edge.client() as client:
            while not ended.wait(max(0.0, due - time.monotonic())):
                path, body = self.request(number)
                began = time.monotonic()
                try:
                    answer = client.post(path, json=body)
                except httpx.TransportError:
                    status, replica = 0, ""
                else:
                    status, replica = answer.status_code, answer.headers.get("x-breakwater-replica", "")
                self.seen.append(Seen(path, began, time.monotonic() - began, status, replica))
                due = max(due + pause_s, time.monotonic())
