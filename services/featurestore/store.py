"""Reads and writes of feature vectors: what is acknowledged is durable, what is read says how stale it may be."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import TupleRow

from services.breaker import Breaker
from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap, slot_of
from services.featurestore.errors import (
    CommitUnknown,
    InvalidRequest,
    NotOwner,
    SchemaSkew,
    ShardUnavailable,
    SlotMapError,
)
from services.featurestore.migrate import check_servable
from services.featurestore.pools import (
    READ_LIFETIME_S,
    WRITE_LIFETIME_S,
    ConnectionBudget,
    ShardConnection,
    ShardPool,
)
from services.retry import retried

WRITE_TIMEOUT_S: Final = 5.0
"""From the first statement to the COMMIT's answer: well above a failover of the synchronous standby's stream, well
below what a client waits; after it the connection is given up."""

READ_TIMEOUT_S: Final = 0.5
"""A key lookup takes under 1 ms; a silent server is left early enough for a second try within the client's patience."""

RETRY_S: Final = 1.0
"""After a connection broke, others are tried for so long: a failover by the warden fits in, as at the breaker. Longer
would let an ending replica's writes outlast its drain."""

OWNED: Final = "select 1 from owned_slots where slot = %s for share"
ENTITY: Final = """
    insert into entities (entity_id, segment) values (%s, %s)
    on conflict (entity_id) do update set segment = excluded.segment
"""
FEATURES: Final = """
    insert into features (entity_id, event_time, feature_vector, idempotency_key) values (%s, %s, %s::jsonb, %s)
    on conflict (entity_id, event_time) do update
    set feature_vector = excluded.feature_vector, idempotency_key = excluded.idempotency_key
"""
STALENESS: Final = """
    pg_is_in_recovery(),
    case
        when pg_is_in_recovery() then greatest(0, extract(epoch from clock_timestamp() - greatest(
            pg_last_xact_replay_timestamp(),
            (
                select last_msg_send_time from pg_stat_wal_receiver
                where latest_end_lsn <= pg_last_wal_replay_lsn() and last_msg_send_time <> last_msg_receipt_time
            )
        )))
        else 0
    end::float8
"""
"""Two bounds, each true by itself, of which the better one is stated. Whatever was acknowledged before the last
replayed commit was begun is replayed too. And when all is replayed that existed when the primary sent its last message,
nothing older than that message is missing: it names the end of its log. "Replayed all that was received" alone is no
bound: of what was acknowledged through another standby, or while this one's stream hung, nothing may have been received
yet. Both times are equal only before the first message, when a new stream's are its own start (walreceiver.c)."""
READ_ONE: Final = f"""
    select {STALENESS}, (select feature_vector from features where entity_id = %s and event_time = %s)
"""  # noqa: S608 - constants only
"""A row in any case: that nothing is stored under a key is as old as everything else that this server says."""
READ_MANY: Final = f"""
    select found.*, {STALENESS}
    from unnest(%s::uuid[], %s::timestamptz[]) as wanted (entity_id, event_time)
    cross join lateral (
        select f.entity_id, f.event_time, f.feature_vector from features f
        where f.entity_id = wanted.entity_id and f.event_time = wanted.event_time
        offset 0
    ) as found
"""  # noqa: S608 - constants only
"""`offset 0` keeps the join a primary-key lookup per key whatever the planner believes about the number of keys."""

REVISION: Final = "select version_num from alembic_version"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The write is durable on the primary and on a synchronous standby."""

    shard: int
    server: str | None
    timeline: int
    idempotency_key: UUID


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A stored vector. Every write acknowledged `staleness_s` seconds before the read was asked for is in it.

    0 on a primary; on a standby that keeps up as long as its primary has been silent, under load some milliseconds,
    without any at most a few seconds; None when a standby cannot say.
    """

    entity_id: UUID
    event_time: datetime
    features: Mapping[str, Any]
    staleness_s: float | None
    from_standby: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server holds under one key, None when it holds nothing; its age is stated as a FeatureRow's is."""

    features: Mapping[str, Any] | None
    staleness_s: float | None
    from_standby: bool


@dataclass(frozen=True, slots=True)
class _Lane:
    """Everything that serves one shard, shared with no other."""

    shard: int
    writes: ShardPool
    reads: ShardPool


@dataclass(frozen=True, slots=True)
class _Write:
    """What one write transaction needs; `document` is the vector as JSON text."""

    slot: int
    generation: int
    entity_id: UUID
    segment: str
    event_time: datetime
    document: str
    idempotency_key: UUID


class FeatureStore:
    """Routes by the slot map to shards that cannot slow each other. One event loop; use as an async context manager."""

    def __init__(
        self,
        shards: Sequence[ShardEndpoints],
        slot_map: Callable[[], SlotMap],
        *,
        budget: ConnectionBudget,
        application_name: str,
    ) -> None:
        """`slot_map` gives the map in force (SlotMapReader.current); `budget` holds per shard for this process."""
        writes, reads = budget.split()
        self._slot_map = slot_map
        self._finishing: set[asyncio.Task[Any]] = set()
        self._skewed: dict[int, str] = {}
        self._lanes = {
            shard.shard: _Lane(
                shard.shard,
                ShardPool(
                    shard, "read-write", writes, max_lifetime_s=WRITE_LIFETIME_S, application_name=application_name
                ),
                ShardPool(
                    shard, "prefer-standby", reads, max_lifetime_s=READ_LIFETIME_S, application_name=application_name
                ),
            )
            for shard in shards
        }

    async def open(self) -> None:
        """Start all pools; does not wait for any shard."""
        for lane in self._lanes.values():
            await lane.writes.open()
            await lane.reads.open()

    async def close(self) -> None:
        """Let what was sent finish (bounded by its deadline), then close all pools."""
        if self._finishing:
            await asyncio.wait(self._finishing)
        await asyncio.gather(*(pool.close() for pool in self.pools()))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def write(
        self,
        entity_id: UUID,
        event_time: datetime,
        segment: str,
        features: Mapping[str, Any],
        *,
        idempotency_key: UUID,
        timeout_s: float = math.inf,
    ) -> Acknowledgement:
        """Insert or replace one vector.

        Raises ShardUnavailable, SchemaSkew, NotOwner, InvalidRequest (certainly not applied) or CommitUnknown. What
        certainly was not applied because its connection broke is tried again; what may have been is not, for a
        repetition could overwrite what somebody else wrote since. A caller that is cancelled, or whose `timeout_s` is
        over, does not cancel a write that was sent: it runs on to its own end.
        """
        began = time.monotonic()
        slot_map = self._slot_map()
        slot = slot_of(entity_id)
        lane = self._serving(slot_map.owners[slot])
        write = _Write(
            slot,
            slot_map.generation,
            entity_id,
            segment,
            _aware(event_time, lane.shard),
            orjson.dumps(features).decode(),
            idempotency_key,
        )

        async def attempt() -> Acknowledgement:
            connection = await lane.writes.acquire(began + timeout_s - time.monotonic())
            try:
                async with asyncio.timeout(began + timeout_s - time.monotonic() if timeout_s < math.inf else None):
                    return await self._to_its_end(_write(lane, connection, write))
            except TimeoutError:
                raise CommitUnknown(lane.shard, "the caller's time was over first") from None

        return await retried(attempt, again=_broke, give_up_at=began + min(timeout_s, RETRY_S))

    async def read(
        self,
        entity_id: UUID,
        event_time: datetime,
        *,
        read_your_writes: bool = False,
        timeout_s: float = math.inf,
    ) -> FeatureRow | None:
        """The vector of exactly this entity and time, None when there is none: as `look_up`."""
        found = await self.look_up(entity_id, event_time, read_your_writes=read_your_writes, timeout_s=timeout_s)
        if found.features is None:
            return None
        return FeatureRow(entity_id, event_time, found.features, found.staleness_s, found.from_standby)

    async def look_up(
        self,
        entity_id: UUID,
        event_time: datetime,
        *,
        read_your_writes: bool = False,
        timeout_s: float = math.inf,
    ) -> Reading:
        """What is stored for exactly this entity and time, and how old that is. Raises ShardUnavailable or SchemaSkew.

        From a standby when there is one; `read_your_writes` reads the primary, which has every acknowledged write.
        `timeout_s` bounds the wait for a connection, and when a further attempt may begin.
        """
        lane = self._serving(self._slot_map().shard_of(entity_id))
        key = (entity_id, _aware(event_time, lane.shard))
        rows = await self._query(lane, READ_ONE, key, primary=read_your_writes, timeout_s=timeout_s)
        from_standby, staleness_s, features = rows[0]
        return Reading(features, staleness_s, from_standby)

    async def read_many(
        self, keys: Sequence[tuple[UUID, datetime]], *, read_your_writes: bool = False
    ) -> dict[tuple[UUID, datetime], FeatureRow]:
        """Vectors by key, one query per shard, shards in parallel; keys without a vector are absent."""
        slot_map = self._slot_map()
        by_shard: dict[int, list[tuple[UUID, datetime]]] = defaultdict(list)
        for entity_id, event_time in keys:
            shard = slot_map.shard_of(entity_id)
            by_shard[shard].append((entity_id, _aware(event_time, shard)))
        lanes = [(self._serving(shard), wanted) for shard, wanted in by_shard.items()]
        answers = await asyncio.gather(
            *(
                self._query(
                    lane, READ_MANY, [list(column) for column in zip(*wanted, strict=True)], primary=read_your_writes
                )
                for lane, wanted in lanes
            )
        )
        rows = (_feature_row(row) for answer in answers for row in answer)
        return {(row.entity_id, row.event_time): row for row in rows}

    async def check_schema(self) -> None:
        """SchemaSkew naming every shard whose schema this release must not serve; ShardUnavailable when one is away.

        From then on reads and writes on these shards raise SchemaSkew, until a check finds them mended.
        """
        lanes = self._lanes.values()
        revisions = await asyncio.gather(*(self._revision(lane) for lane in lanes))
        try:
            check_servable({lane.shard: revision for lane, revision in zip(lanes, revisions, strict=True)})
        except SchemaSkew as skew:
            self._skewed = {shard: str(skew) for shard in skew.shards}
            raise
        self._skewed = {}

    async def probe(self, shard: int) -> None:
        """One round trip to the shard's primary; ShardUnavailable when it does not answer."""
        await self._query(self._lane(shard), "select 1", (), primary=True)

    def pools(self) -> tuple[ShardPool, ...]:
        """One for each shard's writes and one for its reads."""
        return tuple(pool for lane in self._lanes.values() for pool in (lane.writes, lane.reads))

    def breakers(self) -> tuple[Breaker, ...]:
        """One for each shard's writes and one for its reads, named `shard-N-write` and `shard-N-read`."""
        return tuple(pool.breaker for pool in self.pools())

    def announce(self, shard: int) -> None:
        """The shard has a new leader: whoever waits for it may try at once."""
        lane = self._lane(shard)
        lane.writes.breaker.announce()
        lane.reads.breaker.announce()

    def stats(self) -> dict[int, dict[str, dict[str, int]]]:
        """psycopg_pool's counters: shard -> `write` or `read` -> counter."""
        return {lane.shard: {"write": lane.writes.stats(), "read": lane.reads.stats()} for lane in self._lanes.values()}

    def _lane(self, shard: int) -> _Lane:
        lane = self._lanes.get(shard)
        if lane is None:
            raise SlotMapError(f"the slot map names shard {shard}, known are {sorted(self._lanes)}: add its endpoints")
        return lane

    def _serving(self, shard: int) -> _Lane:
        if shard in self._skewed:
            raise SchemaSkew(self._skewed[shard], [shard])
        return self._lane(shard)

    async def _revision(self, lane: _Lane) -> str | None:
        try:
            rows = await self._query(lane, REVISION, (), primary=False)
        except ShardUnavailable as error:
            if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
                return None
            raise
        return str(rows[0][0]) if rows else None

    async def _query(
        self, lane: _Lane, query: str, parameters: Sequence[Any], *, primary: bool, timeout_s: float = math.inf
    ) -> list[TupleRow]:
        pool = lane.writes if primary else lane.reads
        began = time.monotonic()

        async def attempt() -> list[TupleRow]:
            connection = await pool.acquire(began + timeout_s - time.monotonic())
            try:
                return await self._to_its_end(_fetch(pool, connection, query, parameters))
            except psycopg.Error as error:
                # a standby, for one, that has not replayed a migration yet, is not broken
                broke = isinstance(error, psycopg.OperationalError)
                raise ShardUnavailable(lane.shard, str(error), broke=broke) from error

        return await retried(attempt, again=_broke, give_up_at=began + min(timeout_s, RETRY_S))

    async def _to_its_end(self, work: Awaitable[Result]) -> Result:
        # psycopg answers the cancellation of a task with a cancel request to the server, which would end the wait for
        # the synchronous standby. So the work is a task of its own that no caller can cancel.
        task = asyncio.ensure_future(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)


def _broke(error: Exception) -> bool:
    return isinstance(error, ShardUnavailable) and error.broke


async def _write(lane: _Lane, connection: ShardConnection, write: _Write) -> Acknowledgement:
    """One transaction in two round trips; ends with the connection given back."""
    committing = False
    healthy = False
    try:
        with connection.deadline(WRITE_TIMEOUT_S):
            async with connection.pipeline():
                await connection.execute("begin")
                owned = await connection.execute(OWNED, (write.slot,))
                await connection.execute(ENTITY, (write.entity_id, write.segment))
                await connection.execute(
                    FEATURES, (write.entity_id, write.event_time, write.document, write.idempotency_key)
                )
            if await owned.fetchone() is None:
                healthy = await _rolled_back(connection)
                raise NotOwner(lane.shard, write.slot, write.generation)
            connection.warnings.clear()
            committing = True
            committed = await connection.execute("commit")
        if connection.warnings.heard:
            raise CommitUnknown(lane.shard, connection.warnings.heard[0])
        if committed.statusmessage != "COMMIT":
            raise CommitUnknown(lane.shard, f"COMMIT was answered with {committed.statusmessage}")
        healthy = True
        return Acknowledgement(
            lane.shard, lane.writes.server_name(connection), connection.timeline, write.idempotency_key
        )
    except psycopg.Error as error:
        if committing:
            raise CommitUnknown(lane.shard, str(error)) from error
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
            healthy = await _rolled_back(connection)
            raise InvalidRequest(lane.shard, str(error)) from error
        # a session on a server that is no primary any more is of no use to anybody
        broke = isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction)
        raise ShardUnavailable(lane.shard, str(error), broke=broke) from error
    finally:
        await (lane.writes.release(connection) if healthy else lane.writes.discard(connection))


async def _rolled_back(connection: ShardConnection) -> bool:
    """True when the session is fit for another transaction."""
    try:
        with connection.deadline(WRITE_TIMEOUT_S):
            await connection.execute("rollback")
    except psycopg.Error:
        return False
    return True


async def _fetch(pool: ShardPool, connection: ShardConnection, query: str, parameters: Sequence[Any]) -> list[TupleRow]:
    try:
        with connection.deadline(READ_TIMEOUT_S):
            rows = await (await connection.execute(query, parameters)).fetchall()
    except BaseException:
        await pool.discard(connection)
        raise
    await pool.release(connection)
    return rows


def _feature_row(row: TupleRow) -> FeatureRow:
    entity_id, event_time, features, from_standby, staleness_s = row
    return FeatureRow(entity_id, event_time, features, staleness_s, from_standby)


def _aware(event_time: datetime, shard: int) -> datetime:
    if event_time.tzinfo is None:
        raise InvalidRequest(shard, f"the event time {event_time} names no time zone")
    return event_time
