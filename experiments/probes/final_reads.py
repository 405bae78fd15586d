"""Reads back, from each shard's primary, every row that a run's writers may have left there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg

from experiments.errors import ExperimentError
from experiments.history import write_final
from loadtests.keys import KEY_MASK, entity_of, key_of
from services.contracts.shards import ShardEndpoints

APPLICATION: Final = "breakwater-final-reads"
RETRY_S: Final = 0.2
NOT_A_VALUE: Final = 0
"""Stands for a vector without a whole, positive distance: no writer ever writes 0, so it cannot pass as right."""
ROWS_OF_RUN: Final = (
    "select entity_id, feature_vector -> 'distance' from features"
    " where entity_id between %s and %s and event_time = %s order by entity_id"
)

Rows = list[tuple[int, int]]


def read_shard(shard: ShardEndpoints, run_tag: int, event_time: datetime, *, patience_s: float) -> Rows:
    """(key, value) of every row of the run on the shard's primary, by key.

    Asks again until `patience_s` is over when no primary answers; then ExperimentError: a shard that was not read to
    its end proves nothing.
    """
    give_up = time.monotonic() + patience_s
    bounds = (entity_of(run_tag, 0), entity_of(run_tag, KEY_MASK), event_time)
    while True:
        try:
            with psycopg.connect(shard.conninfo("read-write", application_name=APPLICATION), autocommit=True) as link:
                return [(key_of(entity), _value(distance)) for entity, distance in link.execute(ROWS_OF_RUN, bounds)]
        except psycopg.OperationalError as error:
            if time.monotonic() >= give_up:
                raise ExperimentError(
                    f"final reads of shard {shard.shard} failed for {patience_s:g} s: {error}; without them no write "
                    "of the run can be judged: see whether the shard has a primary and read again"
                ) from error
            time.sleep(RETRY_S)


def final_reads(
    shards: Sequence[ShardEndpoints], run_tag: int, event_time: datetime, run_dir: Path, *, patience_s: float = 60.0
) -> int:
    """Read every shard's rows of the run and store them as the run's final.arrow; returns how many there are."""
    rows = {shard.shard: read_shard(shard, run_tag, event_time, patience_s=patience_s) for shard in shards}
    write_final(run_dir, rows)
    return sum(len(found) for found in rows.values())


def _value(distance: object) -> int:
    if isinstance(distance, int | float) and not isinstance(distance, bool) and distance > 0 and distance % 1 == 0:
        return int(distance)
    return NOT_A_VALUE
