"""GET /healthz (the process answers) and GET /readyz (the edge may send predictions here)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response

logger = logging.getLogger(__name__)


async def healthz(_: Request) -> Response:
    """Liveness: touches nothing, so that only a dead or blocked process fails it."""
    return Response(b'{"status":"ok"}', media_type="application/json")


def readyz(obstacle: Callable[[], str | None]) -> Callable[[Request], object]:
    """Readiness: 200 when a model is loaded, the slot map is known and no shard's schema is foreign to this release.

    A shard that is down does not make a replica unready. Every replica sees the same shard down, so all of them would
    leave the rotation together, and one lost shard would cost every prediction on all of them. Its requests get 503
    `shard_unavailable` instead, and Redis being down is no reason either: scoring does not need it.

    The log says when the answer changes: it is asked several times a second.
    """

    told: str | None = ""  # nothing yet

    async def endpoint(_: Request) -> Response:
        nonlocal told
        reason = obstacle()
        if reason != told:
            logger.info("ready" if reason is None else f"not ready: {reason}")
        told = reason
        if reason is None:
            return Response(b'{"status":"ready"}', media_type="application/json")
        return Response(
            orjson.dumps({"status": "not ready", "reason": reason}),
            status_code=HTTPStatus.SERVICE_UNAVAILABLE,
            media_type="application/json",
        )

    return endpoint
