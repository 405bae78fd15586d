"""Reads and writes on two healthy shards, and what each refusal says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.featurestore.pools import ConnectionBudget
from services.featurestore.store import FeatureStore

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
NOW = datetime.now(UTC)
BUDGET = ConnectionBudget(2, 8)


def entity_on(shard: int) -> UUID:
    """A new entity whose slot the even map of two shards gives to `shard`."""
    return next(entity for entity in iter(uuid4, None) if SlotMap.even(2).shard_of(entity) == shard)


@pytest_asyncio.fixture
async def store(shards: Shards) -> AsyncIterator[FeatureStore]:
    async with FeatureStore(shards, lambda: SlotMap.even(2), budget=BUDGET, application_name="test") as store:
        yield store


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
