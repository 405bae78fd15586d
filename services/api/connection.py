"""uvicorn's HTTP connection, whose answers leave in one write: uvloop sends each write at once, in a packet of its own.

A second packet costs a prediction as much as its validation, and whoever reads it as well (the edge, a load generator).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.api.correlation import REQUEST_ID_HEADER, correlate
from services.api.problems import BadRequest, problem

HEAD: Final = b"HTTP/1.1 "
INTERIM: Final = b"HTTP/1.1 1"
"""100 Continue: the client waits for it before it sends its body."""


class Connection(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(OneWrite(cast(asyncio.Transport, transport)))

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP never reaches the application: a problem all the same, and the end of the connection."""
        body = bytes(problem(BadRequest.code, "this is no HTTP that can be served: send a well-formed request").body)
        head = [
            b"HTTP/1.1 400 Bad Request",
            b"content-type: application/problem+json",
            b"content-length: %d" % len(body),
            b"%s: %s" % (REQUEST_ID_HEADER, correlate({}).request_id.encode()),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    def on_response_complete(self) -> None:
        cast(OneWrite, self.transport).flush()  # the answer to a HEAD has no body
        super().on_response_complete()


class OneWrite(asyncio.Transport):
    """Holds an answer's head back until its body comes. What uvicorn asks of a transport, and no more."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._held and data[: len(HEAD)] == HEAD and data[: len(INTERIM)] != INTERIM:
            self._held = bytes(data)
            return
        self._transport.write(self._held + data)
        self._held = b""

    def flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
