"""Writers for the store's tests: entities by shard, and a crowd that keeps writing and remembers every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Final
from uuid import UUID, uuid4

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.featurestore.errors import CommitUnknown, ShardUnavailable
from services.featurestore.pools import ConnectionBudget
from services.featurestore.sessions import session
from services.featurestore.store import Acknowledgement, FeatureStore

NOW: Final = datetime.now(UTC)
BUDGET: Final = ConnectionBudget(2, 8)
SOON_S: Final = 20.0
"""Longest wait for a shard that is up to acknowledge."""
AFTER_FAILURE_S: Final = 0.1
"""What a decent client waits; without it the refused ones would use up the test's own event loop."""

even = cache(SlotMap.even)


def entity_on(shard: int, shards: int = 2) -> UUID:
    """A new entity that the even map gives to `shard`."""
    return next(entity for entity in iter(uuid4, None) if even(shards).shard_of(entity) == shard)


def open_store(shards: Sequence[ShardEndpoints]) -> FeatureStore:
    return FeatureStore(shards, lambda: even(len(shards)), budget=BUDGET, application_name="test")


def stored_entities(shard: ShardEndpoints) -> set[UUID]:
    with session(shard, application_name="test") as connection:
        return {entity for (entity,) in connection.execute("select entity_id from features")}


async def first_acknowledged(store: FeatureStore, shard: int, shards: int) -> tuple[Acknowledgement, float]:
    """Write without pause until one write is acknowledged; seconds that took."""
    started = time.monotonic()
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                done = await store.write(entity_on(shard, shards), NOW, "UA", {}, idempotency_key=uuid4())
            except (ShardUnavailable, CommitUnknown):
                continue
            return done, time.monotonic() - started


@dataclass
class Crowd:
    """Writes new entities to one shard until stopped and sorts them by what their write said."""

    store: FeatureStore
    shard: int
    shards: int
    acknowledged: set[UUID] = field(default_factory=set)
    failed: set[UUID] = field(default_factory=set)
    unknown: set[UUID] = field(default_factory=set)
    took_s: list[float] = field(default_factory=list)
    _stopped: bool = False

    async def write(self) -> None:
        while not self._stopped:
            entity = entity_on(self.shard, self.shards)
            started = time.monotonic()
            try:
                await self.store.write(entity, NOW, "UA", {"distance": 1.0}, idempotency_key=uuid4())
                self.acknowledged.add(entity)
            except ShardUnavailable:
                self.failed.add(entity)
                await asyncio.sleep(AFTER_FAILURE_S)
            except CommitUnknown:
                self.unknown.add(entity)
            self.took_s.append(time.monotonic() - started)

    async def acknowledges(self, more: int) -> None:
        """Return when so many more writes are acknowledged."""
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(SOON_S):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110 - a poll needs no event in the writers' way
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stopped = True
