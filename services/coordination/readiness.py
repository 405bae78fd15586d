"""A small HTTP server for processes that serve nothing else: GET /ready (200 or 503) and GET /status, both JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ReadinessServer:
    """Answers in threads of its own. `ready` says why not (None: ready); `status` gives everything that is known."""

    def __init__(
        self, host: str, port: int, *, ready: Callable[[], str | None], status: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Listens at once; OSError when the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                match self.path:
                    case "/ready":
                        reason = ready()
                        code = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
                        self._answer(code, {"ready": reason is None, "reason": reason})
                    case "/status":
                        self._answer(HTTPStatus.OK, status())
                    case _:
                        self._answer(HTTPStatus.NOT_FOUND, {"reason": "there are /ready and /status"})

            def _answer(self, code: HTTPStatus, body: Mapping[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Questions are not logged."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="readiness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
