"""Loading and training when what they stand on is missing: one clear line, nothing left running."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from breakwater import workloads
from infra.environment import EnvironmentFault
from infra.local.plan import LocalPlan
from infra.topology import Topology

ANSWERS: dict[str, tuple[int, dict[str, str]]] = {
    "no model": (503, {"reason": "no model"}),
    "ready": (200, {}),
}


class Quiet:
    def begin(self, component: str, what: str) -> None: ...

    def done(self, component: str, what: str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture
def replica() -> Iterator[tuple[int, list[str]]]:
    """A server in a replica's place, and the word that decides what it answers."""
    word = ["no model"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = ANSWERS[word[0]]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], word
    server.shutdown()
    server.server_close()


def plan_with(replica_port: int) -> LocalPlan:
    """A plan whose first replica listens on this port; nothing listens on the second's."""
    base = replica_port - 30
    topology = Topology.model_validate({"environment": "unit", "runtime": "local", "local": {"port_base": base}})
    return LocalPlan(topology, Path("/unused"))


def test_a_replica_without_a_model_is_named_with_its_own_reason(
    replica: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "SERVING_S", 0.0)
    with pytest.raises(EnvironmentFault, match=r"api-0 serves no model after 0 s \(no model\); read `breakwater logs"):
        workloads.wait_serving(plan_with(replica[0]), Quiet())


def test_a_replica_that_is_down_is_named(replica: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "SERVING_S", 0.0)
    replica[1][0] = "ready"
    with pytest.raises(EnvironmentFault, match=r"api-1 serves no model after 0 s \(not answering: "):
        workloads.wait_serving(plan_with(replica[0]), Quiet())
