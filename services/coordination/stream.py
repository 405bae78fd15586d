"""One server-sent stream of JSON lines over HTTP/1.0, readable with a timeout that does not break it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

# How often a silent stream looks whether it should stop, seconds.
STOP_POLL_S = 0.1
# Longest line taken before the peer is called broken, bytes: far above etcd's own limit of 1.5 MiB a request.
LINE_LIMIT = 16 * 1024 * 1024


class StreamBroken(Exception):
    """The stream could not be opened, ended, or said something that is no JSON line: open another."""


class LineStream:
    """POSTs one JSON body and yields the JSON lines that come back.

    HTTP/1.0 because the answer is then unframed bytes until the connection closes: a plain socket can wait for them
    with a timeout and go on afterwards, which the chunked readers of http.client and urllib3 cannot.
    """

    def __init__(
        self,
        endpoint: str,
        path: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        """Connects and sends; `timeout_s` bounds connecting and the wait for the first byte. Raises StreamBroken.

        `address`: where the endpoint's host is reached, if its name is not to be looked up.
        """
        url = urlsplit(endpoint)
        payload = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.0\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            # etcd ends the stream when this server loses its leader, instead of staying silent
            f"Grpc-Metadata-hasleader: true\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._where = f"{endpoint}{path}"
        try:
            self._socket = socket.create_connection((address or url.hostname or "", url.port or 80), timeout=timeout_s)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=url.hostname)
            self._socket.sendall(head.encode() + payload)
        except OSError as error:
            raise StreamBroken(f"cannot open a stream at {self._where}: {error}") from error
        self._first_byte_by = time.monotonic() + timeout_s
        self._socket.settimeout(STOP_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def messages(self, *, idle_s: float, stop: threading.Event) -> Iterator[dict[str, Any]]:
        """JSON objects as they come; returns after `idle_s` seconds of silence or when `stop` is set."""
        buffer = bytearray()
        in_head = True
        deadline = self._first_byte_by
        while not stop.is_set():
            try:
                received = self._socket.recv(65536)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                if in_head:
                    raise StreamBroken(f"{self._where} took the request and did not answer") from None
                return
            except OSError as error:
                raise StreamBroken(f"stream from {self._where} broke: {error}") from error
            if not received:
                raise StreamBroken(f"{self._where} ended the stream: {bytes(buffer[:300])!r}")
            buffer += received
            deadline = time.monotonic() + idle_s
            if in_head:
                head, separator, rest = bytes(buffer).partition(b"\r\n\r\n")
                if not separator:
                    continue
                self._check_status(head)
                buffer, in_head = bytearray(rest), False
            *lines, tail = bytes(buffer).split(b"\n")
            buffer = bytearray(tail)
            if len(buffer) > LINE_LIMIT:
                raise StreamBroken(f"{self._where} sent a line longer than {LINE_LIMIT} bytes")
            for line in lines:
                if line.strip():
                    yield self._parse(line)

    def _check_status(self, head: bytes) -> None:
        status = head.split(b"\r\n", 1)[0]
        if b" 200 " not in status + b" ":
            raise StreamBroken(f"{self._where} answered {status!r}")

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise StreamBroken(f"{self._where} sent no JSON: {line[:200]!r}") from error
        if not isinstance(message, dict):
            raise StreamBroken(f"{self._where} sent no JSON object: {line[:200]!r}")
        return message
