"""Prometheus metrics of one replica, and the one middleware: it counts, names the replica and bounds request bodies.

Pure ASGI: a BaseHTTPMiddleware would cost three quarters of the throughput.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import problem
from services.breaker import Breaker, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATHS = frozenset({"/v1/predict", "/v1/features", "/healthz", "/readyz", "/metrics"})
"""Everything else is counted as `other`, so that no client can make new time series."""

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""From a cache hit (1 ms) to the longest a write may take (5 s)."""

LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A busy loop is late by milliseconds; from 0.25 s on the watchdog calls it blocked."""

MAX_BODY_BYTES = 64 * 1024
"""A request is a few hundred bytes; a replica never buffers more than this for anybody."""


class Metrics:
    """The replica's collectors, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Histogram(
            "breakwater_api_request_seconds",
            "Requests by path and status; from the first byte's arrival in the application to the last byte out.",
            ["path", "status"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "breakwater_api_loop_lag_seconds",
            "How late the event loop answers the watchdog's pings, 20 a second.",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("breakwater_api_in_flight", "Requests being answered.", registry=self.registry)
        self.cache_lookups = Counter(
            "breakwater_api_cache_lookups",
            "Cache lookups: hit, stale (past the soft expiry), miss, or skipped because the cache was closed.",
            ["outcome"],
            registry=self.registry,
        )
        self.cache_stores_dropped = Counter(
            "breakwater_api_cache_stores_dropped",
            "Scores not cached because the cache was closed or behind.",
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "breakwater_api_breaker_state",
            "Breaker of each dependency: 0 closed, 1 half-open, 2 open.",
            ["dependency"],
            registry=self.registry,
        )
        self.breaker_opened = Counter(
            "breakwater_api_breaker_opened",
            "How often each dependency's breaker left the closed state.",
            ["dependency"],
            registry=self.registry,
        )
        self.cache_expiries = Counter(
            "breakwater_api_cache_expiries",
            "Keys found past their soft expiry, or absent (hard), counted only by the replica that won the right to "
            "compute them: summed over all replicas, each expiry of a key counts once.",
            ["kind"],
            registry=self.registry,
        )
        self.computations = Counter(
            "breakwater_api_computations",
            "Rows given to the model, by why: miss and refresh (with the key's lock), lock_timeout (another replica "
            "had the lock for too long), no_cache.",
            ["reason"],
            registry=self.registry,
        )
        self.joined = Counter(
            "breakwater_api_joined",
            "Predictions that joined a lookup or computation of the same key on this replica.",
            registry=self.registry,
        )
        self.model_generation = Gauge(
            "breakwater_api_model_generation", "Generation of the model that serves; 0 is none.", registry=self.registry
        )
        self.models_refused = Counter(
            "breakwater_api_models_refused", "Published models that this replica refused.", registry=self.registry
        )

    def follow(self, breaker: Breaker) -> None:
        """Show the breaker's state from now on."""
        state = self.breaker_state.labels(breaker.name)
        opened = self.breaker_opened.labels(breaker.name)
        last = breaker.state
        state.set(last)

        def changed(breaker: Breaker) -> None:
            nonlocal last
            if last is State.CLOSED and breaker.state is State.OPEN:
                opened.inc()
            last = breaker.state
            state.set(last)

        breaker.listen(changed)


def metrics_endpoint(metrics: Metrics) -> Callable[[Request], Response]:
    """GET /metrics in the Prometheus text format."""

    def endpoint(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE})

    return endpoint


class ReplicaMiddleware:
    """Around every request. While `draining`, answers ask for the connection to be closed, so that none is left."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, replica: str, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._replica = replica
        self._draining = draining
        self._series: dict[tuple[str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-breakwater-replica"] = self._replica
                if self._draining():
                    headers["connection"] = "close"
            await send(message)

        started = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            refusal = _body_refusal(scope)
            await (refusal or self._app)(scope, receive, counted)
        finally:
            self._metrics.in_flight.dec()
            self._observe(scope["path"], status, time.perf_counter() - started)

    def _observe(self, path: str, status: int, seconds: float) -> None:
        key = (path if path in PATHS else "other", status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._metrics.requests.labels(key[0], str(status))
        series.observe(seconds)


def _body_refusal(scope: Scope) -> Response | None:
    """A body must announce its length, and it must be small; the server holds it to that length."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return problem("length_required", "send the body with a Content-Length")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return problem("body_too_large", f"send at most {MAX_BODY_BYTES} bytes of body")
    return None
