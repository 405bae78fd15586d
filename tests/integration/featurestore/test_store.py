"""Reads and writes on two healthy shards, and what each refusal says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import slot_of
from services.featurestore.errors import InvalidRequest, NotOwner, SchemaSkew, ShardUnavailable, SlotMapError
from services.featurestore.pools import ConnectionBudget
from services.featurestore.sessions import session, transaction
from services.featurestore.store import FeatureStore
from tests.integration.featurestore.servers import Postgres
from tests.integration.featurestore.writers import BUDGET, entity_on, even, open_store

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
NOW = datetime.now(UTC)


@pytest_asyncio.fixture
async def store(shards: Shards) -> AsyncIterator[FeatureStore]:
    async with open_store(shards) as store:
        yield store


def entities_of(shard: ShardEndpoints) -> int:
    with session(shard, application_name="test") as connection:
        row = connection.execute("select count(*) from entities").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_write_is_acknowledged_and_read_back(store: FeatureStore) -> None:
    key = uuid4()
    entity = entity_on(1)
    acknowledged = await store.write(entity, NOW, "UA", {"distance": 1400.0, "temp": None}, idempotency_key=key)
    assert (acknowledged.shard, acknowledged.server, acknowledged.timeline) == (1, "shard-1-0", 1)
    assert acknowledged.idempotency_key == key
    row = await store.read(entity, NOW)
    assert row is not None
    assert row.features == {"distance": 1400.0, "temp": None}
    assert (row.staleness_s, row.from_standby) == (0.0, False)
    assert await store.read(entity, NOW + timedelta(seconds=1)) is None


async def test_a_repeated_write_leaves_one_row_with_the_last_value(store: FeatureStore, shards: Shards) -> None:
    entity, key = entity_on(0), uuid4()
    for distance in (1.0, 1.0, 2.0):
        await store.write(entity, NOW, "UA", {"distance": distance}, idempotency_key=key)
    with session(shards[0], application_name="test") as connection:
        rows = connection.execute("select feature_vector, idempotency_key from features").fetchall()
    assert rows == [({"distance": 2.0}, key)]


async def test_many_keys_are_read_with_one_query_a_shard(store: FeatureStore) -> None:
    entities = [entity_on(number % 2) for number in range(20)]
    for number, entity in enumerate(entities):
        await store.write(entity, NOW, "UA", {"distance": float(number)}, idempotency_key=uuid4())
    asked = store.stats()[0]["read"].get("requests_num", 0)
    rows = await store.read_many([*((entity, NOW) for entity in entities), (uuid4(), NOW)])
    assert {key: row.features["distance"] for key, row in rows.items()} == {
        (entity, NOW): float(number) for number, entity in enumerate(entities)
    }
    assert store.stats()[0]["read"]["requests_num"] == asked + 1


async def test_a_slot_that_was_given_up_is_not_written(store: FeatureStore, shards: Shards) -> None:
    entity = entity_on(1)
    with transaction(shards[1], application_name="test") as connection:
        connection.execute("delete from owned_slots where slot = %s", (slot_of(entity),))
    with pytest.raises(NotOwner) as caught:
        await store.write(entity, NOW, "UA", {}, idempotency_key=uuid4())
    assert (caught.value.shard, caught.value.slot, caught.value.generation) == (1, slot_of(entity), 1)
    assert entities_of(shards[1]) == 0


@pytest.mark.parametrize(
    ("event_time", "segment", "complaint"),
    [
        (datetime(1999, 1, 1, tzinfo=UTC), "UA", "no partition"),
        (NOW, "U\0A", "NUL"),
        (NOW.replace(tzinfo=None), "UA", "names no time zone"),
    ],
)
async def test_values_that_cannot_be_stored_are_refused_and_cost_no_connection(
    store: FeatureStore, shards: Shards, event_time: datetime, segment: str, complaint: str
) -> None:
    entity = entity_on(0)
    before = store.stats()[0]["write"].get("returns_bad", 0)
    with pytest.raises(InvalidRequest, match=complaint):
        await store.write(entity, event_time, segment, {}, idempotency_key=uuid4())
    assert entities_of(shards[0]) == 0
    assert store.stats()[0]["write"].get("returns_bad", 0) == before
    await store.write(entity, NOW, "UA", {}, idempotency_key=uuid4())


async def test_a_schema_this_release_does_not_serve_is_named(store: FeatureStore, shards: Shards) -> None:
    await store.check_schema()
    with transaction(shards[1], application_name="test") as connection:
        [head] = connection.execute("select version_num from alembic_version").fetchone() or [None]
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(SchemaSkew, match="shard 1 is at 9999"):
        await store.check_schema()
    skewed, sound = entity_on(1), entity_on(0)
    await store.write(sound, NOW, "UA", {}, idempotency_key=uuid4())
    for refused in (
        store.write(skewed, NOW, "UA", {}, idempotency_key=uuid4()),
        store.read(skewed, NOW),
        store.read_many([(sound, NOW), (skewed, NOW)]),
    ):
        with pytest.raises(SchemaSkew, match="shard 1 is at 9999"):
            await refused
    assert entities_of(shards[1]) == 0
    with transaction(shards[1], application_name="test") as connection:
        connection.execute("update alembic_version set version_num = %s", (head,))
    await store.check_schema()
    await store.write(skewed, NOW, "UA", {}, idempotency_key=uuid4())


async def test_a_shard_without_schema_is_named(empty_shards: Shards) -> None:
    async with open_store(empty_shards) as store:
        with pytest.raises(SchemaSkew, match="shard 0 is at nothing, shard 1 is at nothing"):
            await store.check_schema()


async def test_a_map_with_an_unknown_shard_is_an_error_of_its_own(shards: Shards) -> None:
    async with FeatureStore(shards[:1], lambda: even(2), budget=BUDGET, application_name="test") as store:
        with pytest.raises(SlotMapError, match=r"names shard 1, known are \[0\]"):
            await store.read(entity_on(1), NOW)


async def test_the_budget_bounds_what_one_server_has_to_take(
    shards: Shards, servers: tuple[Postgres, Postgres]
) -> None:
    entities = [entity_on(0) for _ in range(20)]
    async with FeatureStore(shards, lambda: even(2), budget=ConnectionBudget(2, 5), application_name="budget") as store:
        await asyncio.gather(*(store.write(each, NOW, "UA", {}, idempotency_key=uuid4()) for each in entities))
        await asyncio.gather(*(store.read(each, NOW) for each in entities))
        with servers[0].superuser() as connection:
            found = connection.execute(
                "select count(*) from pg_stat_activity where application_name = 'budget'"
            ).fetchone()
    assert found is not None
    assert found[0] <= 5


async def test_more_callers_than_a_shard_can_queue_are_refused_at_once(
    shards: Shards, servers: tuple[Postgres, Postgres]
) -> None:
    async with open_store(shards) as store:
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        with servers[0].superuser(shards[0].dbname) as blocker:
            blocker.execute("begin; lock table owned_slots")
            crowd = [
                asyncio.ensure_future(store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4()))
                for _ in range(200)
            ]
            done, waiting = await asyncio.wait(crowd, timeout=0.5)
            assert 4 * 16 <= len(waiting) <= 4 * 16 + 4, "four at work, and sixteen waiting for each"
            assert all(isinstance(task.exception(), ShardUnavailable) for task in done)
            blocker.execute("rollback")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert not any(isinstance(outcome, psycopg.Error) for outcome in outcomes)
