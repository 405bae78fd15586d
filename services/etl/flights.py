"""Loads the flights of 2013 into the shards, batch by batch; running it again, or after a crash, changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final
from uuid import UUID, uuid5

import psycopg

from services.contracts.flights import ENTITY_NAMESPACE
from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap, slot_of
from services.etl.source import (
    ALL_MONTHS,
    FLIGHTS_SOURCE,
    FlightRow,
    MonthOfFlights,
    RejectedRow,
    months_of_flights,
    read_source,
)
from services.featurestore.errors import NotOwner, ShardUnavailable
from services.featurestore.partitions import ensure_partitions
from services.featurestore.sessions import session, transaction

APPLICATION: Final = "breakwater-etl"
WORK_MEM: Final = "32MB"
"""Sorts a month's rows in memory, and the GIN index merges its pending list into the tree with it."""

INCOMING: Final = """
    create temporary table incoming (
        entity_id uuid, segment text, event_time timestamptz, feature_vector jsonb, arr_delay_min real, late boolean
    ) on commit drop
"""
BACKSLASH: Final = "\\"
COPY: Final = "copy incoming from stdin"
OPEN_BATCH: Final = """
    insert into batches (batch_id, source, label, rows, first_event_time, last_event_time)
    values (%s, %s, %s, %s, %s, %s) on conflict (batch_id) do nothing
"""
CLOSE_BATCH: Final = "update batches set closed_at = now() where batch_id = %s and closed_at is null"
ENTITIES: Final = """
    insert into entities (entity_id, segment) select distinct entity_id, segment from incoming order by entity_id
    on conflict (entity_id) do update set segment = excluded.segment where entities.segment <> excluded.segment
"""
FEATURES: Final = """
    insert into features (entity_id, event_time, feature_vector, batch_id, idempotency_key)
    select entity_id, event_time, feature_vector, %s, %s from incoming
    on conflict (entity_id, event_time) do update
    set feature_vector = excluded.feature_vector, batch_id = excluded.batch_id,
        idempotency_key = excluded.idempotency_key, written_at = excluded.written_at
    where features.idempotency_key <> excluded.idempotency_key
"""
OUTCOMES: Final = """
    insert into outcomes (entity_id, event_time, late, arr_delay_min, batch_id)
    select entity_id, event_time, late, arr_delay_min, %s from incoming where late is not null
    on conflict (entity_id, event_time) do update
    set late = excluded.late, arr_delay_min = excluded.arr_delay_min, batch_id = excluded.batch_id
    where outcomes.batch_id <> excluded.batch_id
"""
REJECTED: Final = """
    insert into rejected_rows (source, line, batch_id, reason, row) values (%s, %s, %s, %s, %s::jsonb)
    on conflict (source, line) do update
    set batch_id = excluded.batch_id, reason = excluded.reason, row = excluded.row
"""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """After each batch: rows of this load that are in the store, of how many."""

    label: str
    rows: int
    total_rows: int


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the store holds of the wanted months now, and how long it took to make sure."""

    rows: int
    entities: int
    outcomes: int
    rejected: Mapping[str, int]
    batches: tuple[int, ...]
    seconds: float


def load_flights(
    shards: Sequence[ShardEndpoints],
    slot_map: SlotMap,
    *,
    progress: Callable[[LoadProgress], None],
    months: Collection[int] = ALL_MONTHS,
) -> LoadReport:
    """Bring the flights of the wanted months of 2013 into the store: one batch a month, closed once all shards have it.

    A batch's id follows from its content, so a batch that every shard has closed is not sent again, and one that was
    interrupted is sent again whole, over the rows that are there. Raises NotOwner when a shard gave up a slot,
    ShardUnavailable and CommitUnknown (run it again), SourceMissing.
    """
    started = time.monotonic()
    source = read_source()
    total_rows = int(source.flights["month"].isin(list(months)).sum())
    rows = outcomes = sent = 0
    entities: set[UUID] = set()
    rejected: Counter[str] = Counter()
    batches: list[int] = []
    with ThreadPoolExecutor(max_workers=len(shards), thread_name_prefix="load") as workers:
        for month in months_of_flights(source, months):
            batch = _Batch.of(month, slot_map)
            ensure_partitions(shards, {row.event_time.date() for row in month.rows})
            if not all(workers.map(batch.is_closed, shards)):
                list(workers.map(batch.send, shards))
                list(workers.map(batch.close, shards))
                sent += 1
            rows += len(month.rows)
            outcomes += sum(row.arr_delay_min is not None for row in month.rows)
            entities.update(row.entity_id for row in month.rows)
            rejected.update(row.reason for row in month.rejected)
            batches.append(batch.batch_id)
            progress(LoadProgress(month.label, rows, total_rows))
        if sent:
            list(workers.map(_settle, shards))
            list(workers.map(_checkpoint, shards))
    return LoadReport(rows, len(entities), outcomes, dict(rejected), tuple(batches), time.monotonic() - started)


def _settle(shard: ShardEndpoints) -> None:
    """Do now what autovacuum would do later beside live traffic: statistics, and GIN's pending list."""
    with session(shard, application_name=APPLICATION) as connection:
        connection.execute("vacuum (analyze) entities, features, outcomes")


def _checkpoint(shard: ShardEndpoints) -> None:
    """Have every member write to disk now what the load left dirty; else the kernel does it half a minute later, and
    commits that need the disk meanwhile wait for it.

    The primary goes first: a standby can only restart from a checkpoint of the primary's that it has replayed.
    """
    with session(shard, application_name=APPLICATION) as connection:
        connection.execute("checkpoint")
    for host in shard.hosts:
        member = session(shard.only(host.name), application_name=APPLICATION, target="any")
        with contextlib.suppress(ShardUnavailable), member as connection:  # one that is away writes when it is back
            connection.execute("checkpoint")


@dataclass(frozen=True, slots=True)
class _Batch:
    """One month on its way to all shards."""

    batch_id: int
    label: str
    first: datetime
    last: datetime
    size: int
    generation: int
    rows: Mapping[int, list[FlightRow]]
    rejected: list[RejectedRow]

    @classmethod
    def of(cls, month: MonthOfFlights, slot_map: SlotMap) -> _Batch:
        digest = hashlib.blake2b(month.label.encode(), digest_size=8)
        by_shard: dict[int, list[FlightRow]] = defaultdict(list)
        shard_of = cache(slot_map.shard_of)
        for row in month.rows:
            digest.update(_copy_line(row))
            by_shard[shard_of(row.entity_id)].append(row)
        for rejected in month.rejected:
            digest.update(repr(rejected).encode())
        times = [row.event_time for row in month.rows]
        return cls(
            int.from_bytes(digest.digest(), "big") >> 1,  # bigint has a sign
            month.label,
            min(times),
            max(times),
            len(month.rows),
            slot_map.generation,
            by_shard,
            month.rejected,
        )

    def is_closed(self, shard: ShardEndpoints) -> bool:
        with session(shard, application_name=APPLICATION) as connection:
            found = connection.execute(
                "select 1 from batches where batch_id = %s and closed_at is not null", (self.batch_id,)
            ).fetchone()
        return found is not None

    def send(self, shard: ShardEndpoints) -> None:
        """Commit this shard's part of the batch; repeating it changes nothing."""
        rows = self.rows.get(shard.shard, [])
        key = uuid5(ENTITY_NAMESPACE, f"batch {self.batch_id}")
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute(f"set local work_mem = '{WORK_MEM}'")
            self._check_owned(connection, shard.shard, rows)
            connection.execute(
                OPEN_BATCH, (self.batch_id, FLIGHTS_SOURCE, self.label, self.size, self.first, self.last)
            )
            connection.execute(INCOMING)
            with connection.cursor().copy(COPY) as copy:
                for row in rows:
                    copy.write(_copy_line(row))
            connection.execute("analyze incoming")
            connection.execute(ENTITIES)
            connection.execute(FEATURES, (self.batch_id, key))
            connection.execute(OUTCOMES, (self.batch_id,))
            if shard.shard == 0:
                # what was rejected has no entity, hence no shard of its own: the first one keeps it
                connection.cursor().executemany(
                    REJECTED,
                    [(row.source, row.line, self.batch_id, row.reason, row.row.decode()) for row in self.rejected],
                )

    def close(self, shard: ShardEndpoints) -> None:
        """Publish the batch on this shard; only after every shard committed its part."""
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute(CLOSE_BATCH, (self.batch_id,))

    def _check_owned(self, connection: psycopg.Connection, shard: int, rows: list[FlightRow]) -> None:
        owned = {slot for (slot,) in connection.execute("select slot from owned_slots for share")}
        for entity in {row.entity_id for row in rows}:
            if (slot := slot_of(entity)) not in owned:
                raise NotOwner(shard, slot, self.generation)


def _copy_line(row: FlightRow) -> bytes:
    """One line of COPY's text format: tabs between, backslashes doubled, \\N for null."""
    delay = "\\N\t\\N" if row.arr_delay_min is None else f"{row.arr_delay_min}\t{row.late}"
    fields = f"{row.entity_id}\t{row.segment}\t{row.event_time.isoformat()}\t{row.vector.decode()}".replace(
        "\\", "\\\\"
    )
    return f"{fields}\t{delay}\n".encode()
