"""Cuts closed batches into training and test files by time: nothing learned from is later than what is tested."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from services.contracts.flights import CATEGORICAL, FEATURES, TARGET
from services.contracts.shards import ShardEndpoints
from services.contracts.training import SnapshotWitness
from services.etl.errors import NoTrainingData
from services.featurestore.sessions import session

APPLICATION: Final = "breakwater-training"
SNAPSHOT: Final = "begin isolation level repeatable read, read only"
WITNESS: Final = "select current_setting('transaction_isolation'), pg_current_snapshot()::text"
CLOSED: Final = "select batch_id from batches where closed_at is not null"
EXAMPLES: Final = sql.SQL("""
    copy (
        select extract(epoch from f.event_time)::bigint, f.entity_id, {columns},
            case when o.late then 1 else 0 end,
            to_char(f.event_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
        from features f
        join outcomes o using (entity_id, event_time)
        cross join lateral jsonb_to_record(f.feature_vector) as x ({types})
        where f.batch_id = any({batches})
        order by f.event_time, f.entity_id
    ) to stdout (format csv)
""")
EVENT_TIME: Final = "event_time"
WORK_MEM: Final = "64MB"

Example = tuple[int, bytes, bytes]
"""Scheduled departure (seconds since 1970, UTC), entity id, and the rest of the CSV line."""


@dataclass(frozen=True, slots=True)
class TrainingCut:
    """Two CSV files with a header: the contract's features in order, then `late` (0 or 1) and `event_time`.

    Missing is empty, times are ISO 8601 in UTC.

    Rows are ordered by departure and entity, so equal batches give equal files. `max_train` < `min_test`, both UTC.
    """

    train_csv: Path
    test_csv: Path
    max_train: datetime
    min_test: datetime
    train_rows: int
    test_rows: int
    batches: tuple[int, ...]
    snapshots: tuple[SnapshotWitness, ...]

    @property
    def rows(self) -> int:
        return self.train_rows + self.test_rows


def export_training_csv(shards: Sequence[ShardEndpoints], directory: Path, split_date: date) -> TrainingCut:
    """Write `train.csv` (departures before `split_date`, 00:00 UTC) and `test.csv` (from then on) to `directory`.

    Holds flights with an outcome, of the batches that every shard had closed when its snapshot was taken: a batch is
    closed only after all shards committed it, so each snapshot has all rows of those batches. Raises NoTrainingData,
    ShardUnavailable.
    """
    train_csv, test_csv = directory / "train.csv", directory / "test.csv"
    split = int(datetime(split_date.year, split_date.month, split_date.day, tzinfo=UTC).timestamp())
    with ExitStack() as stack:
        connections = [
            stack.enter_context(session(shard, application_name=APPLICATION, target="prefer-standby"))
            for shard in shards
        ]
        batches = _common_batches(connections)
        begun = [_witness(connection) for connection in connections]
        train = stack.enter_context(train_csv.open("wb"))
        test = stack.enter_context(test_csv.open("wb"))
        header = ",".join((*FEATURES, TARGET, EVENT_TIME)).encode() + b"\n"
        train.write(header)
        test.write(header)
        train_times: list[int] = []
        test_times: list[int] = []
        for departure, _, line in heapq.merge(*(_examples(connection, batches) for connection in connections)):
            if departure < split:
                train.write(line)
                train_times.append(departure)
            else:
                test.write(line)
                test_times.append(departure)
        ended = [_witness(connection) for connection in connections]
    if not train_times or not test_times:
        raise NoTrainingData(
            f"{len(train_times)} flights before {split_date} and {len(test_times)} from then on in {len(batches)} "
            "closed batches: both sides need some; load more months or choose another date"
        )
    max_train, min_test = max(train_times), min(test_times)
    if max_train >= min_test:
        raise NoTrainingData(
            f"training reaches {max_train} and testing starts at {min_test} (seconds UTC): they overlap"
        )
    return TrainingCut(
        train_csv,
        test_csv,
        datetime.fromtimestamp(max_train, UTC),
        datetime.fromtimestamp(min_test, UTC),
        len(train_times),
        len(test_times),
        tuple(sorted(batches)),
        tuple(
            SnapshotWitness(shard=shard.shard, isolation=end[0], begin=begin[1], end=end[1])
            for shard, begin, end in zip(shards, begun, ended, strict=True)
        ),
    )


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
    query = EXAMPLES.format(
        columns=sql.SQL(", ").join(sql.Identifier("x", name) for name in FEATURES),
        types=sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL("text" if name in CATEGORICAL else "float8"))
            for name in FEATURES
        ),
        batches=sql.Literal(sorted(batches)),
    )
    with connection.cursor().copy(query) as copy:
        for row in copy:
            departure, entity, line = bytes(row).split(b",", 2)
            yield int(departure), entity, line
