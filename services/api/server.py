"""Serves a replica by uvicorn until it is asked to end, and ends it without dropping anything."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from services.api.app import Replica, create_app
from services.api.connection import Connection

DRAIN_S = 1.0
"""Between SIGTERM and closing the listener: the edge looks every 200 ms and believes the second refusal."""

FINISH_S = 8
"""For requests in progress after that: a write may take 7 s (another attempt, its connection and COMMIT). Whole seconds
for uvicorn."""

KEEP_ALIVE_S = 75
"""Longer than the edge keeps idle connections, so that never this side closes one that is about to be used."""


def serve(replica: Replica) -> None:
    """Returns when it was asked to end, and has."""
    config = uvicorn.Config(
        create_app(replica),
        host=replica.settings.host,
        port=replica.settings.port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_S,
    )
    DrainingServer(config, replica).run()


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT: unready at once, serving on until the edge has seen it, then a graceful end with exit 0.

    A second signal skips the wait. uvicorn's own handler would close the listener at once and end by the signal.
    """

    def __init__(self, config: uvicorn.Config, replica: Replica) -> None:
        super().__init__(config)
        self._replica = replica
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._replica.draining or self._loop is None:
            self.should_exit = True
            return
        self._replica.drain()
        self._loop.call_soon_threadsafe(self._loop.call_later, DRAIN_S, self._end)

    def _end(self) -> None:
        self.should_exit = True
