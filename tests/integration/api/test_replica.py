"""One replica as a process: predictions, writes and refusals over HTTP, with real shards, Redis and model."""

from __future__ import annotations

import http.client
import socket
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from services.api.access import ONE_IN
from services.api.cache import ROUND_TRIP_S
from services.api.openapi import ProblemDetails
from services.contracts.slots import SlotMap, slot_of
from services.featurestore.slots import apply_slot_map
from tests.integration.api.platform import DATABASE, Platform, Replica
from tests.integration.api.waiting import wait_until, waiting_for_locks, waiting_for_standby

pytestmark = pytest.mark.integration

FLIGHT: dict[str, Any] = {
    "month": 7,
    "day_of_week": 5,
    "departure_minute": 1170,
    "arrival_minute": 1300,
    "distance": 733,
    "carrier": "EV",
    "origin": "EWR",
    "dest": "ORD",
    "temp": 91.4,
    "humid": 55.1,
    "visib": 10,
}
SHARDS = 2
FAST_S = 1.0
"""Bound of what must not wait for a timeout of seconds, on a busy machine."""


def entity_on(shard: int) -> str:
    """A new entity that the even map gives to the shard."""
    while True:
        entity = uuid.uuid4()
        if SlotMap.even(SHARDS).shard_of(entity) == shard:
            return str(entity)


def write_of(shard: int, **changes: Any) -> dict[str, Any]:
    return {
        "entity_id": entity_on(shard),
        "event_time": datetime.now(UTC).isoformat(),
        "segment": FLIGHT["carrier"],
        "features": FLIGHT | changes,
    }


def key_of(write: dict[str, Any]) -> dict[str, Any]:
    return {name: write[name] for name in ("entity_id", "event_time")}


_distances = iter(range(1000, 100_000))


def new_flight() -> dict[str, Any]:
    """A vector that was never asked for."""
    return FLIGHT | {"distance": next(_distances)}


class TestPredictions:
    def test_a_vector_is_scored_once_and_then_cached(self, replica: Replica, platform: Platform) -> None:
        flight = new_flight()
        first, second = replica.predict(features=flight), replica.predict(features=flight)
        assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
        answer = first.json()
        assert 0 < answer["probability"] < 1
        assert answer["late"] in {True, False}
        pointer = platform.registry.pointer()
        assert answer["model"] == {"name": pointer.name, "version": "v1", "generation": pointer.generation}
        assert (answer["source"], answer["staleness_s"]) == ("scored", None)
        assert second.json() == answer | {"source": "cache"}

    def test_the_spelling_of_a_vector_does_not_matter(self, replica: Replica) -> None:
        flight = new_flight()
        replica.predict(features=flight)
        same = {name: flight[name] for name in reversed(flight)} | {
            "distance": float(flight["distance"]),
            "precip": None,
        }
        assert replica.predict(features=same).json()["source"] == "cache"

    def test_an_unknown_airport_is_scored_as_missing(self, replica: Replica) -> None:
        probabilities = {
            replica.predict(features=FLIGHT | {"dest": dest}).json()["probability"] for dest in ("ZZZ", "QQQ")
        }
        assert len(probabilities) == 1

    def test_a_stored_vector_scores_like_itself(self, replica: Replica) -> None:
        write = write_of(0, distance=next(_distances))
        assert replica.http.post("/v1/features", json=write).status_code == 200
        stored = replica.predict(**key_of(write), read_your_writes=True).json()
        given = replica.predict(features=write["features"]).json()
        assert stored["probability"] == given["probability"]
        assert stored["staleness_s"] == 0
        assert given["source"] == "cache"

    def test_what_is_not_stored_is_a_problem(self, replica: Replica) -> None:
        answer = replica.predict(**key_of(write_of(1)))
        assert (answer.status_code, answer.json()["code"]) == (404, "features_not_found")

    def test_many_at_once_are_all_answered(self, replica: Replica) -> None:
        flights = [new_flight() for _ in range(300)]
        with ThreadPoolExecutor(16) as callers:
            answers = list(callers.map(lambda flight: replica.predict(features=flight), flights))
        assert [answer.status_code for answer in answers] == [200] * 300
        again = [replica.predict(features=flight).json()["probability"] for flight in flights[:20]]
        assert again == [answer.json()["probability"] for answer in answers[:20]]


class TestReads:
    def test_what_was_written_is_read_with_its_age(self, replica: Replica) -> None:
        write = write_of(0, distance=next(_distances))
        assert replica.http.post("/v1/features", json=write).status_code == 200
        answer = replica.http.get("/v1/features", params=key_of(write))
        assert answer.status_code == 200
        found = answer.json()
        assert found["features"]["distance"] == write["features"]["distance"]
        assert (found["entity_id"], found["from_standby"], found["staleness_s"]) == (write["entity_id"], False, 0)
        mine = replica.http.get("/v1/features", params=key_of(write) | {"read_your_writes": "true"})
        assert mine.json() == found

    def test_its_connection_is_among_those_that_the_pools_show(self, replica: Replica) -> None:
        replica.http.get("/v1/features", params=key_of(write_of(0)))
        for pool in ("shard-0-write", "shard-0-read", "shard-1-write", "shard-1-read"):
            assert replica.metric(f'breakwater_api_pool_connections{{pool="{pool}",state="open"}}') >= 1
            assert replica.metric(f'breakwater_api_pool_connections{{pool="{pool}",state="dialling"}}') == 0

    def test_what_is_not_there_has_an_age_too(self, replica: Replica) -> None:
        answer = replica.http.get("/v1/features", params=key_of(write_of(0)))
        assert (answer.status_code, answer.json()["code"], answer.json()["staleness_s"]) == (
            404, "features_not_found", 0
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "place"),
        [
            ({"entity_id": "7"}, "entity_id"),
            ({"event_time": "2013-01-01T10:15:00"}, "event_time"),
            ({"read_your_writes": "perhaps"}, "read_your_writes"),
            ({"read_your_write": "true"}, "read_your_write"),
        ],
    )
    def test_a_query_that_breaks_the_contract_is_told_where(
        self, replica: Replica, changes: dict[str, str], place: str
    ) -> None:
        answer = replica.http.get("/v1/features", params=key_of(write_of(0)) | changes)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert [error["loc"] for error in answer.json()["errors"]] == [[place]]

    def test_a_query_without_a_key_is_refused_and_so_is_another_method(self, replica: Replica) -> None:
        assert replica.http.get("/v1/features").status_code == 422
        refused = replica.http.delete("/v1/features")
        assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})


class TestRefusals:
    @pytest.mark.parametrize("path", ["/v1/predict", "/v1/features"])
    @pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}])
    def test_no_token_no_service(self, replica: Replica, path: str, header: dict[str, str]) -> None:
        answer = httpx.post(replica.url + path, json={"features": FLIGHT}, headers=header)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["content-type"] == "application/problem+json"

    @pytest.mark.parametrize(
        ("body", "location"),
        [
            ({"features": FLIGHT | {"month": 13}}, ["vector", "features", "month"]),
            ({"features": FLIGHT | {"gate": 1}}, ["vector", "features", "gate"]),
            ({"features": FLIGHT, "entity_id": str(uuid.uuid4())}, ["vector", "entity_id"]),
            ({"entity_id": "x", "event_time": "2013-01-01T00:00:00Z"}, ["entity", "entity_id"]),
            ({"entity_id": str(uuid.uuid4()), "event_time": "2013-01-01T00:00:00"}, ["entity", "event_time"]),
        ],
    )
    def test_a_broken_request_names_the_place(
        self, replica: Replica, body: dict[str, Any], location: list[str]
    ) -> None:
        answer = replica.predict(**body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["loc"] for error in answer.json()["errors"]] == [location]

    @pytest.mark.parametrize("path", ["/v1/predict", "/v1/features"])
    def test_malformed_json_without_a_token_is_unauthorized(self, replica: Replica, path: str) -> None:
        answer = httpx.post(replica.url + path, content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")

    @pytest.mark.parametrize("path", ["/v1/predict", "/v1/features"])
    @pytest.mark.parametrize("allowed", ["0", "-1", "1.5", "soon", "", "9" * 10, "\u0662"])
    def test_an_unreadable_patience_is_refused(self, replica: Replica, path: str, allowed: str) -> None:
        answer = replica.http.post(path, json={}, headers={b"x-request-timeout-ms": allowed.encode()})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")

    def test_an_idempotency_key_is_a_uuid(self, replica: Replica) -> None:
        answer = replica.http.post("/v1/features", json=write_of(0), headers={"idempotency-key": "again"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["errors"][0]["loc"] == ["header", "idempotency-key"]

    def test_a_caller_that_goes_away_in_the_middle_of_its_body_is_no_fault_of_ours(self, replica: Replica) -> None:
        address = ("127.0.0.1", httpx.URL(replica.url).port or 0)
        head = f"POST /v1/predict HTTP/1.1\r\nhost: x\r\n{authorization(replica)}content-length: 100\r\n\r\n{{"
        count = 'breakwater_api_request_seconds_count{path="/v1/predict",status="400"}'
        before = replica.metric(count)
        with socket.create_connection(address) as client:
            client.sendall(head.encode())
        wait_until(lambda: replica.metric(count) > before)

    @pytest.mark.parametrize(
        ("sent", "status", "code"),
        [
            (b"garbage\r\n\r\n", 400, "bad_request"),
            (b"GET /healthz HTTP/1.1\r\nhost: x\r\nno header\r\n\r\n", 400, "bad_request"),
            (b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", 411, "length_required"),
            (b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n", 413, "body_too_large"),
        ],
    )
    def test_what_is_no_request_of_ours_is_a_problem_too(
        self, replica: Replica, sent: bytes, status: int, code: str
    ) -> None:
        with socket.create_connection(("127.0.0.1", httpx.URL(replica.url).port or 0), timeout=10) as client:
            client.sendall(sent)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.getheader("content-type")) == (status, "application/problem+json")
            assert len(answer.getheader("x-request-id", "")) == 32
            said = ProblemDetails.model_validate_json(answer.read())
        assert (said.status, said.code) == (status, code)
        assert replica.http.get("/readyz").status_code == 200

    def test_no_json_is_a_broken_request(self, replica: Replica) -> None:
        answer = replica.http.post("/v1/predict", content=b'{"features": NaN')
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")

    def test_a_time_without_partition_is_refused_by_the_shard(self, replica: Replica) -> None:
        write = write_of(0) | {"event_time": "1999-01-01T00:00:00Z"}
        answer = replica.http.post("/v1/features", json=write)
        assert (answer.status_code, answer.json()["code"]) == (422, "refused_by_store")


class TestPatience:
    """What a caller allows is kept to, on a shard that does not answer."""

    @pytest.fixture(autouse=True)
    def _frozen(self, platform: Platform, replica: Replica) -> Iterator[None]:
        self.write = write_of(1)
        assert replica.http.post("/v1/features", json=self.write).status_code == 200
        platform.postgres[1].freeze()
        yield
        platform.postgres[1].thaw()
        again = write_of(1)
        wait_until(lambda: replica.http.post("/v1/features", json=again).status_code == 200)

    def test_a_prediction_ends_when_its_caller_stops_waiting(self, replica: Replica) -> None:
        started = time.monotonic()
        answer = replica.http.post("/v1/predict", json=key_of(self.write), headers={"x-request-timeout-ms": "100"})
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - started < FAST_S / 2

    def test_a_write_that_was_sent_is_unknown_then(self, replica: Replica) -> None:
        answer = replica.http.post("/v1/features", json=write_of(1), headers={"x-request-timeout-ms": "100"})
        assert (answer.status_code, answer.json()["code"]) == (503, "commit_unknown")


class TestWrites:
    @pytest.mark.parametrize("shard", range(SHARDS))
    def test_an_acknowledged_write_names_its_place(self, replica: Replica, shard: int) -> None:
        key = str(uuid.uuid4())
        answer = replica.http.post("/v1/features", json=write_of(shard), headers={"idempotency-key": key})
        assert answer.status_code == 200
        assert answer.json() == {
            "shard": shard,
            "timeline": 1,
            "server": f"shard-{shard}-0",
            "idempotency_key": key,
        }

    def test_without_a_key_the_content_is_the_key(self, replica: Replica) -> None:
        write = write_of(0)
        keys = [
            replica.http.post("/v1/features", json=body).json()["idempotency_key"]
            for body in (write, write, write | {"segment": "UA"})
        ]
        assert keys[0] == keys[1] != keys[2]

    def test_a_later_write_replaces_and_is_read_at_once(self, replica: Replica) -> None:
        write = write_of(1)
        for distance in (200, 2000):
            write["features"] = FLIGHT | {"distance": distance}
            assert replica.http.post("/v1/features", json=write).status_code == 200
            expected = replica.predict(features=write["features"]).json()["probability"]
            found = replica.predict(**key_of(write), read_your_writes=True).json()
            assert found["probability"] == expected

    def test_a_slot_that_moved_is_a_conflict(self, replica: Replica, platform: Platform) -> None:
        write = write_of(0)
        owners = SlotMap.even(SHARDS).owners
        owners[slot_of(uuid.UUID(write["entity_id"]))] = 1
        apply_slot_map(platform.shards, SlotMap(generation=1, owners=owners))
        try:
            answer = replica.http.post("/v1/features", json=write)
        finally:
            apply_slot_map(platform.shards, SlotMap.even(SHARDS))
        assert (answer.status_code, answer.json()["code"]) == (409, "slot_moved")
        assert replica.http.post("/v1/features", json=write).status_code == 200

    def test_a_client_that_hangs_up_cancels_nothing(self, replica: Replica, platform: Platform) -> None:
        write = write_of(0)
        entity = uuid.UUID(write["entity_id"])
        request = replica.http.build_request("POST", "/v1/features", json=write)
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        server = platform.postgres[0]
        with server.superuser(DATABASE) as holder, server.superuser(DATABASE) as onlooker:
            with holder.transaction():  # the write has to wait inside its transaction
                holder.execute("select 1 from owned_slots where slot = %s for update", [slot_of(entity)])
                with socket.create_connection(("127.0.0.1", request.url.port or 0)) as client:
                    client.sendall(f"POST /v1/features HTTP/1.1\r\n{head}\r\n".encode() + request.content)
                    wait_until(lambda: waiting_for_locks(onlooker) > 0)
                assert count(onlooker, entity) == 0
            wait_until(lambda: count(onlooker, entity) == 1)


class TestShardAway:
    @pytest.fixture(autouse=True)
    def _up_again(self, platform: Platform, replica: Replica) -> Iterator[None]:
        yield
        platform.postgres[1].kill()
        platform.postgres[1].start()
        write = write_of(1)
        wait_until(lambda: replica.http.post("/v1/features", json=write).status_code == 200)

    def test_a_dead_shard_fails_alone(self, replica: Replica, platform: Platform) -> None:
        on_dead, on_living = write_of(1), write_of(0)
        assert replica.http.post("/v1/features", json=on_dead).status_code == 200
        platform.postgres[1].kill()
        refused = replica.http.post("/v1/features", json=write_of(1))
        assert (refused.status_code, refused.json()["code"]) == (503, "shard_unavailable")
        assert refused.headers["retry-after"] == "1"
        unread = replica.predict(**key_of(on_dead))
        assert (unread.status_code, unread.json()["code"]) == (503, "shard_unavailable")
        assert replica.http.get("/readyz").status_code == 200
        started = time.monotonic()
        assert replica.http.post("/v1/features", json=on_living).status_code == 200
        assert replica.predict(**key_of(on_living)).status_code == 200
        assert replica.predict(features=new_flight()).status_code == 200
        assert time.monotonic() - started < FAST_S

    def test_a_commit_without_an_answer_is_unknown(self, replica: Replica, platform: Platform) -> None:
        """The shard waits for a synchronous standby that does not exist, and dies waiting."""
        server = platform.postgres[1]
        with server.superuser() as connection:
            connection.execute("alter system set synchronous_standby_names = 'nobody'")
            connection.execute("select pg_reload_conf()")
        try:
            with ThreadPoolExecutor(1) as caller:
                with server.superuser() as connection:
                    answer = write_that_waits(replica, caller, connection)
                server.kill()
                unknown = answer.result(timeout=30)
        finally:
            server.kill()
            (server.data / "postgresql.auto.conf").write_text("")
            server.start()
        assert (unknown.status_code, unknown.json()["code"]) == (503, "commit_unknown")


class TestRedisAway:
    @pytest.fixture(autouse=True)
    def _up_again(self, platform: Platform, replica: Replica) -> Iterator[None]:
        yield
        platform.redis.kill()
        platform.redis.start()
        wait_until(lambda: replica.metric('breakwater_api_breaker_state{dependency="redis"}') == 0)

    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    def test_predictions_go_on_without_redis(self, replica: Replica, platform: Platform, fault: str) -> None:
        getattr(platform.redis, fault)()
        answers, seconds = [], []
        for _ in range(100):
            started = time.monotonic()
            answers.append(replica.predict(features=new_flight()))
            seconds.append(time.monotonic() - started)
        assert [answer.status_code for answer in answers] == [200] * 100
        assert {answer.json()["source"] for answer in answers} == {"scored"}
        assert statistics.median(seconds) < ROUND_TRIP_S  # the first one waits for the cache, none after it
        assert max(seconds) < FAST_S
        assert replica.http.get("/readyz").status_code == 200


def test_the_documentation_says_what_the_routes_do(replica: Replica) -> None:
    """Requests by the described properties are understood, answers have them, refusals are among the described."""
    document = replica.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    write = write_of(0)
    bodies = {
        "/v1/predict": [{"features": FLIGHT}, key_of(write), {}, {"features": FLIGHT, "more": 1}],
        "/v1/features": [write, {}, write | {"event_time": "1999-01-01T00:00:00Z"}],
    }
    assert set(document["paths"]) == {*bodies, "/v1/models/current", "/v1/admin/reload-model"}
    current = replica.http.get("/v1/models/current").json()
    assert set(current) == set(schemas["CurrentModel"]["properties"])
    assert current["model"]["version"] == "v1"
    for path, examples in bodies.items():
        operation = document["paths"][path]["post"]
        accepted = operation["requestBody"]["content"]["application/json"]["schema"]
        properties = [
            set(schemas[reference["$ref"].split("/")[-1]]["properties"])
            for reference in accepted.get("oneOf", [accepted])
        ]
        answers = [replica.http.post(path, json=body) for body in examples]
        answers.append(httpx.post(replica.url + path, json={}))
        assert answers[0].status_code == 200
        assert any(set(examples[0]) <= described for described in properties)
        for answer in answers:
            described = operation["responses"][str(answer.status_code)]
            (kind, content), *_ = described["content"].items()
            assert answer.headers["content-type"] == kind
            schema = schemas[content["schema"]["$ref"].split("/")[-1]]
            assert set(schema["required"]) <= set(answer.json()) <= set(schema["properties"])
            if answer.status_code != 200:
                assert f"`{answer.json()['code']}`" in described["description"]


def test_the_log_is_json_and_holds_no_secret(replica: Replica, platform: Platform) -> None:
    query = "?token=hidden-in-a-query"
    for path in ("/v1/predict", "/hidden-in-a-path"):
        for _ in range(ONE_IN):
            replica.http.post(
                path + query, json={"carrier": "hidden-in-a-body"}, headers={"x-request-id": "hidden\there"}
            )
    assert all({"time", "level", "logger", "replica", "message"} <= line.keys() for line in replica.lines())
    lines = [line for line in replica.lines() if line["logger"] == "services.api.access"]
    assert {"method", "route", "status", "ms", "request_id"} <= lines[-1].keys()
    text = replica.log.read_text()
    assert "hidden" not in text
    secrets = [platform.token, platform.redis.password_file.read_text(), platform.postgres[0].password]
    assert not [secret for secret in secrets if secret in text]


def authorization(replica: Replica) -> str:
    return f"authorization: {replica.http.headers['authorization']}\r\n"


def count(connection: psycopg.Connection, entity: uuid.UUID) -> int:
    row = connection.execute("select count(*) from features where entity_id = %s", [entity]).fetchone()
    assert row is not None
    return int(row[0])


def write_that_waits(
    replica: Replica, caller: ThreadPoolExecutor, connection: psycopg.Connection
) -> Future[httpx.Response]:
    """A write to shard 1 whose COMMIT waits for a standby.

    A server's processes take up a changed setting one after the other, so the first writes may still pass.
    """
    sent: list[Future[httpx.Response]] = []

    def waits() -> bool:
        if not sent or sent[-1].done():
            sent.append(caller.submit(replica.http.post, "/v1/features", json=write_of(1)))
        return waiting_for_standby(connection) > 0

    wait_until(waits)
    assert {answer.result().status_code for answer in sent[:-1]} <= {200}
    return sent[-1]
