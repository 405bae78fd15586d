"""Watches the event loop from a thread of its own and tells the edge: a loop that is blocked cannot say so itself.

The thread pings the loop and measures how long the answer takes. While none has come for the limit, the replica's own
breaker is open; it closes when several answers in a row were in time. HAProxy's agent check is answered by the same
thread, so that the edge hears of it within its interval. Only time that the thread itself was awake for is counted:
when the machine stands still, or a process that was stopped as a whole goes on, that is not the loop's fault.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from services.api.metrics import Metrics
from services.breaker import Breaker, State

PING_EVERY_S: Final = 0.05
"""Twenty pings a second cost nothing that can be measured, and find a blocked loop this much after the limit."""

RECOVERED_PINGS: Final = 3
"""Answers in time, in a row, before the replica counts as well again: its backlog is done by then."""

CLOSE_S: Final = 2.0

logger = logging.getLogger(__name__)


class Watchdog:
    """`breaker` is open while the loop is blocked. Start and close it on the loop that it watches."""

    def __init__(self, host: str, port: int, limit_s: float, metrics: Metrics, draining: Callable[[], bool]) -> None:
        """`host` and `port` are where the edge's agent check asks."""
        self.breaker = Breaker("replica")
        metrics.follow(self.breaker)
        self._address = (host, port)
        self._limit_s = limit_s
        self._lag = metrics.loop_lag
        self._draining = draining
        self._state = threading.Lock()
        self._ended = False
        self._ping_out = False
        self._waited_s = 0.0
        self._in_time = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """OSError when the agent's port cannot be had."""
        listener = socket.create_server(self._address, backlog=128)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, args=(listener, loop), name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, within two of its pings."""
        self._ended = True
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def verdict(self) -> bytes:
        """HAProxy's agent protocol: one line, a word and a reason."""
        if self._draining():
            return b"down #draining\n"
        if self.breaker.state is not State.CLOSED:
            return b"down #event loop blocked\n"
        return b"up\n"

    def _watch(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        with listener, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            looked = time.monotonic()
            while not self._ended:
                pause_s = looked + PING_EVERY_S - time.monotonic()
                if pause_s > 0:
                    if selector.select(pause_s):
                        self._answer(listener)
                    continue
                now = time.monotonic()
                try:
                    self._look(now - looked, lambda: loop.call_soon_threadsafe(self._pong, time.monotonic()))
                except RuntimeError:  # the loop is closed
                    return
                looked = now

    def _answer(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PING_EVERY_S)
                connection.sendall(self.verdict())
        except OSError as error:
            logger.debug("an agent check went away: %s", error)

    def _look(self, since_s: float, ping: Callable[[], object]) -> None:
        with self._state:
            if not self._ping_out:
                self._ping_out = True
                self._waited_s = 0.0
                ping()
                return
            self._waited_s += min(since_s, 2 * PING_EVERY_S)
            if self._waited_s >= self._limit_s and self.breaker.state is State.CLOSED:
                self._in_time = 0
                self.breaker.trip()
                logger.error("the event loop has been blocked for %.2f s: out of rotation", self._waited_s)

    def _pong(self, sent: float) -> None:
        lag_s = time.monotonic() - sent
        self._lag.observe(lag_s)
        with self._state:
            self._ping_out = False
            self._in_time = self._in_time + 1 if lag_s < self._limit_s else 0
            if self.breaker.state is State.CLOSED or self._in_time < RECOVERED_PINGS:
                return
            self.breaker.announce()
            probe = self.breaker.admit()
            if probe is not None:
                self.breaker.succeeded(probe)
                logger.warning("the event loop runs again: back in rotation")
