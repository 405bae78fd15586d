"""The edge's HAProxy configuration: TLS 1.3 only; unanswered predictions go to another replica, nothing else twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

CHECK_INTERVAL_MS: Final = 200
CHECK_FALL: Final = 2
"""The edge takes a replica out after 2 missed checks of 200 ms: less than half a second."""
CHECK_AGAIN_MS: Final = 50
"""After a missed check the next one comes this soon: a process that is frozen as a whole answers nobody."""
CHECK_TIMEOUT_MS: Final = 400
"""A stalled replica counts as missed; shorter would take out one that merely collects garbage."""
CHECK: Final = f"check inter {CHECK_INTERVAL_MS}ms fastinter {CHECK_AGAIN_MS}ms fall {CHECK_FALL} rise 1"

CLIENT_S: Final = 5
"""For a request's head, and for a prediction's body: as long as a replica waits for any other body."""
SERVER_S: Final = 10
"""Nothing but a reload takes a replica longer (services/api/bodies.py)."""
PREDICT_TIMEOUT_MS: Final = 700
"""A replica that has not answered a prediction by then is asked no longer: another one is (once), with time to answer
within a second. Shorter would double the work of replicas that are merely busy, just when they are."""
RELOAD_TIMEOUT_S: Final = 30
"""Preparing (15 s at most), deciding and swapping (5 s): the one request that may take longer than 10 s."""


RETRY_AFTER_S: Final = 1
"""As replicas say it: one that restarts or was blocked is back in rotation within seconds."""


@dataclass(frozen=True, slots=True)
class EdgeProblem:
    """RFC 9457, as replicas answer: `detail` says what happened and what to do."""

    code: str
    detail: str


EDGE_PROBLEMS: Final[Mapping[HTTPStatus, EdgeProblem]] = {
    HTTPStatus.BAD_REQUEST: EdgeProblem("bad_request", "the body is no HTTP: send a well-formed request"),
    HTTPStatus.NOT_FOUND: EdgeProblem("not_found", "this path is not for clients: see /openapi.json for what is"),
    HTTPStatus.REQUEST_TIMEOUT: EdgeProblem(
        "request_timeout", f"the body did not come within {CLIENT_S} s: send it whole, at once"
    ),
    HTTPStatus.BAD_GATEWAY: EdgeProblem(
        "bad_gateway",
        "a replica broke off before it had answered: repeat it, a write with the same idempotency-key, "
        "for it may be applied or not",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: EdgeProblem(
        "no_replica", "no replica takes requests at the moment, and nothing was applied: repeat it after a second"
    ),
    HTTPStatus.GATEWAY_TIMEOUT: EdgeProblem(
        "timeout",
        "no replica answered in time: repeat it, a write with the same idempotency-key, for it may be applied or not",
    ),
}
"""What the edge answers by itself; docs/errors.md says the same. Before there is a request (a head that is no HTTP, or
does not come) HAProxy 2.6 speaks words of its own: mux_h1.c knows `http-error` only to be silent."""

INTERNAL: Final = "/chaos /metrics /readyz"
"""Prefixes of what only somebody who stands beside a replica asks it: faults, and how it is. Decoded before they are
compared, as a replica decodes them."""


@dataclass(frozen=True, slots=True)
class EdgeFiles:
    """`bind`: address:port. `certificate`: PEM bundle. `servers`: lines naming the replicas, with `CHECK`.

    `global_lines` and `sections` are what only one runtime needs.
    """

    bind: str
    certificate: str
    servers: Sequence[str]
    global_lines: Sequence[str] = ()
    sections: Sequence[str] = ()


def render(edge: EdgeFiles) -> str:
    lines = [
        "global",
        *(f"    {line}" for line in edge.global_lines),
        "    ssl-default-bind-options ssl-min-ver TLSv1.3",
        "    maxconn 2000",
        "    # who was taken out of rotation and why; requests are counted by the API, not logged",
        "    log stdout format timed daemon notice",
        "defaults",
        "    mode http",
        "    log global",
        "    option dontlog-normal",
        "    timeout connect 500ms",
        "    timeout client 30s",
        f"    timeout server {SERVER_S}s",
        "    timeout http-keep-alive 30s",
        f"    timeout http-request {CLIENT_S}s",
        f"    timeout check {CHECK_TIMEOUT_MS}ms",
        "    option http-keep-alive",
        "    http-reuse safe",
        *(
            f"    http-error status {status} {_problem(status)}"
            for status in EDGE_PROBLEMS
            if status is not HTTPStatus.NOT_FOUND  # which HAProxy never answers of itself
        ),
        *edge.sections,
        "frontend edge",
        "    # a worker that is replaced answers one more request on each connection before it closes it",
        "    option idle-close-on-response",
        f"    bind {edge.bind} ssl crt {edge.certificate} alpn h2,http/1.1",
        "    http-response set-header Strict-Transport-Security max-age=31536000",
        "    # what is for who stands beside a replica, not for clients",
        f"    http-request return status 404 {_problem(HTTPStatus.NOT_FOUND)} if {{ path,url_dec -m beg {INTERNAL} }}",
        "    # without a ready replica the replicas themselves say why; the edge only knows that there is none",
        "    use_backend predict if { path /v1/predict } { nbsrv(predict) gt 0 }",
        "    use_backend anyone if { nbsrv(api) eq 0 }",
        "    default_backend api",
        "backend predict",
        "    balance leastconn",
        "    # only a request that was there whole before it was sent on can be asked of another replica",
        "    option http-buffer-request",
        "    option httpchk GET /readyz",
        "    http-check expect status 200",
        "    retries 2",
        "    option redispatch 1",
        "    retry-on conn-failure empty-response response-timeout",
        f"    timeout server {PREDICT_TIMEOUT_MS}ms",
        *(f"    {server}" for server in edge.servers),
        "backend api",
        "    balance leastconn",
        "    option httpchk GET /healthz",
        "    http-check expect status 200",
        "    retries 2",
        "    option redispatch 1",
        "    # a reload waits for every replica to load, prove and warm the candidate",
        f"    http-request set-timeout server {RELOAD_TIMEOUT_S}s if {{ path /v1/admin/reload-model }}",
        "    # a write that may have been received is never sent again: only connections that never opened",
        "    retry-on conn-failure",
        *(f"    {server}" for server in edge.servers),
        "backend anyone",
        "    # checks that fail for every replica at once say more of the machine than of the replicas: slow beats no",
        "    balance leastconn",
        "    retries 2",
        "    option redispatch 1",
        "    retry-on conn-failure",
        *(f"    {server} no-check no-agent-check" for server in edge.servers),
    ]
    return "\n".join(lines) + "\n"


def agent_check(port: int | str) -> str:
    """Words after `CHECK` for a replica whose watchdog answers on this port of the replica's own address."""
    return f"agent-check agent-port {port} agent-inter {CHECK_INTERVAL_MS}ms"


def _problem(status: HTTPStatus) -> str:
    """Content type, body and headers of the edge's own answer, quoted for HAProxy's configuration."""
    problem = EDGE_PROBLEMS[status]
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "code": problem.code,
        "detail": problem.detail,
    }
    retry = f" hdr Retry-After {RETRY_AFTER_S}" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
    return f"content-type application/problem+json string '{json.dumps(body)}'{retry}"
