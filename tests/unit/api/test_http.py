"""What clients see around the routes: refusals with codes, the token, body limits, and what is counted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.api import problems
from services.api.auth import BearerAuth
from services.api.bodies import validated
from services.api.health import healthz, readyz
from services.api.metrics import MAX_BODY_BYTES, Metrics, ReplicaMiddleware, metrics_endpoint
from services.featurestore.errors import (
    CommitUnknown,
    FeatureStoreError,
    InvalidRequest,
    NotOwner,
    SchemaSkew,
    ShardUnavailable,
    SlotMapError,
)

TOKEN = "a token with = and ü"  # noqa: S105 - of no server
AUTHORIZED = {b"authorization": f"Bearer {TOKEN}".encode()}


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int


class Site:
    """A little application around the real middleware, handlers and dependency."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.draining = False
        self.obstacle: str | None = None
        self.failure: Exception = RuntimeError("a secret detail")
        self.app = FastAPI()
        self.app.add_middleware(
            ReplicaMiddleware, metrics=self.metrics, replica="api-7", draining=lambda: self.draining
        )
        problems.install(self.app)
        self.app.router.routes += [
            Route("/healthz", healthz),
            Route("/readyz", readyz(lambda: self.obstacle)),
            Route("/metrics", metrics_endpoint(self.metrics)),
            Route("/fail", self.fail),
            Route("/v1/features", self.write, methods=["POST"]),
        ]

    async def write(self, request: Request) -> Response:
        await BearerAuth(TOKEN)(request)
        return Response(validated(Body, await request.body()).model_dump_json())

    async def fail(self, _: Request) -> Response:
        raise self.failure


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=site.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["title"]
    assert body["detail"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (CommitUnknown(1, "no answer"), 503, "commit_unknown"),
        (ShardUnavailable(1, "down"), 503, "shard_unavailable"),
        (SlotMapError("no map"), 503, "slot_map_unavailable"),
        (SchemaSkew("shard 1 is old"), 503, "schema_skew"),
        (NotOwner(1, 5, 2), 409, "slot_moved"),
        (InvalidRequest(1, "no partition"), 422, "refused_by_store"),
        (FeatureStoreError("a secret detail"), 500, "internal"),
        (RuntimeError("a secret detail"), 500, "internal"),
        (problems.NoModelLoaded("none"), 503, "no_model"),
    ],
)
async def test_every_failure_has_its_code(
    site: Site, http: httpx.AsyncClient, failure: Exception, status: int, code: str
) -> None:
    site.failure = failure
    answer = await http.get("/fail")
    assert_problem(answer, status, code)
    assert ("retry-after" in answer.headers) is (status == 503)
    assert "secret" not in answer.text


async def test_what_is_not_routed_is_a_problem_too(http: httpx.AsyncClient) -> None:
    assert_problem(await http.get("/nowhere"), 404, "not_found")
    refused = await http.get("/v1/features")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
    ],
)
async def test_without_the_token_nothing_is_done(http: httpx.AsyncClient, header: str | None) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    answer = await http.post("/v1/features", json={"number": 1}, headers=headers)
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


async def test_without_the_token_not_even_a_broken_body_is_looked_at(http: httpx.AsyncClient) -> None:
    assert_problem(await http.post("/v1/features", content=b"{"), 401, "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_token_it_is(http: httpx.AsyncClient, scheme: str) -> None:
    headers = {b"authorization": f"{scheme} {TOKEN}".encode()}
    assert (await http.post("/v1/features", json={"number": 1}, headers=headers)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"number": "x"}', b'{"other": 1}'])
async def test_a_broken_body_is_refused_without_repeating_it(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/features", content=body, headers=AUTHORIZED | {b"content-type": b"application/json"})
    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0].keys() == {"loc", "msg", "type"}


async def test_bodies_are_bounded(http: httpx.AsyncClient) -> None:
    large = await http.post("/v1/features", content=b"x" * (MAX_BODY_BYTES + 1), headers=AUTHORIZED)
    assert_problem(large, 413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"number": 1}'

    assert_problem(await http.post("/v1/features", content=chunks(), headers=AUTHORIZED), 411, "length_required")


async def test_readiness_names_its_obstacle_and_liveness_has_none(site: Site, http: httpx.AsyncClient) -> None:
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    site.obstacle = "no model"
    unready = await http.get("/readyz")
    assert (unready.status_code, unready.json()) == (503, {"status": "not ready", "reason": "no model"})
    assert (await http.get("/healthz")).status_code == 200


async def test_answers_name_the_replica_and_close_connections_while_it_drains(
    site: Site, http: httpx.AsyncClient
) -> None:
    answer = await http.get("/healthz")
    assert answer.headers["x-breakwater-replica"] == "api-7"
    assert "connection" not in answer.headers
    site.draining = True
    assert (await http.get("/healthz")).headers["connection"] == "close"


async def test_requests_are_counted_by_path_and_status(http: httpx.AsyncClient) -> None:
    await http.get("/healthz")
    for _ in range(3):
        await http.get(f"/{uuid.uuid4()}")
    await http.get("/fail")
    samples = (await http.get("/metrics")).text.splitlines()
    for path, status, count in (("/healthz", 200, 1), ("other", 404, 3), ("other", 500, 1)):
        assert f'breakwater_api_request_seconds_count{{path="{path}",status="{status}"}} {count}.0' in samples
