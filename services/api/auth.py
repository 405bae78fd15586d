"""Who may call: one bearer token per environment today; the one place where full identity will be decided."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from services.api.headers import header
from services.api.problems import Unauthorized

SCHEME = b"bearer"


class BearerAuth:
    """The dependency of every route that predicts, writes or administers: call it with the request."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def __call__(self, request: Request) -> None:
        """Unauthorized unless the request carries the token; compared in constant time."""
        scheme, _, presented = (header(request.scope, b"authorization") or b"").partition(b" ")
        if scheme.lower() != SCHEME or not hmac.compare_digest(presented.strip(), self._token):
            raise Unauthorized("a valid bearer token is required: send `Authorization: Bearer <token>`")
