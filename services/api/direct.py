"""The hot path's way past the framework: routing and error layers took 40 % of a prediction that the cache answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]
Handlers = Mapping[Any, Callable[[Request, Any], Any]]


class DirectRoute:
    """Stands before the application: POST on one path goes straight to its endpoint, everything else to the framework.

    Refusals are answered by the application's own handlers, and so are faults, which are raised as well once they are
    answered: as the framework does it. The application still needs the route: it answers other methods, and is what
    stands in the documentation.
    """

    def __init__(self, app: ASGIApp, *, path: str, endpoint: Endpoint, handlers: Handlers) -> None:
        """`handlers`: the application's, by exception; one is for every Exception."""
        self._app = app
        self._path = path
        self._endpoint = endpoint
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._endpoint(request)
        except Exception as error:
            kind = next(kind for kind in type(error).__mro__ if kind in self._handlers)
            refusal: Response = await self._handlers[kind](request, error)
            await refusal(scope, receive, send)
            if kind is Exception:
                raise
            return
        await response(scope, receive, send)


class JsonResponse(Response):
    """200 with a JSON body that is already bytes; knows its headers without working them out."""

    def __init__(self, body: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
