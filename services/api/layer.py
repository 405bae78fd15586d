"""The one layer around the application, pure ASGI: names, counts, times, traces and logs requests, and bounds bodies.

A BaseHTTPMiddleware would cost three quarters of the throughput. It is outermost, so that answers to failures that
nobody handled carry its headers as well, and says so itself when there was one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Final, Protocol

from prometheus_client import Histogram
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.access import AccessLog
from services.api.bodies import MAX_BODY_BYTES
from services.api.correlation import REQUEST_ID_HEADER, Correlation, correlate
from services.api.metrics import Metrics
from services.api.observation import SCOPE_KEY, Observation, RequestTrace
from services.api.problems import problem

REPLICA_HEADER: Final = b"x-breakwater-replica"
OTHER: Final = "other"
"""Every path that is no route, so that no client can make new time series."""

logger = logging.getLogger(__name__)


class Traces(Protocol):
    """services/api/tracing.py, where it is on."""

    def begin(self, correlation: Correlation, method: str) -> RequestTrace | None: ...


class Layer:
    """While `draining`, answers ask for the connection to be closed, so that none is left."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Collection[str],
        metrics: Metrics,
        replica: str,
        draining: Callable[[], bool],
        traces: Traces | None = None,
    ) -> None:
        """`routes`: paths with a name of their own in metrics, logs and traces."""
        self._app = app
        self._routes = frozenset(routes)
        self._metrics = metrics
        self._replica = (REPLICA_HEADER, replica.encode("latin-1"))
        self._draining = draining
        self._traces = traces
        self._access = AccessLog(metrics.access_suppressed)
        self._series: dict[tuple[str, int], Histogram] = {}
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"])
        observation = scope[SCOPE_KEY] = Observation(correlate(sent))
        if self._traces is not None:
            observation.trace = self._traces.begin(observation.correlation, scope["method"])
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    self._replica,
                    (REQUEST_ID_HEADER, observation.correlation.request_id.encode()),
                ]
                if self._draining():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._in_flight += 1
        try:
            await (_body_refusal(sent) or self._app)(scope, receive, answer)
        except Exception:
            logger.exception("a request failed", extra={"fields": observation.fields()})
            if status is None:
                raise  # the server answers
        finally:
            self._in_flight -= 1
            self._ended(observation, scope, status or int(HTTPStatus.INTERNAL_SERVER_ERROR))

    def _ended(self, observation: Observation, scope: Scope, status: int) -> None:
        seconds = time.monotonic() - observation.began
        route = scope["path"] if scope["path"] in self._routes else OTHER
        series = self._series.get((route, status))
        if series is None:
            series = self._series[route, status] = self._metrics.requests.labels(route, str(status))
        series.observe(seconds)
        if observation.code is not None:
            self._metrics.refusals.labels(observation.code).inc()
        if observation.trace is not None:
            observation.trace.end(route, status, observation.code)
        self._access.ended(observation, scope["method"], route, status, seconds)


def _body_refusal(headers: dict[bytes, bytes]) -> Response | None:
    """A body must announce its length, and it must be small; the server holds it to that length."""
    if b"transfer-encoding" in headers:
        return problem("length_required", "send the body with a Content-Length")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return problem("body_too_large", f"send at most {MAX_BODY_BYTES} bytes of body")
    return None
