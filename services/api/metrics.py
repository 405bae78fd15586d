"""Prometheus metrics of one replica. Every label has a bounded set of values: none comes from what a caller sent."""

from __future__ import annotations

from collections.abc import Callable

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
from starlette.requests import Request
from starlette.responses import Response

from services.breaker import Breaker, State
from services.featurestore.pools import ShardPool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""From a cache hit (1 ms) to the longest a write may take (5 s)."""

LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A busy loop is late by milliseconds; from 0.25 s on the watchdog calls it blocked."""


class Metrics:
    """The replica's collectors, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Histogram(
            "breakwater_api_request_seconds",
            "Requests by route (other: no route of ours) and status; from the request's head to the last byte out.",
            ["path", "status"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.refusals = Counter(
            "breakwater_api_refusals",
            "Refused requests by the code of docs/errors.md.",
            ["code"],
            registry=self.registry,
        )
        self.access_suppressed = Counter(
            "breakwater_api_access_lines_suppressed",
            "Failed or slow requests without a line in the log, because there were too many of them.",
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
        self.pool_connections = Gauge(
            "breakwater_api_pool_connections",
            "Connections to each shard, of the pools of its writes and its reads: open (idle or in use) and dialling.",
            ["pool", "state"],
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
        self.model_rehearsals = Gauge(
            "breakwater_api_model_rehearsals",
            "Calls that the model which serves had answered before it served: its golden rows and its warm-up.",
            registry=self.registry,
        )
        self.models_refused = Counter(
            "breakwater_api_models_refused", "Published models that this replica refused.", registry=self.registry
        )
        self.candidates = Counter(
            "breakwater_api_candidates",
            "Candidates that this replica prepared or refused, before any of them could serve.",
            ["outcome"],
            registry=self.registry,
        )
        self.jvm_heap = Gauge(
            "breakwater_api_jvm_heap_used_bytes", "Heap that the scoring runtime uses.", registry=self.registry
        )

    def watch(self, pool: ShardPool) -> None:
        """Show the pool's size from now on."""
        self.pool_connections.labels(pool.name, "open").set_function(lambda: pool.open_connections)
        self.pool_connections.labels(pool.name, "dialling").set_function(lambda: pool.dialling)

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
