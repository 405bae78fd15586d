"""One cut of the feature store on disk: every shard's closed batches as of one moment, which all splits read."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from services.contracts.shards import ShardEndpoints
from services.contracts.training import SnapshotWitness
from services.etl.errors import NoTrainingData
from services.featurestore.sessions import session

APPLICATION: Final = "breakwater-training"
SNAPSHOT: Final = "begin isolation level repeatable read, read only"
WITNESS: Final = "select current_setting('transaction_isolation'), pg_current_snapshot()::text"
CLOSED: Final = "select batch_id from batches where closed_at is not null"
# Vectors come as they are stored: what breaks the contract has to arrive to be named. JSON has no raw control
# characters, so neither the tab nor the quote ever occurs within a field.
EXAMPLES: Final = sql.SQL("""
    copy (
        select extract(epoch from f.event_time)::bigint, f.entity_id, case when o.late then 1 else 0 end,
            f.feature_vector
        from features f join outcomes o using (entity_id, event_time)
        where f.batch_id = any({batches})
        order by f.event_time, f.entity_id
    ) to stdout (format csv, delimiter E'\\t', quote E'\\b')
""")
WORK_MEM: Final = "64MB"

Example = tuple[int, bytes, bytes]
"""Scheduled departure (seconds since 1970, UTC), entity id, and the whole line."""


class Cut(BaseModel):
    """How much was cut, from which batches, and in which snapshots, in the servers' own words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    batches: tuple[int, ...]
    snapshots: tuple[SnapshotWitness, ...]


def take(shards: Sequence[ShardEndpoints], path: Path) -> Cut:
    """Write every flight with an outcome to `path`: departure (seconds UTC), entity, late (0 or 1) and the vector as
    JSON, separated by tabs, oldest first.

    Takes the batches that every shard had closed when its snapshot was taken: a batch is closed only after all shards
    committed it, so each snapshot has all rows of those batches, and writers may go on. Equal batches give equal files.
    Raises NoTrainingData, ShardUnavailable.
    """
    rows = 0
    with ExitStack() as stack:
        connections = [
            stack.enter_context(session(shard, application_name=APPLICATION, target="prefer-standby"))
            for shard in shards
        ]
        batches = _common_batches(connections)
        begun = [_witness(connection) for connection in connections]
        out = stack.enter_context(path.open("wb"))
        for _, _, line in heapq.merge(*(_examples(connection, batches) for connection in connections)):
            out.write(line)
            rows += 1
        ended = [_witness(connection) for connection in connections]
    if rows == 0:
        raise NoTrainingData(
            f"{len(batches)} closed batches with no flight that has an outcome: load some months before training"
        )
    witnesses = tuple(
        SnapshotWitness(shard=shard.shard, isolation=end[0], begin=begin[1], end=end[1])
        for shard, begin, end in zip(shards, begun, ended, strict=True)
    )
    return Cut(rows=rows, batches=tuple(sorted(batches)), snapshots=witnesses)


def _common_batches(connections: Sequence[psycopg.Connection]) -> set[int]:
    """Take a snapshot on every shard; the batches that all of them see closed."""
    closed: list[set[int]] = []
    for connection in connections:
        connection.execute(SNAPSHOT)
        closed.append({batch_id for (batch_id,) in connection.execute(CLOSED)})
    return set.intersection(*closed)


def _witness(connection: psycopg.Connection) -> tuple[str, str]:
    """The server's own word on the transaction: its isolation and its snapshot."""
    row = connection.execute(WITNESS).fetchone()
    if row is None:
        raise NoTrainingData("a shard did not say under which isolation it reads: try again")
    return str(row[0]), str(row[1])


def _examples(connection: psycopg.Connection, batches: set[int]) -> Iterator[Example]:
    connection.execute(f"set local work_mem = '{WORK_MEM}'")
    with connection.cursor().copy(EXAMPLES.format(batches=sql.Literal(sorted(batches)))) as copy:
        for row in copy:
            line = bytes(row)
            departure, entity, _ = line.split(b"\t", 2)
            yield int(departure), entity, line
