"""How long a request may take: what its caller allows, the outermost bound, and what its body has used up of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from services.api.bodies import OUTERMOST_S, patience_s, whole_body
from services.api.correlation import correlate
from services.api.layer import Layer
from services.api.metrics import Metrics
from services.api.observation import SCOPE_KEY, Observation

USUAL_S = 2.0
RUN_S = 0.5
"""What a test itself may take between two lines, on a machine that does other things."""
SLOW_S = 0.3


def patience(headers: Mapping[str, str], ago_s: float = 0.0) -> float:
    """Of a request that arrived so long ago."""
    scope = {
        "type": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        SCOPE_KEY: Observation(correlate({}), began=time.monotonic() - ago_s),
    }
    return patience_s(Request(scope), USUAL_S)


@pytest.mark.parametrize(
    ("allowed_ms", "ago_s", "left_s"),
    [
        ("60000", 0, OUTERMOST_S),
        ("60000", 4, OUTERMOST_S - 4),
        ("300", 0, 0.3),
        ("3000", 1, 2.0),
        ("1000", 3, 0.0),
        (None, 0, USUAL_S),
        (None, 5, USUAL_S),
        (None, OUTERMOST_S - 1, 1.0),
        (None, OUTERMOST_S + 1, 0.0),
    ],
)
def test_a_caller_gets_what_it_allows_within_the_bound_since_it_sent(
    allowed_ms: str | None, ago_s: float, left_s: float
) -> None:
    headers = {} if allowed_ms is None else {"x-request-timeout-ms": allowed_ms}
    assert left_s - RUN_S < patience(headers, ago_s) <= left_s


async def test_a_slow_body_uses_up_its_callers_time() -> None:
    async def endpoint(request: Request) -> Response:
        await whole_body(request)
        return PlainTextResponse(str(patience_s(request, USUAL_S)))

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(SLOW_S)
        yield b"}"

    app = Layer(
        Router([Route("/", endpoint, methods=["POST"])]),
        routes=["/"],
        metrics=Metrics(),
        replica="api-0",
        draining=lambda: False,
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://replica") as http:
        for allowed_ms, whole_s in (("60000", OUTERMOST_S), ("1000", 1.0)):
            headers = {"content-length": "2", "x-request-timeout-ms": allowed_ms}
            answer = await http.post("/", content=slow(), headers=headers)
            assert whole_s - SLOW_S - RUN_S < float(answer.text) <= whole_s - SLOW_S
