"""A few connections to one shard that come back by themselves: libpq routing, fast jittered reconnects, no back-off.

An operation is never cancelled: giving up means cutting the connection's socket, so that a COMMIT once sent stays sent.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psycopg

from services.contracts.shards import SessionTarget, ShardEndpoints

RECONNECT_S: Final = (0.050, 0.100)
"""Pause between two attempts, drawn anew each time: shorter costs the standbys a login each, longer costs RTO."""
NS_PER_S: Final = 1_000_000_000
TIMELINE_SQL: Final = (
    "select case when pg_is_in_recovery() then 0"
    " else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint end"
)
"""Timeline that a primary writes; 0 on a standby. The control file would do too, but lags behind until a checkpoint."""


@dataclass(slots=True, eq=False)
class Link:
    """One open connection and what is known of its server."""

    connection: psycopg.AsyncConnection[tuple[object, ...]]
    member: str | None
    timeline: int
    notices: list[str] = field(default_factory=list)

    def cut(self) -> None:
        """Give the connection up at once and without a cancel request: whoever waits on it sees it broken."""
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as handle:
            handle.shutdown(socket.SHUT_RDWR)


async def open_link(conninfo: str, endpoints: ShardEndpoints) -> Link:
    """Connect and ask the server for its timeline; psycopg.Error or OSError when that fails."""
    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=1)
    try:
        row = await (await connection.execute(TIMELINE_SQL)).fetchone()
    except psycopg.Error:
        await connection.close()
        raise
    address = (connection.info.host, connection.info.port)
    member = next((entry.name for entry in endpoints.hosts if (entry.host, entry.port) == address), None)
    link = Link(connection, member, int(str(row[0])) if row else 0)
    connection.add_notice_handler(lambda notice: link.notices.append(f"{notice.sqlstate} {notice.message_primary}"))
    return link


class ShardLinks:
    """At most `size` connections to one shard for the sessions that `target` names; waiters are served in order."""

    def __init__(self, endpoints: ShardEndpoints, target: SessionTarget, *, size: int, application_name: str) -> None:
        self._conninfo = endpoints.conninfo(target, application_name=application_name)
        self._endpoints = endpoints
        self._size = size
        self._idle: deque[Link] = deque()
        self._open: set[Link] = set()
        self._waiters: deque[asyncio.Future[Link | None]] = deque()
        self._missing = asyncio.Event()
        self._jitter = random.Random()  # noqa: S311 - spreads reconnects, decides nothing else
        self._missing.set()

    async def keep(self) -> None:
        """Open what is missing, one connection at a time, until cancelled; then close all."""
        try:
            while True:
                await self._missing.wait()
                try:
                    link = await open_link(self._conninfo, self._endpoints)
                except (psycopg.Error, OSError):
                    await asyncio.sleep(self._jitter.uniform(*RECONNECT_S))
                    continue
                self._open.add(link)
                if len(self._open) >= self._size:
                    self._missing.clear()
                self._hand_over(link)
        finally:
            for link in list(self._open):
                await self._drop(link)

    async def acquire(self, deadline_ns: int) -> Link | None:
        """A connection, in order of asking; None when none came before the deadline (monotonic ns)."""
        if self._idle and not self._waiters:
            return self._idle.popleft()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Link | None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later((deadline_ns - time.monotonic_ns()) / NS_PER_S, _give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def release(self, link: Link, *, broken: bool) -> None:
        """Give a connection back. A broken one takes the idle ones of its server along: they would fail one by one."""
        if not broken:
            link.notices.clear()
            self._hand_over(link)
            return
        for idle in [entry for entry in self._idle if entry.member == link.member]:
            self._idle.remove(idle)
            await self._drop(idle)
        await self._drop(link)

    def _hand_over(self, link: Link) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return
        self._idle.append(link)

    async def _drop(self, link: Link) -> None:
        self._open.discard(link)
        await link.connection.close()
        self._missing.set()


def _give_up(waiter: asyncio.Future[Link | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
