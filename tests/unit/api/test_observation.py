"""Names of requests, which of them get a line, and what a line holds."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.access import BURST, ONE_IN, REFILL_S, SLOW_S, AccessLog
from services.api.correlation import REQUEST_ID_PATTERN, Parent, correlate
from services.api.logs import JsonFormatter
from services.api.metrics import Metrics
from services.api.observation import Observation

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_a_good_request_id_is_kept_and_a_trace_names_what_has_none() -> None:
    traceparent = f"00-{TRACE}-{SPAN}-01".encode()
    named = correlate({b"x-request-id": b"order-7", b"traceparent": traceparent})
    assert named.request_id == "order-7"
    assert named.parent == Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)
    assert correlate({b"traceparent": traceparent}).request_id == TRACE
    ours = {correlate({}).request_id for _ in range(100)}
    assert len(ours) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ours)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        "",
    ],
)
def test_what_is_no_traceparent_counts_as_absent(header: str) -> None:
    correlation = correlate({b"traceparent": header.encode()})
    assert correlation.parent is None
    assert correlation.request_id != TRACE


def test_a_later_version_of_traceparent_may_go_on() -> None:
    parent = correlate({b"traceparent": f"01-{TRACE}-{SPAN}-02-more".encode()}).parent
    assert parent == Parent(int(TRACE, 16), int(SPAN, 16), sampled=False)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_whatever_comes_a_request_id_is_harmless(request_id: bytes, traceparent: bytes) -> None:
    named = correlate({b"x-request-id": request_id, b"traceparent": traceparent}).request_id
    assert re.fullmatch(REQUEST_ID_PATTERN, named)


class Access:
    """An access log with a clock of its own."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.now = 0.0
        self.log = AccessLog(self.metrics.access_suppressed, monotonic=lambda: self.now)

    def ended(self, status: int = 200, seconds: float = 0.001, route: str = "/v1/predict") -> None:
        self.log.ended(Observation(correlate({})), "POST", route, status, seconds)

    def suppressed(self) -> float:
        return self.metrics.registry.get_sample_value("breakwater_api_access_lines_suppressed_total") or 0.0


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_of_good_requests_one_in_a_thousand_gets_a_line(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3 * ONE_IN):
        access.ended()
        access.ended(status=422)
    assert len(caplog.records) == 6
    assert access.suppressed() == 0


@pytest.mark.parametrize(("status", "seconds", "level"), [(503, 0.001, "WARNING"), (200, SLOW_S, "INFO")])
def test_failures_and_slow_ones_get_a_line_unless_there_are_too_many(
    access: Access, caplog: pytest.LogCaptureFixture, status: int, seconds: float, level: str
) -> None:
    for _ in range(BURST + 5):
        access.ended(status, seconds)
    assert [record.levelname for record in caplog.records] == [level] * BURST
    assert access.suppressed() == 5
    access.now += 2 * REFILL_S
    for _ in range(5):
        access.ended(status, seconds)
    assert len(caplog.records) == BURST + 2


def test_what_the_edge_asks_all_the_time_gets_none(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2 * ONE_IN):
        access.ended(status=503, seconds=1, route="/readyz")
    assert not caplog.records


def test_a_line_is_an_object_that_names_the_request(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    headers = {b"x-request-id": b"order-7", b"traceparent": f"00-{TRACE}-{SPAN}-01".encode()}
    observation = Observation(correlate(headers), code="overloaded")
    access.log.ended(observation, "POST", "/v1/predict", 503, 0.0123)
    line = json.loads(JsonFormatter("api-0").format(caplog.records[0]))
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "logger": "services.api.access",
        "replica": "api-0",
        "message": "request",
        "method": "POST",
        "route": "/v1/predict",
        "status": 503,
        "ms": 12.3,
        "request_id": "order-7",
        "trace_id": TRACE,
        "code": "overloaded",
    }


def test_without_traces_their_exporter_is_not_loaded() -> None:
    asked = (
        "import sys, services.api.app; print([name for name in sys.modules if 'tracing' in name or '.otlp' in name])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert "services.api.tracing" not in done.stdout
    assert "opentelemetry.exporter.otlp" not in done.stdout
