"""Two replicas behind the real edge: blocked, frozen, restarted or gone, and what the edge says by itself."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus

import httpx
import pytest

from infra.local import probe
from services.api.openapi import ProblemDetails
from services.contracts.slots import slot_of
from services.h2o.train import TrainedModel
from tests.integration.api.edge import Edge, Load
from tests.integration.api.platform import DATABASE, END_S, Platform
from tests.integration.api.publishing import renamed
from tests.integration.api.test_replica import FLIGHT, new_flight, write_of
from tests.integration.api.waiting import wait_until, waiting_for_locks

pytestmark = pytest.mark.integration

BLOCK_S = 3.0
OUT_S = 1.0
"""The promise: a blocked replica gets nothing any more."""
FROZEN_OUT_S = 1.5
"""The promise for a frozen process, of which the edge must find out itself: two checks of up to 0.4 s, 0.25 s apart."""
BACK_S = 5.0
BLOCKED_CONNECTION_S = 0.7
"""How long the edge waits for a prediction's answer before it asks another replica."""


def mixed(number: int) -> tuple[str, dict[str, object]]:
    """Three clients in four predict, the others write."""
    if number % 4:
        return "/v1/predict", {"features": new_flight()}
    return "/v1/features", write_of(number // 4 % 2)


def served(load: Load, enough: int) -> bool:
    return len(load.seen) >= enough


def test_a_blocked_replica_is_out_within_a_second_and_comes_back_by_itself(edge: Edge, platform: Platform) -> None:
    both = {"api-0", "api-1"}
    blocked = edge.replicas["api-0"]
    answers: list[httpx.Response] = []

    def block() -> None:
        answers.append(
            httpx.post(
                f"{blocked.url}/chaos/block-loop",
                json={"seconds": BLOCK_S},
                headers={"authorization": f"Bearer {platform.admin_token}"},
                timeout=4 * BLOCK_S,
            )
        )

    with Load(edge, rate=100, clients=16, request=mixed).running() as load:
        edge.wait_for(lambda: {seen.replica for seen in load.seen} == both)
        blocking = threading.Thread(target=block)
        blocking.start()
        out_s = edge.wait_for(lambda: edge.up() == {"api-1"} == edge.up("api"))
        assert blocked.agent() == "down #event loop blocked\n"
        blocking.join()
        ended = answers[0].json()["ended_ns"] / 1e9
        edge.wait_for(lambda: edge.up() == both and edge.up("api") == both)
        back_s = time.monotonic() - ended
        since = time.monotonic()
        edge.wait_for(lambda: {seen.replica for seen in load.seen if seen.began > since} == both)
    began = answers[0].json()["began_ns"] / 1e9
    assert out_s < OUT_S
    assert back_s < BACK_S
    predictions = [seen for seen in load.seen if seen.path == "/v1/predict"]
    assert {seen.status for seen in predictions} == {200}, "unanswered predictions were asked of the other replica"
    in_band = [seen for seen in predictions if began + OUT_S < seen.began < ended]
    assert {seen.replica for seen in in_band} == {"api-1"}
    assert max(seen.seconds for seen in predictions) < BLOCK_S, "nobody waited for the block's end"
    writes = [seen for seen in load.seen if seen.path == "/v1/features"]
    assert {seen.status for seen in writes} == {200}
    late = [seen for seen in writes if seen.seconds > BLOCKED_CONNECTION_S]
    assert late, "no write was under way when the block began: this proves nothing"
    assert all(seen.replica == "api-0" and seen.began < began + OUT_S for seen in late), "writes are never sent twice"
    assert blocked.metric('breakwater_api_breaker_opened_total{dependency="replica"}') == 1


def test_a_rolling_restart_of_every_replica_loses_nothing(edge: Edge) -> None:
    with Load(edge, rate=200, clients=24, request=mixed).running() as load:
        edge.wait_for(lambda: len(load.seen) > 100)
        for name in sorted(edge.replicas):
            known = probe.unanswered(edge.plan)
            assert edge.replicas[name].end(signal.SIGTERM) == 0
            assert probe.unanswered(edge.plan) == known, "the edge had to ask nobody twice"
            edge.start(name)
            edge.wait_for(lambda: edge.up() == set(edge.replicas) == edge.up("api"))
            edge.wait_for(partial(served, load, len(load.seen) + 50))
    seconds = max(seen.began for seen in load.seen) - min(seen.began for seen in load.seen)
    assert len(load.seen) > 0.8 * load.rate * seconds, "the load fell behind: this proves nothing"
    assert Counter(seen.status for seen in load.seen) == {200: len(load.seen)}
    assert {seen.replica for seen in load.seen} == {"api-0", "api-1"}
    assert len({seen.path for seen in load.seen}) == 2


def test_a_replica_that_ends_at_once_leaves_requests_that_the_edge_counts(edge: Edge) -> None:
    """Nobody but the edge notices: it asks the other replica, until its checks have seen what happened."""
    with Load(edge, rate=200, clients=24, request=lambda _: ("/v1/predict", {"features": FLIGHT})).running() as load:
        edge.wait_for(lambda: len(load.seen) > 100)
        known = probe.unanswered(edge.plan)
        edge.replicas["api-1"].end(signal.SIGKILL)
        edge.wait_for(lambda: edge.up() == {"api-0"} == edge.up("api"))
        left = probe.unanswered(edge.plan)
    assert left["api-1"] > known["api-1"]
    assert left["api-0"] == known["api-0"]
    assert {seen.status for seen in load.seen} == {200}
    edge.start("api-1")
    edge.wait_for(lambda: edge.up() == set(edge.replicas) == edge.up("api"))


def test_a_frozen_replica_is_out_within_its_bound(edge: Edge) -> None:
    frozen = edge.replicas["api-1"].process
    assert frozen is not None
    with edge.client() as client, ThreadPoolExecutor(1) as caller:
        frozen.send_signal(signal.SIGSTOP)
        try:
            asking = caller.submit(lambda: [client.post("/v1/predict", json={"features": FLIGHT}) for _ in range(10)])
            out_s = edge.wait_for(lambda: edge.up() == {"api-0"} == edge.up("api"))
            answers = asking.result()
        finally:
            frozen.send_signal(signal.SIGCONT)
        assert out_s < FROZEN_OUT_S
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-breakwater-replica"] for answer in answers} == {"api-0"}
        edge.wait_for(lambda: edge.up() == {"api-0", "api-1"} == edge.up("api"))
    log = edge.replicas["api-1"].lines()
    assert not [line for line in log if "blocked" in str(line["message"])], "a stopped process is not a blocked loop"


def assert_the_edges_own(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-breakwater-replica" not in answer.headers
    said = ProblemDetails.model_validate_json(answer.content)
    assert (said.status, said.code, said.title) == (status, code, HTTPStatus(status).phrase)
    assert ": " in said.detail, "what happened, and what to do"
    assert answer.headers.get("retry-after") == ("1" if status == HTTPStatus.SERVICE_UNAVAILABLE else None)


def sent(edge: Edge, *parts: bytes) -> httpx.Response:
    """What comes back for these bytes, each sent a moment after the one before."""
    address = httpx.URL(edge.plan.edge_url)
    context = ssl.create_default_context(cafile=edge.plan.ca_file)
    with (
        socket.create_connection((address.host, address.port or 0), timeout=END_S) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        for part in parts:
            secure.sendall(part)
            time.sleep(0.2)
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/chaos/block-loop", "/%6Detrics", "/metrics?now", "/readyz/"])
def test_what_is_for_who_stands_beside_a_replica_is_not_for_clients(edge: Edge, platform: Platform, path: str) -> None:
    admin = {"authorization": f"Bearer {platform.admin_token}"}
    with edge.client() as client:
        for answer in (client.get(path, headers=admin), client.post(path, json={"seconds": 1}, headers=admin)):
            assert_the_edges_own(answer, 404, "not_found")
        for open_to_all in ("/healthz", "/openapi.json"):
            assert client.get(open_to_all).status_code == 200


def test_a_body_that_is_broken_or_does_not_come_is_a_problem(edge: Edge) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\n"
    broken = sent(edge, head + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", b"no length\r\n")
    assert_the_edges_own(broken, 400, "bad_request")
    assert_the_edges_own(sent(edge, head + b"content-length: 10\r\n\r\n{"), 408, "request_timeout")


def test_before_there_is_a_request_the_edge_has_words_of_its_own(edge: Edge) -> None:
    """As docs/errors.md says; should a later HAProxy do better, say so there."""
    for answer, status in ((sent(edge, b"garbage\r\n\r\n"), 400), (sent(edge, b"GET / HTTP/1.1\r\nhos"), 408)):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html")
        assert answer.headers["connection"] == "close"


def test_replicas_that_are_all_frozen_are_a_timeout(edge: Edge) -> None:
    processes = [replica.process for replica in edge.replicas.values() if replica.process is not None]
    with edge.client() as one, edge.client() as other, ThreadPoolExecutor(2) as callers:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            edge.wait_for(lambda: not edge.up() and not edge.up("api"))
            prediction = callers.submit(one.post, "/v1/predict", json={"features": FLIGHT})
            write = callers.submit(other.post, "/v1/features", json=write_of(0))
            assert_the_edges_own(prediction.result(), 504, "timeout")
            assert_the_edges_own(write.result(), 504, "timeout")
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        edge.wait_for(lambda: edge.up() == set(edge.replicas) == edge.up("api"))


def test_replicas_that_die_or_are_gone_are_problems(edge: Edge, platform: Platform) -> None:
    write = write_of(0)
    server = platform.postgres[0]
    with (
        edge.client() as client,
        edge.client() as used,
        ThreadPoolExecutor(2) as callers,
        server.superuser(DATABASE) as onlooker,
    ):
        assert used.get("/healthz").status_code == 200
        with server.superuser(DATABASE) as holder, holder.transaction():
            slot = slot_of(uuid.UUID(write["entity_id"]))
            holder.execute("select 1 from owned_slots where slot = %s for update", [slot])
            broken_off, closed = (callers.submit(each.post, "/v1/features", json=write) for each in (client, used))
            wait_until(lambda: waiting_for_locks(onlooker) > 1)
            for replica in edge.replicas.values():
                replica.end(signal.SIGKILL)
            assert_the_edges_own(broken_off.result(), 502, "bad_gateway")
            with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
                closed.result()
        for path, body in (("/v1/predict", {"features": FLIGHT}), ("/v1/features", write_of(0))):
            assert_the_edges_own(client.post(path, json=body), 503, "no_replica")
        for name in sorted(edge.replicas):
            edge.start(name)
        edge.wait_for(lambda: edge.up() == set(edge.replicas) == edge.up("api"))
        assert client.post("/v1/predict", json={"features": FLIGHT}).status_code == 200


def test_blocking_needs_the_admin_token_and_a_bound(edge: Edge, platform: Platform) -> None:
    url = f"{edge.replicas['api-0'].url}/chaos/block-loop"
    for token in (None, platform.token, "wrong"):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        assert httpx.post(url, json={"seconds": 1}, headers=headers).status_code == 401
    admin = {"authorization": f"Bearer {platform.admin_token}"}
    for body in ({"seconds": 31}, {"seconds": 0}, {"seconds": -1}, {}, {"seconds": 1, "more": 1}):
        assert httpx.post(url, json=body, headers=admin).status_code == 422


def test_a_reload_and_its_way_back_pass_the_edge(
    edge: Edge, platform: Platform, trained: Mapping[str, TrainedModel]
) -> None:
    other = renamed(trained["v2"], "by-the-edge")
    platform.registry.register(other)
    reload = partial(httpx.Client.post, url="/v1/admin/reload-model")
    admin = {"authorization": f"Bearer {platform.admin_token}"}
    with edge.client() as client:
        edge.wait_for(lambda: len(client.get("/v1/models/current").json()["replicas"]) == len(edge.replicas))
        refused = reload(client, json={"rollback": True, "reason": "not the administrator"})
        assert refused.status_code == 401
        for body, version in (({"version": "by-the-edge"}, "by-the-edge"), ({"rollback": True}, "v1")):
            answer = reload(client, json=body | {"reason": "a test"}, headers=admin)
            assert answer.status_code == 200, answer.text
            states = {each["replica"]: (each["outcome"], each["version"]) for each in answer.json()["replicas"]}
            assert states == {"api-0": ("serves", version), "api-1": ("serves", version)}
