"""What clients see around the routes: refusals with codes, the token, body limits, and what is counted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.api import bodies, problems
from services.api.auth import BearerAuth
from services.api.bodies import MAX_BODY_BYTES, validated, whole_body
from services.api.correlation import Correlation
from services.api.health import healthz, readyz
from services.api.layer import Layer
from services.api.metrics import Metrics, metrics_endpoint
from services.api.observation import RequestTrace, stage
from services.api.settings import TraceSettings
from services.api.tracing import Tracing
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
    """A little application in the real layer, with the real handlers and dependency."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.draining = False
        self.obstacle: str | None = None
        self.failure: Exception = RuntimeError("a secret detail")
        self.traces: Tracing | None = None
        app = FastAPI()
        problems.install(app)
        routes = [
            Route("/healthz", healthz),
            Route("/readyz", readyz(lambda: self.obstacle)),
            Route("/metrics", metrics_endpoint(self.metrics)),
            Route("/fail", self.fail),
            Route("/v1/features", self.write, methods=["POST"]),
        ]
        app.router.routes += routes
        self.app = Layer(
            app,
            routes=[route.path for route in routes],
            metrics=self.metrics,
            replica="api-7",
            draining=lambda: self.draining,
            traces=self,
        )

    def begin(self, correlation: Correlation, method: str) -> RequestTrace | None:
        return None if self.traces is None else self.traces.begin(correlation, method)

    async def write(self, request: Request) -> Response:
        await BearerAuth(TOKEN)(request)
        with stage(request.scope, "validate"):
            return Response(validated(Body, await whole_body(request)).model_dump_json())

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


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"number": "x"}', b'{"number": "1"}', b'{"number": true}', b'{"other": 1}']
)
async def test_a_broken_body_is_refused_without_repeating_it(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/features", content=body, headers=AUTHORIZED | {b"content-type": b"application/json"})
    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0].keys() == {"loc", "msg", "type"}


@pytest.mark.parametrize(("body", "accepted"), [(b'{"number": 7.0}', True), (b'{"number": 7.5}', False)])
async def test_an_integer_may_be_spelled_as_a_float(http: httpx.AsyncClient, body: bytes, accepted: bool) -> None:
    answer = await http.post("/v1/features", content=body, headers=AUTHORIZED)
    assert (answer.status_code == 200) is accepted


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
    for path, status, count in (("/healthz", 200, 1), ("other", 404, 3), ("/fail", 500, 1)):
        assert f'breakwater_api_request_seconds_count{{path="{path}",status="{status}"}} {count}.0' in samples


async def test_no_caller_can_make_new_series(site: Site, http: httpx.AsyncClient) -> None:
    """Whatever comes as path, query, header or token, labels keep to their few values."""

    async def ask(number: int) -> None:
        strange = f"{uuid.uuid4()}-{number}"
        headers = {"x-request-id": strange, "authorization": f"Bearer {strange}", "traceparent": strange}
        for path in (f"/{strange}", f"/v1/features?{strange}", f"/v1/features/{strange}", f"/fail;{strange}"):
            await http.get(path, headers=headers)
            await http.post(path, headers=headers, content=b"{")

    def series() -> int:
        return sum(len(metric.samples) for metric in site.metrics.registry.collect())

    await ask(0)
    before = series()
    for number in range(1, 20):
        await ask(number)
    assert series() == before
    assert site.metrics.registry.get_sample_value("breakwater_api_refusals_total", {"code": "unauthorized"}) == 20


@pytest.mark.parametrize("headers", [{}, {"x-request-id": "order-7.a_b"}])
async def test_an_answer_names_its_request(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for path in ("/healthz", "/nowhere", "/fail"):
        named = (await http.get(path, headers=headers)).headers["x-request-id"]
        assert named == headers.get("x-request-id", named)
        assert len(named) == (11 if headers else 32)


async def test_a_failure_nobody_handled_is_logged_once_with_its_request(
    site: Site, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await http.get("/fail", headers={"x-request-id": "this-one"})
    assert_problem(answer, 500, "internal")
    assert answer.headers["x-breakwater-replica"] == "api-7"
    failures = [record for record in caplog.records if record.exc_info]
    assert [getattr(record, "fields", None) for record in failures] == [{"request_id": "this-one"}]


async def test_a_body_that_does_not_come_is_not_waited_for(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(10)

    answer = await http.post("/v1/features", content=slow(), headers=AUTHORIZED | {b"content-length": b"100"})
    assert_problem(answer, 408, "request_timeout")
    assert answer.headers["connection"] == "close"


async def test_a_kept_trace_has_the_request_and_its_stages_under_their_caller(
    site: Site, http: httpx.AsyncClient
) -> None:
    exporter = InMemorySpanExporter()
    traced = TraceSettings(endpoint="http://127.0.0.1:4318/v1/traces", sample=0)
    site.traces = Tracing(traced, environment="test", replica="api-7", exporter=exporter)
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
    await http.post("/v1/features", json={"number": 1}, headers=AUTHORIZED)
    await http.post("/v1/features", json={"number": 1}, headers=AUTHORIZED | {b"traceparent": f"{caller}-00".encode()})
    await http.post("/v1/features", json={}, headers=AUTHORIZED | {b"traceparent": f"{caller}-01".encode()})
    site.traces.close()
    stage_span, span = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert stage_span.parent is not None
    assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == caller[3:]
    assert stage_span.parent.span_id == span.context.span_id
    assert (stage_span.name, stage_span.status.status_code) == ("validate", StatusCode.ERROR)
    assert span.name == "POST /v1/features"
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "breakwater.request_id": "0af7651916cd43dd8448eb211c80319c",
        "http.route": "/v1/features",
        "http.response.status_code": 422,
        "error.type": "invalid_request",
    }
    assert dict(span.resource.attributes)["service.instance.id"] == "api-7"


async def test_a_sample_of_the_others_is_kept(site: Site, http: httpx.AsyncClient) -> None:
    exporter = InMemorySpanExporter()
    settings = TraceSettings(endpoint="http://127.0.0.1:4318/v1/traces", sample=1)
    site.traces = Tracing(settings, environment="test", replica="api-7", exporter=exporter)
    await http.get("/fail")
    site.traces.close()
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()
