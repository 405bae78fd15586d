"""A primary and its standby: what a standby's read says of its age, and how fast writes follow a promotion."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.featurestore.migrate import apply
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import apply_slot_map
from services.featurestore.store import FeatureRow, FeatureStore
from tests.integration.featurestore.servers import Postgres
from tests.integration.featurestore.writers import NOW, SOON_S, entity_on, first_acknowledged, open_store

pytestmark = pytest.mark.integration

IDLE_S = 3.0
"""Without writes a standby hears from its primary every 2.5 s, half of its timeout (SETTINGS)."""

Pair = tuple[Postgres, Postgres, ShardEndpoints]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A shard of a primary and one standby, alone in its environment."""
    primary = Postgres.create("shard-0-0")
    try:
        primary.create_database("features")
        standby = primary.follow("shard-0-1")
        try:
            shard = primary.endpoints(0, "features", standby)
            apply([shard])
            ensure_partitions([shard], standing_months(datetime.now(UTC).date()))
            apply_slot_map([shard], SlotMap.even(1))
            wait_replayed(primary, standby)
            yield primary, standby, shard
        finally:
            standby.kill()
    finally:
        primary.destroy()


def wait_replayed(primary: Postgres, standby: Postgres) -> None:
    """Return when the standby shows all that the primary has committed."""
    with primary.superuser() as there, standby.superuser() as here:
        written = there.execute("select pg_current_wal_lsn()").fetchone()
        assert written is not None
        deadline = time.monotonic() + SOON_S
        while here.execute("select pg_last_wal_replay_lsn() >= %s", written).fetchone() != (True,):
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.01)


async def eventually_fresh(store: FeatureStore, entity: UUID) -> FeatureRow:
    """The first read of a written row that has caught up with its primary."""
    async with asyncio.timeout(SOON_S):
        while True:
            row = await store.read(entity, NOW)
            if row is not None and row.staleness_s is not None and row.staleness_s < IDLE_S:
                return row
            await asyncio.sleep(0.01)


async def test_a_standby_states_how_stale_it_may_be(pair: Pair) -> None:
    primary, standby, shard = pair
    async with open_store([shard]) as store:
        old, new = entity_on(0, 1), entity_on(0, 1)
        await store.write(old, NOW, "UA", {}, idempotency_key=uuid4())
        assert (await eventually_fresh(store, old)).from_standby

        with standby.superuser() as superuser:
            superuser.execute("select pg_wal_replay_pause()")
            await store.write(new, NOW, "UA", {}, idempotency_key=uuid4())
            await asyncio.sleep(0.3)
            assert await store.read(new, NOW) is None
            behind = await store.read(old, NOW)
            assert behind is not None
            assert behind.from_standby
            assert behind.staleness_s is not None
            assert behind.staleness_s >= 0.3

            mine = await store.read(new, NOW, read_your_writes=True)
            assert mine is not None
            assert (mine.from_standby, mine.staleness_s) == (False, 0.0)

            superuser.execute("select pg_wal_replay_resume()")
        assert (await eventually_fresh(store, new)).from_standby

        primary.kill()
        await asyncio.sleep(0.3)
        cut_off = await store.read(new, NOW)
        assert cut_off is not None
        assert cut_off.staleness_s is not None
        assert cut_off.staleness_s >= 0.3, "all received is replayed, but nobody sends any more"


async def test_a_standby_that_nobody_reaches_does_not_claim_to_be_fresh(pair: Pair) -> None:
    """It has replayed all that it received, its stream is open, and another standby may have acknowledged more."""
    _, standby, shard = pair
    async with open_store([shard]) as store:
        old, new = entity_on(0, 1), entity_on(0, 1)
        await store.write(old, NOW, "UA", {}, idempotency_key=uuid4())
        assert (await eventually_fresh(store, old)).from_standby
        with standby.superuser() as superuser:
            found = superuser.execute("select pid from pg_stat_wal_receiver").fetchone()
            assert found is not None
        os.kill(found[0], signal.SIGSTOP)
        try:
            await store.write(new, NOW, "UA", {}, idempotency_key=uuid4())
            acknowledged = time.monotonic()
            await asyncio.sleep(0.3)
            sent = time.monotonic()
            missed = await store.look_up(new, NOW)
        finally:
            os.kill(found[0], signal.SIGCONT)
        assert (missed.features, missed.from_standby) == (None, True)
        assert missed.staleness_s is not None
        assert missed.staleness_s >= sent - acknowledged


async def test_no_read_is_older_than_it_says(pair: Pair) -> None:
    """Reads right after their writes, at a standby that follows as fast as it can."""
    _, _, shard = pair
    async with open_store([shard]) as store:
        known: list[tuple[UUID, float]] = []
        telling = 0
        for _ in range(300):
            entity = entity_on(0, 1)
            await store.write(entity, NOW, "UA", {}, idempotency_key=uuid4())
            known.append((entity, time.monotonic()))
            for wanted, acknowledged in known[-4:]:
                age = time.monotonic() - acknowledged
                found = await store.look_up(wanted, NOW)
                assert found.staleness_s is not None
                if found.staleness_s < age:
                    telling += 1
                    assert found.features is not None, f"{age:.4f} s after its write, stated {found.staleness_s:.4f} s"
        assert telling > 100


async def test_writes_follow_a_promotion_and_reads_never_stop(pair: Pair) -> None:
    primary, standby, shard = pair
    async with open_store([shard]) as store:
        entity = entity_on(0, 1)
        first = await store.write(entity, NOW, "UA", {}, idempotency_key=uuid4())
        assert (first.server, first.timeline) == ("shard-0-0", 1)
        await eventually_fresh(store, entity)

        primary.kill()
        waiting = asyncio.ensure_future(first_acknowledged(store, 0, 1))
        for _ in range(20):
            assert await store.read(entity, NOW) is not None
            await asyncio.sleep(0.05)
        await asyncio.to_thread(standby.promote)
        loop = asyncio.get_running_loop()
        promoted = loop.time()
        acknowledged, _ = await waiting
        # The promise is the time: one pause of 50-100 ms and one login after the promotion. Slack for a busy machine.
        assert loop.time() - promoted < 0.5
        assert (acknowledged.server, acknowledged.timeline) == ("shard-0-1", 2)
