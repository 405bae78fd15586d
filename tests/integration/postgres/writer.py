"""A client that writes one row after another and remembers which ones were acknowledged."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.integration.postgres.shard_cluster import wait_until

# Rows acknowledged before a case begins, so that there is something to lose, and how long that may take (seconds).
WARM_UP_ROWS, WARM_UP_S = 50, 15.0
# Pause before the next connection, seconds: what a pool of the platform uses at least.
RECONNECT_S = 0.02


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged row: its id, when the write began and when its acknowledgement came (monotonic ns)."""

    row: int
    start_ns: int
    end_ns: int


class Writer:
    """Writes rows `first`, `first` + 1, ... to whichever server is the primary, until the block ends.

    The block begins when the first rows are acknowledged.

    Acknowledged means that the COMMIT returned without a warning. A row whose fate is unknown is never written again.
    """

    def __init__(self, conninfo: str, *, first: int) -> None:
        self._conninfo = conninfo
        self._next = first
        self._stop = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: list[Acknowledged] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            wait_until("the first acknowledged rows", lambda: len(self.acknowledged) >= WARM_UP_ROWS, WARM_UP_S)
        except BaseException:
            self._stop.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=1)
        if self._thread.is_alive():
            self._hang_up()
            self._thread.join(timeout=10)

    def first_after(self, t_ns: int) -> Acknowledged | None:
        """The first acknowledged row whose write began after this moment."""
        return next((each for each in self.acknowledged if each.start_ns > t_ns), None)

    def _hang_up(self) -> None:
        """Give up a COMMIT that nobody answers, by closing its connection: nothing is cancelled on the server."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with socket.socket(fileno=socket.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as connection:
                    self._connection = connection
                    self._write_on(connection)
            except psycopg.Error:
                self._stop.wait(RECONNECT_S)

    def _write_on(self, connection: psycopg.Connection[Any]) -> None:
        warnings: list[str] = []
        connection.add_notice_handler(lambda diagnostic: warnings.append(str(diagnostic.message_primary)))
        while not self._stop.is_set():
            row, self._next = self._next, self._next + 1
            warnings.clear()
            start_ns = time.monotonic_ns()
            connection.execute("insert into written values (%s)", (row,))
            if not warnings:
                self.acknowledged.append(Acknowledged(row, start_ns, time.monotonic_ns()))
            self._stop.wait(0.002)
