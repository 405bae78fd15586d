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
    """ASGI middleware: POST on one path goes straight to its endpoint, everything else through the framework.

    Refusals are answered by the application's own handlers; what has none is raised, for the layer around this one.
    The application still needs the route: it answers other methods, and is what stands in the documentation.
    """

    def __init__(self, app: ASGIApp, *, path: str, endpoint: Endpoint, handlers: Handlers) -> None:
        """`handlers`: the application's exception handlers, looked up when needed."""
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
            response = await self._refusal(request, error)
        await response(scope, receive, send)

    async def _refusal(self, request: Request, error: Exception) -> Response:
        for kind in type(error).__mro__:
            if kind is Exception:
                break
            handler = self._handlers.get(kind)
            if handler is not None:
                response: Response = await handler(request, error)
                return response
        raise error


class JsonResponse(Response):
    """200 with a JSON body that is already bytes; knows its headers without working them out."""

    def __init__(self, body: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
