"""Connection pools of one shard that come back within 100 ms of the shard itself and never hand out a dead connection.

psycopg_pool's own back-off (1 s, then 2 s, 4 s ...) starts when a connection attempt fails, so attempts here do not
fail: `Redial` repeats them inside the attempt. Nor is the pool's `check` used: after a failed check it sleeps 1 s.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from services.breaker import PROBE_EVERY_S, Breaker, State, Ticket
from services.contracts.shards import CONNECT_TIMEOUT_S, SessionTarget, ShardEndpoints
from services.featurestore.errors import FeatureStoreError, ShardUnavailable
from services.featurestore.gate import Gate
from services.featurestore.sessions import CommitWarnings

REDIAL_MIN_S: Final = 0.05
REDIAL_MAX_S: Final = 0.1
"""Pause between two attempts while a shard is away: a quarter of the fastest promotion seen (0.24 s), with jitter so
that replicas do not dial in step. One attempt at a time per pool: each one logs in at the surviving standbys."""

ACQUIRE_TIMEOUT_S: Final = 1.0
"""A request waits this long for a connection: a failover by the warden fits in, a queue does not build up."""

KNOCK_TIMEOUT_S: Final = 0.5
"""A background probe of an old connection is one empty query; a server that does not answer it by then hangs."""

WAITERS_PER_CONNECTION: Final = 16
"""Bulkhead: more requests than this per connection are refused at once instead of filling the process."""

READ_LIFETIME_S: Final = 300.0
"""Read connections are renewed: after a failover they sit on the new primary and should find their way back."""
WRITE_LIFETIME_S: Final = 3600.0

IDLE_S: Final = 5.0
"""A pool above its least size gives up one connection that nobody needed for so long, so that what an outage's backlog
opened is closed some seconds later; the library's 10 minutes would keep a primary's connections for nobody."""

OPTIONS: Final = "-c statement_timeout=0 -c synchronous_commit=on -c jit=off"
"""Nothing may cancel a COMMIT that was sent, and no default of role or database may weaken it. Compiling a lookup over
many partitions took 0.6 s where running it takes 20 ms."""

TIMELINE: Final = """
    select left(case when pg_is_in_recovery() then '0' else pg_walfile_name(pg_current_wal_lsn()) end, 8)
"""
"""A primary's timeline, hexadecimal, 0 for a standby. The control file's would lag behind a promotion."""

Connected = TypeVar("Connected")


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """Connections of one pool."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise FeatureStoreError(f"a pool needs 1 <= min <= max connections, got {self.min} and {self.max}")


@dataclass(frozen=True, slots=True)
class ConnectionBudget:
    """What one process may open per shard, all pools together: one server may have to take it all."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 2 <= self.min <= self.max:  # noqa: PLR2004 - one connection for each of the two pools
            raise FeatureStoreError(
                f"a shard's connection budget needs 2 <= min <= max (one connection to write, one to read), "
                f"got {self.min} and {self.max}: correct the topology"
            )

    def split(self) -> tuple[PoolBounds, PoolBounds]:
        """Bounds of the write and of the read pool; the odd connection goes to writes, which hold theirs longer."""
        return (
            PoolBounds(self.min - self.min // 2, self.max - self.max // 2),
            PoolBounds(self.min // 2, self.max // 2),
        )


class Redial:
    """Repeats connection attempts until one succeeds: one at a time while the server is away, all at once after."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._reachable = True
        self._closed = False
        self.last_error = "none"
        self.dialling = 0
        """Connections that are wanted and not there yet."""

    def close(self) -> None:
        """Let every attempt end with its next failure."""
        self._closed = True

    async def until_connected(self, attempt: Callable[[], Awaitable[Connected]]) -> Connected:
        """The first connection that `attempt` gives; psycopg.OperationalError only after `close`."""
        self.dialling += 1
        try:
            return await self._until_connected(attempt)
        finally:
            self.dialling -= 1

    async def _until_connected(self, attempt: Callable[[], Awaitable[Connected]]) -> Connected:
        while not self._closed:
            if self._reachable:
                if (connection := await self._try(attempt)) is not None:
                    return connection
                continue
            async with self._turn:
                if self._reachable or self._closed:
                    continue
                await asyncio.sleep(random.uniform(REDIAL_MIN_S, REDIAL_MAX_S))  # noqa: S311 - jitter, no secret
                if (connection := await self._try(attempt)) is not None:
                    return connection
        raise psycopg.OperationalError("the pool is closing")

    async def _try(self, attempt: Callable[[], Awaitable[Connected]]) -> Connected | None:
        try:
            connection = await attempt()
        except psycopg.Error as error:
            self._reachable = False
            self.last_error = str(error)
            return None
        self._reachable = True
        return connection


class ShardConnection(AsyncConnection[TupleRow]):
    """A connection that knows which server it talks to and can be given up without cancelling what it sent."""

    host_port: tuple[str, int]
    timeline: int
    made_at: float
    ticket: Ticket
    warnings: CommitWarnings

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect and learn where to; returns only with a usable connection. `redial` is the pool's own keyword."""
        redial: Redial = kwargs.pop("redial")

        async def attempt() -> Self:
            connection = await super(ShardConnection, cls).connect(conninfo, **kwargs)
            try:
                await connection._introduce()
            except BaseException:
                await connection.close()
                raise
            return connection

        return await redial.until_connected(attempt)

    async def _introduce(self) -> None:
        self.made_at = time.monotonic()
        self.warnings = CommitWarnings()
        self.add_notice_handler(self.warnings)
        set_json_loads(orjson.loads, self)
        self.host_port = (self.info.host, self.info.port)
        with self.deadline(CONNECT_TIMEOUT_S):
            row = await (await self.execute(TIMELINE)).fetchone()
        self.timeline = int(row[0], 16) if row is not None else 0

    def is_alive(self) -> bool:
        """False when the server has closed or reset the socket; costs no round trip.

        An idle session sends nothing, so anything to read is a farewell.
        """
        if self.closed:
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Shut the socket down when the block lasts longer: the pending call then fails with OperationalError.

        Never cancels anything at the server, as a cancelled task or a statement_timeout would.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._sever)
        try:
            yield
        finally:
            timer.cancel()

    def _sever(self) -> None:
        if not self.closed:
            with socket.fromfd(self.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line, suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


class ShardPool:
    """Connections of one kind (writes or reads) to one shard. A dead shard blocks nobody but its own callers.

    Its breaker hears how each use of a connection ended. While it is open one task waits for a connection as callers
    otherwise would, so that the breaker hears of the shard's return when they would have.
    """

    def __init__(
        self,
        shard: ShardEndpoints,
        target: SessionTarget,
        bounds: PoolBounds,
        *,
        max_lifetime_s: float,
        application_name: str,
    ) -> None:
        self._shard = shard.shard
        self._names = {(entry.host, entry.port): entry.name for entry in shard.hosts}
        self._redial = Redial()
        self._purged_at = 0.0
        kind = "write" if target == "read-write" else "read"
        self.breaker = Breaker(f"shard-{shard.shard}-{kind}")
        self._gate = Gate(self.breaker, line=bounds.max * WAITERS_PER_CONNECTION)
        self._knocking: asyncio.Task[None] | None = None
        self._closing = False
        self.breaker.listen(self._changed)
        conninfo = make_conninfo(
            shard.conninfo(target, application_name=application_name), options=OPTIONS, load_balance_hosts="random"
        )
        self._pool: AsyncConnectionPool[ShardConnection] = AsyncConnectionPool(
            conninfo,
            connection_class=ShardConnection,
            kwargs={"redial": self._redial, "autocommit": True, "prepare_threshold": 0},
            min_size=bounds.min,
            max_size=bounds.max,
            open=False,
            name=f"shard-{shard.shard}-{target}",
            max_waiting=bounds.max * WAITERS_PER_CONNECTION,
            max_lifetime=max_lifetime_s,
            max_idle=IDLE_S,
            # every connection may be redialling at once, and returned ones still need a worker
            num_workers=bounds.max + 2,
        )

    async def open(self) -> None:
        """Start connecting in the background; a shard that is down delays nobody."""
        await self._pool.open()

    async def close(self) -> None:
        self._redial.close()
        self._closing = True  # psycopg_pool may swallow the cancellation of who gets a connection in the same moment
        if self._knocking is not None:
            self._knocking.cancel()
            await asyncio.wait([self._knocking])
        await self._pool.close()

    async def acquire(self, timeout_s: float = ACQUIRE_TIMEOUT_S) -> ShardConnection:
        """A living connection, to be given back with `release` or `discard`; ShardUnavailable within the timeout."""
        began = time.monotonic()
        give_up_at = began + min(timeout_s, ACQUIRE_TIMEOUT_S)
        ticket = await self._gate.enter(give_up_at - began)
        if ticket is None:
            raise ShardUnavailable(
                self._shard, f"its breaker is open (last connection error: {self._redial.last_error})"
            )
        try:
            connection = await self._connection(give_up_at)
        except PoolTimeout as error:
            # somebody's own short deadline says nothing about the shard
            (self.breaker.failed if timeout_s >= ACQUIRE_TIMEOUT_S else self.breaker.dropped)(ticket)
            raise self._unavailable(error) from error
        except (TooManyRequests, PoolClosed) as error:
            self.breaker.dropped(ticket)
            raise self._unavailable(error) from error
        except BaseException:
            self.breaker.dropped(ticket)
            raise
        connection.ticket = ticket
        return connection

    async def release(self, connection: ShardConnection) -> None:
        """The server answered, whatever it said."""
        self.breaker.succeeded(connection.ticket)
        await self._pool.putconn(connection)

    async def discard(self, connection: ShardConnection) -> None:
        """The connection failed: close it, and with it all that are as old, because their server is suspect too."""
        self.breaker.failed(connection.ticket)
        await self._drop(connection)

    async def _connection(self, give_up_at: float) -> ShardConnection:
        while True:
            connection = await self._pool.getconn(give_up_at - time.monotonic())
            if connection.is_alive():
                return connection
            await asyncio.shield(self._drop(connection))

    async def _drop(self, connection: ShardConnection) -> None:
        await connection.close()
        await self._pool.putconn(connection)
        if connection.made_at > self._purged_at:
            self._purged_at = time.monotonic()
            await self._pool.drain()

    def _unavailable(self, error: Exception) -> ShardUnavailable:
        return ShardUnavailable(self._shard, f"{error} (last connection error: {self._redial.last_error})")

    def _changed(self, breaker: Breaker) -> None:
        if self._closing:
            return
        if breaker.state is State.OPEN and (self._knocking is None or self._knocking.done()):
            self._knocking = asyncio.get_running_loop().create_task(self._knock_on(), name=f"knock {breaker.name}")

    async def _knock_on(self) -> None:
        opened = time.monotonic()
        while self.breaker.state is not State.CLOSED and not self._closing:
            if await self._knock(opened):
                self.breaker.announce()
            await asyncio.sleep(PROBE_EVERY_S)

    async def _knock(self, opened: float) -> bool:
        """Is there a connection that is newer than the outage, or an old one that still answers?"""
        try:
            connection = await self._connection(time.monotonic() + ACQUIRE_TIMEOUT_S)
        except (PoolTimeout, TooManyRequests, PoolClosed):
            return False
        try:
            if connection.made_at < opened:
                with connection.deadline(KNOCK_TIMEOUT_S):
                    await connection.execute("select")
        except psycopg.Error:
            await self._drop(connection)
            return False
        await self._pool.putconn(connection)
        return True

    def server_name(self, connection: ShardConnection) -> str | None:
        """Member name of the server behind a connection, None when the endpoints do not name it."""
        return self._names.get(connection.host_port)

    @property
    def name(self) -> str:
        """`shard-N-write` or `shard-N-read`, as its breaker's."""
        return self.breaker.name

    @property
    def dialling(self) -> int:
        """Connections that it wants and does not have yet."""
        return self._redial.dialling

    @property
    def open_connections(self) -> int:
        """Connections that it has, idle and in use."""
        return max(0, self._pool.get_stats()["pool_size"] - self.dialling)

    def stats(self) -> dict[str, int]:
        """psycopg_pool's counters and measures."""
        return self._pool.get_stats()
