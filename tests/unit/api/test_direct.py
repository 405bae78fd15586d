"""The way past the framework answers as the framework would."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.api import problems
from services.api.direct import DirectRoute, JsonResponse
from services.api.problems import Overloaded
from services.featurestore.errors import ShardUnavailable

PATH = "/v1/predict"


async def answer(request: Request) -> Response:
    what = await request.body()
    if what == b"busy":
        raise Overloaded("try again")
    if what == b"shard":
        raise ShardUnavailable(0, "gone")
    if what == b"fault":
        raise RuntimeError("a fault")
    return JsonResponse(b'{"path": "direct"}')


def site() -> ASGIApp:
    app = FastAPI()
    problems.install(app)
    app.router.routes.append(Route(PATH, lambda _: Response("framework"), methods=["POST"]))
    return DirectRoute(app, path=PATH, endpoint=answer, handlers=app.exception_handlers)


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=site(), raise_app_exceptions=False), base_url="http://replica"
    )


async def test_a_post_goes_straight_to_the_endpoint(client: httpx.AsyncClient) -> None:
    found = await client.post(PATH, content=b"{}")
    assert (found.status_code, found.json()) == (200, {"path": "direct"})
    assert found.headers["content-type"] == "application/json"
    assert found.headers["content-length"] == str(len(found.content))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"busy", 503, "overloaded"), (b"shard", 503, "shard_unavailable"), (b"fault", 500, "internal")],
)
async def test_refusals_and_faults_are_answered_as_anywhere(
    client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    found = await client.post(PATH, content=body)
    assert (found.status_code, found.json()["code"]) == (status, code)
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PATH, 405), ("POST", "/v1/other", 404)])
async def test_everything_else_goes_through_the_framework(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    found = await client.request(method, path)
    assert found.status_code == status
    assert "code" in found.json()
