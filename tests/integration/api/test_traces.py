"""A replica's traces as a collector receives them, and a collector that is away."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.h2o.train import TrainedModel
from tests.integration.api.platform import Platform, Replica
from tests.integration.api.test_replica import key_of, new_flight, write_of
from tests.integration.api.waiting import wait_until

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SOON_S = 5.0
"""An ending replica gives the collector a second."""


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def trace(self, trace_id: str) -> dict[str, Span]:
        """Its spans by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(autouse=True)
def _published(platform: Platform, trained: Mapping[str, TrainedModel]) -> None:
    platform.registry.publish(trained["v1"])


def test_whoever_calls_with_a_sampled_trace_finds_the_request_in_it(platform: Platform, collector: Collector) -> None:
    with Replica(platform, traces={"endpoint": collector.endpoint, "sample": 0}) as replica:
        replica.wait_for("/readyz")
        write = write_of(0)
        assert replica.http.post("/v1/features", json=write).status_code == 200
        replica.http.headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
        answer = replica.predict(**key_of(write), read_your_writes=True)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, TRACE)
        wait_until(lambda: collector.spans)
        assert replica.end() == 0
    spans = collector.trace(TRACE)
    assert set(spans) == {"POST /v1/predict", "read features", "score"}
    request = spans["POST /v1/predict"]
    assert request.parent_span_id.hex() == SPAN
    assert {spans[name].parent_span_id for name in ("read features", "score")} == {request.span_id}
    assert len(collector.spans) == len(spans), "the others were not sampled"
    assert platform.token not in str(collector.spans)


def test_without_its_collector_a_replica_serves_and_ends_as_soon(platform: Platform, collector: Collector) -> None:
    collector.close()
    with Replica(platform, traces={"endpoint": collector.endpoint, "sample": 1}) as replica:
        replica.wait_for("/readyz")
        assert {replica.predict(features=new_flight()).status_code for _ in range(200)} == {200}
        began = time.monotonic()
        assert replica.end() == 0
        assert time.monotonic() - began < SOON_S
        told = [line for line in replica.lines() if str(line["logger"]).startswith("opentelemetry")]
        assert len(told) < 10, told
