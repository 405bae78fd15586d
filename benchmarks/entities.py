"""Entities by the hundred thousand in the feature store, and the requests that read and write one of them."""

from __future__ import annotations

import contextlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from benchmarks.platform import ENVIRONMENT, Platform
from benchmarks.vectors import flights
from services.contracts.flights import ENTITY_NAMESPACE
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient
from services.featurestore.sessions import transaction
from services.featurestore.slots import read_slot_map
from services.registry import ModelCard

APPLICATION: Final = "breakwater-bench"
EVENT_TIME: Final = "2013-02-01T12:00:00+00:00"
SEGMENT: Final = "bench"
VECTORS: Final = 1_000
"""Different vectors, dealt out to all entities: drawing one for each would take longer than storing it."""
CHUNK: Final = 100_000
"""Entities in one transaction: its replicas must keep up."""
ASKED: Final = 20_000

INCOMING: Final = "create temporary table incoming (entity_id uuid, feature_vector jsonb) on commit drop"
ENTITIES: Final = "insert into entities (entity_id, segment) select entity_id, %s from incoming"
FEATURES: Final = """
    insert into features (entity_id, event_time, feature_vector, idempotency_key)
    select entity_id, %s, feature_vector, entity_id from incoming
"""


def entity(number: int) -> UUID:
    return uuid5(ENTITY_NAMESPACE, f"bench {number}")


def add(platform: Platform, card: ModelCard, first: int, last: int) -> None:
    """Store the entities `first` to `last` - 1, each with one vector at EVENT_TIME."""
    drawn = flights(card, seed=0)
    vectors = [next(drawn).model_dump_json() for _ in range(VECTORS)]
    with contextlib.closing(EtcdClient(platform.plan.etcd_urls)) as etcd:
        slot_map = read_slot_map(etcd, ENVIRONMENT)
    shards = platform.plan.all_shards()
    for start in range(first, last, CHUNK):
        by_shard: dict[int, list[str]] = defaultdict(list)
        for number in range(start, min(start + CHUNK, last)):
            identity = entity(number)
            by_shard[slot_map.shard_of(identity)].append(f"{identity}\t{vectors[number % VECTORS]}\n")
        for shard in shards:
            _copy(shard, by_shard[shard.shard])
    for shard in shards:
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute("analyze entities, features")


def _copy(shard: ShardEndpoints, lines: list[str]) -> None:
    with transaction(shard, application_name=APPLICATION) as connection:
        connection.execute(INCOMING)
        with connection.cursor().copy("copy incoming from stdin") as copy:
            copy.write("".join(lines))
        connection.execute(ENTITIES, (SEGMENT,))
        connection.execute(FEATURES, (EVENT_TIME,))


def reads(path: Path, count: int) -> Path:
    """Predictions for entities drawn from the first `count`."""
    chance = random.Random(count)  # noqa: S311 - load, no secret
    with path.open("w") as out:
        for _ in range(ASKED):
            out.write(json.dumps({"entity_id": str(entity(chance.randrange(count))), "event_time": EVENT_TIME}) + "\n")
    return path


def writes(path: Path, card: ModelCard, count: int) -> Path:
    """A new vector for entities drawn from the first `count`."""
    chance = random.Random(count)  # noqa: S311 - load, no secret
    drawn = flights(card, seed=1)
    with path.open("w") as out:
        for _ in range(ASKED):
            body = {
                "entity_id": str(entity(chance.randrange(count))),
                "event_time": EVENT_TIME,
                "segment": SEGMENT,
                "features": next(drawn).model_dump(mode="json"),
            }
            out.write(json.dumps(body) + "\n")
    return path
