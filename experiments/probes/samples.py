"""Loaded flights to ask for: predictions by entity, and reads whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg

from experiments.errors import ExperimentError
from services.contracts.shards import ShardEndpoints

APPLICATION: Final = "breakwater-samples"


def write_samples(
    shards: Sequence[ShardEndpoints], path: Path, *, seed: int, loaded_before: str, per_shard: int
) -> int:
    """Write JSON lines {entity_id, event_time, features}, `per_shard` of each shard, by `seed`; returns how many.

    ExperimentError when a shard holds no flights from before `loaded_before` (ISO date; a run's own writes are later).
    """
    total = 0
    with path.open("w") as out:
        for shard in shards:
            rows = _flights(shard, seed, loaded_before, per_shard)
            if not rows:
                raise ExperimentError(f"shard {shard.shard} holds no flights; run `breakwater load` first")
            for entity_id, event_time, features in rows:
                line = {"entity_id": str(entity_id), "event_time": event_time.isoformat(), "features": features}
                out.write(json.dumps(line) + "\n")
            total += len(rows)
    return total


def _flights(
    shard: ShardEndpoints, seed: int, loaded_before: str, per_shard: int
) -> list[tuple[UUID, datetime, dict[str, Any]]]:
    try:
        with psycopg.connect(shard.conninfo("read-write", application_name=APPLICATION)) as connection:
            return connection.execute(
                "select entity_id, event_time, feature_vector from features where event_time < %s"
                " order by md5(entity_id::text || event_time::text || %s) limit %s",
                (loaded_before, str(seed), per_shard),
            ).fetchall()
    except psycopg.Error as error:
        raise ExperimentError(
            f"shard {shard.shard} does not hand out flights: {error}; see `breakwater status`, then run it again"
        ) from error
