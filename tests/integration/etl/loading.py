"""Loads two months of flights; run as a program it says what it has done, so that a test can kill it half-way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.etl.flights import LoadProgress, LoadReport, load_flights
from services.featurestore.sessions import session

MONTHS = (1, 2)
CONTENT = {
    "entities": "select entity_id, segment from entities",
    "features": "select entity_id, event_time, feature_vector, batch_id, idempotency_key from features",
    "outcomes": "select * from outcomes",
    "batches": "select batch_id, label, rows, closed_at is not null from batches",
    "rejected_rows": "select * from rejected_rows",
}
"""Everything but the times at which rows were written."""

Content = dict[str, list[tuple[int, str]]]
"""Table -> (rows, digest) of each shard."""


def load(shards: Sequence[ShardEndpoints]) -> LoadReport:
    return load_flights(shards, SlotMap.even(2), months=MONTHS, progress=_say)


def content(shards: Sequence[ShardEndpoints]) -> Content:
    """Rows and a digest of each table on each shard."""
    found: Content = {}
    for shard in shards:
        with session(shard, application_name="test") as connection:
            for table, query in CONTENT.items():
                row = connection.execute(
                    f"select count(*), md5(string_agg(md5(t::text), '' order by md5(t::text))) from ({query}) t"  # noqa: S608
                ).fetchone()
                assert row is not None
                found.setdefault(table, []).append((row[0], row[1]))
    return found


def _say(step: LoadProgress) -> None:
    sys.stdout.write(f"{step.rows}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    load([ShardEndpoints.model_validate_json(Path(name).read_text()) for name in sys.argv[1:]])
