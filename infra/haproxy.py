"""The edge's HAProxy configuration: TLS 1.3 only; unanswered predictions go to another replica, nothing else twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CHECK_INTERVAL_MS: Final = 200
CHECK_FALL: Final = 2
"""The edge takes a replica out after 2 missed checks of 200 ms: less than half a second."""
CHECK_AGAIN_MS: Final = 50
"""After a missed check the next one comes this soon: a process that is frozen as a whole answers nobody."""
CHECK_TIMEOUT_MS: Final = 400
"""A stalled replica counts as missed; shorter would take out one that merely collects garbage."""
CHECK: Final = f"check inter {CHECK_INTERVAL_MS}ms fastinter {CHECK_AGAIN_MS}ms fall {CHECK_FALL} rise 1"

EDGE_PROBLEMS: Final = {
    400: "bad_request",
    408: "request_timeout",
    502: "bad_gateway",
    503: "no_replica",
    504: "timeout",
}
"""What the edge answers by itself, in the same form as the API's own errors."""
PREDICT_TIMEOUT_MS: Final = 700
"""A replica that has not answered a prediction by then is asked no longer: another one is (once), with time to answer
within a second. Shorter would double the work of replicas that are merely busy, just when they are."""
RELOAD_TIMEOUT_S: Final = 30
"""Preparing (15 s at most), deciding and swapping (5 s): the one request that may take longer than 10 s."""


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
        "    timeout server 10s",
        "    timeout http-keep-alive 30s",
        "    timeout http-request 5s",
        f"    timeout check {CHECK_TIMEOUT_MS}ms",
        "    option http-keep-alive",
        "    http-reuse safe",
        *(
            f"    http-error status {status} content-type application/problem+json string {_problem(status, code)}"
            for status, code in EDGE_PROBLEMS.items()
        ),
        *edge.sections,
        "frontend edge",
        "    # a worker that is replaced answers one more request on each connection before it closes it",
        "    option idle-close-on-response",
        f"    bind {edge.bind} ssl crt {edge.certificate} alpn h2,http/1.1",
        "    http-response set-header Strict-Transport-Security max-age=31536000",
        "    # faults are for who stands beside a replica, not for clients",
        "    http-request return status 404 content-type application/problem+json string "
        f"{_problem(404, 'not_found')} if {{ path_beg /chaos }}",
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


def _problem(status: int, code: str) -> str:
    """RFC 9457, quoted for HAProxy's configuration."""
    body = {"type": "about:blank", "title": code.replace("_", " "), "status": status, "code": code}
    return "'" + json.dumps(body) + "'"
