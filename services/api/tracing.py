"""OpenTelemetry traces, exported by OTLP over HTTP. Off unless configured; then the only module that loads the SDK.

A request whose trace is not kept touches nothing of the SDK: the choice is made before (a span that is thrown away
costs 7 us, the choice 0.1 us). Spans leave in the background from a bounded queue; a collector that is slow or gone
costs spans and never a request.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from services.api.correlation import Correlation, Parent
from services.api.settings import TraceSettings

SERVICE: Final = "breakwater-api"

QUEUE: Final = 2048
"""Spans that wait for the collector, 1 to 2 MB; more are dropped."""
BATCH: Final = 512
EVERY_MS: Final = 2000
SEND_S: Final = 2.0
"""For one export, its repetitions included."""
CLOSE_S: Final = 1.0
"""What an ending replica gives the collector to take the last spans."""


class Tracing:
    """Begins the trace of those requests whose trace is kept: `sample` of them, unless their caller has chosen already.

    That is OpenTelemetry's usual rule: who calls with a sampled `traceparent` has the request traced. Callers hold the
    environment's token; where they are not to decide, the edge has to take the header away.
    """

    def __init__(
        self, settings: TraceSettings, *, environment: str, replica: str, exporter: SpanExporter | None = None
    ) -> None:
        """`exporter` replaces OTLP over HTTP."""
        self._sample = settings.sample
        # each failed export would be told with a traceback; that nothing arrives is seen at the collector
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        resource = {
            "service.name": SERVICE,
            "service.instance.id": replica,
            "deployment.environment.name": environment,
        }
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource(resource),
            shutdown_on_exit=False,  # ours, see close()
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter or _otlp(settings.endpoint),
                max_queue_size=QUEUE,
                max_export_batch_size=BATCH,
                schedule_delay_millis=EVERY_MS,
                export_timeout_millis=1000 * SEND_S,
            )
        )
        self._tracer = self._provider.get_tracer(SERVICE)

    def begin(self, correlation: Correlation, method: str) -> Trace | None:
        """None when this request's trace is not kept."""
        parent = correlation.parent
        if not (random.random() < self._sample if parent is None else parent.sampled):  # noqa: S311 - a sample
            return None
        return Trace(self._tracer, correlation, method)

    def close(self) -> None:
        """Send what waits, for `CLOSE_S` at most. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class Trace:
    """One request's span and those of its stages."""

    def __init__(self, tracer: Tracer, correlation: Correlation, method: str) -> None:
        self._tracer = tracer
        self._method = method
        self._span: Span = tracer.start_span(
            method,
            context=_context(correlation.parent),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "breakwater.request_id": correlation.request_id},
        )
        self._within = set_span_in_context(self._span, Context())

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A part of the request's work; what it raises marks it as failed."""
        return self._stage(name)

    def end(self, route: str, status: int, code: str | None) -> None:
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if code is not None:
            self._span.set_attribute("error.type", code)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        span = self._tracer.start_span(name, context=self._within)
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)  # its message may hold what was sent
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()


def _context(parent: Parent | None) -> Context:
    """Of the caller's span; an empty one (not the thread's) without it."""
    if parent is None:
        return Context()
    caller = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _otlp(endpoint: str) -> SpanExporter:
    session = requests.Session()
    session.trust_env = False  # neither a proxy nor credentials from the environment
    return OTLPSpanExporter(endpoint=endpoint, timeout=SEND_S, session=session)
