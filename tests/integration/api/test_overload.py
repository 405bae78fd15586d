"""A real replica that is asked for more than it takes on: it refuses the rest at once, and nothing else suffers."""

from __future__ import annotations

import http.client
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from services.api.admission import WRITES_IN_FLIGHT
from services.h2o.train import TrainedModel
from tests.integration.api.platform import Platform, Replica
from tests.integration.api.test_replica import new_flight, write_of
from tests.integration.api.waiting import wait_until

pytestmark = pytest.mark.integration

TOO_MANY = 40
POOL = {"min": 2, "max": 40}
"""Twenty connections to write: 320 may wait for them, so that the replica's own bound is what is met."""
ANSWER_S = 20.0


@pytest.fixture
def roomy(platform: Platform, trained: Mapping[str, TrainedModel]) -> Iterator[Replica]:
    platform.registry.publish(trained["v1"])
    with Replica(platform, pool=POOL) as replica:
        replica.wait_for("/readyz")
        yield replica


@dataclass(frozen=True)
class Answer:
    status: int
    code: str
    retry_after: str | None


class AtOnce:
    """Requests that all are under way before any answer is read."""

    def __init__(self, replica: Replica, stack: ExitStack, bodies: list[dict[str, Any]]) -> None:
        requests = [replica.http.build_request("POST", "/v1/features", json=body) for body in bodies]
        address = ("127.0.0.1", requests[0].url.port or 0)
        self._sockets = [stack.enter_context(socket.create_connection(address, timeout=ANSWER_S)) for _ in requests]
        for client, request in zip(self._sockets, requests, strict=True):
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            client.sendall(f"POST /v1/features HTTP/1.1\r\n{head}\r\n".encode() + request.content)

    def answers(self) -> list[Answer]:
        found = []
        for client in self._sockets:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            code = orjson.loads(answer.read()).get("code", "")
            found.append(Answer(answer.status, code, answer.getheader("retry-after")))
        return found


def test_more_writes_than_a_replica_takes_on_are_refused_at_once_and_predictions_are_not(
    roomy: Replica, platform: Platform
) -> None:
    writes = [write_of(1) for _ in range(WRITES_IN_FLIGHT + TOO_MANY)]
    assert roomy.http.post("/v1/features", json=writes[0]).status_code == 200
    with ExitStack() as stack:
        platform.postgres[1].freeze()
        stack.callback(platform.postgres[1].thaw)
        asked = AtOnce(roomy, stack, writes)
        predictions = [roomy.predict(features=new_flight()) for _ in range(50)]
        answers = asked.answers()
    assert {prediction.status_code for prediction in predictions} == {200}
    codes = Counter(answer.code for answer in answers)
    assert 0 < codes["overloaded"] <= TOO_MANY, codes
    assert set(codes) <= {"overloaded", "shard_unavailable", "commit_unknown"}
    assert {(answer.status, answer.retry_after) for answer in answers} == {(503, "1")}
    assert roomy.metric('breakwater_api_refusals_total{code="overloaded"}') == codes["overloaded"]
    wait_until(lambda: roomy.http.post("/v1/features", json=writes[0]).status_code == 200)
    with ThreadPoolExecutor(16) as callers:
        again = list(callers.map(lambda write: roomy.http.post("/v1/features", json=write), writes))
    assert {answer.status_code for answer in again} == {200}
