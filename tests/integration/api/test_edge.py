"""Two replicas behind the real edge: a blocked event loop, and a rolling restart, as clients see them."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

import httpx
import pytest

from services.h2o.train import TrainedModel
from tests.integration.api.edge import Edge, Load
from tests.integration.api.platform import Platform
from tests.integration.api.publishing import renamed
from tests.integration.api.test_replica import FLIGHT, new_flight, write_of

pytestmark = pytest.mark.integration

BLOCK_S = 3.0
OUT_S = 1.0
"""The promise: a blocked replica gets nothing any more."""
BACK_S = 5.0
BLOCKED_CONNECTION_S = 0.7
"""How long the edge waits for a prediction's answer before it asks another replica."""


@pytest.fixture(scope="module")
def edge(
    platform: Platform, trained: Mapping[str, TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    platform.registry.publish(trained["v1"])
    with Edge(platform, tmp_path_factory.mktemp("edge"), chaos=True) as edge:
        yield edge


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
    assert all(seen.replica == "api-0" and seen.began < began + OUT_S for seen in late), "writes are never sent twice"
    assert blocked.metric('breakwater_api_breaker_opened_total{dependency="replica"}') == 1


def test_a_rolling_restart_of_every_replica_loses_nothing(edge: Edge) -> None:
    with Load(edge, rate=200, clients=24, request=mixed).running() as load:
        edge.wait_for(lambda: len(load.seen) > 100)
        for name in sorted(edge.replicas):
            assert edge.replicas[name].end(signal.SIGTERM) == 0
            edge.start(name)
            edge.wait_for(lambda: edge.up() == set(edge.replicas) == edge.up("api"))
            edge.wait_for(partial(served, load, len(load.seen) + 50))
    seconds = max(seen.began for seen in load.seen) - min(seen.began for seen in load.seen)
    assert len(load.seen) > 0.8 * load.rate * seconds, "the load fell behind: this proves nothing"
    assert Counter(seen.status for seen in load.seen) == {200: len(load.seen)}
    assert {seen.replica for seen in load.seen} == {"api-0", "api-1"}
    assert len({seen.path for seen in load.seen}) == 2


def test_a_frozen_replica_is_out_too_and_faults_are_not_for_clients(edge: Edge, platform: Platform) -> None:
    frozen = edge.replicas["api-1"].process
    assert frozen is not None
    with edge.client() as client:
        admin = {"authorization": f"Bearer {platform.admin_token}"}
        refused = client.post("/chaos/block-loop", json={"seconds": 1}, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        frozen.send_signal(signal.SIGSTOP)
        try:
            answers = [client.post("/v1/predict", json={"features": FLIGHT}) for _ in range(10)]
            edge.wait_for(lambda: edge.up() == {"api-0"})
        finally:
            frozen.send_signal(signal.SIGCONT)
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-breakwater-replica"] for answer in answers} == {"api-0"}
        edge.wait_for(lambda: edge.up() == {"api-0", "api-1"})
    log = edge.replicas["api-1"].lines()
    assert not [line for line in log if "blocked" in str(line["message"])], "a stopped process is not a blocked loop"


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
